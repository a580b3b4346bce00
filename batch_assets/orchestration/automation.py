"""What starts the hours: the job, its schedule, and the sensor for what the schedule leaves."""

import datetime
from collections import Counter
from collections.abc import Collection, Iterator
from typing import cast

import dagster as dg
import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.hour_requests import compare_and_set_request, delete_request, read_requests
from batch_assets.database.records.remaining import remaining_by_hour
from batch_assets.database.records.summaries import hours_with_summary
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.hours import Hour, utc_now
from batch_assets.orchestration.assets.predictions import RETRY_TAG
from batch_assets.orchestration.dagster_internals import UnresolvedAssetJobDefinition
from batch_assets.orchestration.hour_checks import evaluation_of
from batch_assets.orchestration.names import asset_keys, job_name
from batch_assets.orchestration.partitions import hourly_partitions
from batch_assets.orchestration.run_history import RunHistory
from batch_assets.pipeline import Declaration, Pipeline
from batch_assets.reporting.newest_hour import newest_hour
from batch_assets.retrying.decision import (
    FAILED_RUNS_AGE,
    MOST_REQUESTS,
    SCHEDULE,
    Decisions,
    HourRequest,
    KnownHour,
    LastRuns,
    Remaining,
    Request,
    decide,
)
from batch_assets.settings.retry import LEAVE, WHOLE_BATCH

REASON_TAG = "batch_assets/reason"
# So that a tick after a long outage looks up no more hours than it may well need.
HOURS_AT_ONCE = 100
# What the cursor of the sensor says of the newest hour.
IN_TIME, LATE = "in time", "late"


def build_job(declaration: Declaration) -> UnresolvedAssetJobDefinition:
    """Returns the job of a pipeline."""
    return dg.define_asset_job(
        job_name(declaration),
        selection=dg.AssetSelection.assets(*asset_keys(declaration)),
        description="Scores the items of an hour and sums it up.",
    )


