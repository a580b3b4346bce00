"""A summary says how many keys of the hour's items name no feature.

Rows that are there, and those that a run of the version before goes on to write, have 0. Without a default that run
would refuse the table, for which it has no value.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column where it is not there, see 0001."""
    columns = sa.inspect(op.get_bind()).get_columns("run_summary")
    if not any(column["name"] == "ignored_keys" for column in columns):
        op.add_column("run_summary", sa.Column("ignored_keys", sa.BigInteger, nullable=False, server_default="0"))
