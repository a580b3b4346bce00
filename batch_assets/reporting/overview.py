"""How a pipeline stands at a moment: its last hours, what is open and what is unusual. A few cheap statements."""

import datetime
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto
from typing import Any

import sqlalchemy as sa

from batch_assets.database.records.hour_requests import read_requests
from batch_assets.database.records.profiles import read_alarms
from batch_assets.database.records.promotions import model_in_force, newest_promotion
from batch_assets.database.records.remaining import remaining_by_hour
from batch_assets.database.records.summaries import hours_with_summary, read_summaries, read_volumes
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.hours import Hour, hours_between
from batch_assets.monitoring.judgement import ALARM, REFERENCE_AGE
from batch_assets.monitoring.volume import judge_volume
from batch_assets.pipeline import Pipeline
from batch_assets.reporting.older_models import older_models
from batch_assets.reporting.promotions import promotion_remarks
from batch_assets.reporting.verdicts import FEATURES_NAMED, Verdict, newest_due_hour, verdict_on_newest_hour
from batch_assets.retrying.decision import HourRequest, Remaining
from batch_assets.wording import counted

HOURS_SHOWN = 48
# Of those that are open, the newest.
OPEN_HOURS_SHOWN = 20
_REASON_CHARACTERS = 400
_NAME_CHARACTERS = 60
_NOTHING = Remaining()


class HourState(StrEnum):
    """How an hour stands, by what is worst of it."""

    before_first = auto()
    not_due = auto()
    scored = auto()
    failed = auto()
    pending = auto()
    no_summary = auto()
    given_up = auto()


OPEN_STATES = (HourState.failed, HourState.pending, HourState.no_summary, HourState.given_up)


@dataclass(frozen=True)
class HourOverview:
    """How an hour stands.

    Args:
        hour: The hour.
        state: What is worst of it.
        items: How many it had when it was summed up, None if it was not.
        left: Its items without a prediction.
        given_up_because: Why nobody requests it any more, None if it is not given up.
        alarms: The features, answers and labels that are unusual.
    """

    hour: Hour
    state: HourState
    items: int | None
    left: Remaining
    given_up_because: str | None
    alarms: Sequence[str]

    @property
    def text(self) -> str:
        """What there is to say of it, for example `1,200 items, 3 failed`."""
        parts = [] if self.items is None else [counted(self.items, "item")]
        words = {
            HourState.before_first: "before the first hour",
            HourState.not_due: "not scored yet, and not due",
            HourState.no_summary: "no summary",
            HourState.given_up: "given up",
        }
        parts += [words[self.state]] if self.state in words else []
        failed = self.left.failed + self.left.given_up
        parts += [f"{self.left.pending:,} pending"] if self.left.pending else []
        parts += [f"{failed:,} failed"] if failed else []
        parts += [f"unusual: {self.alarms_text}"] if self.alarms else []
        return ", ".join(parts)

    @property
    def reason(self) -> str:
        """Why it is open, as far as that is known."""
        if self.given_up_because is not None:
            return textwrap.shorten(self.given_up_because, _REASON_CHARACTERS, placeholder=" ...")
        if self.left.given_up:
            return f"{self.left.given_up:,} of its failed items {'is' if self.left.given_up == 1 else 'are'} given up"
        return "no run has scored it and summed it up" if self.state == HourState.no_summary else ""

    @property
    def alarms_text(self) -> str:
        """The names of what is unusual."""
        named = [textwrap.shorten(name, _NAME_CHARACTERS, placeholder=" ...") for name in self.alarms[:FEATURES_NAMED]]
        more = len(self.alarms) - len(named)
        return ", ".join(named) + (f" and {more:,} more" if more else "")


@dataclass(frozen=True)
class PipelineOverview:
    """How a pipeline stands.

    Args:
        hours: The last hours that are closed, oldest first.
        open: Hours in which something is left to do, of whatever age, newest first.
        open_count: How many there are of these.
        newest: Whether the newest hour that must have been scored was.
        promotion: Which model was put in force and by whom, in sentences; none if the declared one is in force.
        older_models: How many hours another model has scored last, in sentences; none if none was.
    """

    hours: Sequence[HourOverview]
    open: Sequence[HourOverview]
    open_count: int
    newest: Verdict
    promotion: Sequence[str]
    older_models: Sequence[str]

    @property
    def alarmed(self) -> list[HourOverview]:
        """The hours that are unusual, newest first."""
        return [hour for hour in reversed(self.hours) if hour.alarms]

    @property
    def is_right(self) -> bool:
        """Whether nothing needs anybody."""
        return self.newest.passed and not self.open_count and not self.alarmed


