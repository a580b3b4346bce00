"""The tables: `items`, which is the contract with the web service, and our own.

Times are UTC without an offset. JSON columns are read and written as their text.
"""

from functools import cache

import sqlalchemy as sa

from batch_assets.database.connection.sqlite_time import SQLiteTime
from batch_assets.pipeline import ItemTable

JSON_TEXT = sa.Text()
# SQLite numbers rows by itself for INTEGER only, and compares times as text: all must be of one length.
IDENTIFIER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime().with_variant(SQLiteTime(), "sqlite")  # type: ignore[no-untyped-call]
TIMESTAMP = sa.TIMESTAMP().with_variant(SQLiteTime(), "sqlite")  # type: ignore[no-untyped-call]
LONG_CODE = sa.String(64)

metadata = sa.MetaData()


@cache
def item_table(names: ItemTable) -> sa.Table:
    """Returns the table of the web service, its columns under the keys of the contract whatever their names are.

    Args:
        names: The names of the table and its columns.
    """
    return sa.Table(
        names.name,
        sa.MetaData(),
        sa.Column(names.key, IDENTIFIER, key="id", primary_key=True, autoincrement=True),
        sa.Column(names.values, JSON_TEXT, key="values", nullable=False),
        sa.Column(names.prediction, JSON_TEXT, key="prediction", nullable=True),
        sa.Column(names.created, TIMESTAMP, key="created_datetime", nullable=False),
        sa.Column(names.updated, TIMESTAMP, key="updated_datetime", nullable=False),
    )


failed_items = sa.Table(
    "failed_items",
    metadata,
    sa.Column("item_id", IDENTIFIER, primary_key=True, autoincrement=False),
    sa.Column("hour", TIME, nullable=False),
    sa.Column("code", LONG_CODE, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("first_failed_at", TIME, nullable=False),
    sa.Column("last_failed_at", TIME, nullable=False),
    sa.Column("model_version", LONG_CODE, nullable=False),
    sa.Column("run_id", LONG_CODE, nullable=False),
    sa.Column("values_checksum", sa.BigInteger, nullable=False),
)

hour_locks = sa.Table(
    "hour_locks",
    metadata,
    sa.Column("hour", TIME, primary_key=True),
    sa.Column("run_id", LONG_CODE, nullable=False),
    sa.Column("taken_at", TIME, nullable=False),
)

hour_requests = sa.Table(
    "hour_requests",
    metadata,
    sa.Column("hour", TIME, primary_key=True),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("reason", LONG_CODE, nullable=False),
    sa.Column("left_over", LONG_CODE, nullable=False),
    sa.Column("requested_at", TIME, nullable=False),
    sa.Column("given_up_at", TIME),
    sa.Column("given_up_because", sa.Text),
)

run_summary = sa.Table(
    "run_summary",
    metadata,
    sa.Column("hour", TIME, primary_key=True),
    sa.Column("items", sa.BigInteger, nullable=False),
    sa.Column("predicted", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("pending", sa.BigInteger, nullable=False),
    sa.Column("label_counts", JSON_TEXT, nullable=False),
    sa.Column("model_version", LONG_CODE),
    sa.Column("retry", sa.String(16)),
    sa.Column("run_id", LONG_CODE, nullable=False),
    sa.Column("started_at", TIME),
    sa.Column("finished_at", TIME, nullable=False),
    sa.Column("scored", sa.BigInteger),
    sa.Column("rows_per_second", sa.Double),
    sa.Column("read_rows_per_second", sa.Double),
    sa.Column("check_rows_per_second", sa.Double),
    sa.Column("score_rows_per_second", sa.Double),
    sa.Column("write_rows_per_second", sa.Double),
)

registrations = sa.Table(
    "registrations",
    metadata,
    # SHA-256, in hexadecimal: of a key in any letters and of any length.
    sa.Column("idempotency_key", LONG_CODE, primary_key=True),
    sa.Column("fingerprint", LONG_CODE, nullable=False),
    sa.Column("ids", JSON_TEXT, nullable=False),
    sa.Column("registered_at", TIME, nullable=False),
)
