"""What Dagster is shown: the graph, the job, the schedule; and what loading it costs."""

import datetime
import json
import subprocess
import sys

import dagster as dg
import pytest

from batch_assets.definitions import defs

GRAPH = {
    "iris_model": {"group": "model", "partitions": None, "needs": [], "checks": []},
    "raw_items": {"group": "batch_inference", "partitions": "hourly", "needs": [], "checks": []},
    "predictions": {
        "group": "batch_inference",
        "partitions": "hourly",
        "needs": ["iris_model", "raw_items"],
        "checks": [],
    },
    "hour_quality": {
        "group": "batch_inference",
        "partitions": "hourly",
        "needs": ["predictions"],
        "checks": [],
    },
    "run_summary": {
        "group": "batch_inference",
        "partitions": "hourly",
        "needs": ["predictions"],
        "checks": [
            "answers_are_finite",
            "failed_share_is_within_limit",
            "inputs_are_as_in_training",
            "items_add_up",
            "items_are_as_many_as_usual",
            "labels_are_as_usual",
            "newest_hour_was_scored_in_time",
            "no_failed_items",
            "no_pending_items",
            "nothing_is_pending",
            "predictions_stem_from_current_model",
        ],
    },
}


def test_the_asset_graph_is_as_it_was() -> None:
    graph = defs.resolve_asset_graph()
    seen = {
        node.key.to_user_string(): {
            "group": node.group_name,
            "partitions": "hourly" if isinstance(node.partitions_def, dg.HourlyPartitionsDefinition) else None,
            "needs": sorted(key.to_user_string() for key in node.parent_keys),
            "checks": sorted(key.name for key in graph.asset_check_keys if key.asset_key == node.key),
        }
        for node in graph.asset_nodes
    }
    assert seen == GRAPH


def test_the_definitions_can_be_run() -> None:
    dg.Definitions.validate_loadable(defs)


def test_every_asset_says_what_it_is_for() -> None:
    graph = defs.resolve_asset_graph()
    assert all(len(node.description or "") > 40 for node in graph.asset_nodes)


def test_the_job_is_made_of_the_three_hourly_assets() -> None:
    job = defs.resolve_job_def("batch_inference")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {
        "raw_items",
        "predictions",
        "run_summary",
    }
    assert job.executor_def is dg.in_process_executor


@pytest.mark.usefixtures("tables")
def test_the_schedule_asks_for_the_hour_that_has_just_closed() -> None:
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime.datetime(2026, 11, 1, 6, 19, tzinfo=datetime.UTC),
        repository_def=defs.get_repository_def(),
    )
    schedule = defs.get_repository_def().get_schedule_def("hourly_batch_inference")
    requests = schedule.evaluate_tick(context).run_requests
    assert [request.partition_key for request in requests or []] == ["2026-11-01-05:00"]


def test_the_schedule_is_on_by_default_at_minute_19() -> None:
    schedule = defs.get_repository_def().get_schedule_def("hourly_batch_inference")
    assert (schedule.cron_schedule, schedule.default_status) == ("19 * * * *", dg.DefaultScheduleStatus.RUNNING)


def test_the_sensors_are_on_by_default_and_look_every_minute() -> None:
    for name in ("retry_hours", "alerts"):
        sensor = defs.get_repository_def().get_sensor_def(name)
        assert (sensor.minimum_interval_seconds, sensor.default_status) == (60, dg.DefaultSensorStatus.RUNNING)


def test_loading_the_definitions_loads_no_heavy_library() -> None:
    heavy = ["sklearn", "skl2onnx", "pandas", "onnx", "onnxruntime", "scipy", "alembic.command", "apprise"]
    code = f"import json, sys, batch_assets.definitions; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == []


def test_what_lies_downstairs_loads_no_dagster() -> None:
    code = (
        "import json, pkgutil, importlib, sys\n"
        "import batch_assets.database, batch_assets.inference, batch_assets.reporting, batch_assets.scoring.hourly\n"
        "for package in (batch_assets.database, batch_assets.inference, batch_assets.reporting):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "print(json.dumps('dagster' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) is False


def test_the_first_hour_is_set_by_the_environment() -> None:
    code = (
        "from batch_assets.definitions import defs; "
        "hours = defs.resolve_assets_def('predictions').partitions_def; print(hours.get_first_partition_key())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"BATCH_FIRST_HOUR": "2025-03-30-01:00"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == "2025-03-30-01:00"


def test_a_first_hour_that_is_none_is_refused_by_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import batch_assets.definitions"],
        env={"BATCH_FIRST_HOUR": "yesterday"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    assert "BATCH_FIRST_HOUR is 'yesterday': write an hour of UTC as 2026-11-01-05:00." in done.stderr