@dataclass(frozen=True)
class _Records:
    """What is recorded of hours, each by hour."""

    summaries: Mapping[Hour, sa.Row[Any]]
    left: Mapping[Hour, Remaining]
    given_up: Mapping[Hour, HourRequest]
    alarms: Mapping[Hour, Sequence[str]]
    volumes: Mapping[datetime.datetime, int]


def pipeline_overview(engine: sa.Engine, pipeline: Pipeline, now: datetime.datetime) -> PipelineOverview:
    """Looks at the last hours of a pipeline, and at what is open of all others.

    Reads a row or two for each hour that is shown, and an index that holds what has no prediction.

    Args:
        engine: The database.
        pipeline: The pipeline as it is declared.
        now: The present, in UTC without a zone.

    Raises:
        DatabaseError: A table is missing, or the server is away.
    """
    newest = newest_promotion(engine, pipeline_tables(pipeline))
    open_hour = Hour(now.replace(minute=0, second=0, microsecond=0))
    first = Hour(open_hour.start - datetime.timedelta(hours=HOURS_SHOWN))
    shown = hours_between(first, open_hour)[:-1]
    records = _read(engine, pipeline, first, open_hour)
    due = newest_due_hour(now, pipeline.deadline_minutes)
    hours = {hour: _hour(hour, records, _state(hour, records, pipeline.first_hour, due)) for hour in shown}
    older = {hour for hour in (*records.left, *records.given_up) if hour.start < first.start}
    hours |= {hour: _hour(hour, records, _state_by_left(hour, records)) for hour in older}
    in_order = sorted(hours, key=lambda hour: hour.start, reverse=True)
    found = [hours[hour] for hour in in_order if hours[hour].state in OPEN_STATES]
    # Where the deadline is later than all that is shown, the hour is not among them.
    scored = due in records.summaries or bool(hours_with_summary(engine, pipeline_tables(pipeline), [due]))
    return PipelineOverview(
        [hours[hour] for hour in shown],
        found[:OPEN_HOURS_SHOWN],
        len(found),
        verdict_on_newest_hour(due, pipeline.first_hour, pipeline.deadline_minutes, scored=scored),
        promotion_remarks(pipeline, newest),
        older_models(engine, replace(pipeline, model=model_in_force(pipeline, newest))),
    )


def _read(engine: sa.Engine, pipeline: Pipeline, first: Hour, open_hour: Hour) -> _Records:
    tables, attempts = pipeline_tables(pipeline), pipeline.retry.max_attempts
    return _Records(
        {Hour(row.hour): row for row in read_summaries(engine, tables, open_hour, HOURS_SHOWN)},
        remaining_by_hour(engine, tables, pipeline.first_hour, open_hour.start, attempts),
        {hour: row for hour, row in read_requests(engine, tables).items() if row.given_up_at},
        read_alarms(engine, tables, first.start, open_hour.start),
        read_volumes(engine, tables, first.start - REFERENCE_AGE, open_hour.start),
    )


def _hour(hour: Hour, records: _Records, state: HourState) -> HourOverview:
    summary, given_up = records.summaries.get(hour), records.given_up.get(hour)
    return HourOverview(
        hour,
        state,
        summary.items if summary else None,
        records.left.get(hour, _NOTHING),
        (given_up.given_up_because or "") if given_up else None,
        [*records.alarms.get(hour, ()), *_unusual_volume(hour, records)],
    )


def _unusual_volume(hour: Hour, records: _Records) -> list[str]:
    if hour.start not in records.volumes:
        return []
    judgement = judge_volume(hour.start, records.volumes[hour.start], records.volumes)
    return [judgement.name] if judgement.verdict == ALARM else []


def _state(hour: Hour, records: _Records, first: Hour, due: Hour) -> HourState:
    if hour.start < first.start:
        return HourState.before_first
    if hour not in records.given_up and hour not in records.summaries:
        return HourState.no_summary if hour.start <= due.start else HourState.not_due
    return _state_by_left(hour, records)


def _state_by_left(hour: Hour, records: _Records) -> HourState:
    left = records.left.get(hour, _NOTHING)
    if hour in records.given_up:
        return HourState.given_up
    if left.pending:
        return HourState.pending
    return HourState.failed if left.failed or left.given_up else HourState.scored
