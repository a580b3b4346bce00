"""A stand-in of the Kubernetes API.

It stands for a cluster, which cannot be had here: a HTTP server on loopback that answers what dagster-k8s asks through
the real client, keeps Jobs and their pods, and runs exactly the command of a Job's container, with the environment
that the container has there, as a process of this machine. It is as strict as a cluster: a Job must fit the schemas of
the Kubernetes versions in support, what it refers to must exist, and an account may do what its Role says and nothing
else. It knows no images, volumes or limits: the "image" is this Python and this checkout.
"""

import contextlib
import datetime
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from batch_assets_tests.support.instance import ROOT
from batch_assets_tests.support.manifests import Manifest, faults

# What a pod is given to end by itself, in which Dagster says what happened.
GRACE_SECONDS = 30
_PATH = re.compile(
    r"/(?:api/v1|apis/batch/v1)/namespaces/(?P<namespace>[\w-]+)/(?P<kind>jobs|pods|events)"
    r"(?:/(?P<name>[\w.-]+)(?:/(?P<part>status|log))?)?"
)
_VERBS = {"POST": "create", "DELETE": "delete", "GET": "get"}


@dataclass
class Pod:
    """A pod and the process that its container is."""

    job: str
    manifest: Manifest
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def active(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """Ends it as a cluster does that is out of memory."""
        _signal(self.process, signal.SIGKILL)
        self.process.wait(GRACE_SECONDS)

    def end(self) -> None:
        """Ends it as a cluster does that wants its node back."""
        _signal(self.process, signal.SIGTERM)
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def described(self) -> Manifest:
        """Returns the pod as the API shows it."""
        container = self.manifest["spec"]["containers"][0]
        code = self.process.poll()
        phase = "Running" if code is None else "Succeeded" if code == 0 else "Failed"
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code % 256, "reason": "Ended"}}
        status = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": self.active,
            "restartCount": 0,
            "state": state,
        }
        return {**self.manifest, "status": {"phase": phase, "containerStatuses": [status]}}


@dataclass
class Cluster:
    """What there is in the cluster.

    Args:
        namespace: The one that there is.
        rights: What each service account may do: verbs with the resources.
        config_maps: Their data, by name.
        secrets: Theirs.
        service_accounts: The names of those that there are.
        folder: Gets what the pods print.
    """

    namespace: str
    rights: Mapping[str, set[tuple[str, str]]]
    config_maps: Mapping[str, dict[str, str]]
    secrets: Mapping[str, dict[str, str]]
    service_accounts: set[str]
    folder: Path
    url: str = ""
    # Every Job that was ever made, as it was posted; also those that are gone.
    posted: list[Manifest] = field(default_factory=list)
    jobs: dict[str, Manifest] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    # Whether connections are dropped without an answer.
    away: bool = False
    asked: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    lock: threading.RLock = field(default_factory=threading.RLock)

    def kubeconfig(self, account: str) -> Path:
        """Returns a file with which a client is that service account."""
        named = {"name": "stand-in"}
        context = {"cluster": "stand-in", "user": "stand-in", "namespace": self.namespace}
        file = self.folder / f"{account}.kubeconfig"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stand-in",
            "clusters": [{**named, "cluster": {"server": self.url}}],
            "users": [{**named, "user": {"token": account}}],
            "contexts": [{**named, "context": context}],
        }
        file.write_text(json.dumps(content))
        return file

    def pod_of(self, job: str) -> Pod:
        """Returns the pod of a Job."""
        (pod,) = [pod for pod in self.pods.values() if pod.job == job]
        return pod

    def evict(self, job: str) -> None:
        """Takes the pod of a Job from its node, as when the node is drained."""
        pod = self.pod_of(job)
        pod.end()
        with self.lock:
            del self.pods[pod.manifest["metadata"]["name"]]

    def lose(self, job: str) -> None:
        """Loses a Job with its pod, as with a node and by a hand that clears up after it."""
        pod = self.pod_of(job)
        pod.kill()
        with self.lock:
            del self.pods[pod.manifest["metadata"]["name"]], self.jobs[job]

    def create(self, job: Manifest) -> Manifest:
        """Makes a Job and its pod, or says what a cluster would have against it."""
        found = [*faults(job), *self._missing(job)]
        if found:
            raise _RefusedError(422, "; ".join(found))
        name = job["metadata"]["name"]
        if name in self.jobs:
            raise _RefusedError(409, f"the Job {name} is there already")
        self.posted.append(job)
        self.jobs[name] = {**job, "metadata": {**job["metadata"], "uid": secrets.token_hex(8)}}
        pod = self._started(job)
        self.pods[pod.manifest["metadata"]["name"]] = pod
        return self.described(name)

    def described(self, name: str) -> Manifest:
        """Returns a Job as the API shows it."""
        job = self.jobs[name]
        pods = [pod for pod in self.pods.values() if pod.job == name]
        status: dict[str, Any] = {"startTime": _now()}
        if any(pod.active for pod in pods):
            status["active"] = 1
        elif any(pod.process.returncode == 0 for pod in pods):
            status |= {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
        else:
            # Whose pod is gone has failed too: it may have no other one.
            status |= {"failed": 1, "conditions": [{"type": "Failed", "status": "True"}]}
        return {**job, "status": status}

    def delete_job(self, name: str) -> Manifest:
        """Deletes a Job and leaves its pod, as a cluster does with one that is not told otherwise."""
        del self.jobs[name]
        return {"kind": "Status", "status": "Success"}

    def delete_pod(self, name: str) -> Manifest:
        """Begins to end a pod, and does not wait for it."""
        pod = self.pods.pop(name)
        threading.Thread(target=pod.end).start()
        return pod.described()

    def log_of(self, pod: str) -> bytes:
        """Returns what a pod has printed."""
        return self.pods[pod].log.read_bytes()

    def forget(self) -> None:
        """Forgets all Jobs and pods, and what was asked: what the next test does is done in an empty cluster."""
        with self.lock:
            self.close()
            for kept in (self.posted, self.jobs, self.pods, self.refused, self.asked):
                kept.clear()
            self.away = False

    def close(self) -> None:
        """Ends what still runs."""
        for pod in self.pods.values():
            if pod.active:
                pod.kill()

    def _missing(self, job: Manifest) -> Iterator[str]:
        """Yields what a Job asks for and this cluster has not got, or this stand-in cannot do."""
        spec = job["spec"]["template"]["spec"]
        if job["spec"].get("backoffLimit") != 0 or len(spec["containers"]) != 1 or spec.get("initContainers"):
            yield "this stand-in runs Jobs of one container once"
        if spec["serviceAccountName"] not in self.service_accounts:
            yield f"there is no service account {spec['serviceAccountName']}"
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        for container in spec["containers"]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"there is no volume {mount['name']}"
            for source in container.get("envFrom", []):
                for kind, there in (("configMapRef", self.config_maps), ("secretRef", self.secrets)):
                    if kind in source and source[kind]["name"] not in there:
                        yield f"there is no {kind} {source[kind]['name']}"

    def _environment(self, container: Manifest) -> dict[str, str]:
        """Returns what the container of a pod sees: of the image, of the sources, of its own."""
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
            # Where the checkout is, and with it what the tests themselves have been given.
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        }
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                environment |= self.config_maps[source["configMapRef"]["name"]]
            if "secretRef" in source:
                environment |= self.secrets[source["secretRef"]["name"]]
        return environment | {variable["name"]: variable["value"] for variable in container.get("env", [])}

    def _started(self, job: Manifest) -> Pod:
        name = f"{job['metadata']['name']}-{secrets.token_hex(3)[:5]}"
        template = job["spec"]["template"]
        labels = {**template["metadata"].get("labels", {}), "job-name": job["metadata"]["name"]}
        container = template["spec"]["containers"][0]
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*container.get("command", []), *container["args"]],
                cwd=ROOT,
                env=self._environment(container),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        manifest = {"metadata": {"name": name, "labels": labels}, "spec": template["spec"]}
        return Pod(job["metadata"]["name"], manifest, process, log)


