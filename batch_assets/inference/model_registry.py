"""Models of an MLflow registry: the version that a name stands for, and its files. The one place that imports MLflow.

The import takes seconds, so that only who uses such a model pays for it.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy.exc

from batch_assets.errors import ModelError, RegistryError, RegistryUnavailableError, SettingsError
from batch_assets.settings.environment import environment
from batch_assets.settings.model import RegisteredModel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_UNKNOWN = "RESOURCE_DOES_NOT_EXIST"
# MLflow's own servers answer so where there is no such alias.
_NO_ALIAS = "INVALID_PARAMETER_VALUE"
_TOO_MANY_REQUESTS = 429
# The clients by which MLflow fetches files from S3, Azure and Google Cloud. It passes their errors on.
_CLIENTS_OF_STORES = ("boto3.", "botocore.", "azure.", "google.api_core.", "google.auth.", "google.cloud.")
# What the names of their errors hold where nobody has credentials, and no answer has a status.
_NO_CREDENTIALS = re.compile("Credential|Authentication|Unauthorized")


def resolve(model: RegisteredModel) -> RegisteredModel:
    """Returns the version that a name stands for at present.

    Args:
        model: A version, or an alias, which may name another one a moment later.

    Raises:
        SettingsError: MLflow is not installed, or no registry is named.
        ModelError: The registry has no such model, version or alias.
        RegistryError: It does not answer, or not to this process.
    """
    with _registry(model) as client:
        version = _version(client, model)
        if version is None:
            raise _unknown(client, model)
        return model.of_version(int(version.version))


@contextmanager
def downloaded(model: RegisteredModel) -> Iterator[Path]:
    """Yields the ONNX file of a version, in a folder of its own that goes away afterwards.

    Args:
        model: A version.

    Raises:
        SettingsError: MLflow is not installed, or no registry is named.
        ModelError: The version has no ONNX model.
        RegistryError: The registry does not answer, or not to this process.
    """
    with tempfile.TemporaryDirectory(prefix="batch_assets_model_") as folder:
        with _registry(model):
            from mlflow.artifacts import download_artifacts  # noqa: PLC0415 - see above

            files = Path(download_artifacts(str(model), dst_path=folder))
        yield _onnx_file(model, files)


def _version(client: "MlflowClient", model: RegisteredModel) -> "ModelVersion | None":
    """Returns what the registry knows of the version; None if it has no such version, alias or model."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - see above

    try:
        if model.alias is None:
            return client.get_model_version(model.name, str(model.version))
        return client.get_model_version_by_alias(model.name, model.alias)
    except MlflowException as error:
        if error.error_code in {_UNKNOWN, _NO_ALIAS}:
            return None
        raise


