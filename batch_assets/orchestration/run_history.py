"""What Dagster knows of the runs of an hour, for the sensor's decision.

A run counts if it is for `predictions`, or the asset that is named: of its job, or of a selection of assets. It is for
the hour of its partition, or for all hours of its range.
"""

import datetime
from collections.abc import Collection, Iterable, Iterator

import dagster as dg

from batch_assets.hours import Hour, hour_of_key, hours_between, open_hour
from batch_assets.orchestration.dagster_internals import BulkActionsFilter, BulkActionStatus, StepEventStatus
from batch_assets.orchestration.failures import (
    FAILED_PARTITIONS_TAG,
    FAULT_MESSAGE_TAG,
    FAULT_TAG,
    OF_RUN,
    PERMANENT,
    fault_tags,
)
from batch_assets.orchestration.names import asset_keys, job_name
from batch_assets.orchestration.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from batch_assets.pipeline import Declaration
from batch_assets.retrying.decision import (
    BUSY_BACKFILL,
    BUSY_RUN,
    CANCELED,
    FAILED,
    SUCCEEDED,
    EndedRun,
    LastRuns,
    last_runs_of,
)

_ENDED = {
    dg.DagsterRunStatus.SUCCESS: SUCCEEDED,
    dg.DagsterRunStatus.FAILURE: FAILED,
    dg.DagsterRunStatus.CANCELED: CANCELED,
}
# A range of more hours than these is not looked for: at worst its hours are requested once more.
_RANGE_HOURS = 24 * 7
_KEYS = 500
_LONGEST_RUN = datetime.timedelta(days=1)


