"""The sensor that notifies somebody of incidents, and what Dagster knows of them that the tables do not say."""

import datetime
from collections.abc import Collection, Iterator, Mapping
from typing import cast

import dagster as dg

from batch_assets.alerting.alerts import alert
from batch_assets.alerting.incidents import CheckOfHour
from batch_assets.alerting.receivers import receivers
from batch_assets.hours import Hour, hour_of_key, utc_now
from batch_assets.orchestration.automation import jobs_that_score
from batch_assets.orchestration.dagster_internals import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
    PartitionKeyFilter,
)
from batch_assets.orchestration.names import CANARY, asset_keys
from batch_assets.orchestration.run_history import RunHistory
from batch_assets.pipeline import Declaration
from batch_assets.reporting.verdicts import (
    ANSWERS_ARE_FINITE,
    FAILED_SHARE_IS_WITHIN_LIMIT,
    ITEMS_ADD_UP,
    PREDICTIONS_STEM_FROM_CURRENT_MODEL,
)
from batch_assets.retrying.decision import EndedRun
from batch_assets.settings.alerts import AlertSettings
from batch_assets.settings.user_interface import summaries_url, ui_url

# What is pending is retried, or told of as an hour that failed; drift is told of by feature.
_CHECKS = (ITEMS_ADD_UP, FAILED_SHARE_IS_WITHIN_LIMIT, ANSWERS_ARE_FINITE, PREDICTIONS_STEM_FROM_CURRENT_MODEL)
_RECORDS_AT_ONCE = 100


def build_alerts(declaration: Declaration) -> dg.SensorDefinition:
    """Returns the sensor that notifies somebody of the incidents of a pipeline."""

    @dg.sensor(
        name=declaration.prefixed("alerts"),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Hours that failed and are not retried, checks that failed, drift, and a deadline that was missed.

        Whoever BATCH_ALERT_URLS names is notified once when it is there, and once when it is over. Without that
        it does nothing.
        """
        variables = declaration.variables()
        settings = AlertSettings.from_environment(variables)
        if not settings.addresses:
            return dg.SkipReason("BATCH_ALERT_URLS is not set: nobody is notified of incidents.")
        # Which every tick has.
        repository = cast("dg.RepositoryDefinition", context.repository_def)
        now = utc_now()
        history = _History(context.instance, declaration, jobs_that_score(repository, declaration), now)
        address, declared = ui_url(variables), None if declaration.is_of_environment else declaration.name
        link_of = (lambda hour: summaries_url(address, declared, hour.key)) if address else None
        return dg.SkipReason(alert(declaration.load(), history, receivers(settings), link_of, now))

    return alerts


class _History:
    """What Dagster knows of the hours of a pipeline: see `History`.

    Args:
        instance: Where the runs are.
        declaration: The pipeline.
        jobs: The jobs whose runs can be for it.
        now: The present, in UTC without a zone.
    """

    def __init__(
        self, instance: dg.DagsterInstance, declaration: Declaration, jobs: Collection[str], now: datetime.datetime
    ) -> None:
        self._instance, self._storage = instance, instance.event_log_storage
        self._runs = RunHistory(instance, declaration)
        self._asset = asset_keys(declaration).run_summary
        self._jobs, self._now = jobs, now
        self._canary = declaration.prefixed(CANARY)

    def busy_hours(self) -> Collection[Hour]:
        return self._runs.busy_hours(self._now)

    def last_runs(self, since: datetime.datetime, hours: Collection[Hour]) -> Mapping[Hour, EndedRun]:
        wanted = self._runs.hours_of_failed_runs(since) | set(hours)
        ended = self._runs.last_runs(wanted, self._jobs)
        last = {hour: runs.proper or runs.mistaken for hour, runs in ended.items()}
        return {hour: run for hour, run in last.items() if run}

    def last_canary(self, since: datetime.datetime) -> EndedRun | None:
        return self._runs.last_run_of(self._canary, since)

    def checks(self, since: datetime.datetime, subjects: Collection[str]) -> Iterator[CheckOfHour]:
        for name in _CHECKS:
            key = dg.AssetCheckKey(self._asset, name)
            recorded = {subject.removesuffix(f" {name}") for subject in subjects if subject.endswith(f" {name}")}
            for partition in sorted(recorded | set(self._failed_since(key, since))):
                hour = hour_of_key(partition)
                last = self._storage.get_asset_check_execution_history(
                    key, limit=1, partition_filter=PartitionKeyFilter(key=partition)
                )
                if hour and last:
                    yield self._check_of(hour, name, last[0])

    def _failed_since(self, key: dg.AssetCheckKey, since: datetime.datetime) -> Iterator[str]:
        """Yields the partitions that a check has found wrong, whatever it has found since."""
        cursor, earliest = None, since.replace(tzinfo=datetime.UTC).timestamp()
        while True:
            records = self._storage.get_asset_check_execution_history(
                key, _RECORDS_AT_ONCE, cursor, {AssetCheckExecutionRecordStatus.FAILED}
            )
            for record in records:
                if record.create_timestamp < earliest:
                    return
                if record.partition:
                    yield record.partition
            if len(records) < _RECORDS_AT_ONCE:
                return
            cursor = records[-1].id

    def _check_of(self, hour: Hour, name: str, record: AssetCheckExecutionRecord) -> CheckOfHour:
        passed = {AssetCheckExecutionRecordStatus.SUCCEEDED: True, AssetCheckExecutionRecordStatus.FAILED: False}
        holds = passed.get(record.status)
        if name == FAILED_SHARE_IS_WITHIN_LIMIT and holds is False:
            # A run that goes over the limit fails: it is retried, or is an incident of its own a minute later.
            run = self._instance.get_run_by_id(record.run_id)
            holds = None if run and run.is_failure_or_canceled else False
        evaluation = record.evaluation
        description = evaluation.description if isinstance(evaluation, dg.AssetCheckEvaluation) else None
        return CheckOfHour(name, hour, holds, description or "see there why")
