"""What came true of items, and how right the predictions of each hour were.

Every step looks first whether it has been done, as in 0001.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime().with_variant(mysql.DATETIME(), "mysql", "mariadb")
NAME = sa.String(64).with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
CHARSET, ENGINE = "utf8mb4", "InnoDB"


def upgrade() -> None:
    """Creates the tables that are not there."""
    there = set(sa.inspect(op.get_bind()).get_table_names())
    if "actuals" not in there:
        op.create_table(
            "actuals",
            sa.Column("pipeline", NAME, primary_key=True),
            sa.Column("item_id", NUMBER, primary_key=True, autoincrement=False),
            sa.Column("label", sa.Text),
            sa.Column("value", sa.Double),
            sa.Column("known_at", TIME, nullable=False, server_default=sa.func.now()),
            mysql_charset=CHARSET,
            mysql_engine=ENGINE,
        )
    # In a statement of its own, as the servers get it: it may be the one that is missing.
    if "ix_actuals_known_at" not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("actuals")}:
        op.create_index("ix_actuals_known_at", "actuals", ["pipeline", "known_at"])
    if "hour_quality" not in there:
        op.create_table(
            "hour_quality",
            sa.Column("pipeline", NAME, primary_key=True),
            sa.Column("hour", TIME, primary_key=True),
            sa.Column("model_version", NAME),
            sa.Column("measured_at", TIME, nullable=False),
            sa.Column("predicted", sa.BigInteger, nullable=False),
            sa.Column("known", sa.BigInteger, nullable=False),
            sa.Column("coverage", sa.Double),
            sa.Column("accuracy", sa.Double),
            sa.Column("mean_absolute_error", sa.Double),
            sa.Column("brier_score", sa.Double),
            sa.Column("expected_accuracy", sa.Double),
            sa.Column("calibration", sa.Text, nullable=False),
            mysql_charset=CHARSET,
            mysql_engine=ENGINE,
        )