class RunHistory:
    """What an instance knows of the runs of a pipeline.

    Args:
        instance: Where the runs are.
        declaration: The pipeline.
        asset: Runs for this asset count; None for its predictions.
        job: The job of this asset; None for that of the predictions.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        declaration: Declaration,
        asset: dg.AssetKey | None = None,
        job: str | None = None,
    ) -> None:
        self._instance = instance
        self._declaration = declaration
        self._keys = asset_keys(declaration)
        self._asset = asset or self._keys.predictions
        self._job = job or job_name(declaration)

    def busy_hours(self, now: datetime.datetime) -> dict[Hour, str]:
        """Returns the hours that a run or a backfill will yet score, and which of the two.

        Args:
            now: The present, in UTC without a zone.
        """
        # A backfill knows its hours before it has made their runs.
        busy = dict.fromkeys(self._hours_of_backfills(), BUSY_BACKFILL)
        not_ended = [status for status in dg.DagsterRunStatus if status not in _ENDED]
        for record in self._instance.get_run_records(dg.RunsFilter(statuses=not_ended)):
            if not _is_abandoned(record, now):
                busy.update(dict.fromkeys(self.hours_of(record.dagster_run), BUSY_RUN))
        return busy

    def hours_of_failed_runs(self, since: datetime.datetime) -> set[Hour]:
        """Returns the hours of runs that have failed since a moment of UTC, whatever became of them afterwards."""
        failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since.replace(tzinfo=datetime.UTC))
        return {hour for record in self._instance.get_run_records(failed) for hour in self.hours_of(record.dagster_run)}

    def last_runs(self, hours: Collection[Hour], job_names: Collection[str]) -> dict[Hour, LastRuns]:
        """Returns the last runs that have ended of each of these hours that has had any.

        Args:
            hours: The hours.
            job_names: The jobs whose runs can be for this pipeline; those of others are not looked at.
        """
        ended: dict[Hour, list[dg.RunRecord]] = {hour: [] for hour in hours}
        for record in self._records(hours, job_names):
            for hour in self.hours_of(record.dagster_run):
                if hour in ended:
                    ended[hour].append(record)
        for records in ended.values():
            records.sort(key=lambda record: (_ended_at(record), record.storage_id), reverse=True)
        return {
            hour: last_runs_of(hour, (self._ended_run(record, hour) for record in records))
            for hour, records in ended.items()
            if records
        }

    def last_run_of(self, job: str, since: datetime.datetime) -> EndedRun | None:
        """Returns the last run of a job without hours that has ended since a moment of UTC, None if none has."""
        ended = dg.RunsFilter(job_name=job, statuses=list(_ENDED), updated_after=since.replace(tzinfo=datetime.UTC))
        for record in self._instance.get_run_records(ended, limit=1):
            run = record.dagster_run
            fault = fault_tags(run, self._declaration).get(FAULT_MESSAGE_TAG) or self._first_error(run.run_id)
            return EndedRun(run.run_id, _ENDED[run.status], _ended_at(record), fault=fault)
        return None

    def _records(self, hours: Collection[Hour], job_names: Collection[str]) -> Iterator[dg.RunRecord]:
        # Where many pipelines are scored, most runs of an hour are those of others.
        for job in job_names:
            yield from self._ended(PARTITION_TAG, hours, job)
        # Runs over ranges are few, so that those of all jobs are looked up at once.
        starts = {Hour(hour.start - datetime.timedelta(hours=back)) for hour in hours for back in range(_RANGE_HOURS)}
        yield from self._ended(RANGE_START_TAG, starts)

    def _ended(self, tag: str, hours: Collection[Hour], job: str | None = None) -> Iterator[dg.RunRecord]:
        """Yields the runs that have ended and have one of these hours as tag; of any job, where none is named."""
        keys = sorted(hour.key for hour in hours)
        for position in range(0, len(keys), _KEYS):
            tags = {tag: keys[position : position + _KEYS]}
            ended = dg.RunsFilter(job_name=job, statuses=list(_ENDED), tags=tags)
            yield from self._instance.get_run_records(ended)

    def _ended_run(self, record: dg.RunRecord, hour: Hour) -> EndedRun:
        run = record.dagster_run
        tags, status, fault = fault_tags(run, self._declaration), _ENDED[run.status], ""
        if status == FAILED and self._is_of_others(run):
            status = SUCCEEDED
        permanent = tags.get(FAULT_TAG) == PERMANENT
        if status == FAILED and RANGE_START_TAG in run.tags:
            failed = tags.get(FAILED_PARTITIONS_TAG, "")
            if failed and hour.key not in failed.split(", "):  # it was stored and summed up
                status = SUCCEEDED
            permanent = permanent and bool(failed)
        if status == FAILED:
            fault = tags.get(FAULT_MESSAGE_TAG) or self._first_error(run.run_id)
        return EndedRun(
            run.run_id,
            status,
            _ended_at(record),
            permanent and status == FAILED,
            fault,
            of_run=_is_of_run(record, hour, status, tags.get(FAULT_TAG)),
        )

    def _is_of_others(self, run: dg.DagsterRun) -> bool:
        """Whether a run that has failed did so for another pipeline that it was for too."""
        if not run.asset_selection or run.asset_selection <= set(self._keys):
            return False
        mine = ["__".join(key.path) for key in self._keys if key in run.asset_selection]
        steps = self._instance.get_run_step_stats(run.run_id, mine)
        done = {step.step_key for step in steps if step.status == StepEventStatus.SUCCESS}
        return done == set(mine)

    def _first_error(self, run_id: str) -> str:
        for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
            for record in self._instance.get_records_for_run(run_id, of_type=kind, limit=1).records:
                event = record.event_log_entry.dagster_event
                error = getattr(event.event_specific_data, "error", None) if event else None
                while error and error.cause:
                    error = error.cause
                sentence = error.message if error else event.message if event else None
                if sentence:
                    return sentence.strip()
        return ""

    def hours_of(self, run: dg.DagsterRun) -> list[Hour]:
        """Returns the hours that a run is for, none if it is not for the asset."""
        selected = self._asset in run.asset_selection if run.asset_selection else run.job_name == self._job
        if not selected:
            return []
        if PARTITION_TAG in run.tags:
            return list(_known([run.tags[PARTITION_TAG]]))
        ends = list(_known([run.tags.get(RANGE_START_TAG, ""), run.tags.get(RANGE_END_TAG, "")]))
        if len(ends) < 2:
            return []
        # A year that was mistyped would make a range of millions.
        first, last = self._declaration.first_hour(), open_hour()
        return hours_between(
            max(ends[0], first, key=lambda hour: hour.start), min(ends[1], last, key=lambda hour: hour.start)
        )

    def _hours_of_backfills(self) -> Iterator[Hour]:
        statuses = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
        for backfill in self._instance.get_backfills(BulkActionsFilter(statuses=statuses)):
            data = backfill.asset_backfill_data
            if data is None:
                if backfill.job_name == self._job:
                    yield from _known(backfill.partition_names or ())
                continue
            ended = data.materialized_subset | data.failed_and_downstream_subset
            subset = (data.target_subset - ended).partitions_subsets_by_asset_key.get(self._asset)
            if subset is not None:
                yield from _known(subset.get_partition_keys())


def _is_abandoned(record: dg.RunRecord, now: datetime.datetime) -> bool:
    """Whether a run is started and will never end: `dagster job execute` leaves it so when it is killed.

    Should it live after all, the lock of the hour keeps the next run waiting for it.
    """
    in_queue = record.dagster_run.status in (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)
    return not in_queue and record.update_timestamp < now.replace(tzinfo=datetime.UTC) - _LONGEST_RUN


def _ended_at(record: dg.RunRecord) -> datetime.datetime:
    ended = record.update_timestamp
    if record.end_time:  # which a run that was canceled in the queue does not have
        ended = datetime.datetime.fromtimestamp(record.end_time, datetime.UTC)
    return _without_zone(ended)


def _is_of_run(record: dg.RunRecord, hour: Hour, status: str, fault_tag: str | None) -> bool:
    """Whether what became of a run lies in the run and not in the hour: see `EndedRun`."""
    if status == CANCELED:  # maybe because of just that
        return _without_zone(record.create_timestamp) < hour.end
    never_started = record.start_time is None  # its config is invalid, or there was nowhere to run it
    return status == FAILED and (fault_tag == OF_RUN or never_started)


def _without_zone(moment: datetime.datetime) -> datetime.datetime:
    return moment.astimezone(datetime.UTC).replace(tzinfo=None)


def _known(keys: Iterable[str]) -> Iterator[Hour]:
    for key in keys:
        hour = hour_of_key(key)
        if hour is not None:
            yield hour
