"""The items that cannot be scored: recorded with the reason, tried again, given up, put back."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.connection.statements import (
    batch_table,
    checksum,
    checksum_sql,
    column_checksum_sql,
    column_sql,
    condition_sql,
    statement_rows,
)
from batch_assets.database.records.hour_counts import created_within
from batch_assets.database.records.values_to_score import values_to_score
from batch_assets.database.schema.pending import is_pending
from batch_assets.database.schema.tables import PipelineTables, failed_items
from batch_assets.database.slices.batch import Batch
from batch_assets.hours import Hour, utc_now


def failed_ids(engine: sa.Engine, tables: PipelineTables, hour: Hour) -> set[int]:
    """Returns the ids of the items of an hour that have failed and have no prediction."""
    items = tables.items
    statement = (
        sa.select(failed_items.c.item_id)
        .select_from(tables.items_with_failures)
        .where(created_within(items, hour.start, hour.end), items.c.prediction.is_(None))
    )
    with snapshot(engine) as connection:
        return set(connection.execute(statement).scalars())


def stray_failures(engine: sa.Engine, tables: PipelineTables, hour: Hour) -> int:
    """Returns how many rows of an hour there are of items that are gone, have a prediction, or are of another hour."""
    items = tables.items
    of_hour = sa.and_(tables.has(failed_items), failed_items.c.hour == hour.start)
    waiting = sa.exists().where(
        items.c.id == failed_items.c.item_id,
        items.c.prediction.is_(None),
        created_within(items, hour.start, hour.end),
    )
    with snapshot(engine) as connection:
        found = connection.execute(sa.select(sa.func.count()).select_from(failed_items).where(of_hour, ~waiting))
        return found.scalar_one()


@dataclass(frozen=True)
class FailureKind:
    """The failed items of an hour that have the same code.

    Args:
        code: The kind of fault.
        items: How many they are.
        ids: The first of them.
        examples: What is wrong with the first of them, a sentence each.
    """

    code: str
    items: int
    ids: list[int]
    examples: list[str]


def failures_by_code(engine: sa.Engine, tables: PipelineTables, hour: Hour, ids: int) -> list[FailureKind]:
    """Returns the failed items of an hour by code, the most frequent first.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        hour: The hour.
        ids: How many of each code are named.
    """
    row, items = failed_items.c, tables.items
    failed = sa.and_(created_within(items, hour.start, hour.end), items.c.prediction.is_(None))
    number = sa.func.row_number().over(partition_by=row.code, order_by=row.item_id).label("number")
    count = sa.func.count().over(partition_by=row.code).label("count")
    ranked = (
        sa.select(row.code, row.item_id, row.message, number, count)
        .select_from(tables.items_with_failures)
        .where(failed)
        .subquery()
    )
    first = sa.select(ranked).where(ranked.c.number <= ids).order_by(ranked.c["count"].desc(), ranked.c.code, "number")
    with snapshot(engine) as connection:
        rows = connection.execute(first).all()
    kinds: dict[str, FailureKind] = {}
    for code, key, message, _, items_of_code in rows:
        kind = kinds.setdefault(code, FailureKind(code, items_of_code, [], []))
        kind.ids.append(key)
        kind.examples.append(message)
    return list(kinds.values())


class FailedItems:
    """The failed items of an hour while it is scored: who fails is recorded, who is predicted is taken off.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        hour: The hour.
        model_version: Which model they failed with.
        run_id: In which run.

    Attributes:
        before: The ids of those that had failed when it began.
    """

    def __init__(self, engine: sa.Engine, tables: PipelineTables, hour: Hour, model_version: str, run_id: str) -> None:
        self._engine = engine
        self._tables = tables
        self._items = tables.items
        self._hour = hour
        self._model_version = model_version
        self._run_id = run_id
        self.before: set[int] = set()

    def begin(self) -> None:
        """Takes stock; rows of items that the service has deleted or predicted by itself are taken off."""
        items = self._items
        waiting = sa.exists().where(items.c.id == failed_items.c.item_id, items.c.prediction.is_(None))
        of_hour = sa.and_(self._tables.has(failed_items), failed_items.c.hour == self._hour.start)
        with self._engine.begin() as connection:
            connection.execute(sa.delete(failed_items).where(of_hour, ~waiting))
            self.before = set(connection.execute(sa.select(failed_items.c.item_id).where(of_hour)).scalars())

    def to_try(self, max_attempts: int) -> str:
        """Returns the condition in SQL on the items that a partial retry scores.

        Those without a prediction, but for those that have been given up: tried often enough with the values that
        they still have.

        Args:
            max_attempts: How often an item is tried with the same values before it is given up.
        """
        items = self._items
        with snapshot(self._engine) as connection:
            pending = condition_sql(connection, is_pending(connection, items))
            if not self.before:
                return pending
            key, values = condition_sql(connection, items.c.id), condition_sql(connection, items.c["values"])
            return (
                f"{pending} AND NOT EXISTS (SELECT * FROM failed_items WHERE {self._of_pipeline(connection)} "
                f"AND failed_items.item_id = {key} AND attempts >= {max_attempts} "
                f"AND values_checksum = {checksum_sql(connection, values)})"
            )

    def record(self, connection: sa.Connection, batch: Batch) -> None:
        """Brings the table in line with a batch of predictions, within the transaction that writes them.

        Args:
            connection: The connection of that transaction.
            batch: The predictions by the key of their items, and the items that failed.
        """
        predicted = [key for key in batch.column(self._items.c.id.name) if key in self.before]
        if predicted:
            items = self._items
            done = sa.exists().where(items.c.id == failed_items.c.item_id, items.c.prediction.is_not(None))
            of_pipeline = self._tables.has(failed_items)
            connection.execute(sa.delete(failed_items).where(of_pipeline, failed_items.c.item_id.in_(predicted), done))
        rows = [(row.key, checksum(row.values or ""), row.code, _storable(row.message)) for row in batch.failed]
        for part in statement_rows(connection, rows):
            self._insert(connection, part)

    def _of_pipeline(self, connection: sa.Connection) -> str:
        return condition_sql(connection, self._tables.has(failed_items))

    def _insert(self, connection: sa.Connection, rows: Sequence[Sequence[object]]) -> None:
        batch, parameters = batch_table(connection, ("item_id", "checksum_read", "code", "message"), rows)
        sqlite = connection.dialect.name == "sqlite"
        mark = "?" if sqlite else "%s"
        table = connection.dialect.identifier_preparer.format_table(self._items)
        key, values, prediction, created = (
            column_sql(connection, self._items.c[name]) for name in ("id", "values", "prediction", "created_datetime")
        )
        hour = f"strftime('%Y-%m-%d %H:00:00', {created})"
        if not sqlite:
            hour = f"DATE_FORMAT({created}, '%%Y-%%m-%%d %%H:00:00')"
        # Read may be a packed list; recorded is always the checksum of the JSON, with which it is compared later.
        checksum_read = column_checksum_sql(connection, values_to_score(connection, self._items))
        checksum_of_json = checksum_sql(connection, values)
        again, new, new_checksum = ("ON DUPLICATE KEY UPDATE", "batch", checksum_of_json)
        if sqlite:
            again, new = ("ON CONFLICT (pipeline, item_id) DO UPDATE SET", "excluded")
            new_checksum = "excluded.values_checksum"
        now = utc_now().strftime("%Y-%m-%d %H:%M:%S")
        made_by = (self._tables.pipeline, now, now, self._model_version, self._run_id)
        # From the items, so that nothing is recorded of an item that was deleted, corrected or predicted meanwhile.
        connection.exec_driver_sql(
            "INSERT INTO failed_items (item_id, hour, code, message, values_checksum, attempts, pipeline, "
            f"first_failed_at, last_failed_at, model_version, run_id) SELECT {key}, {hour}, batch.code, batch.message, "
            f"{checksum_of_json}, 1, {', '.join(mark for _ in made_by)} FROM {batch} "
            f"{'JOIN' if sqlite else 'STRAIGHT_JOIN'} {table} ON {key} = batch.item_id WHERE {prediction} IS NULL "
            # Waits for a service that is about to change or to delete one, and sees what became of it.
            f"AND {checksum_read} = batch.checksum_read "
            f"{'' if sqlite else 'LOCK IN SHARE MODE '}"
            # Before the checksum is set: MySQL assigns from left to right.
            f"{again} attempts = CASE WHEN failed_items.values_checksum = {new_checksum} "
            "THEN failed_items.attempts + 1 ELSE 1 END, "
            f"hour = {'excluded.hour' if sqlite else hour}, code = {new}.code, message = {new}.message, "
            f"values_checksum = {new_checksum}, "
            f"last_failed_at = {mark}, model_version = {mark}, run_id = {mark}",
            (*made_by, *parameters, now, self._model_version, self._run_id),
        )


def _storable(message: str) -> str:
    return message.encode("utf-8", "backslashreplace").decode()
