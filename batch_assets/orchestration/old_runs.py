"""Dagster's old runs: which can go without the UI telling of an hour what is not so, and how they go.

What the UI shows of an hour is what the events of its runs say, and they go with the run: without the last run that
materialised it, an hour would be missing there while its rows are in the tables.
"""

import datetime
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import sqlalchemy as sa

from batch_assets.database.connection.throttle import Throttle
from batch_assets.database.records.pruning import existing_hours
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.errors import DatabaseUnavailableError, SettingsError
from batch_assets.hours import Hour, hour_of_key, utc_now
from batch_assets.orchestration.assets.run_summary import last_scorings
from batch_assets.orchestration.dagster_internals import (
    BACKFILL_ID_TAG,
    AssetEventType,
    BulkActionsFilter,
    BulkActionStatus,
)
from batch_assets.orchestration.names import CHALLENGER_PREDICTIONS, asset_key, asset_keys
from batch_assets.orchestration.run_history import RunHistory
from batch_assets.pipeline import Declaration
from batch_assets.retrying.decision import FAILED_RUNS_AGE
from batch_assets.settings.folders import home_folder

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
# The last attempt decides whether an hour is shown as failed, the last success whether it is there.
_KINDS: tuple[AssetEventType, ...] = (
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
)
_RUNS_AT_ONCE = 100


@contextmanager
def opened_instance(environment: Mapping[str, str]) -> Iterator[dg.DagsterInstance]:
    """Opens the Dagster instance of `DAGSTER_HOME`, or that of the embedded default.

    Raises:
        SettingsError: There is none, or its dagster.yaml cannot be used.
        DatabaseUnavailableError: Its tables cannot be read or written.
    """
    named = environment.get("DAGSTER_HOME")
    if not named and environment.get("MYSQL_SERVER"):
        raise SettingsError(
            "DAGSTER_HOME is not set, so that it is not known which hours a run is for: set it to the folder of the "
            "dagster.yaml that webserver and daemon use. Nothing was removed."
        )
    folder = Path(named or home_folder(environment)).absolute()
    if not folder.is_dir():
        raise SettingsError(f"DAGSTER_HOME is {str(folder)!r}, which is no folder: fix it. Nothing was removed.")
    try:
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            yield instance
    except dg.DagsterError as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"The Dagster instance in {folder} cannot be used: {reason}") from error
    except sa.exc.DBAPIError as error:
        raise DatabaseUnavailableError(
            f"The tables of the Dagster instance in {folder} cannot be used ({error.orig}): fix the storage in its "
            "dagster.yaml or its server, or prune again. What was removed stays so."
        ) from error


def hours_in_use(instance: dg.DagsterInstance, declaration: Declaration) -> set[Hour]:
    """Returns the hours that a run or a backfill will yet write, or that the sensor may request for a failed run."""
    history, now = RunHistory(instance, declaration), utc_now()
    return history.busy_hours(now).keys() | history.hours_of_failed_runs(now - FAILED_RUNS_AGE)


class OldRuns:
    """The runs of an instance that have ended and were last heard of before a moment.

    Args:
        instance: Where the runs are.
        engine: The database of the hours.
        declared: Their pipelines.
        before: The moment, in UTC without a zone.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        engine: sa.Engine,
        declared: Sequence[Declaration],
        before: datetime.datetime,
    ) -> None:
        self._instance = instance
        self._engine = engine
        self._declared = {each: (*asset_keys(each), asset_key(each, CHALLENGER_PREDICTIONS)) for each in declared}
        self._before = before.replace(tzinfo=datetime.UTC)

    def removable(self, gone: Collection[Hour] = ()) -> Iterator[tuple[bool, str]]:
        """Looks at each run, oldest first; yields whether it can be removed, and its id.

        A run stays while it is the last that materialised an asset, or one of its partitions, or tried to; also while
        it is the last that scored items of an hour, which the summary of the hour describes. Not for the sake of an
        hour of which nothing is there any more.

        Args:
            gone: Hours to be taken for such, whatever is there.
        """
        runs = self._instance.get_run_ids(dg.RunsFilter(statuses=_ENDED, updated_before=self._before))[::-1]
        for position in range(0, len(runs), _RUNS_AT_ONCE):
            part = runs[position : position + _RUNS_AT_ONCE]
            needed = self._needed(part, gone)
            yield from ((run_id not in needed, run_id) for run_id in part)

    def remove(self, run_id: str, throttle: Throttle) -> None:
        """Removes a run with its events and logs, the run last: a removal that was interrupted finds it again."""
        throttle.before_write(len(self._instance.all_logs(run_id)))
        self._instance.compute_log_manager.delete_logs(prefix=[run_id])
        self._instance.event_log_storage.delete_events(run_id)
        self._instance.delete_run(run_id)

    def forget_status(self) -> None:
        """Has the UI look up anew what there is of each hour.

        Dagster keeps it beside the events and only ever adds to it: an hour whose events are gone would stay green
        until something else makes it look. At each time, since the one before may have been interrupted.
        """
        self._instance.wipe_asset_cached_status([key for keys in self._declared.values() for key in keys])

    def _needed(self, runs: Sequence[str], gone: Collection[Hour]) -> set[str]:
        partitions: dict[dg.AssetKey, set[str]] = {}
        for run_id in runs:
            for asset, keys in self._instance.get_asset_partitions_for_run(run_id, set(_KINDS)).items():
                partitions.setdefault(asset, set()).update(key for key in keys if key is not None)
        there: dict[dg.AssetKey, set[str]] = {}
        needed = self._of_backfills_on_their_way(runs)
        for declaration, hourly in self._declared.items():
            named = [hour_of_key(key) for asset in partitions.keys() & set(hourly) for key in partitions[asset]]
            found = existing_hours(self._engine, pipeline_tables(declaration), {hour for hour in named if hour})
            found -= set(gone)
            needed |= {str(run["run_id"]) for run in last_scorings(self._instance, declaration, found).values()}
            there |= {key: {hour.key for hour in found} for key in hourly}
        for asset, keys in partitions.items():
            event = self._instance.get_latest_materialization_event(asset)
            if event:
                needed.add(event.run_id)
            needed |= self._last_of(asset, keys & there.get(asset, keys))
        return needed

    def _last_of(self, asset: dg.AssetKey, partitions: set[str]) -> set[str]:
        """Returns the runs of the last events of some partitions of an asset."""
        found: set[str] = set()
        for kind in _KINDS if partitions else ():
            events = self._instance.get_latest_storage_id_by_partition(asset, kind, partitions).values()
            records = self._instance.get_asset_event_summary_records(kind, asset, storage_ids=list(events))
            found.update(record.run_id for record in records if record.run_id)
        return found

    def _of_backfills_on_their_way(self, runs: Sequence[str]) -> set[str]:
        """Returns those of the runs by which a backfill sees how far it is."""
        statuses = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
        backfills = self._instance.get_backfills(BulkActionsFilter(statuses=statuses))
        going_on = {backfill.backfill_id for backfill in backfills}
        if not going_on:
            return set()
        found = self._instance.get_runs(dg.RunsFilter(run_ids=runs))
        return {run.run_id for run in found if run.tags.get(BACKFILL_ID_TAG) in going_on}
