"""Runs as pods: dagster.yaml of deploy/k8s with a real webserver, daemon, code server and database, and a stand-in of
the Kubernetes API that does with a Job what a cluster does.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from inspect import getsource
from pathlib import Path
from typing import Any

import dagster_k8s.launcher
import grpc
import kubernetes
import numpy as np
import pymysql
import pytest
from dagster_k8s.client import DagsterKubernetesClient
from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job
from grpc_health.v1 import health_pb2, health_pb2_grpc

from batch_assets.database.schema.migrations import VERSION_TABLE
from batch_assets_tests.support.cluster import Cluster, running_cluster
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.instance import RunningInstance, running_instance, running_process
from batch_assets_tests.support.manifests import FOLDER, Manifest, built, container, copied, of_kind, rights, weaknesses
from batch_assets_tests.support.pipeline import (
    GOOD,
    Counts,
    assert_hour_adds_up,
    insert_items,
    predictions_of,
    wait_for_the_first_prediction,
)
from batch_assets_tests.support.programs import find_program
from batch_assets_tests.support.runs import RUNS, TERMINATE, backfilled, launched, of_hour
from batch_assets_tests.support.servers import Rows, Server, free_port, run_to_end

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200), pytest.mark.xdist_group("kubernetes")]

NAMESPACE = "batch-assets"
HOURS = [f"2026-11-01-{hour:02}:00" for hour in range(5, 11)]
PROCESSES = ("webserver", "daemon")
# Slowly enough to be interrupted.
ROWS_PER_SECOND = "20000"
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
SCHEDULES = """{
  repositoriesOrError { ... on RepositoryConnection { nodes { schedules { scheduleState { id } } } } }
}"""
STOP_SCHEDULE = """mutation Stop($id: String!) {
  stopRunningSchedule(id: $id) {
    ... on ScheduleStateResult { scheduleState { status } }
    ... on UnauthorizedError { message }
    ... on PythonError { message }
  }
}"""
DELETE_RUN = "mutation Delete($run: String!) { deleteRun(runId: $run) { __typename } }"


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    return built(copied(tmp_path_factory.mktemp("manifests"), "not-in-git") / "overlays" / "small")


@pytest.fixture(scope="module")
def database(server: Server) -> Iterator[str]:
    """The database of the items."""
    with server.database() as name:
        yield name


@pytest.fixture
def sql(server: Server, database: str) -> Sql:
    def execute(statement: str, *parameters: object) -> Rows:
        return server.execute(statement, *parameters, database=database)

    return execute


@pytest.fixture(scope="module")
def accounts(database: str, server: Server) -> Iterator[dict[str, dict[str, str]]]:
    """Dagster's database and the accounts, as MySQL's image makes them at its first start; by role."""
    of_role = {
        role: {"MYSQL_USER": f"{role}_{secrets.token_hex(4)}", "MYSQL_PASSWORD": secrets.token_hex(8) + "'\\\"$x`"}
        for role in ("batch", "api", "migrations")
    }
    environment = {"MYSQL_DATABASE": database, "MYSQL_DAGSTER_DATABASE": f"{database}_dagster"}
    for role, account in of_role.items():
        environment |= {name.replace("MYSQL", role.upper()): value for name, value in account.items()}
    # What the image would hand to the server, which here is this one.
    script = f"docker_process_sql() {{ cat; }}; source {FOLDER / 'mysql' / 'accounts.sh'}"
    statements = run_to_end([find_program("bash", "install bash"), "-euc", script], env=environment)
    try:
        for statement in statements.strip().split(";\n"):
            server.execute(statement.rstrip(";"))
        yield of_role
    finally:
        for account in of_role.values():
            server.execute(f"DROP USER IF EXISTS '{account['MYSQL_USER']}'")
        server.execute(f"DROP DATABASE IF EXISTS {environment['MYSQL_DAGSTER_DATABASE']}")


@pytest.fixture(scope="module")
def shared_cluster(
    database: str,
    server: Server,
    accounts: dict[str, dict[str, str]],
    manifests: list[Manifest],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    """A cluster with what the manifests make, but for the addresses."""
    folder = tmp_path_factory.mktemp("cluster")
    addresses = {
        "MYSQL_SERVER": server.host,
        "MYSQL_PORT": str(server.port),
        "MYSQL_DATABASE": database,
        "MYSQL_DAGSTER_DATABASE": f"{database}_dagster",
        # Not every server of the tests has a certificate.
        "MYSQL_SSL_MODE": "PREFERRED",
        "DAGSTER_HOME": str(tmp_path_factory.mktemp("dagster")),
        "HOME": str(folder),
        "CODE_SERVER_HOST": "127.0.0.1",
        "CODE_SERVER_PORT": str(free_port()),
        # Without the sensor, which would help too.
        "BATCH_RETRY": "leave",
        "BATCH_MAX_ROWS_PER_SECOND": ROWS_PER_SECOND,
    }
    config_maps = {name: found["data"] for name, found in of_kind(manifests, "ConfigMap").items()}
    service_accounts = set(of_kind(manifests, "ServiceAccount"))
    cluster = Cluster(
        NAMESPACE,
        {name: rights(manifests, name) for name in service_accounts},
        config_maps | {"batch-assets": config_maps["batch-assets"] | addresses},
        {f"database-{role}": account for role, account in accounts.items()},
        service_accounts,
        folder,
    )
    with running_cluster(cluster):
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with no Job in it, and nothing that was asked or refused."""
    yield shared_cluster
    shared_cluster.forget()
    shared_cluster.config_maps["batch-assets"]["BATCH_MAX_ROWS_PER_SECOND"] = ROWS_PER_SECOND


