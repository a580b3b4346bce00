"""What a request that is sent twice needs: which items it has registered the first time."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime().with_variant(mysql.DATETIME(), "mysql", "mariadb")
# 10,000 ids of 20 digits are more than TEXT holds.
IDS = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    """Adds what is not there, see 0001."""
    if "registrations" not in sa.inspect(op.get_bind()).get_table_names():
        op.create_table(
            "registrations",
            sa.Column("idempotency_key", sa.String(64), primary_key=True),
            sa.Column("fingerprint", sa.String(64), nullable=False),
            sa.Column("ids", IDS, nullable=False),
            sa.Column("registered_at", TIME, nullable=False),
            mysql_charset="utf8mb4",
            mysql_engine="InnoDB",
        )
    indexes = sa.inspect(op.get_bind()).get_indexes("registrations")
    if not any(index["column_names"] == ["registered_at"] for index in indexes):
        op.create_index("ix_registrations_registered_at", "registrations", ["registered_at"])
