"""What came true of items, and how right the predictions of hours were: the tables `actuals` and `hour_quality`."""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson
import sqlalchemy as sa

from batch_assets.database.connection.engine import replacing, snapshot, writing
from batch_assets.database.records.hour_counts import created_within, hour_of
from batch_assets.database.records.summaries import newest_hours
from batch_assets.database.schema.tables import PipelineTables, actuals, hour_quality, run_summary
from batch_assets.errors import ActualError
from batch_assets.hours import Hour
from batch_assets.monitoring.quality import Quality

_ROWS_AT_ONCE = 1_000
_IDS_NAMED = 10
# A row is dated when it is written and seen when it is committed: so long afterwards an hour is looked at again.
COMMIT_SECONDS = 120


@dataclass(frozen=True)
class Actual:
    """What came true of an item: a label, or a number.

    Args:
        item_id: The item.
        label: Its label, None for a number.
        value: Its number, None for a label.
    """

    item_id: int
    label: str | None = None
    value: float | None = None


@dataclass(frozen=True)
class MeasuredHour:
    """How right the predictions of an hour were.

    Args:
        hour: The hour.
        quality: How right its predictions were.
        model_version: SHA-256 of the model that scored it last, None if that is not known.
        measured_at: When that was looked at, in UTC without a zone.
    """

    hour: Hour
    quality: Quality
    model_version: str | None
    measured_at: datetime.datetime


def store_actuals(engine: sa.Engine, tables: PipelineTables, rows: Iterable[Actual], now: datetime.datetime) -> int:
    """Stores what came true of items, in the place of what was stored of them before: all of it or nothing.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        rows: One for each item.
        now: The present, in UTC without a zone.

    Returns:
        How many were stored.

    Raises:
        ActualError: An item is not there, or is named twice at once.
    """
    source, count = iter(rows), 0
    with writing(engine) as connection:
        while part := list(islice(source, _ROWS_AT_ONCE)):
            ids = [row.item_id for row in part]
            _check_items(connection, tables, ids)
            shared = {"pipeline": tables.pipeline, "known_at": str(now.replace(microsecond=0))}
            # Not DELETE and INSERT, of which two at once could both insert.
            connection.execute(
                sa.text(
                    "REPLACE INTO actuals (pipeline, item_id, label, value, known_at) "
                    "VALUES (:pipeline, :item_id, :label, :value, :known_at)"
                ),
                [{**shared, "item_id": row.item_id, "label": row.label, "value": row.value} for row in part],
            )
            count += len(part)
    return count


def _check_items(connection: sa.Connection, tables: PipelineTables, ids: Sequence[int]) -> None:
    items = tables.items
    there = set(connection.execute(sa.select(items.c.id).where(items.c.id.in_(ids))).scalars())
    missing = sorted(set(ids) - there)
    if missing:
        named = ", ".join(map(str, missing[:_IDS_NAMED])) + (", ..." if len(missing) > _IDS_NAMED else "")
        raise ActualError(f"There are no items {named} in {items.name}: leave them out. Nothing was stored.")
    if len(set(ids)) < len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise ActualError(f"Item {twice} is named twice: say once what came true of it. Nothing was stored.")


def hours_to_measure(engine: sa.Engine, tables: PipelineTables, since: datetime.datetime, most: int) -> list[Hour]:
    """Returns the hours to measure, oldest first: more is known of them than the last time, or they were scored again.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        since: Only what became known from here on is looked at, in UTC without a zone.
        most: How many hours at the most.
    """
    items = tables.items
    joined = actuals.join(items, items.c.id == actuals.c.item_id)
    with snapshot(engine) as connection:
        start = hour_of(connection, items)
        known = (
            sa.select(start.label("start"), sa.func.max(actuals.c.known_at).label("known_at"))
            .select_from(joined)
            .where(tables.has(actuals), actuals.c.known_at >= since)
            .group_by(start)
        )
        found = {datetime.datetime.fromisoformat(row.start): row.known_at for row in connection.execute(known)}
        measured = sa.select(hour_quality.c.hour, hour_quality.c.measured_at).where(
            tables.has(hour_quality), hour_quality.c.hour.in_(found)
        )
        done = {row.hour: row.measured_at for row in connection.execute(measured)}
        scored_again = connection.execute(
            sa.select(hour_quality.c.hour).where(
                tables.has(hour_quality),
                tables.has(run_summary),
                run_summary.c.hour == hour_quality.c.hour,
                run_summary.c.finished_at >= hour_quality.c.measured_at,
            )
        ).scalars()
        changed = set(scored_again)
    pause = datetime.timedelta(seconds=COMMIT_SECONDS)
    changed |= {hour for hour, known_at in found.items() if hour not in done or done[hour] < known_at + pause}
    return [Hour(hour) for hour in sorted(changed)[:most]]


def read_answers_and_actuals(
    engine: sa.Engine, tables: PipelineTables, column: str, hour: Hour
) -> Iterator[Sequence[sa.Row[Any, Any, Any]]]:
    """Yields the predictions of an hour, each with what came true as a label or as a number, some thousands at a time.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        column: The column with the predictions that are looked at.
        hour: The hour.
    """
    items, row = tables.items, actuals.c
    # By other names: the column of the predictions may be called as one of these.
    known = (
        sa.select(row.item_id.label("known_id"), row.label.label("known_label"), row.value.label("known_value"))
        .where(tables.has(actuals))
        .subquery("known")
    )
    chosen = (
        sa.select(sa.column(column), known.c.known_label, known.c.known_value)
        .select_from(items.outerjoin(known, known.c.known_id == items.c.id))
        .where(created_within(items, hour.start, hour.end), items.c.prediction.is_not(None))
    )
    with snapshot(engine) as connection:
        streamed = connection.execution_options(stream_results=True, max_row_buffer=_ROWS_AT_ONCE)
        yield from streamed.execute(chosen).partitions(_ROWS_AT_ONCE)


def store_quality(engine: sa.Engine, tables: PipelineTables, measured: MeasuredHour) -> None:
    """Puts how right an hour was in the place of what was known before."""
    quality = measured.quality
    bins = [
        {
            "items": each.items,
            "confidence": each.confidence / each.items if each.items else None,
            "accuracy": each.right / each.items if each.items else None,
        }
        for each in quality.bins
    ]
    row = {
        "pipeline": tables.pipeline,
        "hour": measured.hour.start,
        "model_version": measured.model_version,
        "measured_at": measured.measured_at.replace(microsecond=0),
        "predicted": quality.predicted,
        "known": quality.known,
        "coverage": quality.coverage,
        "accuracy": quality.accuracy,
        "mean_absolute_error": quality.mean_absolute_error,
        "brier_score": quality.brier_score,
        "expected_accuracy": quality.expected_accuracy,
        "calibration": orjson.dumps(bins).decode(),
    }
    same = sa.and_(tables.has(hour_quality), hour_quality.c.hour == measured.hour.start)
    with replacing(engine) as connection:
        connection.execute(sa.delete(hour_quality).where(same))
        connection.execute(sa.insert(hour_quality), row)


def read_qualities(engine: sa.Engine, tables: PipelineTables, before: Hour | None, count: int) -> Sequence[sa.Row[Any]]:
    """Reads rows of `hour_quality`, the newest hours first.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        before: Older hours than this only; None for the newest.
        count: How many at the most.
    """
    return newest_hours(engine, tables, hour_quality, before, count)
