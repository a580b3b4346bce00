"""What challengers answer, and how they compare: the tables `challenger_predictions` and `challenger_hours`."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

import orjson
import sqlalchemy as sa

from batch_assets.database.connection.engine import replacing, snapshot, writing
from batch_assets.database.records.hour_counts import created_within
from batch_assets.database.schema.tables import (
    PipelineTables,
    actuals,
    challenger_hours,
    challenger_predictions,
    run_summary,
)
from batch_assets.hours import Hour

_KEYS_AT_ONCE = 1_000
# By chance a part of the keys has fewer than its share: so many times as many as are wanted are looked at.
_SPARE = 4

_T = TypeVar("_T")


class SampledItem(NamedTuple):
    """An item of a sample.

    Args:
        item_id: The item.
        values: What is scored, as JSON.
        answer: What the model in force has written, as the column has it.
    """

    item_id: int
    values: str
    answer: Any


class ChallengerAnswer(NamedTuple):
    """What a challenger answers to an item.

    Args:
        item_id: The item.
        answer: As JSON, None if it cannot answer.
        code: Why it cannot.
    """

    item_id: int
    answer: str | None
    code: str | None = None


class KnownAnswer(NamedTuple):
    """What both models answer to an item of which it is known what came true.

    Args:
        answer: That of the model in force, as the column has it.
        challenger_answer: That of the challenger, as JSON.
        label: What came true, None for a number.
        value: What came true, None for a label.
    """

    answer: Any
    challenger_answer: str
    label: str | None
    value: float | None


@dataclass(frozen=True)
class KnownQuality:
    """How right both were, on the very same items.

    Args:
        measured_at: When that was looked at, in UTC without a zone.
        known: The items.
        accuracy: The share whose label the model had right; None where labels are not compared.
        challenger_accuracy: That of the challenger.
        mean_absolute_error: Of the model's numbers; None where the answers are none.
        challenger_mean_absolute_error: Of the challenger's.
        brier_score: Of the model's probabilities; None where the answers are none.
        challenger_brier_score: Of the challenger's.
    """

    measured_at: datetime.datetime
    known: int
    accuracy: float | None
    challenger_accuracy: float | None
    mean_absolute_error: float | None
    challenger_mean_absolute_error: float | None
    brier_score: float | None
    challenger_brier_score: float | None


@dataclass(frozen=True)
class ComparedHour:
    """How a challenger compares with the model that scored an hour.

    Args:
        model_version: SHA-256 of the model.
        challenger_version: SHA-256 of the challenger.
        challenger: What it is called.
        compared_at: When the two were compared, in UTC without a zone.
        sampled: Predicted items that were looked at.
        failed: Those that the challenger cannot answer.
        compared: Those whose two answers were compared.
        agreed: Those to which both give the same label; None where there are no labels.
        label_counts: By label: how many have it from the model, from the challenger and from both.
        mean_absolute_difference: Between two numbers; None where the answers are none.
        correlation: Of the numbers; None where they are none, or do not vary.
        psi: The population stability index.
        labels: Those of the model, in the order of its probabilities.
        challenger_labels: Those of the challenger.
        quality: How right both were.
    """

    model_version: str
    challenger_version: str
    challenger: str
    compared_at: datetime.datetime
    sampled: int
    failed: int
    compared: int
    agreed: int | None
    label_counts: Mapping[str, Sequence[int]]
    mean_absolute_difference: float | None
    correlation: float | None
    psi: float | None
    labels: Sequence[str]
    challenger_labels: Sequence[str]
    quality: KnownQuality


def sample_of_hour(
    engine: sa.Engine, tables: PipelineTables, hour: Hour, column: str, picked: Sequence[int]
) -> list[SampledItem]:
    """Reads some items of an hour that still have a prediction, in the order of their keys.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        hour: The hour.
        column: The column with the predictions that are looked at.
        picked: The keys.
    """
    items = tables.items
    answer: sa.ColumnClause[Any] = sa.column(column)
    found: list[SampledItem] = []
    with snapshot(engine) as connection:
        for keys in _parts(sorted(picked)):
            chosen = sa.select(items.c.id, items.c["values"], answer).where(
                items.c.id.in_(keys), created_within(items, hour.start, hour.end), answer.is_not(None)
            )
            found += [SampledItem(*row) for row in connection.execute(chosen.order_by(items.c.id))]
    return found


def keys_to_sample(engine: sa.Engine, tables: PipelineTables, hour: Hour, predicted: int, most: int) -> list[int]:
    """Returns the keys of predicted items to draw a sample from, some times as many as it takes.

    The server picks them by a checksum of the key, so that few of millions have to travel.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        hour: The hour.
        predicted: About how many items have a prediction.
        most: How many items the sample has at the most.
    """
    items = tables.items
    chosen = sa.select(items.c.id).where(created_within(items, hour.start, hour.end), items.c.prediction.is_not(None))
    part = predicted // (_SPARE * most)
    if part > 1:
        chosen = chosen.where(sa.func.crc32(sa.cast(items.c.id, sa.String(20))) % part == 0)
    with snapshot(engine) as connection:
        return list(connection.execute(chosen).scalars())


def store_comparison(
    engine: sa.Engine,
    tables: PipelineTables,
    hour: Hour,
    compared: ComparedHour,
    answers: Sequence[ChallengerAnswer],
) -> None:
    """Replaces the answers of a challenger and the comparison of an hour: both, or neither.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        hour: The hour.
        compared: The comparison.
        answers: The answers.
    """
    row = {name: value for name, value in vars(compared).items() if name != "quality"} | {
        **_row_of(compared.quality),
        "pipeline": tables.pipeline,
        "hour": hour.start,
        "compared_at": compared.compared_at.replace(microsecond=0),
        "label_counts": _json({label: list(counts) for label, counts in compared.label_counts.items()}),
        "labels": _json(compared.labels),
        "challenger_labels": _json(compared.challenger_labels),
    }
    shared = {"pipeline": tables.pipeline, "hour": hour.start, "model_version": compared.challenger_version}
    with replacing(engine) as connection:
        # The row of the hour first: a run that compares it at the same time waits here.
        for table in (challenger_hours, challenger_predictions):
            connection.execute(sa.delete(table).where(_of_hour(tables, table, hour)))
        connection.execute(sa.insert(challenger_hours), row)
        for part in _parts(answers):
            connection.execute(sa.insert(challenger_predictions), [{**shared, **each._asdict()} for each in part])


def store_known_quality(engine: sa.Engine, tables: PipelineTables, hour: Hour, quality: KnownQuality) -> None:
    """Puts how right both were in the place of what was known before."""
    with writing(engine) as connection:
        connection.execute(
            sa.update(challenger_hours).where(_of_hour(tables, challenger_hours, hour)).values(_row_of(quality))
        )


def read_comparison(engine: sa.Engine, tables: PipelineTables, hour: Hour) -> sa.Row[Any] | None:
    """Returns the row of an hour, None if it was not compared."""
    with snapshot(engine) as connection:
        return connection.execute(
            sa.select(challenger_hours).where(_of_hour(tables, challenger_hours, hour))
        ).one_or_none()


def read_comparisons(engine: sa.Engine, tables: PipelineTables, since: datetime.datetime) -> Sequence[sa.Row[Any]]:
    """Reads how the hours from a moment on compare, oldest first.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        since: In UTC without a zone.
    """
    hour = challenger_hours.c.hour
    statement = sa.select(challenger_hours).where(tables.has(challenger_hours), hour >= since).order_by(hour)
    with snapshot(engine) as connection:
        return connection.execute(statement).all()


def read_known_answers(
    engine: sa.Engine, tables: PipelineTables, column: str, answers: Mapping[int, str]
) -> list[KnownAnswer]:
    """Returns what both models answer to those items of which it is known what came true.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        column: The column with the predictions of the model in force.
        answers: Those of the challenger, by item.
    """
    items, known, found = tables.items, actuals.c, list[KnownAnswer]()
    answer: sa.ColumnClause[Any] = sa.column(column)
    with snapshot(engine) as connection:
        for keys in _parts(sorted(answers)):
            came_true = sa.select(known.item_id, known.label, known.value).where(
                tables.has(actuals), known.item_id.in_(keys)
            )
            by_key = {row.item_id: row for row in connection.execute(came_true)}
            # Not joined: a column of the items may be called as one of these.
            chosen = sa.select(items.c.id, answer).where(items.c.id.in_(list(by_key)), answer.is_not(None))
            for key, text in connection.execute(chosen.order_by(items.c.id)):
                found.append(KnownAnswer(text, answers[key], by_key[key].label, by_key[key].value))
    return found


def read_challenger_answers(engine: sa.Engine, tables: PipelineTables, hour: Hour) -> dict[int, str]:
    """Returns what the challenger answers to items of an hour, as JSON by item; without those that it cannot answer."""
    table = challenger_predictions
    statement = sa.select(table.c.item_id, table.c.answer).where(
        _of_hour(tables, table, hour), table.c.answer.is_not(None)
    )
    with snapshot(engine) as connection:
        return {row.item_id: row.answer for row in connection.execute(statement)}


def hours_to_compare(
    engine: sa.Engine, tables: PipelineTables, since: datetime.datetime, model_version: str, challenger: str
) -> list[Hour]:
    """Returns the hours that a model scored last and that a challenger has not been compared for, newest first.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        since: Hours from here on, in UTC without a zone.
        model_version: SHA-256 of the model.
        challenger: SHA-256 of the challenger, or its version in a registry.
    """
    summed, row = run_summary.c, challenger_hours.c
    is_challenger = sa.or_(row.challenger_version == challenger, row.challenger == challenger)
    compared = (
        sa.select(sa.literal(1))
        .where(tables.has(challenger_hours), row.hour == summed.hour, row.model_version == model_version)
        .where(is_challenger)
        .exists()
    )
    statement = (
        sa.select(summed.hour)
        .where(tables.has(run_summary), summed.hour >= since, summed.predicted > 0)
        .where(summed.model_version == model_version, ~compared)
        .order_by(summed.hour.desc())
    )
    with snapshot(engine) as connection:
        return [Hour(start) for start in connection.execute(statement).scalars()]


def _row_of(quality: KnownQuality) -> dict[str, Any]:
    return asdict(quality) | {"measured_at": quality.measured_at.replace(microsecond=0)}


def _of_hour(tables: PipelineTables, table: sa.Table, hour: Hour) -> sa.ColumnElement[bool]:
    return sa.and_(tables.has(table), table.c.hour == hour.start)


def _parts(rows: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (rows[start : start + _KEYS_AT_ONCE] for start in range(0, len(rows), _KEYS_AT_ONCE))


def _json(document: object) -> str:
    return orjson.dumps(document).decode()
