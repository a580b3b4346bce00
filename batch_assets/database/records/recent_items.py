"""Items that were created last, and items that one run has scored last."""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.connection.statements import condition_sql
from batch_assets.database.records.hour_counts import created_within
from batch_assets.database.records.values_to_score import values_to_score
from batch_assets.database.schema.tables import PipelineTables, failed_items, run_summary
from batch_assets.hours import Hour
from batch_assets.packed_lists import Values


def newest_items(engine: sa.Engine, tables: PipelineTables, count: int) -> dict[int, Values]:
    """Returns the values of the items that were created last, as a run reads them, by id.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        count: How many at the most.
    """
    items = tables.items
    with snapshot(engine) as connection:
        newest = sa.select(items.c.id, _values(connection, items)).order_by(
            items.c.created_datetime.desc(), items.c.id.desc()
        )
        return {row[0]: row[1] for row in connection.execute(newest.limit(count))}


def items_of_model(engine: sa.Engine, tables: PipelineTables, model_version: str, count: int) -> dict[int, Values]:
    """Returns the values of items of the newest hour of which a model has scored every one, as a run reads them, by id.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        model_version: SHA-256 of the model.
        count: How many at the most.
    """
    items, row = tables.items, run_summary.c
    by_one_run = sa.and_(row.scored == row.predicted, row.predicted > 0)
    newest = (
        sa.select(row.hour)
        .where(tables.has(run_summary), row.model_version == model_version, by_one_run)
        .order_by(row.hour.desc())
        .limit(1)
    )
    with snapshot(engine) as connection:
        start = connection.execute(newest).scalar_one_or_none()
        if start is None:
            return {}
        hour = Hour(start)
        predicted = sa.and_(created_within(items, hour.start, hour.end), items.c.prediction.is_not(None))
        chosen = sa.select(items.c.id, _values(connection, items)).where(predicted).limit(count)
        return {row[0]: row[1] for row in connection.execute(chosen)}


def answers_to(
    connection: sa.Connection, tables: PipelineTables, columns: Sequence[str], keys: Collection[int]
) -> dict[int, tuple[Any, ...]]:
    """Returns what stands in some columns of items, by id.

    Args:
        connection: In whose transaction they are read.
        tables: Those of the pipeline.
        columns: The columns that answers are written to.
        keys: The ids.
    """
    written: list[sa.ColumnClause[Any]] = [sa.column(column) for column in columns]
    chosen = sa.select(tables.items.c.id, *written).where(tables.items.c.id.in_(keys))
    return {row[0]: tuple(row[1:]) for row in connection.execute(chosen)}


def failed_among(engine: sa.Engine, tables: PipelineTables, keys: Collection[int]) -> set[int]:
    """Returns which of some items have failed before."""
    chosen = sa.select(failed_items.c.item_id).where(tables.has(failed_items), failed_items.c.item_id.in_(keys))
    with snapshot(engine) as connection:
        return set(connection.execute(chosen).scalars())


def _values(connection: sa.Connection, items: sa.Table) -> sa.ColumnElement[Any]:
    """Returns the values as an expression without a table: as columns they are those of another object for it."""
    column = values_to_score(connection, items)
    return sa.literal_column(condition_sql(connection, column), column.type)
