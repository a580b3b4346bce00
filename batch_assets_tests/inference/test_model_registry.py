"""Models of an MLflow registry: which version a name stands for, what is loaded of it, and what is refused."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from batch_assets.errors import ModelError, RegistryError, RegistryUnavailableError, SettingsError
from batch_assets.inference.model_files import load_model
from batch_assets.inference.model_registry import downloaded, resolve
from batch_assets.settings.folders import root_folder
from batch_assets.settings.items import ItemFormat, Output
from batch_assets.settings.model import ModelFiles, RegisteredModel, model_from_environment, registered_model
from batch_assets_tests.support.registry import WEIGHTS, Registry, files_of, weighty
from batch_assets_tests.support.servers import free_port

IRIS = root_folder() / "models" / "iris_svc.onnx"
LABELS = IRIS.with_name("label.json")
# The flower of a sample, and what is written of it.
VALUES = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
IN_SQLITE = pytest.mark.parametrize("_made_registry", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, in which nothing may stay."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def named(text: str, labels: Path | None = LABELS) -> RegisteredModel:
    return registered_model(text, labels, None)


def refusal(text: str, fault: type[ModelError | SettingsError] = ModelError) -> str:
    """The sentence with which loading a model is refused, by just this kind of fault."""
    with pytest.raises(fault) as caught:
        load_model(named(text))
    assert type(caught.value) is fault
    return str(caught.value)


# Names


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("models:/churn@champion", ("churn", None, "champion")),
        ("models:/churn/3", ("churn", 3, None)),
        ("models:/shop.models.churn of 2026/12", ("shop.models.churn of 2026", 12, None)),
    ],
)
def test_a_name_is_an_alias_or_a_version(text: str, parts: tuple[str, int | None, str | None]) -> None:
    model = model_from_environment({"MODEL_FILEPATH": text, "SAMPLE_DATA_PATH": "sample.json"})
    assert model == RegisteredModel(*parts, label_filepath=None, sample_data_path=Path("sample.json"))
    assert str(model) == text


@pytest.mark.parametrize(
    "text",
    [
        "models:/churn",
        "models:/churn/Production",
        "models:/churn/latest",
        "models:/a/b/3",
        "models:/@x",
        "models:churn/3",
    ],
)
def test_another_name_is_refused_with_the_two_forms(text: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"The model {text!r} names no version")) as caught:
        model_from_environment({"MODEL_FILEPATH": text})
    assert "write models:/NAME@ALIAS or models:/NAME/VERSION" in str(caught.value)


def test_a_file_stays_a_file() -> None:
    files = model_from_environment({"MODEL_FILEPATH": "models/churn.onnx"})
    assert isinstance(files, ModelFiles)
    assert files.model_filepath == Path("models/churn.onnx")


# What is loaded


def assert_loaded_as_the_file_is(text: str) -> None:
    model = load_model(named(text))
    from_file = load_model(ModelFiles(IRIS, LABELS, None))
    assert model.name == "models:/iris/1"
    assert model.version == from_file.version == hashlib.sha256(IRIS.read_bytes()).hexdigest()
    assert model.labels == from_file.labels
    np.testing.assert_array_equal(model.probabilities(VALUES), from_file.probabilities(VALUES))


@pytest.mark.parametrize("text", ["models:/iris@champion", "models:/iris/1"])
def test_a_registered_model_is_that_of_its_file_and_leaves_nothing_behind(
    registry: Registry, temporary: Path, text: str
) -> None:
    assert_loaded_as_the_file_is(text)
    assert files_of(temporary) == []


@pytest.mark.slow
@pytest.mark.xdist_group("MLflow in SQLite")
@IN_SQLITE
def test_the_registry_may_be_a_database(registry: Registry) -> None:
    assert registry.uri.startswith("sqlite:")
    assert_loaded_as_the_file_is("models:/iris@champion")
    assert_loaded_as_the_file_is("models:/iris/1")
    assert "has no alias challenger" in refusal("models:/iris@challenger")
    assert "has no version 3" in refusal("models:/iris/3")
    assert "has no model churn" in refusal("models:/churn@champion")


def test_an_alias_names_the_version_that_it_is_set_to_at_the_time(registry: Registry) -> None:
    model = named("models:/iris@champion")
    assert resolve(model) == named("models:/iris/1")
    registry.set_alias(2)
    assert resolve(model) == named("models:/iris/2")
    assert load_model(model).name == "models:/iris/2"


def test_without_labels_the_model_names_its_classes(registry: Registry) -> None:
    assert load_model(named("models:/iris/1", labels=None)).labels == ("0", "1", "2")
    with pytest.raises(ModelError, match="The model models:/iris/2 does not name its classes: point LABEL_FILEPATH"):
        load_model(named("models:/iris/2", labels=None))


SUMS = ItemFormat(outputs=(Output("sums", "all"),))


def test_weights_in_a_file_of_their_own_are_loaded_and_counted_to_the_version(
    registry: Registry, temporary: Path
) -> None:
    weighty_model = named("models:/weighty/1", labels=None)
    model = load_model(weighty_model, SUMS)
    assert files_of(temporary) == []  # which the model goes on without
    np.testing.assert_allclose(model.answers(VALUES)["sums"], VALUES @ WEIGHTS, rtol=1e-5)
    with downloaded(weighty_model) as path:
        (weights,) = path.parent.glob("*.data")
        assert model.version == hashlib.sha256(path.read_bytes() + weights.read_bytes()).hexdigest()


@pytest.mark.parametrize("location", ["../{name}", "{folder}/{name}", "../../{name}"])
def test_weights_outside_of_the_version_are_refused(
    registry: Registry, tmp_path: Path, temporary: Path, location: str
) -> None:
    for folder in (tmp_path, temporary):
        (folder / "secret").write_bytes(WEIGHTS.tobytes())
    model = weighty(location.format(folder=temporary, name="secret"))
    version = tmp_path / "version"
    version.mkdir()
    (version / "model.onnx").write_bytes(model.SerializeToString())
    (version / "MLmodel").write_text("flavors:\n  onnx: {data: model.onnx}\n")
    assert "External data path" in refusal(f"models:/{register(registry, version)}/1")


def register(registry: Registry, folder: Path) -> str:
    """Registers the files of a folder as they are, as a model of the name that is returned."""
    from mlflow import MlflowClient

    client = MlflowClient(registry.uri)
    client.create_registered_model("files")
    client.create_model_version("files", folder.as_uri())
    return "files"


# What is refused


def test_an_alias_that_is_not_set_is_named_with_those_that_are(registry: Registry) -> None:
    assert refusal("models:/iris@challenger") == (
        f"The registry {registry.uri} has no alias challenger of the model iris, whose aliases are: champion. Set it "
        "there, or name another one (MODEL_FILEPATH)."
    )
    assert "whose aliases are: none." in refusal("models:/weighty@champion")


def test_a_version_that_is_not_there_is_named_with_the_latest(registry: Registry) -> None:
    assert refusal("models:/iris/7") == (
        f"The registry {registry.uri} has no version 7 of the model iris, whose latest version is: 2. Name another one "
        "(MODEL_FILEPATH)."
    )


@pytest.mark.parametrize("text", ["models:/churn@champion", "models:/churn/3"])
def test_a_model_that_is_not_there_is_named_with_the_registry(registry: Registry, text: str) -> None:
    assert refusal(text) == (
        f"The model {text} is not in the registry {registry.uri}, which has no model churn: register it there, or name "
        "another one (MODEL_FILEPATH)."
    )


def test_a_version_of_another_flavour_is_refused_with_its_flavours(registry: Registry) -> None:
    assert refusal("models:/pickled/1") == (
        "The model models:/pickled/1 has no flavour onnx, its flavours are: python_function, sklearn. Log it with "
        "mlflow.onnx.log_model and register that, or name another version (MODEL_FILEPATH)."
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "The model models:/files/1 has no file MLmodel."),
        ("flavors:\n  onnx: {data: other.onnx}\n", "The model models:/files/1 has no file other.onnx, which"),
        ("flavors:\n  onnx: {data: ../secret.onnx}\n", "The model models:/files/1 has no file ../secret.onnx, which"),
        ("flavors:\n  onnx: {}\n", "The model models:/files/1 has no file None, which its file MLmodel names"),
    ],
)
def test_a_version_whose_files_are_not_those_of_a_model_is_refused(
    registry: Registry, tmp_path: Path, temporary: Path, content: str | None, sentence: str
) -> None:
    version = tmp_path / "version"
    version.mkdir()
    (version / "model.onnx").touch()
    onnx.save(weighty(), temporary / "secret.onnx")
    if content is not None:
        (version / "MLmodel").write_text(content)
    assert sentence in refusal(f"models:/{register(registry, version)}/1")


def test_a_file_that_is_no_model_is_named_with_its_version(registry: Registry, tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.mkdir()
    (version / "model.onnx").write_text("nothing")
    (version / "MLmodel").write_text("flavors:\n  onnx: {data: model.onnx}\n")
    message = refusal(f"models:/{register(registry, version)}/1")
    assert message.startswith("The model file models:/files/1 (7 bytes) is not an ONNX model")


def test_without_a_registry_none_is_made_in_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert "MLFLOW_TRACKING_URI does not say where that is: set it" in refusal("models:/iris/1", SettingsError)
    assert files_of(tmp_path) == []


def test_without_mlflow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert refusal("models:/iris/1", SettingsError) == (
        "The model models:/iris/1 needs the package mlflow, which is missing: install batch-assets with the extra "
        "`mlflow`, or point MODEL_FILEPATH at a file."
    )


def test_a_registry_that_does_not_answer_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://batch:secret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    message = refusal("models:/iris@champion", RegistryUnavailableError)
    assert f"The model models:/iris@champion cannot be fetched from the registry http://127.0.0.1:{port}: " in message
    assert (
        "no older model takes its place: start the registry, or the store of its files, or fix MLFLOW_TRACKING_URI"
        in message
    )
    assert "secret" not in message
    assert RegistryUnavailableError("").transient


@pytest.fixture
def answering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that answers everything with one status, as a registry's proxy does."""
    status: int = request.param

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"no")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        uri = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield uri
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("answering", [401, 403, 404], indirect=True)
def test_a_registry_that_lets_nobody_in_is_a_matter_of_settings(answering: str) -> None:
    message = refusal("models:/iris@champion", RegistryError)
    assert message.startswith(f"The registry {answering} does not hand over the model models:/iris@champion: ")
    assert "Look at MLFLOW_TRACKING_URI, MLFLOW_REGISTRY_URI" in message
    assert RegistryError("").of_run


