"""What retries need: of which values an item failed, who holds an hour, and what the sensor has requested.

Every step looks first whether it has been done, as in 0001.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime().with_variant(mysql.DATETIME(), "mysql", "mariadb")
CHARSET, ENGINE = "utf8mb4", "InnoDB"


def upgrade() -> None:
    """Adds what is not there."""
    inspector = sa.inspect(op.get_bind())
    if not any(column["name"] == "values_checksum" for column in inspector.get_columns("failed_items")):
        # 0 is hardly ever the checksum of what failed: such items count as corrected, and are tried once more.
        op.add_column(
            "failed_items", sa.Column("values_checksum", sa.BigInteger, nullable=False, server_default=sa.text("0"))
        )
    there = set(inspector.get_table_names())
    if "hour_locks" not in there:
        op.create_table(
            "hour_locks",
            sa.Column("hour", TIME, primary_key=True),
            sa.Column("run_id", sa.String(64), nullable=False),
            sa.Column("taken_at", TIME, nullable=False),
            mysql_charset=CHARSET,
            mysql_engine=ENGINE,
        )
    if "hour_requests" not in there:
        op.create_table(
            "hour_requests",
            sa.Column("hour", TIME, primary_key=True),
            sa.Column("requests", sa.Integer, nullable=False),
            sa.Column("reason", sa.String(64), nullable=False),
            sa.Column("left_over", sa.String(64), nullable=False),
            sa.Column("requested_at", TIME, nullable=False),
            sa.Column("given_up_at", TIME),
            sa.Column("given_up_because", sa.Text),
            mysql_charset=CHARSET,
            mysql_engine=ENGINE,
        )
