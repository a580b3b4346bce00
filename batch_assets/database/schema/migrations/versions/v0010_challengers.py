"""What a second model answers to a sample of each hour, and how it compares with the one that scored the hour.

Every step looks first whether it has been done, as in 0001.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime().with_variant(mysql.DATETIME(), "mysql", "mariadb")
NAME = sa.String(64).with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
CHARSET, ENGINE = "utf8mb4", "InnoDB"


def upgrade() -> None:
    """Creates the tables that are not there."""
    there = set(sa.inspect(op.get_bind()).get_table_names())
    if "challenger_predictions" not in there:
        op.create_table(
            "challenger_predictions",
            sa.Column("pipeline", NAME, primary_key=True),
            sa.Column("hour", TIME, primary_key=True),
            sa.Column("item_id", NUMBER, primary_key=True, autoincrement=False),
            sa.Column("model_version", NAME, nullable=False),
            sa.Column("answer", LONG_TEXT),
            sa.Column("code", NAME),
            mysql_charset=CHARSET,
            mysql_engine=ENGINE,
        )
    if "challenger_hours" not in there:
        op.create_table(
            "challenger_hours",
            sa.Column("pipeline", NAME, primary_key=True),
            sa.Column("hour", TIME, primary_key=True),
            sa.Column("model_version", NAME, nullable=False),
            sa.Column("challenger_version", NAME, nullable=False),
            sa.Column("challenger", sa.Text, nullable=False),
            sa.Column("compared_at", TIME, nullable=False),
            sa.Column("sampled", sa.BigInteger, nullable=False),
            sa.Column("failed", sa.BigInteger, nullable=False),
            sa.Column("compared", sa.BigInteger, nullable=False),
            sa.Column("agreed", sa.BigInteger),
            sa.Column("label_counts", LONG_TEXT, nullable=False),
            sa.Column("mean_absolute_difference", sa.Double),
            sa.Column("correlation", sa.Double),
            sa.Column("psi", sa.Double),
            sa.Column("labels", LONG_TEXT, nullable=False),
            sa.Column("challenger_labels", LONG_TEXT, nullable=False),
            sa.Column("measured_at", TIME, nullable=False),
            sa.Column("known", sa.BigInteger, nullable=False),
            sa.Column("accuracy", sa.Double),
            sa.Column("challenger_accuracy", sa.Double),
            sa.Column("mean_absolute_error", sa.Double),
            sa.Column("challenger_mean_absolute_error", sa.Double),
            sa.Column("brier_score", sa.Double),
            sa.Column("challenger_brier_score", sa.Double),
            mysql_charset=CHARSET,
            mysql_engine=ENGINE,
        )
