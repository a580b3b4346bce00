"""The folders that the environment does not name."""

from collections.abc import Mapping
from pathlib import Path


def root_folder() -> Path:
    """Returns the checkout that holds the package, or the working folder for a package installed elsewhere."""
    checkout = Path(__file__).parents[2]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def home_folder(environment: Mapping[str, str]) -> Path:
    """Returns the folder of the embedded default: its SQLite file and its Dagster instance.

    Args:
        environment: `BATCH_ASSETS_HOME` names the folder; without it, `.batch_assets` in the root folder.
    """
    named = environment.get("BATCH_ASSETS_HOME")
    return Path(named).absolute() if named else root_folder() / ".batch_assets"
