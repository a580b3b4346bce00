"""Which model made the prediction of an item, where an hour has seen two.

Every step looks first whether it has been done, as in 0001.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime().with_variant(mysql.DATETIME(), "mysql", "mariadb")
NAME = sa.String(64).with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
CHARSET, ENGINE = "utf8mb4", "InnoDB"


def upgrade() -> None:
    """Creates the tables and the column that are not there."""
    inspector = sa.inspect(op.get_bind())
    there = set(inspector.get_table_names())
    if "hour_models" not in there:
        op.create_table(
            "hour_models",
            sa.Column("pipeline", NAME, primary_key=True),
            sa.Column("hour", TIME, primary_key=True),
            sa.Column("model_version", NAME, nullable=False),
            mysql_charset=CHARSET,
            mysql_engine=ENGINE,
        )
    if "item_models" not in there:
        op.create_table(
            "item_models",
            sa.Column("pipeline", NAME, primary_key=True),
            sa.Column("item_id", NUMBER, primary_key=True, autoincrement=False),
            sa.Column("hour", TIME, nullable=False),
            sa.Column("model_version", NAME, nullable=False),
            mysql_charset=CHARSET,
            mysql_engine=ENGINE,
        )
    # In a statement of its own, as the servers get it: it may be the one that is missing.
    if "ix_item_models_hour" not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("item_models")}:
        op.create_index("ix_item_models_hour", "item_models", ["pipeline", "hour"])
    if "predicted_by_other_models" not in {column["name"] for column in inspector.get_columns("run_summary")}:
        op.add_column(
            "run_summary", sa.Column("predicted_by_other_models", sa.BigInteger, nullable=False, server_default="0")
        )