def _unknown(client: "MlflowClient", model: RegisteredModel) -> ModelError:
    """Returns the fault that says what of a model the registry does not have, and what it has."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - see above

    try:
        registered = client.get_registered_model(model.name)
    except MlflowException as error:
        if error.error_code != _UNKNOWN:
            raise
        return ModelError(
            f"The model {model} is not in the registry {_registry_uri()}, which has no model {model.name}: register "
            "it there, or name another one (MODEL_FILEPATH)."
        )
    if model.alias is not None:
        aliases = ", ".join(sorted(registered.aliases)) or "none"
        return ModelError(
            f"The registry {_registry_uri()} has no alias {model.alias} of the model {model.name}, whose aliases are: "
            f"{aliases}. Set it there, or name another one (MODEL_FILEPATH)."
        )
    latest = max((int(version.version) for version in registered.latest_versions), default=None)
    return ModelError(
        f"The registry {_registry_uri()} has no version {model.version} of the model {model.name}, whose latest "
        f"version is: {latest or 'none'}. Name another one (MODEL_FILEPATH)."
    )


def _onnx_file(model: RegisteredModel, folder: Path) -> Path:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - see above
    from mlflow.models import Model  # noqa: PLC0415 - as above

    advice = "Log it with mlflow.onnx.log_model and register that, or name another version (MODEL_FILEPATH)."
    try:
        flavors = Model.load(str(folder)).flavors
    except MlflowException:
        raise ModelError(f"The model {model} has no file MLmodel. {advice}") from None
    if "onnx" not in flavors:
        others = ", ".join(sorted(flavors)) or "none"
        raise ModelError(f"The model {model} has no flavour onnx, its flavours are: {others}. {advice}")
    named = flavors["onnx"].get("data")
    file = folder / str(named)
    # Whoever writes the file MLmodel is not to have another file read.
    if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
        raise ModelError(
            f"The model {model} has no file {named}, which its file MLmodel names for the flavour onnx. {advice}"
        )
    return file


@contextmanager
def _registry(model: RegisteredModel) -> Iterator["MlflowClient"]:
    """Yields a client of the registry, whose faults come with the name of the registry and the model."""
    try:
        from mlflow import MlflowClient  # noqa: PLC0415 - see above

        uri = _registry_uri()
        with _faults_of(uri, model):
            yield MlflowClient()
    except ModuleNotFoundError as error:  # MLflow itself, or what it needs for where the files of the model are
        what = "batch-assets with the extra `mlflow`" if error.name == "mlflow" else "it"
        raise SettingsError(
            f"The model {model} needs the package {error.name}, which is missing: install {what}, or point "
            "MODEL_FILEPATH at a file."
        ) from error


@contextmanager
def _faults_of(uri: str, model: RegisteredModel) -> Iterator[None]:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - see above

    try:
        yield
    except MlflowException as error:
        status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
        # An answer of S3 that MLflow does not know, such as ExpiredToken, it calls a fault of its own.
        answer = getattr(error.__context__, "response", None)
        if isinstance(answer, dict):
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", status)
        raise _fault(uri, model, error, refused=_is_refusal(status)) from error
    # A registry may be a database, and the store of its files a disk.
    except (OSError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise _fault(uri, model, error, refused=False) from error
    except Exception as error:
        # Their packages need not be installed, so that their classes cannot be named.
        if not f"{type(error).__module__}.".startswith(_CLIENTS_OF_STORES):
            raise
        raise _fault(uri, model, error, refused=_is_refusal_of_store(error)) from error


def _is_refusal(status: int) -> bool:
    return status < 500 and status != _TOO_MANY_REQUESTS


def _is_refusal_of_store(error: Exception) -> bool:
    # Azure's errors have the one, Google's the other.
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    return _is_refusal(status) if isinstance(status, int) else bool(_NO_CREDENTIALS.search(type(error).__name__))


def _fault(uri: str, model: RegisteredModel, error: Exception, *, refused: bool) -> RegistryError:
    if refused:
        return RegistryError(
            f"The registry {uri} does not hand over the model {model}: {_one_line(error)}. Look at "
            "MLFLOW_TRACKING_URI, MLFLOW_REGISTRY_URI and what this process may do there and in the store of its files."
        )
    return RegistryUnavailableError(
        f"The model {model} cannot be fetched from the registry {uri}: {_one_line(error)}. Nothing was scored, and no "
        "older model takes its place: start the registry, or the store of its files, or fix MLFLOW_TRACKING_URI, then "
        "materialise the hour again."
    )


def _registry_uri() -> str:
    """Returns where the registry is, without a password.

    Raises:
        SettingsError: No variable says it: MLflow would make an empty registry in the working folder.
    """
    variables = environment()
    if not variables.get("MLFLOW_TRACKING_URI"):
        raise SettingsError(
            "MODEL_FILEPATH names a model of an MLflow registry, and MLFLOW_TRACKING_URI does not say where that is: "
            "set it, for example to http://mlflow:5000."
        )
    uri = variables.get("MLFLOW_REGISTRY_URI") or variables["MLFLOW_TRACKING_URI"]
    return _without_password(uri)


def _without_password(text: str) -> str:
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def _one_line(error: Exception) -> str:
    text = _without_password(" ".join(str(error).split()))
    return (text if len(text) <= 300 else f"{text[:297]}...").rstrip(".")
