"""Rows as runs leave them behind, for tests of what comes after."""

from batch_assets.database.connection.statements import checksum
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.pipeline import GOOD, HALF_PAST, START, insert_items


def predicted(sql: Sql, count: int = 3, created: str = HALF_PAST) -> list[int]:
    """Items that have been scored."""
    keys = insert_items(sql, GOOD[:1] * count, created)
    sql("UPDATE items SET prediction = '[0.9, 0.05, 0.05]' WHERE id >= %s", keys[0])
    return keys


def failed(sql: Sql, created: str = HALF_PAST, hour: str = START) -> int:
    """An item that could not be scored."""
    (key,) = insert_items(sql, ["[1]"], created)
    record_failure(sql, key, hour)
    return key


def record_failure(sql: Sql, key: int, hour: str = START) -> None:
    sql(
        "INSERT INTO failed_items (item_id, hour, code, message, attempts, first_failed_at, last_failed_at,"
        " model_version, run_id, values_checksum) VALUES (%s, %s, 'wrong_length', '', 3, %s, %s, 'v', 'r', %s)",
        *(key, hour, hour, hour, checksum("[1]")),
    )


def summed_up(sql: Sql, items: int, start: str = START) -> None:
    """The rows that runs leave behind."""
    sql(
        "INSERT INTO run_summary (hour, items, predicted, failed, pending, label_counts, run_id, finished_at)"
        " VALUES (%s, %s, %s, 0, 0, '{}', 'r', %s)",
        *(start, items, items, start),
    )
    sql(
        "INSERT INTO hour_requests (hour, requests, reason, left_over, requested_at) VALUES (%s, 1, '', '', %s)",
        *(start, start),
    )
