"""Which model made a prediction: the tables `hour_models` and, where an hour has seen a second one, `item_models`."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.connection.statements import batch_table, statement_rows
from batch_assets.database.records.hour_counts import created_within
from batch_assets.database.schema.tables import PipelineTables, hour_models, item_models, run_summary
from batch_assets.database.slices.batch import Batch
from batch_assets.hours import Hour


class HourModels:
    """Which model made the predictions of an hour, recorded while it is scored.

    An hour that one model has scored costs one row. Items are named only when it sees a second one: a run has tried
    failed items again, or has taken up what an earlier run had left, after the model was changed.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        hour: The hour.
        model_version: The model that scores it now.
        whole: Whether all items of the hour are predicted anew, in one transaction.
    """

    def __init__(
        self, engine: sa.Engine, tables: PipelineTables, hour: Hour, model_version: str, *, whole: bool
    ) -> None:
        self._engine = engine
        self._tables = tables
        self._hour = hour
        self._model_version = model_version
        self._whole = whole
        self._of_hour = sa.and_(tables.has(hour_models), hour_models.c.hour == hour.start)
        self._items_of_hour = sa.and_(tables.has(item_models), item_models.c.hour == hour.start)
        # Whether the row of the hour is there, and whether its items are to be named.
        self._hour_is_recorded = self._names_items = False

    def begin(self) -> None:
        """Looks up which models the predictions stem from that stand in the table. Under the lock of the hour."""
        if self._whole:
            return
        with self._engine.begin() as connection:
            recorded = connection.execute(sa.select(hour_models.c.model_version).where(self._of_hour)).scalar()
            if recorded is None:
                recorded = self._model_of_summary(connection)
            named = connection.execute(sa.select(item_models.c.item_id).where(self._items_of_hour).limit(1)).first()
            another = recorded not in {None, self._model_version}
            if (another or named) and not self._has_predictions(connection):
                connection.execute(sa.delete(item_models).where(self._items_of_hour))
                connection.execute(sa.delete(hour_models).where(self._of_hour))
                return
            self._names_items = another or named is not None
            self._hour_is_recorded = recorded is not None

    def record(self, connection: sa.Connection, batch: Batch) -> None:
        """Records the model of the predictions of a batch, within the transaction that writes them.

        Args:
            connection: The connection of that transaction.
            batch: The predictions by the key of their items; None in the place of one that is taken away.
        """
        if not self._hour_is_recorded:
            if self._whole:
                connection.execute(sa.delete(item_models).where(self._items_of_hour))
            self._record_hour(connection, self._model_version)
            self._hour_is_recorded = True
        if self._names_items:
            for part in statement_rows(connection, [(key,) for key in batch.column(self._tables.items.c.id.name)]):
                self._record_items(connection, part)

    def _model_of_summary(self, connection: sa.Connection) -> str | None:
        """Returns the model of an hour that was scored before models were recorded by item, and records it."""
        scored = sa.select(run_summary.c.model_version).where(
            self._tables.has(run_summary), run_summary.c.hour == self._hour.start, run_summary.c.predicted > 0
        )
        version = connection.execute(scored).scalar()
        if version is not None:
            self._record_hour(connection, version)
        return version

    def _has_predictions(self, connection: sa.Connection) -> bool:
        items = self._tables.items
        of_hour = created_within(items, self._hour.start, self._hour.end)
        predicted = sa.select(items.c.id).where(of_hour, items.c.prediction.is_not(None)).limit(1)
        return connection.execute(predicted).first() is not None

    def _record_hour(self, connection: sa.Connection, version: str) -> None:
        # Not DELETE and INSERT, which lock gaps.
        connection.execute(
            sa.text("REPLACE INTO hour_models (pipeline, hour, model_version) VALUES (:pipeline, :hour, :version)"),
            {"pipeline": self._tables.pipeline, "hour": str(self._hour.start), "version": version},
        )

    def _record_items(self, connection: sa.Connection, keys: Sequence[Sequence[Any]]) -> None:
        batch, parameters = batch_table(connection, ("item_id",), keys)
        mark = "?" if connection.dialect.name == "sqlite" else "%s"
        connection.exec_driver_sql(
            "REPLACE INTO item_models (pipeline, item_id, hour, model_version) "
            f"SELECT {mark}, batch.item_id, {mark}, {mark} FROM {batch}",
            (self._tables.pipeline, str(self._hour.start), self._model_version, *parameters),
        )


def predictions_by_model(engine: sa.Engine, tables: PipelineTables, hour: Hour, predicted: int) -> dict[str, int]:
    """Returns how many predictions of an hour stem from which model, as far as that is recorded.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        hour: The hour.
        predicted: How many predictions it has.
    """
    items = tables.items
    same = sa.and_(item_models.c.item_id == items.c.id, tables.has(item_models), item_models.c.hour == hour.start)
    named = (
        sa.select(item_models.c.model_version, sa.func.count())
        .select_from(item_models.join(items, same))
        .where(items.c.prediction.is_not(None), created_within(items, hour.start, hour.end))
        .group_by(item_models.c.model_version)
    )
    of_hour = sa.and_(tables.has(hour_models), hour_models.c.hour == hour.start)
    with snapshot(engine) as connection:
        counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(named)}
        version = connection.execute(sa.select(hour_models.c.model_version).where(of_hour)).scalar()
    if version is not None:
        counts[version] = counts.get(version, 0) + predicted - sum(counts.values())
    return {each: count for each, count in counts.items() if count > 0}
