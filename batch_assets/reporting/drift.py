"""Judges an hour by a sample of its items, as they stand in the table."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa
from numpy.typing import NDArray

from batch_assets.database.connection.engine import engine_for, snapshot
from batch_assets.database.records.hour_counts import model_versions
from batch_assets.database.records.profiles import (
    Baseline,
    Profile,
    has_baselines,
    read_baseline,
    read_past,
    store_baseline,
    store_profile,
)
from batch_assets.database.records.promotions import model_that_scored
from batch_assets.database.schema.tables import item_table, pipeline_tables
from batch_assets.database.slices.batch import Batch
from batch_assets.errors import BaselineError
from batch_assets.hours import Hour, utc_now
from batch_assets.inference.model_files import labels_of, load_model
from batch_assets.monitoring.judgement import LEAST_ITEMS, judge
from batch_assets.monitoring.labels import judge_labels
from batch_assets.monitoring.samples import lowest_hashed
from batch_assets.monitoring.sketches import Column, column_of, columns_of, sketch_of
from batch_assets.pipeline import ItemTable, Pipeline
from batch_assets.reporting.summary import count_outcome, read_predictions
from batch_assets.wording import counted

# An hour of ten million items costs what one of so many costs.
SAMPLE_ITEMS = 2_000
BASELINE_ITEMS = 20_000
_KEYS_AT_ONCE = 1_000


class KeySample:
    """Picks some of the scored items of an hour while they go by, each as likely as any other.

    The same ones every time, since they are those whose keys have the lowest of hashes: neither a rerun nor the order
    of the rows makes a difference.

    Args:
        names: The columns of the batches.
        most: How many are picked at the most.
    """

    def __init__(self, names: ItemTable, most: int = SAMPLE_ITEMS) -> None:
        self._names = names
        self._most = most
        self._keys: NDArray[np.int64] = np.empty(0, np.int64)

    def watching(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields the batches as they are, and picks from them."""
        for batch in batches:
            self._pick(batch)
            yield batch

    @property
    def keys(self) -> list[int]:
        """Those that are picked so far, in ascending order."""
        return sorted(self._keys.tolist())

    def _pick(self, batch: Batch) -> None:
        answers = batch.column(self._names.prediction)
        pairs = zip(batch.column(self._names.key), answers, strict=True)
        scored = np.array([key for key, answer in pairs if answer is not None], np.int64)
        keys = np.concatenate([self._keys, scored])
        self._keys = lowest_hashed(keys, self._most)


def profile_hour(
    pipeline: Pipeline, hour: Hour, keys: Sequence[int], label_counts: Mapping[str, int], model_version: str
) -> Profile:
    """Judges an hour, and stores what it looked like and what is said of it.

    Args:
        pipeline: The pipeline.
        hour: The hour.
        keys: The sample.
        label_counts: All its answers by label.
        model_version: Of the model that scored it last.
    """
    engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
    baseline = read_baseline(engine, tables, model_version)
    made_at = baseline.made_at if baseline else None
    missing = baseline is None and has_baselines(engine, tables)
    columns = read_columns(engine, pipeline.items, keys)
    past, past_labels = read_past(engine, tables, hour, model_version, made_at)
    wanted = baseline.sketches if baseline else {}
    profile = Profile(
        hour,
        model_version,
        made_at,
        missing,
        len(keys),
        judge(hour.start, columns, wanted, past),
        judge_labels(hour.start, label_counts, past_labels),
        label_counts,
        {name: sketch_of(column, wanted.get(name)) for name, column in columns.items()},
    )
    store_profile(engine, tables, profile)
    return profile


