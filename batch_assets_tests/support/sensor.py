"""Ticks of the sensor `retry_hours`, and runs for it to find on a Dagster instance."""

import datetime
from collections.abc import Sequence

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test, freeze_time

from batch_assets.definitions import defs
from batch_assets.orchestration import automation
from batch_assets_tests.support.pipeline import HOUR

MINUTE = datetime.timedelta(minutes=1)
_EVENTS = {
    dg.DagsterRunStatus.SUCCESS: dg.DagsterEventType.RUN_SUCCESS,
    dg.DagsterRunStatus.FAILURE: dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterRunStatus.CANCELED: dg.DagsterEventType.RUN_CANCELED,
}


class Tick:
    """What a tick of the sensor came to, in a project that may have more than the pipeline."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        later: datetime.timedelta = datetime.timedelta(),
        project: dg.Definitions = defs,
        cursor: str | None = None,
    ) -> None:
        repository = project.get_repository_def()
        context = dg.build_sensor_context(instance=instance, repository_def=repository, cursor=cursor)
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + later
        with pytest.MonkeyPatch.context() as patch, freeze_time(now.replace(tzinfo=datetime.UTC)):
            patch.setattr(automation, "utc_now", lambda: now)
            data = repository.get_sensor_def("retry_hours").evaluate_tick(context)
        self.requests = data.run_requests or []
        self.said = data.skip_message
        self.cursor = data.cursor
        self.recorded = [event for event in data.asset_events if isinstance(event, dg.AssetCheckEvaluation)]

    @property
    def hours(self) -> list[str | None]:
        return [request.partition_key for request in self.requests]


def run_of_hour(
    instance: dg.DagsterInstance,
    status: dg.DagsterRunStatus,
    *,
    job_name: str = "batch_inference",
    assets: Sequence[dg.AssetKey] = (),
    **tags: str,
) -> str:
    """A run of an hour, as Dagster remembers it: one that has ended was started before."""
    named = {name.replace("__", "/"): value for name, value in tags.items()}
    selection = frozenset(assets) or None
    tags_of_hour = {} if "dagster/asset_partition_range_start" in named else {"dagster/partition": HOUR}
    before = dg.DagsterRunStatus.NOT_STARTED if status in _EVENTS else status
    run = create_run_for_test(instance, job_name, status=before, tags=tags_of_hour | named, asset_selection=selection)
    if status in _EVENTS:
        for kind in (dg.DagsterEventType.RUN_START, _EVENTS[status]):
            instance.report_dagster_event(dg.DagsterEvent(kind.value, job_name), run.run_id)
    return str(run.run_id)


def over(first: str, last: str) -> dict[str, str]:
    """The tags of a run over a range of hours."""
    return {"dagster__asset_partition_range_start": first, "dagster__asset_partition_range_end": last}
