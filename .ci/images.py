"""Builds the image and run the stack of deploy/compose.yaml from it, where only package registries are at hand.

    .venv/bin/python .ci/images.py

There is no Docker engine here and no registry of images: podman builds and runs, the base is a Debian 12 made by
debootstrap, and Oracle's MySQL from Debian unstable (see oracle_mysql.py) takes the place of MySQL's own image. All
else is the Dockerfile and the compose file as they are, by way of podman-compose. An hour is scored through the
webserver, the demonstration is run, and the containers are looked at: who runs in them, what they can write to, and
whether a password can be read anywhere. Containers, volumes and images are gone afterwards, however it ends.

Needs root, and the packages of requirements-dev.txt.
"""
# ruff: noqa: S310, S603, S607, T201 - the commands are those below; what is printed is the report

import contextlib
import graphlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from oracle_mysql import make_root, mysql_root, prepared_root

from batch_assets_tests.support.instance import ROOT, RunningInstance
from batch_assets_tests.support.servers import Server, apt_install, free_port, run_to_end

IMAGE, BASE, MYSQL = "localhost/batch-assets:ci", "localhost/debian:12", "localhost/batch-assets-mysql"
PACKAGES = ("podman", "runc", "netavark", "aardvark-dns", "catatonit", "iptables")
SERVICES = ("mysql", "code-server", "webserver", "daemon", "api")
HOUR = "2026-11-01-05:00"
COMMAND_SECONDS = 1200
HEALTHY_SECONDS = 180
RUN_SECONDS = 120

# runc cannot raise the limits that this machine sets, and there is no systemd to ask for anything.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
init_path = "/usr/bin/catatonit"
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
static_dir = "{folder}/storage/libpod"
tmp_dir = "{folder}/podman"
volume_path = "{folder}/storage/volumes"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
STORAGE_CONF = """
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
"""

LAUNCH = """mutation Launch($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
STATUS = """query Status($id: ID!) { runOrError(runId: $id) { __typename ... on Run { status } } }"""
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
  name loadStatus locationOrLoadError { __typename ... on RepositoryLocation { repositories { name } } }
} } } }"""


def main() -> int:
    """Builds, runs, looks, and cleans up."""
    if os.geteuid() != 0:
        print("images.py must run as root: it runs containers.", file=sys.stderr)
        return 2
    # A signal must leave through the contexts that stop what they have started.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    # Where the tools of the network are, which podman calls, and which not every shell has in its path.
    os.environ["PATH"] += os.pathsep + os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))
    if not all(shutil.which(name) for name in ("podman", "runc", "iptables", "catatonit")):
        with timed("install podman"):
            apt_install(*PACKAGES)
    with working_folder() as folder, timed("all"):
        podman = Podman(folder)
        try:
            with timed("base of Debian 12"):
                import_root(podman, prepared_root("debian-12", make_debian), BASE)
            with timed("image"):
                build(podman, folder)
            with timed("image of MySQL"):
                build_mysql(podman)
            stack = Stack(podman, folder)
            try:
                stack.start()
                check_api(stack)
                check_scoring(stack)
                check_demo(stack)
                check_containers(stack)
                check_nothing_is_told(stack)
            except BaseException:
                print(stack.logs())
                raise
            finally:
                with timed("stop"):
                    stack.stop()
        finally:
            podman("rm", "--all", "--force", "--time", "0")
    print("The image is built, the stack has scored its hours, and nothing is left of either.")
    return 0


class Podman:
    """Podman with a storage of its own, which knows nothing of others and is gone with its folder.

    Args:
        folder: Where it keeps all that it has.
    """

    def __init__(self, folder: Path) -> None:
        for name, text in (("containers.conf", CONTAINERS_CONF), ("storage.conf", STORAGE_CONF)):
            (folder / name).write_text(text.format(folder=folder))
        self.environment = {
            **os.environ,
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "TMPDIR": str(folder),
        }

    def __call__(self, *arguments: str) -> str:
        """Runs a command of podman to its end and returns what it printed."""
        return run_to_end(["podman", *arguments], env=self.environment, cwd=ROOT, timeout=COMMAND_SECONDS)

    def status(self, *arguments: str) -> int:
        """Runs a command of podman to its end and returns its exit status."""
        return subprocess.run(
            ["podman", *arguments], env=self.environment, cwd=ROOT, capture_output=True, check=False, timeout=600
        ).returncode