@contextlib.contextmanager
def running_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """Lets a cluster answer, and ends it with all that it runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster))
    cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        cluster.close()


class _RefusedError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            if cluster.away:
                self.close_connection = True
                return
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or "{}")
            account = self.headers.get("Authorization", "").removeprefix("Bearer ")
            try:
                code, content = 200, _answered(cluster, self.command, self.path, account, body)
            except _RefusedError as refusal:
                code, content = refusal.code, {"kind": "Status", "status": "Failure", "message": str(refusal)}
                # That something is gone is an answer; all else is what must not happen.
                if code != 404:
                    cluster.refused.append(f"{account}: {self.command} {self.path}: {refusal}")
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(content, bytes) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server has it
            pass

    return Handler


def _answered(cluster: Cluster, method: str, address: str, account: str, body: Manifest) -> Manifest | bytes:
    split = urlsplit(address)
    found = _PATH.fullmatch(split.path)
    if not found:
        raise _RefusedError(404, f"there is nothing at {split.path}")
    kind, name, part = found["kind"], found["name"], found["part"]
    resource = f"{kind}/{part}" if part else kind
    verb = "list" if method == "GET" and not name else _VERBS[method]
    cluster.asked[account].add((verb, resource))
    if found["namespace"] != cluster.namespace or (verb, resource) not in cluster.rights.get(account, ()):
        raise _RefusedError(403, f"{account} may not {verb} {resource} in {found['namespace']}")
    with cluster.lock:
        if name and name not in (cluster.jobs if kind == "jobs" else cluster.pods):
            raise _RefusedError(404, f"there is no {name} among the {kind}")
        answers = _answers(cluster, name, parse_qs(split.query), body)
        if (verb, resource) not in answers:
            raise _RefusedError(405, f"this stand-in cannot {verb} {resource}")
        return answers[verb, resource]()


def _answers(
    cluster: Cluster, name: str, query: Mapping[str, list[str]], body: Manifest
) -> Mapping[tuple[str, str], Callable[[], Manifest | bytes]]:
    """Returns all that this stand-in can do."""
    return {
        ("create", "jobs"): lambda: cluster.create(body),
        ("get", "jobs/status"): lambda: cluster.described(name),
        ("delete", "jobs"): lambda: cluster.delete_job(name),
        ("delete", "pods"): lambda: cluster.delete_pod(name),
        ("get", "pods/log"): lambda: cluster.log_of(name),
        ("list", "jobs"): lambda: _listed("JobList", [cluster.described(job) for job in cluster.jobs], query),
        ("list", "pods"): lambda: _listed("PodList", [pod.described() for pod in cluster.pods.values()], query),
        ("list", "events"): lambda: _listed("EventList", [], query),
    }


def _listed(kind: str, items: list[Manifest], query: Mapping[str, list[str]]) -> Manifest:
    """Returns those that a selector of a label or of the name chooses."""
    for selector in (*query.get("labelSelector", []), *query.get("fieldSelector", [])):
        key, _, value = selector.partition("=")
        within = (lambda item, key: item["metadata"]["name"]) if key == "metadata.name" else _label
        items = [item for item in items if within(item, key) == value]
    return {"kind": kind, "metadata": {}, "items": items}


def _label(item: Manifest, key: str) -> str | None:
    labels: Mapping[str, str] = item["metadata"].get("labels", {})
    return labels.get(key)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
