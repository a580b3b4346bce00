"""The folders that the environment does not name."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

# Put into the wheel when it is built; a checkout has it beside the package.
_MODEL_OF_WHEEL = Path(str(files("batch_assets"))) / "models"


def root_folder() -> Path:
    """Returns the checkout that holds the package, or the working folder for a package installed elsewhere."""
    return _checkout() or Path.cwd()


def project_folder() -> Path:
    """Returns the checkout that holds the package, or the empty path for a package installed elsewhere.

    The working folder of one process, which that stands for, may be another one for the next.
    """
    return _checkout() or Path()


def _checkout() -> Path | None:
    checkout = Path(__file__).parents[2]
    return checkout if (checkout / "pyproject.toml").is_file() else None


def home_folder(environment: Mapping[str, str]) -> Path:
    """Returns the folder of the embedded default: its SQLite file and its Dagster instance.

    Args:
        environment: `BATCH_ASSETS_HOME` names the folder; without it, `.batch_assets` in the root folder.
    """
    named = environment.get("BATCH_ASSETS_HOME")
    return Path(named).absolute() if named else root_folder() / ".batch_assets"


def trained_model_folder(environment: Mapping[str, str]) -> Path:
    """Returns the folder that `iris_model` writes to: `models` of the checkout, or of the home of an installed wheel.

    Args:
        environment: Names the home folder.
    """
    return (home_folder(environment) if is_wheel() else root_folder()) / "models"


def model_folder(environment: Mapping[str, str]) -> Path:
    """Returns the folder of the iris model: where `iris_model` has written it, else the one that came in the wheel.

    Args:
        environment: Names the home folder.
    """
    trained = trained_model_folder(environment)
    return _MODEL_OF_WHEEL if is_wheel() and not (trained / "iris_svc.onnx").is_file() else trained


def is_wheel() -> bool:
    """Returns whether the package was installed from a wheel, and not from a checkout that is still there."""
    return _MODEL_OF_WHEEL.is_dir()


def relative_to_root(path: Path) -> Path:
    """Returns a path as messages show it: without the root folder, where it lies in that."""
    return path.relative_to(root_folder()) if path.is_relative_to(root_folder()) else path
