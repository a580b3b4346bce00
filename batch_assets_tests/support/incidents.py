"""Ticks of the sensor `alerts`, and incidents for it to find."""

import datetime
import json

import dagster as dg
import pytest

from batch_assets.definitions import defs
from batch_assets.orchestration import alerts
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.pipeline import START


class AlertTick:
    """What a tick of the sensor came to.

    Args:
        instance: The instance.
        now: The present, in UTC without a zone; None for that of the clock.
        project: Where the sensor is.
        name: What it is called.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        now: datetime.datetime | None = None,
        project: dg.Definitions = defs,
        name: str = "alerts",
    ) -> None:
        repository = project.get_repository_def()
        context = dg.build_sensor_context(instance=instance, repository_def=repository)
        with pytest.MonkeyPatch.context() as patch:
            if now:
                patch.setattr(alerts, "utc_now", lambda: now)
            data = repository.get_sensor_def(name).evaluate_tick(context)
        assert not data.run_requests
        self.said = data.skip_message


def give_up(sql: Sql, hour: str = START, because: str = "its run was canceled", pipeline: str = "items") -> None:
    """An hour that the sensor requests no more."""
    sql(
        "INSERT INTO hour_requests (pipeline, hour, requests, reason, left_over, requested_at, given_up_at,"
        " given_up_because) VALUES (%s, %s, 3, 'failed run', '', %s, %s, %s)",
        *(pipeline, hour, hour, hour, because),
    )


def judge(sql: Sql, hour: str, **verdicts: str) -> None:
    """An hour whose features were judged so, in the place of what was said of it."""
    sql("DELETE FROM hour_profiles WHERE hour = %s", hour)
    judged = [
        {"name": name, "verdict": verdict.replace("_", " "), "reason": "against the baseline", "psi": 0.5}
        for name, verdict in verdicts.items()
    ]
    sql(
        "INSERT INTO hour_profiles (pipeline, hour, model_version, baseline_made_at, sampled, alarms, judgements,"
        " measures, label_counts, sketches) VALUES ('items', %s, 'v', %s, 500, %s, %s, '{}', '{}', '{}')",
        *(hour, hour, list(verdicts.values()).count("alarm"), json.dumps({"features": judged, "labels": []})),
    )
