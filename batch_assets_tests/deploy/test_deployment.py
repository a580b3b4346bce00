"""What can go wrong in the files of the image and of the stack, without running either: .ci/images.py runs them."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from dagster._cli import create_dagster_cli
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster_webserver.cli import cli as dagster_webserver

from batch_assets.cli.main import main as batch_assets
from batch_assets.settings.api import ApiSettings
from batch_assets_tests.support.instance import ROOT
from batch_assets_tests.support.programs import git

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROGRAMS: dict[str, click.Command] = {
    "batch-assets": batch_assets,
    "dagster": create_dagster_cli(),  # type: ignore[no-untyped-call]  # Dagster's
    "dagster-daemon": create_dagster_daemon_cli(),
    "dagster-webserver": dagster_webserver,
}
# What a command of the shell is made of besides programs of ours.
SHELL = {"sh", "-c", "&&"}


def instructions(name: str) -> list[list[str]]:
    """The words of every instruction of that name in the Dockerfile."""
    joined = re.sub(r"\\\n(\s*#.*\n)*", " ", DOCKERFILE)
    return [line.split()[1:] for line in joined.splitlines() if line.startswith(f"{name} ")]


def copied() -> set[Path]:
    """What the Dockerfile copies from the repository."""
    words = [words for words in instructions("COPY") if not any(word.startswith("--from") for word in words)]
    return {ROOT / source for *sources, _ in words for source in sources}


def let_in(file: str) -> bool:
    """Whether .dockerignore lets a file in: the last line that fits it or a folder above it decides."""
    parts = file.split("/")
    paths = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            if any(re.fullmatch(pattern, path) for path in paths):
                ignored = not line.startswith("!")
    return not ignored


def commands(service: dict[str, Any]) -> list[list[str]]:
    """The commands of programs that a service runs: its own, and what asks for its health."""
    tested = service.get("healthcheck", {}).get("test", ["NONE"])
    lines = [service.get("command", []), shlex.split(tested[1]) if tested[0] == "CMD-SHELL" else tested[1:]]
    found: list[list[str]] = []
    for line in lines:
        words = shlex.split(" ".join(line)) if line[:1] == ["sh"] else line
        for word in words:
            if word in PROGRAMS:
                found.append([word])
            elif found and word not in SHELL:
                found[-1].append(word)
    return found


# The image


def test_all_that_is_copied_is_there() -> None:
    assert copied()
    assert [path for path in copied() if not path.exists()] == []


def test_the_context_of_the_build_is_what_is_copied_and_nothing_else() -> None:
    tracked = git("ls-files").stdout.split()
    needed = {file for file in tracked if any((ROOT / file).is_relative_to(path) for path in copied())}
    assert {"requirements.txt", "batch_assets/settings/database.py", "models/iris_svc.onnx"} <= needed
    assert {file for file in tracked if let_in(file)} == needed


@pytest.mark.parametrize(
    "file",
    [
        ".env",
        ".git/config",
        ".venv/bin/python",
        ".batch_assets/batch.sqlite",
        "batch_assets/.env",
        "batch_assets/__pycache__/cli.cpython-311.pyc",
        "batch_assets/database/__pycache__/engine.cpython-311.pyc",
        "deploy/secrets/batch_password",
        "deploy/settings.env",
        "models/.ipynb_checkpoints/iris_svc.json",
        "storage/run/compute_logs/step.err",
    ],
)
def test_what_lies_about_in_a_checkout_stays_out_of_the_image(file: str) -> None:
    assert not let_in(file)


def test_the_base_is_pinned_and_can_be_replaced() -> None:
    [[base]] = instructions("ARG")
    assert re.fullmatch(r"BASE=docker\.io/library/debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}", base)
    stages = [words[-1] for words in instructions("FROM")[:-1]]
    # Nothing comes from elsewhere.
    assert {words[0] for words in instructions("FROM")} == {"${BASE}", "python", "dependencies"} <= {"${BASE}", *stages}


def test_the_image_runs_as_an_account_without_a_name_that_is_not_root() -> None:
    assert instructions("USER") == [["10001:10001"]]


# The stack


def test_the_stack_is_what_it_is() -> None:
    assert set(SERVICES) == {"mysql", "migrations", "code-server", "webserver", "daemon", "api", "demo"}
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["demo"]


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "mysql"])
def test_every_command_of_a_service_is_one(name: str) -> None:
    found = commands(SERVICES[name])
    assert found
    for program, *arguments in found:
        # Options that there are not are refused before help is given.
        result = CliRunner().invoke(PROGRAMS[program], [*arguments, "--help"])
        assert result.exit_code == 0, f"{program} {arguments}: {result.output}"
        assert "Usage:" in result.output


@pytest.mark.parametrize("arguments", [["api", "grpc", "--no-such-option"], ["no-such-command"]])
def test_a_command_that_is_none_would_be_seen(arguments: list[str]) -> None:
    assert CliRunner().invoke(PROGRAMS["dagster"], [*arguments, "--help"]).exit_code != 0


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & service.keys()
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    for volume in service.get("volumes", []):
        source, _, *mode = volume.split(":")
        # What is of the repository is read only.
        assert source in COMPOSE["volumes"] or mode == ["ro"]
        assert source in COMPOSE["volumes"] or (ROOT / "deploy" / source).exists()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_can_come_true(name: str) -> None:
    for other, wait in SERVICES[name].get("depends_on", {}).items():
        runs_on = "restart" in SERVICES[other]
        assert wait["condition"] == ("service_healthy" if runs_on else "service_completed_successfully")
        assert runs_on == ("healthcheck" in SERVICES[other])


def test_all_wait_for_the_migrations() -> None:
    def waits_for(name: str) -> set[str]:
        direct = set(SERVICES[name].get("depends_on", {}))
        return direct.union(*(waits_for(other) for other in direct))

    assert {name for name in SERVICES if "migrations" not in waits_for(name)} == {"mysql", "migrations"}
    assert waits_for("migrations") == {"mysql"}


def test_the_workspace_is_the_code_server() -> None:
    [location] = yaml.safe_load((ROOT / "deploy/workspace.yaml").read_text())["load_from"]
    [[_, *arguments], [_, *health]] = commands(SERVICES["code-server"])
    port = arguments[arguments.index("--port") + 1]
    # By the name that it has without a stack: schedules and sensors are remembered by it.
    [module] = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert arguments[arguments.index("--module-name") + 1] == module["python_module"]["module_name"]
    assert location == {
        "grpc_server": {
            "host": "code-server",
            "port": int(port),
            "location_name": module["python_module"]["module_name"],
        }
    }
    assert health[-2:] == ["--port", port]


# Passwords


def test_no_password_stands_in_an_environment() -> None:
    for service in SERVICES.values():
        for name, value in service["environment"].items():
            assert "PASSWORD" not in name or (name.endswith("_FILE") and value.startswith("/run/secrets/"))
        given = {Path(value).name for name, value in service["environment"].items() if name.endswith("_FILE")}
        assert given == set(service["secrets"]) <= set(COMPOSE["secrets"])
    assert not [words for name in ("ARG", "ENV") for words in instructions(name) if "PASSWORD" in str(words)]


def test_passwords_lie_in_files_that_git_ignores_and_that_have_an_example() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"${{SECRETS_FOLDER:-./secrets}}/{name}"}
        assert git("check-ignore", f"deploy/secrets/{name}").returncode == 0
    tracked = git("ls-files", "deploy/secrets")
    assert set(tracked.stdout.split()) == {f"deploy/secrets/{name}.example" for name in COMPOSE["secrets"]}


def test_passwords_are_made_once_and_nobody_else_gets_at_them(tmp_path: Path) -> None:
    shutil.copy(ROOT / "deploy/make-secrets", tmp_path)
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name in COMPOSE["secrets"]:
        (folder / f"{name}.example").touch()
    subprocess.run(
        [tmp_path / "make-secrets"], check=True, capture_output=True, preexec_fn=lambda: os.umask(0o077), timeout=120
    )
    written = {name: (folder / name).read_text() for name in COMPOSE["secrets"]}
    assert all(re.fullmatch("[0-9a-f]{48}", password) for password in written.values())
    assert len(set(written.values())) == len(written)
    assert folder.stat().st_mode & 0o777 == 0o700
    # The accounts within the containers are others than the one that has made them.
    assert {(folder / name).stat().st_mode & 0o777 for name in written} == {0o644}

    subprocess.run([tmp_path / "make-secrets"], check=True, capture_output=True, timeout=120)
    assert {name: (folder / name).read_text() for name in written} == written


def test_the_key_of_the_api_is_read_from_the_file_that_the_stack_names(tmp_path: Path) -> None:
    (tmp_path / "api_key").write_text("tiramisu\n")
    assert SERVICES["api"]["environment"]["API_KEY_FILE"] == "/run/secrets/api_key"
    assert ApiSettings.from_environment({"API_KEY_FILE": str(tmp_path / "api_key")}).key == "tiramisu"
