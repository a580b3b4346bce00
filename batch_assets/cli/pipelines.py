"""Which pipeline a command is about."""

import sys
import tomllib
from pathlib import Path

import click

from batch_assets.errors import SettingsError
from batch_assets.pipeline import OF_ENVIRONMENT, Declaration
from batch_assets.settings.environment import environment

pipeline_option = click.option(
    "--pipeline", "name", metavar="NAME", help="The pipeline; needed where there are several."
)


def declared_pipelines() -> list[Declaration]:
    """Returns the pipelines that the project declares, or that of the environment where none is declared.

    Raises:
        SettingsError: The project cannot be loaded, or BATCH_PROJECT names one that declares none.
    """
    named = environment().get("BATCH_PROJECT")
    project = _named_project(named) if named else _project_of(Path.cwd())
    if project is None:
        return [OF_ENVIRONMENT]
    import dagster as dg  # noqa: PLC0415 - only in a project

    from batch_assets import component  # noqa: PLC0415
    from batch_assets.orchestration.dagster_internals import ComponentTreeException  # noqa: PLC0415

    # As Dagster's own commands find the modules of a project that is not installed.
    sys.path[:0] = [str(project), str(project / "src")]
    try:
        found = component.declared_pipelines(dg.ComponentTree.for_project(project))
    except (dg.DagsterError, ComponentTreeException) as error:
        raise SettingsError(f"The pipelines of {project} cannot be loaded: {_reason(error)}") from error
    if named and not found:
        raise SettingsError(
            f"BATCH_PROJECT is {named!r}, which declares no pipeline: write one into a defs.yaml of its defs folder, "
            "or unset it for the pipeline of the environment."
        )
    return found or [OF_ENVIRONMENT]


def _reason(error: BaseException) -> str:
    """Returns what of an error of Dagster's tells which part of which file is wrong, and why."""
    from pydantic import ValidationError  # noqa: PLC0415 - only in a project

    if isinstance(error, ValidationError):
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        return "; ".join(line for line in lines if not line.startswith("For further information"))
    # Of a longer text the rest is a drawing of the components, or a stack trace.
    first = str(error).strip().partition("\n")[0].rstrip(":")
    cause = error.__cause__ or error.__context__
    return f"{first}: {_reason(cause)}" if cause else first


def chosen_pipeline(name: str | None) -> Declaration:
    """Returns the pipeline of a name, or the only one there is.

    Raises:
        SettingsError: There is none of that name, or there are several and none is named.
    """
    declared = {declaration.name: declaration for declaration in declared_pipelines()}
    if name is None and len(declared) > 1:
        raise SettingsError(f"There are several pipelines: name one with --pipeline: {', '.join(declared)}.")
    if name is not None and name not in declared:
        raise SettingsError(f"There is no pipeline {name!r}: there are {', '.join(declared)}.")
    return declared[name] if name else next(iter(declared.values()))


def pipelines_of_table(declaration: Declaration) -> list[Declaration]:
    """Returns the pipelines that score the table of one of them, that one first."""
    table = (declaration.connection, declaration.items.name)
    others = [each for each in declared_pipelines() if (each.connection, each.items.name) == table]
    return [declaration, *(each for each in others if each.name != declaration.name)]


def _named_project(named: str) -> Path:
    if not _is_project(Path(named)):
        raise SettingsError(
            f"BATCH_PROJECT is {named!r}, which has no pyproject.toml with a section [tool.dg]: set it to the folder "
            "of a Dagster project."
        )
    return Path(named).absolute()


def _project_of(folder: Path) -> Path | None:
    return next((each for each in (folder, *folder.parents) if _is_project(each)), None)


def _is_project(folder: Path) -> bool:
    file = folder / "pyproject.toml"
    if (folder / "dg.toml").is_file():
        return True
    try:
        return "dg" in tomllib.loads(file.read_text()).get("tool", {})
    except OSError:
        return False
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} cannot be read: {error}.") from error