class Stack:
    """The services of deploy/compose.yaml, run by podman-compose with the differences of .ci/compose.yaml.

    Args:
        podman: Runs them.
        folder: Where the passwords go.
    """

    def __init__(self, podman: Podman, folder: Path) -> None:
        self.podman = podman
        self.project = f"batch-assets-{secrets.token_hex(4)}"
        self.services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())[
            "services"
        ]
        self.passwords = self._write_passwords(folder / "secrets")
        self._ports = {name: free_port() for name in ("WEBSERVER_PORT", "MYSQL_PORT", "API_PORT")}
        self._environment = {
            **podman.environment,
            **{name: str(port) for name, port in self._ports.items()},
            "BATCH_ASSETS_IMAGE": IMAGE,
            "SECRETS_FOLDER": str(folder / "secrets"),
        }
        self._compose = [sys.executable, "-m", "podman_compose", "--in-pod", "false", "--project-name", self.project]
        self._compose += ["--file", "deploy/compose.yaml", "--file", ".ci/compose.yaml", "--profile", "demo"]

    @property
    def instance(self) -> RunningInstance:
        """The webserver, as the tests ask it."""
        return RunningInstance(f"http://127.0.0.1:{self._ports['WEBSERVER_PORT']}", ())

    @property
    def server(self) -> Server:
        """The database, over a connection of our own."""
        return Server("127.0.0.1", self._ports["MYSQL_PORT"], "batch", self.passwords["batch_password"], "")

    def ask(self, path: str, items: object = None) -> Any:
        """Returns what the web API answers to a request, which registers items if there are any."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._ports['API_PORT']}{path}",
            None if items is None else json.dumps(items).encode(),
            {"Content-Type": "application/json", "X-API-Key": self.passwords["api_key"]},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def compose(self, *arguments: str) -> str:
        """Runs a command of podman-compose to its end and returns what it printed."""
        return run_to_end([*self._compose, *arguments], env=self._environment, cwd=ROOT, timeout=COMMAND_SECONDS)

    def start(self) -> None:
        """Starts the services, each as soon as what the compose file has it wait for is so."""
        order = graphlib.TopologicalSorter(
            {
                name: service.get("depends_on", {})
                for name, service in self.services.items()
                if "profiles" not in service
            }
        )
        for name in order.static_order():
            with timed(f"service {name}"):
                self.compose("up", "--detach", "--no-deps", "--no-build", name)
                self._wait(name)

    def container(self, service: str) -> str:
        """Returns the id of the container of a service."""
        labels = {"io.podman.compose.project": self.project, "com.docker.compose.service": service}
        filters = [f"--filter=label={name}={value}" for name, value in labels.items()]
        [found] = self.podman("ps", "--all", "--quiet", *filters).split()
        return found

    def within(self, service: str, *command: str) -> str:
        """Runs a command in the container of a service and returns what it printed."""
        return self.podman("exec", self.container(service), *command)

    def logs(self) -> str:
        """Returns what the services have printed."""
        names = [name for name in self.services if "profiles" not in self.services[name]]
        return "\n".join(f"==== {name}\n{self._log(name)}" for name in names)

    def stop(self) -> None:
        """Ends and removes containers, networks and volumes."""
        self.compose("down", "--volumes", "--timeout", "20")

    def _log(self, service: str) -> str:
        try:
            return self.podman("logs", "--tail", "60", self.container(service))
        except (RuntimeError, ValueError):
            return "was not started"

    def _wait(self, service: str) -> None:
        """Waits until a service is healthy or, if it has no health, has ended well. Nobody else asks here."""
        container = self.container(service)
        if "healthcheck" not in self.services[service]:
            status = self.podman("wait", container).strip()
            if status != "0":
                raise RuntimeError(f"the service {service} has ended with status {status}")
            return
        end = time.monotonic() + HEALTHY_SECONDS
        while self.podman.status("healthcheck", "run", container) != 0:
            if time.monotonic() > end:
                raise RuntimeError(f"the service {service} is not healthy after {HEALTHY_SECONDS} s")
            time.sleep(1)

    def _write_passwords(self, folder: Path) -> dict[str, str]:
        """Writes them as deploy/make-secrets does, from a copy of its folder."""
        shutil.copytree(ROOT / "deploy/secrets", folder, ignore=lambda _, names: [n for n in names if "." not in n])
        shutil.copy(ROOT / "deploy/make-secrets", folder.parent)
        run_to_end([str(folder.parent / "make-secrets")])
        return {file.name: file.read_text() for file in folder.iterdir() if not file.suffix}


@contextlib.contextmanager
def working_folder() -> Iterator[Path]:
    """A folder for everything, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="batch-assets-images-", dir="/var/tmp"))
    try:
        yield folder
    finally:
        # Podman keeps its storage mounted onto itself.
        subprocess.run(["umount", "--lazy", folder / "storage/overlay"], capture_output=True, check=False, timeout=600)
        shutil.rmtree(folder)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Says how long something took."""
    start = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - start:.1f} s", flush=True)


def make_debian(folder: Path) -> None:
    """Installs the smallest Debian 12 into an empty folder."""
    make_root(folder, "bookworm")


def import_root(podman: Podman, root: Path, name: str) -> None:
    """Makes an image of a folder, without what others may be writing to it."""
    archive = ["tar", "--create", "--directory", str(root), "--one-file-system", "--exclude=./tmp/*", "."]
    command = ["podman", "import", "--quiet", "-", name]
    with subprocess.Popen(archive, stdout=subprocess.PIPE) as tar:
        subprocess.run(
            command, stdin=tar.stdout, stdout=subprocess.DEVNULL, env=podman.environment, check=True, timeout=600
        )
    expect(tar.returncode == 0, f"tar of {root} failed with status {tar.returncode}")


def build(podman: Podman, folder: Path) -> None:
    """Builds the image, with pip's settings of this machine and its authorities at hand for as long as it takes."""
    settings = pip_settings()
    secrets_of_build = {"pip.conf": str(folder / "pip.conf")}
    if "cert" in settings:
        secrets_of_build["authorities.pem"] = settings["cert"]
        settings["cert"] = "/run/secrets/authorities.pem"
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (folder / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    given = [f"--secret=id={name},src={path}" for name, path in secrets_of_build.items()]
    podman("build", "--quiet", "--network=host", f"--build-arg=BASE={BASE}", f"--tag={IMAGE}", *given, ".")
    size = int(podman("image", "inspect", "--format={{.Size}}", IMAGE))
    base = int(podman("image", "inspect", "--format={{.Size}}", BASE))
    print(f"size of the image: {size / 2**20:.0f} MiB, of which the base {base / 2**20:.0f} MiB")


def pip_settings() -> dict[str, str]:
    """Returns how pip reaches its registry on this machine."""
    listed = run_to_end([sys.executable, "-m", "pip", "config", "list"])
    settings = dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE))
    return {name: settings[name] for name in ("index-url", "proxy", "cert", "default-timeout") if name in settings}