def baseline_from_hours(pipeline: Pipeline, first: Hour, last: Hour) -> Baseline:
    """Makes the baseline of the hours from one to another, which count as reference hours from then on, and stores it.

    Raises:
        BaselineError: None of them was summed up, or they were scored by several models.
    """
    engine, tables, names = engine_for(pipeline.database), pipeline_tables(pipeline), pipeline.items
    versions = model_versions(engine, tables, first.start, last.end)
    if len(set(versions.values())) != 1:
        by = f"{len(set(versions.values()))} models" if versions else "no run"
        raise BaselineError(
            f"The hours from {first.key} to {last.key} were scored by {by}: name hours that one model has scored."
        )
    (version,) = set(versions.values())
    sample = KeySample(names, BASELINE_ITEMS)
    found: dict[Hour, tuple[KeySample, Mapping[str, int]]] = {}
    labels = labels_of(model_that_scored(pipeline, version), names)
    for hour in sorted(versions, key=lambda each: each.start):
        of_hour = KeySample(names)
        batches = sample.watching(of_hour.watching(read_predictions(engine, names, hour)))
        found[hour] = of_hour, count_outcome(batches, names, (), labels).label_counts
    columns = read_columns(engine, names, sample.keys)
    words = f"{counted(len(versions), 'hour')} from {first.key} to {last.key}"
    baseline = _store_baseline(pipeline, version, columns, words)
    for hour, (of_hour, label_counts) in found.items():
        profile_hour(pipeline, hour, of_hour.keys, label_counts, version)
    return baseline


def baseline_from_items(pipeline: Pipeline, texts: Iterable[str], source: str) -> Baseline:
    """Makes the baseline of items, as those of the training, for the model of the pipeline, and stores it.

    Args:
        pipeline: The pipeline.
        texts: The values of the items as JSON.
        source: Where they are from, in words.

    Raises:
        BaselineError: They are too few.
        ModelError: The model cannot be loaded.
    """
    version = load_model(pipeline.model, pipeline.items).version
    # The same ones every time: by Vitter's algorithm R.
    random, kept = Random(0), list[str]()  # noqa: S311 - no secret
    for number, text in enumerate(texts):
        place = number if number < BASELINE_ITEMS else random.randrange(number + 1)
        if place < BASELINE_ITEMS:
            kept[place : place + 1] = [text]
    return _store_baseline(pipeline, version, columns_of(kept, _names(pipeline.items)), source)


def _store_baseline(pipeline: Pipeline, version: str, columns: Mapping[str, Column], source: str) -> Baseline:
    items = max((column.count for column in columns.values()), default=0)
    if items < LEAST_ITEMS:
        raise BaselineError(f"{counted(items, 'item')} are too few for a baseline: name {LEAST_ITEMS} or more.")
    sketches = {name: sketch_of(column) for name, column in columns.items()}
    baseline = Baseline(version, utc_now().replace(microsecond=0), source, items, sketches)
    store_baseline(engine_for(pipeline.database), pipeline_tables(pipeline), baseline)
    return baseline


def read_columns(engine: sa.Engine, names: ItemTable, keys: Sequence[int]) -> dict[str, Column]:
    """Reads what some items hold, and what the model answers where that is a number, by feature.

    Args:
        engine: The database.
        names: The table.
        keys: Of the items.
    """
    texts: list[str] = []
    answers: list[Any] = []
    numbers = [output.column for output in names.outputs if output.form == "value"]
    with snapshot(engine) as connection:
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            rows = connection.execute(_statement(names, numbers, keys[start : start + _KEYS_AT_ONCE])).all()
            texts += [str(row[0]) for row in rows]
            answers += [row[1:] for row in rows]
    columns = columns_of(texts, _names(names))
    for place, name in enumerate(numbers):
        columns[answer_name(name)] = column_of([_number(answer[place]) for answer in answers])
    return columns


def answer_name(column: str) -> str:
    """Returns what the answer in a column is called among the features."""
    return f"answer {column}"


def _statement(names: ItemTable, numbers: Sequence[str], keys: Sequence[int]) -> sa.Select[Any]:
    items = item_table(names)
    written: list[sa.ColumnClause[Any]] = [sa.column(column) for column in numbers]
    return sa.select(items.c["values"], *written).where(items.c.id.in_(keys)).order_by(items.c.id)


def _names(items: ItemTable) -> list[str]:
    return [feature.name for feature in items.features]


def _number(answer: Any) -> Any:
    return orjson.loads(answer) if isinstance(answer, (str, bytes)) else answer
