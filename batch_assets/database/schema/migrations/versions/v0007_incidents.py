"""What somebody is told of: each incident, when it was said, and when it was over.

Every step looks first whether it has been done, as in 0001.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime().with_variant(mysql.DATETIME(), "mysql", "mariadb")
NAME = sa.String(64).with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
CHARSET, ENGINE = "utf8mb4", "InnoDB"


def upgrade() -> None:
    """Creates the table if it is not there."""
    if "incidents" in sa.inspect(op.get_bind()).get_table_names():
        return
    op.create_table(
        "incidents",
        sa.Column("pipeline", NAME, primary_key=True),
        sa.Column("number", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("hour", TIME, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("opened_at", TIME, nullable=False),
        sa.Column("notified_at", TIME),
        sa.Column("over_at", TIME),
        sa.Column("over_notified_at", TIME),
        sa.Column("received_by", sa.Text, nullable=False),
        mysql_charset=CHARSET,
        mysql_engine=ENGINE,
    )
