"""What hours looked like, and what they are to look like: the tables `hour_profiles` and `baselines`."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import orjson
import sqlalchemy as sa

from batch_assets.database.connection.engine import replacing, snapshot
from batch_assets.database.schema.tables import PipelineTables, baselines, hour_profiles
from batch_assets.hours import Hour
from batch_assets.monitoring.judgement import ALARM, REFERENCE_AGE, Judgement, Measure, PastHour
from batch_assets.monitoring.labels import PastLabels
from batch_assets.monitoring.sketches import Sketch, sketch_from


@dataclass(frozen=True)
class Baseline:
    """What the features and the answers are to look like.

    Args:
        model_version: Of the model that it is for.
        made_at: When it was made, in UTC without a zone.
        made_from: Of what, in words.
        items: How many items were looked at.
        sketches: By feature.
    """

    model_version: str
    made_at: datetime.datetime
    made_from: str
    items: int
    sketches: Mapping[str, Sketch]


@dataclass(frozen=True)
class Profile:
    """What the items and the answers of an hour looked like, and how they were judged.

    Args:
        hour: The hour.
        model_version: Of the model that scored it last.
        baseline_made_at: Which baseline it was measured from, None if there is none of this model.
        baseline_is_missing: Whether other models of the pipeline have a baseline and this one has none.
        sampled: How many of its items were looked at.
        features: The judgement of each feature, and of an answer that is a number.
        labels: The judgement of each label.
        label_counts: Answers by label.
        sketches: By feature.
    """

    hour: Hour
    model_version: str
    baseline_made_at: datetime.datetime | None
    baseline_is_missing: bool
    sampled: int
    features: Sequence[Judgement]
    labels: Sequence[Judgement]
    label_counts: Mapping[str, int]
    sketches: Mapping[str, Sketch]

    @property
    def alarms(self) -> list[Judgement]:
        """The features and labels that are an alarm."""
        return [each for each in (*self.features, *self.labels) if each.verdict == ALARM]


@dataclass(frozen=True)
class JudgedHour:
    """How an hour was judged.

    Args:
        hour: The hour.
        model_version: Of the model that scored it last.
        has_baseline: Whether this model had a baseline.
        judgements: By `feature NAME` and `label NAME`.
    """

    hour: Hour
    model_version: str
    has_baseline: bool
    judgements: Mapping[str, Judgement]


def store_baseline(engine: sa.Engine, tables: PipelineTables, baseline: Baseline) -> None:
    """Puts a baseline in the place of that of the same model."""
    same = sa.and_(tables.has(baselines), baselines.c.model_version == baseline.model_version)
    row = {
        "pipeline": tables.pipeline,
        "model_version": baseline.model_version,
        "made_at": baseline.made_at,
        "made_from": baseline.made_from,
        "items": baseline.items,
        "sketches": _json({name: sketch.document() for name, sketch in baseline.sketches.items()}),
    }
    with replacing(engine) as connection:
        connection.execute(sa.delete(baselines).where(same))
        connection.execute(sa.insert(baselines), row)


def read_baseline(engine: sa.Engine, tables: PipelineTables, model_version: str) -> Baseline | None:
    """Returns the baseline of a model, None if none was made."""
    same = sa.and_(tables.has(baselines), baselines.c.model_version == model_version)
    with snapshot(engine) as connection:
        row = connection.execute(sa.select(baselines).where(same)).one_or_none()
    if row is None:
        return None
    return Baseline(row.model_version, row.made_at, row.made_from, row.items, _sketches(row.sketches))


def has_baselines(engine: sa.Engine, tables: PipelineTables) -> bool:
    """Returns whether any model of the pipeline has a baseline."""
    of_pipeline = sa.select(sa.literal(1)).select_from(baselines).where(tables.has(baselines)).limit(1)
    with snapshot(engine) as connection:
        return connection.execute(of_pipeline).one_or_none() is not None


def store_profile(engine: sa.Engine, tables: PipelineTables, profile: Profile) -> None:
    """Puts the profile of an hour in the place of the one before."""
    row = {
        "pipeline": tables.pipeline,
        "hour": profile.hour.start,
        "model_version": profile.model_version,
        "baseline_made_at": profile.baseline_made_at,
        "sampled": profile.sampled,
        "alarms": len(profile.alarms),
        "judgements": _json(
            {
                "features": [each.document() for each in profile.features],
                "labels": [each.document() for each in profile.labels],
            }
        ),
        "measures": _json(
            {
                "features": {each.name: asdict(each.measure) for each in profile.features if each.measure},
                "labels": [each.name for each in profile.labels if each.verdict == ALARM],
            }
        ),
        "label_counts": _json(dict(profile.label_counts)),
        "sketches": _json({name: sketch.document() for name, sketch in profile.sketches.items()}),
    }
    with replacing(engine) as connection:
        connection.execute(sa.delete(hour_profiles).where(tables.has(hour_profiles), _is(profile.hour)))
        connection.execute(sa.insert(hour_profiles), row)


def newest_judgements(engine: sa.Engine, tables: PipelineTables) -> JudgedHour | None:
    """Returns how the newest hour that has a profile was judged, None if none has."""
    columns = hour_profiles.c
    judged = sa.select(columns.hour, columns.model_version, columns.baseline_made_at, columns.judgements)
    with snapshot(engine) as connection:
        row = connection.execute(
            judged.where(tables.has(hour_profiles)).order_by(columns.hour.desc()).limit(1)
        ).one_or_none()
    if row is None:
        return None
    document = orjson.loads(row.judgements)
    judgements = {
        f"{thing} {each['name']}": Judgement(**each)
        for thing, judged in (("feature", document["features"]), ("label", document["labels"]))
        for each in judged
    }
    return JudgedHour(Hour(row.hour), row.model_version, row.baseline_made_at is not None, judgements)


def read_past(
    engine: sa.Engine,
    tables: PipelineTables,
    hour: Hour,
    model_version: str,
    baseline_made_at: datetime.datetime | None,
) -> tuple[list[PastHour], list[PastLabels]]:
    """Returns by what an hour is judged: those of the four weeks before it that the same model scored, oldest first.

    The sketches of the same hour of the day alone are read: at the most 28, whatever there is.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        hour: The hour.
        model_version: Of the model.
        baseline_made_at: Which baseline the features must have been measured from; None for no features.
    """
    columns = hour_profiles.c
    within = sa.and_(
        tables.has(hour_profiles),
        columns.hour >= hour.start - REFERENCE_AGE,
        columns.hour < hour.start,
        columns.model_version == model_version,
    )
    days = range(1, REFERENCE_AGE.days + 1)
    same_hours = columns.hour.in_([hour.start - datetime.timedelta(days=day) for day in days])
    measured = sa.select(columns.hour, columns.baseline_made_at, columns.measures, columns.label_counts)
    with snapshot(engine) as connection:
        rows = connection.execute(measured.where(within).order_by(columns.hour)).all()
        sketched = connection.execute(sa.select(columns.hour, columns.sketches).where(within, same_hours)).all()
    sketches = {row.hour: _sketches(row.sketches) for row in sketched}
    features, labels = [], []
    for row in rows:
        measures = orjson.loads(row.measures)
        labels.append(PastLabels(row.hour, orjson.loads(row.label_counts), frozenset(measures["labels"])))
        if baseline_made_at is not None and row.baseline_made_at == baseline_made_at:
            by_name = {name: Measure(**each) for name, each in measures["features"].items()}
            features.append(PastHour(row.hour, by_name, sketches.get(row.hour, {})))
    return features, labels


def read_alarms(
    engine: sa.Engine, tables: PipelineTables, start: datetime.datetime, end: datetime.datetime
) -> dict[Hour, list[str]]:
    """Returns what is an alarm of the hours that have any: the names of features, answers and labels.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        start: Hours from here on, in UTC without a zone.
        end: Hours before, in UTC without a zone.
    """
    columns = hour_profiles.c
    alarmed = sa.select(columns.hour, columns.judgements).where(
        tables.has(hour_profiles), columns.hour >= start, columns.hour < end, columns.alarms > 0
    )
    with snapshot(engine) as connection:
        rows = connection.execute(alarmed).all()
    found = {}
    for row in rows:
        judged = orjson.loads(row.judgements)
        every = [*judged["features"], *judged["labels"]]
        found[Hour(row.hour)] = [each["name"] for each in every if each["verdict"] == ALARM]
    return found


def _is(hour: Hour) -> sa.ColumnElement[bool]:
    return hour_profiles.c.hour == hour.start


def _json(document: object) -> str:
    return orjson.dumps(document).decode()


def _sketches(text: str) -> dict[str, Sketch]:
    return {name: sketch_from(document) for name, document in orjson.loads(text).items()}