@pytest.mark.parametrize("answering", [429, 503], indirect=True)
def test_a_registry_that_is_busy_is_asked_again(answering: str) -> None:
    message = refusal("models:/iris@champion", RegistryUnavailableError)
    assert f"cannot be fetched from the registry {answering}" in message


def test_what_the_registry_needs_beside_is_said_by_mlflow(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    message = refusal("models:/iris@champion", RegistryError)
    assert f"The registry {registry.uri} does not hand over the model models:/iris@champion: " in message
    assert "is in maintenance mode" in message


def test_files_that_are_gone_are_no_reason_to_take_another_model(registry: Registry, tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.mkdir()
    name = register(registry, version)
    version.rmdir()
    assert "The model models:/files/1 has no file MLmodel." in refusal(f"models:/{name}/1")


@pytest.fixture
def in_s3(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of the registry whose files are in S3, of which nothing is reached yet."""
    from mlflow import MlflowClient

    # It keeps the credentials that it has found once.
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    variables = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "MAX_ATTEMPTS": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    client = MlflowClient(registry.uri)
    client.create_registered_model("far")
    client.create_model_version("far", "s3://models/far")
    return "models:/far/1"


def test_a_store_of_files_that_is_away_is_asked_again(registry: Registry, in_s3: str) -> None:
    message = refusal(in_s3, RegistryUnavailableError)
    assert f"The model {in_s3} cannot be fetched from the registry {registry.uri}: Could not connect" in message
    assert "start the registry, or the store of its files, or fix" in message


def test_a_store_of_files_of_which_nobody_has_the_key_is_a_matter_of_settings(
    registry: Registry, in_s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    # Nor is there one in the home folder, or of the machine.
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    message = refusal(in_s3, RegistryError)
    assert f"The registry {registry.uri} does not hand over the model {in_s3}: Unable to locate credentials." in message
    assert "what this process may do there and in the store of its files." in message


@pytest.mark.parametrize(
    ("answering", "fault"),
    # 400 is the status of an expired token.
    [(400, RegistryError), (403, RegistryError), (503, RegistryUnavailableError)],
    indirect=["answering"],
)
def test_a_store_of_files_that_refuses_or_is_busy_is_named_as_a_registry_is(
    answering: str, registry: Registry, in_s3: str, monkeypatch: pytest.MonkeyPatch, fault: type[RegistryError]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", answering)
    message = refusal(in_s3, fault)
    assert f"the model {in_s3}" in message.replace("The", "the")
    assert f"the registry {registry.uri}" in message.replace("The", "the")


# What MLflow costs

_REPORT = """
import sys
from batch_assets.definitions import defs
from batch_assets.inference.model_files import load_model
assert "mlflow" not in sys.modules, "imported without need"
from batch_assets.settings.model import registered_model
load_model(registered_model("models:/iris/1", None, None))
from mlflow.telemetry.client import get_telemetry_client
print(get_telemetry_client())
"""


@pytest.mark.slow
def test_mlflow_is_imported_only_for_such_a_model_and_tells_nobody(registry: Registry, tmp_path: Path) -> None:
    # These keep MLflow from it anyway.
    silent = {"PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"}
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    done = subprocess.run(
        [sys.executable, "-c", _REPORT],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(root_folder())},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
