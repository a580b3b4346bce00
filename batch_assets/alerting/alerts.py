"""One look at a pipeline: what has changed is recorded, and each receiver is notified."""

import datetime
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

import sqlalchemy as sa

from batch_assets.alerting.incidents import (
    CHECK_FAILED,
    HOUR_FAILED,
    WINDOW,
    CheckOfHour,
    Findings,
    canary_failed,
    changes,
    checks_failed,
    deadline_missed,
    drifted,
    hours_given_up,
    hours_left_failed,
    unusual_volume,
)
from batch_assets.alerting.messages import messages
from batch_assets.alerting.receivers import Receiver
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.hour_requests import read_requests
from batch_assets.database.records.incidents import (
    RecordedIncident,
    record_changes,
    record_notified,
    unfinished_incidents,
)
from batch_assets.database.records.profiles import has_baselines, newest_judgements
from batch_assets.database.schema.tables import PipelineTables, pipeline_tables
from batch_assets.errors import AlertError
from batch_assets.hours import Hour
from batch_assets.pipeline import Pipeline
from batch_assets.reporting.newest_hour import newest_hour, newest_volume
from batch_assets.reporting.verdicts import newest_due_hour
from batch_assets.retrying.decision import EndedRun
from batch_assets.settings.retry import LEAVE
from batch_assets.wording import counted


class History(Protocol):
    """What the tables do not say, and Dagster knows."""

    def busy_hours(self) -> Collection[Hour]:
        """Returns the hours that a run or a backfill will yet score."""

    def last_runs(self, since: datetime.datetime, hours: Collection[Hour]) -> Mapping[Hour, EndedRun]:
        """Returns the last run of these hours, and of those of which one has failed since a moment of UTC."""

    def last_canary(self, since: datetime.datetime) -> EndedRun | None:
        """Returns the last run of the canary that has ended since a moment of UTC, None if none has."""

    def checks(self, since: datetime.datetime, subjects: Collection[str]) -> Iterable[CheckOfHour]:
        """Returns what these checks of hours say, and those that have failed since a moment of UTC."""


def alert(
    pipeline: Pipeline,
    history: History,
    receivers: Sequence[Receiver],
    link_of: Callable[[Hour], str] | None,
    now: datetime.datetime,
) -> str:
    """Notifies each receiver of what is new and what is over, and returns what was sent.

    Args:
        pipeline: The pipeline.
        history: What Dagster knows of its hours.
        receivers: Who is notified.
        link_of: Where an hour can be looked at, None if that is not known.
        now: The present, in UTC without a zone.

    Raises:
        AlertError: A receiver did not take a message: it gets it at the next look, the others do not get it again.
    """
    engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
    recorded = unfinished_incidents(engine, tables)
    opened, over = changes(_findings(engine, pipeline, history, recorded, now), recorded)
    if opened or over:
        record_changes(engine, tables, opened, over, now)
    return _notify(engine, tables, receivers, link_of, now)


def _findings(
    engine: sa.Engine,
    pipeline: Pipeline,
    history: History,
    recorded: Sequence[RecordedIncident],
    now: datetime.datetime,
) -> Findings:
    tables, since = pipeline_tables(pipeline), now - WINDOW
    there = [each.incident for each in recorded if each.over_at is None]
    requests = read_requests(engine, tables)
    recorded_hours = {incident.hour for incident in there if incident.kind == HOUR_FAILED}
    if pipeline.retry.policy == LEAVE:
        # In this order: a run that ends meanwhile is at worst taken for one that is still busy.
        busy = history.busy_hours()
        found = hours_left_failed(history.last_runs(since, recorded_hours), busy)
    else:
        found = hours_given_up(requests, since, recorded_hours)
    failed = {incident.hour for incident in found.open}
    subjects = {incident.subject for incident in there if incident.kind == CHECK_FAILED}
    checks = checks_failed(history.checks(since, subjects), requests, failed, now)
    newest = newest_judgements(engine, tables)
    no_baseline = newest is not None and not newest.has_baseline and has_baselines(engine, tables)
    drift = drifted(newest, baseline_is_missing=no_baseline)
    due = newest_due_hour(now, pipeline.deadline_minutes)
    late = deadline_missed(newest_hour(pipeline, now), due, failed)
    volume = unusual_volume(newest_volume(engine, tables))
    return found | checks | drift | volume | late | canary_failed(history.last_canary(since), now)


def _notify(
    engine: sa.Engine,
    tables: PipelineTables,
    receivers: Sequence[Receiver],
    link_of: Callable[[Hour], str] | None,
    now: datetime.datetime,
) -> str:
    names = [receiver.name for receiver in receivers]
    sent: list[str] = []
    refused_by: list[str] = []
    for receiver in receivers:
        # Asked anew for each: with the last one, the message counts as sent to all.
        waiting = [each for each in unfinished_incidents(engine, tables) if each.is_unnotified]
        # Those who were yet to hear of these may have been taken out of the settings.
        received = [each for each in waiting if receiver.name in each.received_by]
        if received:
            record_notified(engine, tables, [each.notified(receiver.name, names, now) for each in received])
        missing = [each for each in waiting if receiver.name not in each.received_by]
        for message in messages(tables.pipeline, missing, link_of):
            if not receiver.takes(message):
                refused_by.append(receiver.name)
                break
            record_notified(engine, tables, [each.notified(receiver.name, names, now) for each in message.incidents])
            sent.append(message.title)
    if refused_by:
        raise AlertError(
            f"Of BATCH_ALERT_URLS, {', '.join(refused_by)} did not take a message: see whether it can be reached from "
            "here and whether its address is right. It is tried again at the next tick, and the others get nothing "
            "twice."
        )
    if sent:
        return f"{counted(len(sent), 'message')} sent: {'; '.join(sent)}."
    there = sum(each.over_at is None for each in unfinished_incidents(engine, tables))
    return f"Nothing is new. {counted(there, 'incident')} known."