def build_mysql(podman: Podman) -> None:
    """Builds what takes the place of MySQL's own image."""
    import_root(podman, mysql_root(), "localhost/mysql-root")
    podman("build", "--quiet", "--build-arg=BASE=localhost/mysql-root", f"--tag={MYSQL}", ".ci/mysql")


def check_api(stack: Stack) -> None:
    """Registers an item through the web API, and reads it there and in the table."""
    expect(stack.ask("/health") == {"health": "ok"}, "the web API is not well")
    stack.ask("/data", [{"values": [5.1, 3.5, 1.4, 0.2]}])
    answered = [item["values"] for item in stack.ask("/data/unpredicted")]
    rows = stack.server.execute("SELECT `values` FROM items", database="service")
    expect(answered == [json.loads(row[0]) for row in rows] == [[5.1, 3.5, 1.4, 0.2]], f"{answered}, and in {rows}")


def check_scoring(stack: Stack) -> None:
    """Registers items of a past hour and has the hour scored as the UI does it."""
    items = "5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3\n5.9,3.0,4.2,1.5\n"
    command = ["podman", "exec", "--interactive", stack.container("code-server"), "batch-assets", "register", "-"]
    command += ["--created-at", f"{HOUR[:10]}T05:30"]
    registered = subprocess.run(
        command, input=items, env=stack.podman.environment, capture_output=True, text=True, check=True, timeout=600
    )
    expect("3 items registered" in registered.stdout, registered.stdout + registered.stderr)
    [location] = stack.instance.query(LOCATIONS)["workspaceOrError"]["locationEntries"]
    expect(location["locationOrLoadError"]["__typename"] == "RepositoryLocation", str(location))
    with timed("run of an hour, through the webserver"):
        run = launched(stack, location)
        ended = stack.instance.wait(
            STATUS,
            lambda answer: answer["runOrError"]["status"] in ("SUCCESS", "FAILURE", "CANCELED"),
            RUN_SECONDS,
            id=run,
        )
    expect(ended["runOrError"]["status"] == "SUCCESS", f"the run of {HOUR} has ended: {ended}")
    rows = stack.server.execute(
        "SELECT COUNT(*), COUNT(prediction), SUM(JSON_LENGTH(prediction)) FROM items"
        " WHERE created_datetime >= '2026-11-01 05:00' AND created_datetime < '2026-11-01 06:00'",
        database="service",
    )
    expect([tuple(map(int, row)) for row in rows] == [(3, 3, 9)], f"rows of items: {rows}")
    summed_up = stack.server.execute(
        "SELECT items, predicted, failed, pending, run_id FROM run_summary WHERE hour = '2026-11-01 05:00'",
        database="service",
    )
    expect(summed_up == [(3, 3, 0, 0, run)], f"rows of run_summary: {summed_up}")
    # What the run has printed was written in the container of the code server, and is read in that of the webserver.
    expect(
        run in stack.within("webserver", "ls", "/app/dagster/storage"),
        "the webserver does not see what the run printed",
    )


