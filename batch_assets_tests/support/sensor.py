"""Ticks of the sensor in this process."""

import datetime

import dagster as dg
import pytest

from batch_assets.definitions import defs
from batch_assets.orchestration import automation


class Tick:
    """What a tick of the sensor came to."""

    def __init__(self, instance: dg.DagsterInstance, later: datetime.timedelta = datetime.timedelta()) -> None:
        repository = defs.get_repository_def()
        context = dg.build_sensor_context(instance=instance, repository_def=repository)
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + later
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(automation, "utc_now", lambda: now)
            data = repository.get_sensor_def("retry_hours").evaluate_tick(context)
        self.requests = data.run_requests or []
        self.said = data.skip_message

    @property
    def hours(self) -> list[str | None]:
        return [request.partition_key for request in self.requests]
