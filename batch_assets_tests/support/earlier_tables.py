"""The package's tables as the version before there were pipelines has made them, with a year of hours in them."""

import datetime
from collections.abc import Iterable
from pathlib import Path

import sqlalchemy as sa

from batch_assets.database.schema import migrations
from batch_assets_tests.support.database import Sql

HOURS, FAILED = 8_760, 5_000
FIRST = datetime.datetime.fromisoformat("2025-11-01 00:00:00")
# Newest first: nothing is right only because of the order in which it was written.
STARTS = [FIRST + datetime.timedelta(hours=number) for number in reversed(range(HOURS))]
COLUMNS = {
    "failed_items": "item_id, hour, code, message, attempts, first_failed_at, last_failed_at, model_version, run_id, "
    "values_checksum",
    "run_summary": "hour, items, predicted, failed, pending, label_counts, model_version, retry, run_id, started_at, "
    "finished_at, scored, rows_per_second, read_rows_per_second, check_rows_per_second, score_rows_per_second, "
    "write_rows_per_second",
    "hour_locks": "hour, run_id, taken_at",
    "hour_requests": "hour, requests, reason, left_over, requested_at, given_up_at, given_up_because",
    "registrations": "idempotency_key, fingerprint, ids, registered_at",
}
_ROWS = {
    "failed_items": [
        f"({7 * number}, '{STARTS[number]}', 'wrong_length', '{number} Werte, das Modell nimmt 4, 花', "
        f"{number % 4 + 1}, '{STARTS[number]}', '{STARTS[0]}', 'v{number % 3}', 'run-{number}', {2**32 - 1 - number})"
        for number in reversed(range(1, FAILED + 1))
    ],
    "run_summary": [
        f"('{start}', {number + 3}, {number}, 2, 1, '{{\"setosa\": {number}}}', NULL, 'partial', 'run-{number}', "
        f"NULL, '{start}', {number}, {number}.25, NULL, 0.1, 1e9, NULL)"
        for number, start in enumerate(STARTS)
    ],
    "hour_locks": [f"('{start}', 'run-{number}', '{start}')" for number, start in enumerate(STARTS)],
    "hour_requests": [
        f"('{start}', {number % 5}, 'late items', '3 {number} 0 0', '{start}', "
        + (f"'{start}', 'its run was canceled, käse')" if number % 2 else "NULL, NULL)")
        for number, start in enumerate(STARTS)
    ],
    "registrations": [
        f"('{number:064x}', '{number + 1:064x}', '[{number},{number + 1}]', '{start}')"
        for number, start in enumerate(STARTS)
    ],
}


def make_earlier_tables(engine: sa.Engine, revision: str = "0003") -> None:
    """Makes the tables by the migrations up to one of them."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        config.attributes.update({"connection": connection, "with_items": True})
        command.upgrade(config, revision)
        connection.commit()


def fill_a_year(sql: Sql) -> None:
    """Writes a year of rows into each table of ours but that of the items."""
    fill_hours(sql, HOURS)


def fill_hours(sql: Sql, hours: int) -> None:
    """Writes the rows of so many hours, the newest ones, into each table of ours but that of the items."""
    for table, rows in _ROWS.items():
        for part in _parts(rows[:hours]):
            sql(f"INSERT INTO {table} ({COLUMNS[table]}) VALUES {', '.join(part)}")


def rows_of_tables(sql: Sql) -> dict[str, list[tuple[object, ...]]]:
    """Every row of those tables as the version before sees it, in the order of its key."""
    return {table: sql(f"SELECT {columns} FROM {table} ORDER BY 1") for table, columns in COLUMNS.items()}


def _parts(rows: list[str]) -> Iterable[list[str]]:
    return (rows[start : start + 3_000] for start in range(0, len(rows), 3_000))
