"""Which models were put in force, and by whom.

Every step looks first whether it has been done, as in 0001.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime().with_variant(mysql.DATETIME(), "mysql", "mariadb")
NAME = sa.String(64).with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
CHARSET, ENGINE = "utf8mb4", "InnoDB"


def upgrade() -> None:
    """Creates the table if it is not there."""
    if "promotions" in sa.inspect(op.get_bind()).get_table_names():
        return
    op.create_table(
        "promotions",
        sa.Column("pipeline", NAME, primary_key=True),
        sa.Column("number", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("action", NAME, nullable=False),
        sa.Column("made_at", TIME, nullable=False),
        sa.Column("made_by", sa.Text, nullable=False),
        sa.Column("database_account", sa.Text),
        sa.Column("declared", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("label_filepath", sa.Text),
        sa.Column("version", NAME, nullable=False),
        sa.Column("model_before", sa.Text, nullable=False),
        sa.Column("label_filepath_before", sa.Text),
        sa.Column("version_before", NAME),
        sa.Column("takes_back", sa.BigInteger),
        mysql_charset=CHARSET,
        mysql_engine=ENGINE,
    )