@pytest.fixture(scope="module")
def shared_installation(
    shared_cluster: Cluster, manifests: list[Manifest], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningInstance]:
    """Webserver, daemon and code server as the manifests have them."""
    settings = shared_cluster.config_maps["batch-assets"]
    folder = tmp_path_factory.mktemp("installed")
    files = {name: folder / name for name in ("dagster.yaml", "workspace.yaml")}
    for name, file in files.items():
        text = shared_cluster.config_maps["dagster"][name]
        # Where the API is, a pod knows from files that only a cluster makes: here it is a file of its own.
        in_cluster = "load_incluster_config: true"
        assert text.count(in_cluster) == (name == "dagster.yaml")
        file.write_text(text.replace(in_cluster, "load_incluster_config: false"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, **settings, **shared_cluster.secrets["database-batch"], "PATH": path}
    home = Path(settings["DAGSTER_HOME"])
    shutil.copy(files["dagster.yaml"], home)
    run_to_end(
        container(manifests, "migrations")["args"], env=environment | shared_cluster.secrets["database-migrations"]
    )
    with contextlib.ExitStack() as stack:
        code_server = container(manifests, "code-server")
        own = {variable["name"]: variable["value"] for variable in code_server["env"]}
        ports = {"0.0.0.0": "127.0.0.1", "4000": settings["CODE_SERVER_PORT"]}
        command = [ports.get(argument, argument) for argument in code_server["args"]]
        log = folder / "code-server.log"
        stack.enter_context(running_process(command, environment | own, log))
        _await_answer(int(settings["CODE_SERVER_PORT"]), code_server["startupProbe"]["grpc"]["service"], log)
        instance = stack.enter_context(
            running_instance(
                home,
                files["dagster.yaml"],
                environment | {"KUBERNETES_NAMESPACE": NAMESPACE},
                str(files["workspace.yaml"]),
                # Only they may ask the API for something: a run or the code server that tried would fail.
                {name: {"KUBECONFIG": str(shared_cluster.kubeconfig(name))} for name in PROCESSES},
            )
        )
        # At its minute a schedule would add a run to those that a test looks at.
        (repository,) = instance.query(SCHEDULES)["repositoriesOrError"]["nodes"]
        for schedule in repository["schedules"]:
            stopped = instance.query(STOP_SCHEDULE, id=schedule["scheduleState"]["id"])["stopRunningSchedule"]
            assert stopped["scheduleState"]["status"] == "STOPPED", stopped
        yield instance


@pytest.fixture
def installation(shared_installation: RunningInstance, cluster: Cluster, sql: Sql) -> Iterator[RunningInstance]:
    """The installation without a run and without an item; it takes longer to start than most tests of it."""
    yield shared_installation
    for pod in cluster.pods.values():
        if pod.active:
            pod.kill()
    shared_installation.wait(RUNS, lambda answer: all(run["status"] in ENDED for run in of_all(answer)), seconds=180)
    for run in of_all(shared_installation.query(RUNS)):
        deleted = shared_installation.query(DELETE_RUN, run=run["runId"])["deleteRun"]
        assert deleted["__typename"] == "DeletePipelineRunSuccess", deleted
    for (table,) in sql("SHOW TABLES"):
        if table != VERSION_TABLE:
            sql(f"DELETE FROM {table}")


def _await_answer(port: int, service: str, log: Path) -> None:
    """Waits until a code server answers what the probes of its pod ask."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        question = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(question, timeout=90, wait_for_ready=True)
        except grpc.RpcError as error:
            raise TimeoutError(log.read_text()) from error
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def start_of(hour: str) -> str:
    return f"{hour[:10]} {hour[11:]}:00"


def end_of(hour: str) -> str:
    return f"{hour[:10]} {int(hour[11:13]) + 1:02}:00:00"


def of_all(answer: dict[str, Any]) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = answer["runsOrError"]["results"]
    return runs


def job_of(run: str) -> str:
    return f"dagster-run-{run}"


def posted(cluster: Cluster, runs: list[str]) -> list[Manifest]:
    """The Jobs of some runs, in that order."""
    jobs = {job["metadata"]["name"]: job for job in cluster.posted}
    return [jobs[job_of(run)] for run in runs]


@pytest.mark.slow
def test_a_backfill_of_six_hours_becomes_six_jobs_that_each_score_their_hour(
    installation: RunningInstance, cluster: Cluster, manifests: list[Manifest], sql: Sql
) -> None:
    for number, hour in enumerate(HOURS):
        insert_items(sql, (GOOD * 2)[: number + 1], f"{hour[:10]} {hour[11:13]}:30:00")
    resources = {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "4", "memory": "4Gi"}}
    tags = {"dagster-k8s/config": json.dumps({"container_config": {"resources": resources}})}

    ended = backfilled(installation, HOURS, **tags)
    assert ended["status"] == "COMPLETED_SUCCESS", f"{ended}\n{installation.log()}"
    runs = installation.query(RUNS)
    assert [len(of_hour(runs, hour)) for hour in HOURS] == [1] * 6
    run_of = {hour: of_hour(runs, hour)[0] for hour in HOURS}
    jobs = posted(cluster, [run["runId"] for run in run_of.values()])
    assert len({job["metadata"]["name"] for job in jobs}) == 6
    for number, hour in enumerate(HOURS):
        assert assert_hour_adds_up(sql, start_of(hour), end_of(hour)) == Counts(number + 1, number + 1, 0, 0)
        (summary,) = sql("SELECT items, predicted, run_id FROM run_summary WHERE hour = %s", start_of(hour))
        assert summary == (number + 1, number + 1, run_of[hour]["runId"])

    for job in jobs:
        pod = job["spec"]["template"]["spec"]
        assert list(weaknesses(pod)) == []
        assert pod["containers"][0]["image"] == container(manifests, "code-server")["image"]
        assert pod["containers"][0]["resources"] == resources
        assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("run", False)
        assert job["spec"]["template"]["metadata"]["labels"]["reaches-database"] == "true"
        assert job["spec"]["ttlSecondsAfterFinished"] == 3600
        assert cluster.pod_of(job["metadata"]["name"]).process.wait(60) == 0
    # The small installation has two hours at once, and in no moment three.
    for one in run_of.values():
        at_once = [other for other in run_of.values() if other["startTime"] <= one["startTime"] < other["endTime"]]
        assert len(at_once) <= 2
    told = str(cluster.posted) + "".join(
        file.read_text() for file in (*installation.logs, *cluster.folder.glob("*.log"))
    )
    for secret in cluster.secrets.values():
        # Its beginning: what follows is written differently in different places.
        assert secret["MYSQL_PASSWORD"][:16] not in told
    assert cluster.refused == []

    # Who may start runs may not choose what they are.
    evil = {"dagster-k8s/config": json.dumps({"container_config": {"image": "evil"}})}
    run = launched(installation, HOURS[0], **evil)
    installation.wait(RUNS, lambda answer: "FAILURE" in str(of_hour(answer, HOURS[0])), seconds=180)
    assert job_of(run) not in {job["metadata"]["name"] for job in cluster.posted}


@pytest.mark.slow
def test_a_run_whose_pod_is_killed_or_moved_or_lost_with_its_job_is_started_again(
    installation: RunningInstance, cluster: Cluster, sql: Sql, many_items: tuple[list[str], "np.ndarray"]
) -> None:
    texts, probabilities = many_items
    fates = {
        "2026-11-02-05:00": lambda job: cluster.pod_of(job).kill(),
        "2026-11-02-06:00": cluster.evict,
        "2026-11-02-07:00": cluster.lose,
    }
    for hour, fate in fates.items():
        start, end = start_of(hour), end_of(hour)
        insert_items(sql, texts, f"{hour[:10]} {hour[11:13]}:30:00")
        first = launched(installation, hour)
        wait_for_the_first_prediction(sql, start)
        fate(job_of(first))
        assert 0 < assert_hour_adds_up(sql, start, end).predicted < len(texts)
        within = "created_datetime >= %s AND created_datetime < %s AND prediction IS NOT NULL"
        done: dict[int, object] = dict(sql(f"SELECT id, updated_datetime FROM items WHERE {within}", start, end))

        answer = installation.wait(RUNS, lambda answer, hour=hour: "SUCCESS" in str(of_hour(answer, hour)), seconds=180)
        assert {run["runId"]: run["status"] for run in of_hour(answer, hour)}[first] == "FAILURE"
        (again,) = [run for run in of_hour(answer, hour) if run["runId"] != first]
        assert again["parentRunId"] == first
        assert len(posted(cluster, [first, again["runId"]])) == 2
        assert assert_hour_adds_up(sql, start, end) == Counts(len(texts), len(texts), 0, 0)
        found = list(predictions_of(sql, start, end).values())
        assert np.allclose(np.array(found), probabilities, atol=1e-5)
        # What the first one had scored, the second one has left alone.
        assert done.items() <= dict(sql(f"SELECT id, updated_datetime FROM items WHERE {within}", start, end)).items()
        summary = sql("SELECT items, predicted, pending FROM run_summary WHERE hour = %s", start)
        assert summary == [(len(texts), len(texts), 0)]
    assert cluster.refused == []


@pytest.mark.slow
def test_a_run_whose_pod_lives_while_kubernetes_cannot_be_asked_is_waited_for_by_the_one_in_its_place(
    installation: RunningInstance,
    server: Server,
    cluster: Cluster,
    sql: Sql,
    many_items: tuple[list[str], "np.ndarray"],
) -> None:
    texts, probabilities = many_items
    last = insert_items(sql, texts)[-1]
    settings = cluster.config_maps["batch-assets"]
    settings["BATCH_MAX_ROWS_PER_SECOND"] = "1500"
    # However long the daemon takes to launch another run, the first one waits for its last item.
    with pymysql.connect(
        host=server.host, port=server.port, user=server.user, password=server.password,
        database=settings["MYSQL_DATABASE"],
    ) as connection:  # fmt: skip
        connection.cursor().execute("SELECT id FROM items WHERE id = %s FOR UPDATE", [last])
        first = launched(installation)
        wait_for_the_first_prediction(sql)
        settings["BATCH_MAX_ROWS_PER_SECOND"] = ROWS_PER_SECOND
        cluster.away = True
        installation.wait(RUNS, lambda answer: "FAILURE" in str(of_hour(answer)), seconds=180)
        cluster.away = False
        pod = cluster.pod_of(job_of(first))
        answer = installation.wait(RUNS, lambda answer: len(of_hour(answer)) == 2, seconds=180)
        (again,) = [run["runId"] for run in of_hour(answer) if run["runId"] != first]
        assert pod.active

    def done(answer: Any) -> bool:
        statuses: dict[str, str] = {run["runId"]: run["status"] for run in of_hour(answer)}
        return statuses[again] == "SUCCESS"

    installation.wait(RUNS, done, seconds=180)
    assert pod.process.wait(60) == 0
    assert assert_hour_adds_up(sql) == Counts(len(texts), len(texts), 0, 0)
    assert np.allclose(np.array(list(predictions_of(sql).values())), probabilities, atol=1e-5)
    # The one in its place found nothing to do.
    assert sql("SELECT run_id FROM run_summary WHERE items > 0") == [(first,)]


@pytest.mark.slow
def test_who_ends_a_run_in_the_ui_ends_its_pod(
    installation: RunningInstance,
    cluster: Cluster,
    manifests: list[Manifest],
    sql: Sql,
    many_items: tuple[list[str], object],
) -> None:
    texts, _ = many_items
    insert_items(sql, texts * 2)
    run = launched(installation)
    wait_for_the_first_prediction(sql)
    pod = cluster.pod_of(job_of(run))
    assert installation.query(TERMINATE, run=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"
    answer = installation.wait(RUNS, lambda answer: "CANCELED" in str(of_hour(answer)), seconds=180)
    assert [(found["runId"], found["status"]) for found in of_hour(answer)] == [(run, "CANCELED")]
    pod.process.wait(60)
    assert job_of(run) not in cluster.jobs
    assert pod not in cluster.pods.values()
    assert sql("SELECT COUNT(*) FROM hour_locks") == [(0,)]
    assert 0 < assert_hour_adds_up(sql).pending < 2 * len(texts)
    # It may do what that took, and nothing else.
    assert cluster.asked["webserver"] == rights(manifests, "webserver")
    assert cluster.refused == []


def test_the_probes_of_a_healthy_installation_are_content(
    installation: RunningInstance, cluster: Cluster, manifests: list[Manifest]
) -> None:
    probe = container(manifests, "webserver")["readinessProbe"]["httpGet"]
    with urllib.request.urlopen(f"{installation.url}{probe['path']}", timeout=30) as answer:
        assert answer.status == 200
    environment = {**os.environ, **cluster.config_maps["batch-assets"], **cluster.secrets["database-batch"]}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    command = container(manifests, "daemon")["livenessProbe"]["exec"]["command"]
    end = time.monotonic() + 90
    while True:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode == 0:
            break
        assert time.monotonic() < end, done.stdout + done.stderr + installation.log()


def test_the_daemon_may_do_what_the_launcher_asks_for_and_nothing_else(
    cluster: Cluster, manifests: list[Manifest]
) -> None:
    calls = set(re.findall(r"_api_client\.(\w+)\(", getsource(dagster_k8s.launcher)))
    kubernetes.config.load_kube_config(config_file=str(cluster.kubeconfig("daemon")))
    client = DagsterKubernetesClient.production_client()  # type: ignore[no-untyped-call]  # Dagster's
    config = DagsterK8sJobConfig(job_image="image", service_account_name="run")
    client.create_namespaced_job_with_retries(construct_dagster_k8s_job(config, ["true"], "a-job"), NAMESPACE)
    assert client.get_job_status("a-job", NAMESPACE).failed is None
    (pod,) = client.get_pod_names_in_job("a-job", NAMESPACE)
    assert "No warning events" in client.get_pod_debug_info(pod, NAMESPACE)
    assert "Job status" in client.get_job_debug_info("a-job", NAMESPACE)
    assert client.delete_job("a-job", NAMESPACE)
    assert calls == {
        "create_namespaced_job_with_retries",
        "delete_job",
        "get_job_debug_info",
        "get_job_status",
        "get_pod_debug_info",
        "get_pod_names_in_job",
    }
    assert cluster.asked["daemon"] == rights(manifests, "daemon")
    assert cluster.refused == []


@pytest.mark.parametrize(
    ("account", "field"), [("run", None), ("daemon", "sellector")], ids=["a right that is missing", "a field too many"]
)
def test_the_stand_in_refuses_what_a_cluster_refuses(cluster: Cluster, account: str, field: str | None) -> None:
    config = DagsterK8sJobConfig(job_image="image", service_account_name="run")
    job = kubernetes.client.ApiClient().sanitize_for_serialization(construct_dagster_k8s_job(config, ["true"], "a-job"))
    if field:
        job["spec"][field] = {}
    kubernetes.config.load_kube_config(config_file=str(cluster.kubeconfig(account)))
    with pytest.raises(kubernetes.client.ApiException) as refusal:
        kubernetes.client.BatchV1Api().create_namespaced_job(NAMESPACE, job)
    assert refusal.value.status == (422 if field else 403)
    assert not cluster.jobs