def build_schedule(declaration: Declaration, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Returns the schedule of a pipeline."""
    minute = declaration.schedule_minute

    @dg.schedule(
        name=declaration.prefixed("hourly_batch_inference"),
        job=job,
        cron_schedule=f"{minute} * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"The hour that has just closed, at minute {minute}.\n\nWhile the database is away the tick fails, "
        f"and `{declaration.sensor_name}` requests the hour five minutes later or as soon as the database is back.",
    )
    def hourly_batch_inference(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        moment = context.scheduled_execution_time.astimezone(datetime.UTC).replace(tzinfo=None)
        hour = Hour(moment.replace(minute=0, second=0, microsecond=0) - datetime.timedelta(hours=1))
        pipeline = declaration.load()
        if hour.start < pipeline.first_hour.start:
            return dg.SkipReason(f"The hour {hour.key} lies before the first one, {pipeline.first_hour.key}.")
        row = HourRequest(0, SCHEDULE, "", utc_now().replace(microsecond=0))
        policy = pipeline.retry.policy
        if policy != LEAVE and not compare_and_set_request(
            engine_for(pipeline.database), pipeline_tables(pipeline), hour, None, row
        ):
            return dg.SkipReason(f"The sensor {declaration.sensor_name} has seen to the hour {hour.key} already.")
        tags = {RETRY_TAG: WHOLE_BATCH} if policy == WHOLE_BATCH else {}
        return dg.RunRequest(run_key=hour.key, partition_key=hour.key, tags=tags)

    return hourly_batch_inference


def build_sensor(declaration: Declaration, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """Returns the sensor of a pipeline."""

    @dg.sensor(
        name=declaration.sensor_name,
        job=job,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def retry_hours(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Closed hours in which something is left: late items, missed ticks, failed runs, failed items to try again.

        It pauses longer and longer where there is no progress, and gives an hour up after BATCH_MAX_ATTEMPTS requests,
        or at once for a fault that somebody must fix: `batch-assets status` names such hours, `batch-assets retry` puts
        them back. BATCH_RETRY=leave has it request nothing.

        It also records the check `newest_hour_was_scored_in_time` when that changes, also where nothing runs.
        """
        pipeline, now = declaration.load(), utc_now()
        verdict = newest_hour(pipeline, now)
        # Recorded when it changes: each minute would fill the event log.
        state = IN_TIME if verdict.passed else LATE
        changed = [evaluation_of(declaration, verdict)] if state != (context.cursor or IN_TIME) else []
        if pipeline.retry.policy == LEAVE:
            reason = "BATCH_RETRY is 'leave': no hour is requested by itself."
            return dg.SensorResult(skip_reason=reason, cursor=state, asset_events=changed)
        engine = engine_for(pipeline.database)
        requests: list[dg.RunRequest] = []
        waiting: Counter[str] = Counter()
        history = RunHistory(context.instance, declaration)
        # Which every tick has.
        repository = cast("dg.RepositoryDefinition", context.repository_def)
        jobs = jobs_that_score(repository, declaration)
        for known in _known_hours(engine, history, jobs, pipeline, now):
            decisions = decide(known, now, pipeline, MOST_REQUESTS - len(requests))
            requests += _carry_out(context, engine, declaration, decisions)
            waiting.update(wait.why for wait in decisions.waiting)
            if len(requests) >= MOST_REQUESTS:
                break
        nothing = None if requests else _skip_reason(waiting)
        return dg.SensorResult(requests, skip_reason=nothing, cursor=state, asset_events=changed)

    return retry_hours


def jobs_that_score(repository: dg.RepositoryDefinition, declaration: Declaration) -> list[str]:
    """Returns the jobs that a pipeline's predictions are part of: its own, Dagster's for selections, and the user's."""
    predictions = asset_keys(declaration).predictions
    return [job.name for job in repository.get_all_jobs() if predictions in job.asset_layer.executable_asset_keys]


def _known_hours(
    engine: sa.Engine, history: RunHistory, jobs: Collection[str], pipeline: Pipeline, now: datetime.datetime
) -> Iterator[Collection[KnownHour]]:
    """Looks up the hours that there may be something to do about, oldest first, some at a time."""
    first, end = pipeline.first_hour, now.replace(minute=0, second=0, microsecond=0)
    # In this order: a run that ends while this goes on is at worst taken for one that is still busy.
    busy = history.busy_hours(now)
    tables = pipeline_tables(pipeline)
    bookkeeping = read_requests(engine, tables)
    left = remaining_by_hour(engine, tables, first, end, pipeline.retry.max_attempts)
    to_do = {hour for hour, what in left.items() if not what.is_empty}
    candidates = to_do | bookkeeping.keys() | history.hours_of_failed_runs(now - FAILED_RUNS_AGE)
    in_order = sorted((hour for hour in candidates if first.start <= hour.start < end), key=lambda hour: hour.start)
    for position in range(0, len(in_order), HOURS_AT_ONCE):
        part = in_order[position : position + HOURS_AT_ONCE]
        ended, summaries = history.last_runs(part, jobs), hours_with_summary(engine, tables, part)
        yield [
            KnownHour(
                hour,
                left.get(hour, Remaining()),
                hour in summaries,
                *ended.get(hour, LastRuns()),
                busy.get(hour),
                bookkeeping.get(hour),
            )
            for hour in part
        ]


def _carry_out(
    context: dg.SensorEvaluationContext, engine: sa.Engine, declaration: Declaration, decisions: Decisions
) -> list[dg.RunRequest]:
    tables = pipeline_tables(declaration)
    for done in decisions.cleared:
        delete_request(engine, tables, done.hour, done.before)
    for hopeless in decisions.given_up:
        if compare_and_set_request(engine, tables, hopeless.hour, hopeless.before, hopeless.after):
            context.log.warning(
                "The hour %s is given up: %s. Fix that and materialise the hour, or have it requested again with "
                "`batch-assets retry %s`.",
                hopeless.hour.key,
                (hopeless.after.given_up_because or "").rstrip("."),
                hopeless.hour.key,
            )
    hours = hourly_partitions(declaration)
    # A key that is no partition would lose the whole tick.
    wanted = [request for request in decisions.requests if hours.has_partition_key(request.hour.key)]
    return [
        _run_request(request)
        for request in wanted
        if compare_and_set_request(engine, tables, request.hour, request.before, request.after)
    ]


def _run_request(request: Request) -> dg.RunRequest:
    return dg.RunRequest(
        # Remembered for ever: the claim makes it new.
        run_key=f"{request.hour.key} {request.after.requested_at:%Y-%m-%dT%H:%M:%S}",
        partition_key=request.hour.key,
        tags={RETRY_TAG: request.mode, REASON_TAG: request.reason},
    )


def _skip_reason(waiting: Counter[str]) -> str:
    if not waiting:
        return "Nothing is left in any closed hour."
    return "No hour is requested. Hours that wait for " + "; for ".join(
        f"{why}: {count:,}" for why, count in waiting.most_common()
    )