def launched(stack: Stack, location: dict[str, Any]) -> str:
    """Starts a run of the hour over GraphQL and returns its id."""
    [repository] = location["locationOrLoadError"]["repositories"]
    parameters = {
        "selector": {
            "repositoryLocationName": location["name"],
            "repositoryName": repository["name"],
            "jobName": "batch_inference",
        },
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": HOUR}]},
    }
    answer = stack.instance.query(LAUNCH, parameters=parameters)["launchRun"]
    expect(answer["__typename"] == "LaunchRunSuccess", str(answer))
    return str(answer["run"]["runId"])


def check_demo(stack: Stack) -> None:
    """Runs the demonstration, in an empty table."""
    stack.server.execute("DELETE FROM items", database="service")
    with timed("demonstration"):
        printed = stack.compose("run", "--rm", "--no-deps", "-T", "demo")
    expect(re.search(r"sum +│ +65,322 │ +65,322 │ +0 │ +0 │", printed) is not None, printed)
    rows = stack.server.execute("SELECT COUNT(*), COUNT(prediction) FROM items", database="service")
    expect(rows == [(65322, 65322)], f"rows of items: {rows}")


def check_containers(stack: Stack) -> None:
    """Looks at what runs in the containers, and at what it may do."""
    for service in SERVICES:
        container = stack.container(service)
        for process in stack.within(service, "sh", "-c", "cat /proc/[0-9]*/status 2>&-; true").split("Name:")[1:]:
            found = dict(re.findall(r"^(\w+):\s+(.*)$", process, re.MULTILINE))
            may = {name: found[name] for name in ("Uid", "CapEff", "CapBnd", "NoNewPrivs")}
            nobody = may == {"Uid": may["Uid"], "CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1"}
            expect(nobody and "0" not in may["Uid"].split(), f"a process in {service} may too much: {may}")
        mounts = [line.split() for line in stack.within(service, "cat", "/proc/self/mounts").splitlines()]
        [root] = [options for _, where, _, options, *_ in mounts if where == "/"]
        expect("ro" in root.split(","), f"the root of {service} is mounted {root}")
        for folder in ("/", "/opt", "/etc", "/usr/bin"):
            wrote = stack.podman.status("exec", "--user=0", container, "touch", f"{folder}/written")
            expect(wrote != 0, f"{folder} can be written to in {service}")
        expect(stack.podman.status("healthcheck", "run", container) == 0, f"{service} is no longer healthy")
    for program in ("gcc", "pip", "pip3", "hatchling"):
        there = stack.podman.status("exec", stack.container("code-server"), "which", program) == 0
        expect(not there, f"{program} is in the image")
    uncompiled = stack.within("code-server", "python", "-c", UNCOMPILED).split()
    expect(not uncompiled, f"not compiled: {uncompiled[:20]}")


# Modules that are in memory and were not read from a compiled file.
UNCOMPILED = """
import pathlib, sys
import batch_assets.definitions, batch_assets.inference.onnx_model, batch_assets.cli.main, dagster_webserver.cli
for module in list(sys.modules.values()):
    cached, file = getattr(module, "__cached__", None), getattr(module, "__file__", None)
    if file and file.startswith("/opt/") and file.endswith(".py") and not (cached and pathlib.Path(cached).exists()):
        print(file)
"""


def check_nothing_is_told(stack: Stack) -> None:
    """Looks for the passwords wherever podman and the containers show something."""
    containers = stack.podman("ps", "--all", "--quiet").split()
    shown = {
        "inspect": stack.podman("inspect", *containers),
        "image inspect": stack.podman("image", "inspect", IMAGE),
        "history": stack.podman("history", "--no-trunc", IMAGE),
        "logs": "".join(stack.podman("logs", container) for container in containers),
        "environment": "".join(
            stack.within(service, "sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>&-; true")
            for service in SERVICES
        ),
    }
    expect(
        "MYSQL_PASSWORD_FILE" in shown["inspect"] and "MYSQL_PASSWORD_FILE" in shown["environment"], "looked in vain"
    )
    for place, text in shown.items():
        for name, password in stack.passwords.items():
            expect(password not in text, f"{place} shows {name}")
    expect(
        stack.podman.status("exec", stack.container("webserver"), "test", "-e", "/etc/pip.conf") != 0,
        "pip.conf is there",
    )


def expect(holds: bool, otherwise: str) -> None:
    """Fails with a sentence if something does not hold."""
    if not holds:
        raise RuntimeError(otherwise)


if __name__ == "__main__":
    sys.exit(main())
