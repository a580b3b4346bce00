"""Pipelines that are declared in YAML, as a component of Dagster."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, partial
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

import dagster as dg
from pydantic import AfterValidator, Field

from batch_assets.errors import SettingsError
from batch_assets.garbage import freeze_imports
from batch_assets.hours import hour_of_key
from batch_assets.io_manager import MySQLIOManager
from batch_assets.orchestration.names import io_manager_key
from batch_assets.orchestration.pipeline_definitions import build_pipeline
from batch_assets.orchestration.resources import Model
from batch_assets.pipeline import ENVIRONMENT_PIPELINE, ITEM_TABLE, SCHEDULE_MINUTE, Declaration, ItemTable
from batch_assets.settings.database import DEFAULT_CONNECTION
from batch_assets.settings.items import Feature, Form, Output
from batch_assets.settings.model import ModelSource, is_registered, model_of_text, registered_model


def _between(least: float, most: float, value: Any) -> Any:
    # A text is a template of Dagster's, which is looked at again when it has been replaced.
    if not isinstance(value, str) and not least <= value <= most:
        raise ValueError(f"must be from {least} to {most}" if most < inf else f"must be {least} or more")
    return value


def _an_hour(text: str) -> str:
    if "{{" not in text and hour_of_key(text) is None:
        raise ValueError("write an hour of UTC as 2026-11-01-05:00")
    return text


def _a_model(text: str) -> str:
    if "{{" not in text and is_registered(text):
        try:
            registered_model(text, None, None)
        except SettingsError as error:
            raise ValueError(str(error)) from error
    return text


PositiveInteger = Annotated[int, AfterValidator(partial(_between, 1, inf))]
NonNegativeInteger = Annotated[int, AfterValidator(partial(_between, 0, inf))]
NonNegativeNumber = Annotated[float, AfterValidator(partial(_between, 0, inf))]
Factor = Annotated[float, AfterValidator(partial(_between, 1, inf))]
Share = Annotated[float, AfterValidator(partial(_between, 0, 1))]
Minute = Annotated[int, AfterValidator(partial(_between, 0, 59))]

FirstHour = Annotated[str, AfterValidator(_an_hour)]
ModelFile = Annotated[str, AfterValidator(_a_model)]

# No column has such a name.
_FEATURE_COLUMNS = "columns of the features"
_MODEL = Model()


# One object for all pipelines of a connection: Dagster takes two of a name for a contradiction.
@cache
def _io_manager(connection: str) -> MySQLIOManager:
    return MySQLIOManager(connection=connection)


def pipeline_definitions(declaration: Declaration) -> dg.Definitions:
    """Returns what Dagster is given of a pipeline, with the resources that its assets need."""
    freeze_imports()
    shared = dg.Definitions(
        resources={"model": _MODEL, io_manager_key(declaration): _io_manager(declaration.connection)},
        # A process for each step would cost more than an hour of items; backfills take the executor from here.
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(shared, build_pipeline(declaration))


def _declared_model(project_root: Path, file: str, labels: str | None, sample: str | None) -> ModelSource:
    label_filepath = project_root / labels if labels else None
    sample_data_path = project_root / sample if sample else None
    return model_of_text(file, label_filepath, sample_data_path, project_root)


class TableAttributes(dg.Model, dg.Resolvable):
    """The table whose rows are scored, and which of its columns are which."""

    name: Annotated[str, Field(description="The table.")] = ITEM_TABLE.name
    key: Annotated[str, Field(description="Its primary key, a whole number.")] = ITEM_TABLE.key
    created: Annotated[
        str, Field(description="When a row was created, in UTC, which decides the hour that it belongs to.")
    ] = ITEM_TABLE.created
    values: Annotated[
        str | None,
        Field(
            description="The column with what is scored, as JSON: an object by the names of the features or, without "
            "features, a list of numbers. Without it, each feature is a column."
        ),
    ] = None
    features: Annotated[
        Sequence[str], Field(description="The values that the model takes, by name, in its order.")
    ] = ()
    nullable: Annotated[
        Sequence[str], Field(description="The features that may be null, which the model gets as NaN.")
    ] = ()
    output: Annotated[
        str | None,
        Field(description="The column that is written: the class probabilities, or the value of a regression."),
    ] = None
    outputs: Annotated[
        Mapping[str, Form],
        Field(
            description="In its place, the columns that are written, and what to each. The first is NULL until a row "
            "is scored."
        ),
    ] = {}

    def declared(self, form: Form) -> ItemTable:
        """Returns the table as it is declared.

        Args:
            form: What is written to `output`.

        Raises:
            SettingsError: Attributes contradict each other.
        """
        if self.output and self.outputs:
            raise SettingsError(f"The table {self.name} has both `output` and `outputs`: leave one of them out.")
        unknown = [name for name in self.nullable if name not in self.features]
        if unknown:
            raise SettingsError(
                f"`nullable` of the table {self.name} names {', '.join(unknown)}: name features, which are "
                f"{', '.join(self.features) or 'none'}."
            )
        from_columns = bool(self.features) and self.values is None
        outputs = self.outputs or {self.output or ITEM_TABLE.prediction: form}
        return ItemTable(
            name=self.name,
            key=self.key,
            values=_FEATURE_COLUMNS if from_columns else self.values or ITEM_TABLE.values,
            from_columns=from_columns,
            features=tuple(Feature(name, name in self.nullable) for name in self.features),
            by_name=bool(self.features) and not from_columns,
            outputs=tuple(Output(column, written) for column, written in outputs.items()),
            created=self.created,
            updated=ITEM_TABLE.updated if self.name == ITEM_TABLE.name else None,
        )


class ModelAttributes(dg.Model, dg.Resolvable):
    """The files of the model, each a path from the folder of the project."""

    file: Annotated[
        ModelFile,
        Field(
            description="The ONNX file, or a model of an MLflow registry: models:/churn@champion by an alias, "
            "models:/churn/3 by its version."
        ),
    ]
    task: Annotated[Literal["classification", "regression"], Field(description="What the model is for.")] = (
        "classification"
    )
    labels: Annotated[
        str | None,
        Field(description="A JSON object of class index to label, for a model that does not name its classes."),
    ] = None
    sample: Annotated[str | None, Field(description="A JSON list of the values of a few items to try it with.")] = None

    def declared(self, project_root: Path) -> ModelSource:
        """Returns the files, whose paths begin in the folder of the project, or the model of a registry."""
        return _declared_model(project_root, self.file, self.labels, self.sample)


class ChallengerAttributes(dg.Model, dg.Resolvable):
    """A second model, which answers a sample of the rows beside the first and publishes nothing."""

    file: Annotated[ModelFile, Field(description="The ONNX file, or a model of an MLflow registry.")]
    labels: Annotated[
        str | None,
        Field(description="A JSON object of class index to label, for a model that does not name its classes."),
    ] = None
    items: Annotated[PositiveInteger | None, Field(description="BATCH_CHALLENGER_ITEMS")] = None

    def declared(self, project_root: Path) -> ModelSource:
        """Returns the files, whose paths begin in the folder of the project, or the model of a registry."""
        return _declared_model(project_root, self.file, self.labels, None)


class ScheduleAttributes(dg.Model, dg.Resolvable):
    """When an hour is scored."""

    minute: Annotated[Minute, Field(description="The minute at which the hour that has closed is scored.")]


class RetryAttributes(dg.Model, dg.Resolvable):
    """What is done about what could not be done at once: see the environment variable that each stands for."""

    policy: Annotated[Literal["partial", "whole_batch", "leave"] | None, Field(description="BATCH_RETRY")] = None
    max_attempts: Annotated[PositiveInteger | None, Field(description="BATCH_MAX_ATTEMPTS")] = None
    max_failed_items: Annotated[NonNegativeInteger | None, Field(description="BATCH_MAX_FAILED_ITEMS")] = None
    max_failed_share: Annotated[Share | None, Field(description="BATCH_MAX_FAILED_SHARE")] = None
    busy_hour: Annotated[Literal["wait", "fail"] | None, Field(description="BATCH_BUSY_HOUR")] = None

    def variables(self) -> dict[str, object]:
        """Returns the variables that these attributes stand for."""
        return {
            "BATCH_RETRY": self.policy,
            "BATCH_MAX_ATTEMPTS": self.max_attempts,
            "BATCH_MAX_FAILED_ITEMS": self.max_failed_items,
            "BATCH_MAX_FAILED_SHARE": self.max_failed_share,
            "BATCH_BUSY_HOUR": self.busy_hour,
        }


class PaceAttributes(dg.Model, dg.Resolvable):
    """What the others on the server are to be spared: see the environment variable that each stands for."""

    max_slowdown: Annotated[Factor | None, Field(description="BATCH_MAX_SLOWDOWN")] = None
    max_rows_per_second: Annotated[PositiveInteger | None, Field(description="BATCH_MAX_ROWS_PER_SECOND")] = None
    max_load: Annotated[str | None, Field(description="BATCH_MAX_LOAD")] = None
    replicas: Annotated[str | None, Field(description="BATCH_REPLICAS")] = None
    max_lag_seconds: Annotated[NonNegativeNumber | None, Field(description="BATCH_MAX_LAG_SECONDS")] = None
    max_pause_seconds: Annotated[NonNegativeNumber | None, Field(description="BATCH_MAX_PAUSE_SECONDS")] = None

    def variables(self) -> dict[str, object]:
        """Returns the variables that these attributes stand for."""
        return {
            "BATCH_MAX_SLOWDOWN": self.max_slowdown,
            "BATCH_MAX_ROWS_PER_SECOND": self.max_rows_per_second,
            "BATCH_MAX_LOAD": self.max_load,
            "BATCH_REPLICAS": self.replicas,
            "BATCH_MAX_LAG_SECONDS": self.max_lag_seconds,
            "BATCH_MAX_PAUSE_SECONDS": self.max_pause_seconds,
        }


class ScoringAttributes(dg.Model, dg.Resolvable):
    """Where and how the model scores: see the environment variable that each stands for."""

    threads: Annotated[PositiveInteger | None, Field(description="BATCH_SCORING_THREADS")] = None
    providers: Annotated[str | None, Field(description="BATCH_ONNX_PROVIDERS")] = None
    ray_address: Annotated[str | None, Field(description="BATCH_RAY_ADDRESS")] = None
    ray_actors: Annotated[PositiveInteger | None, Field(description="BATCH_RAY_ACTORS")] = None

    def variables(self) -> dict[str, object]:
        """Returns the variables that these attributes stand for."""
        return {
            "BATCH_SCORING_THREADS": self.threads,
            "BATCH_ONNX_PROVIDERS": self.providers,
            "BATCH_RAY_ADDRESS": self.ray_address,
            "BATCH_RAY_ACTORS": self.ray_actors,
        }


class BatchInferenceScaffolder(dg.Scaffolder):
    """Has `dg scaffold defs` write a declaration to fill in."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        """Writes a pipeline that is called as its folder, with a table and a model of the same name."""
        name = request.target_path.name
        table = {"name": name, "key": "id", "created": "created_at", "features": ["age"], "output": "prediction"}
        dg.scaffold_component(request, {"name": name, "table": table, "model": {"file": f"models/{name}.onnx"}})


@dg.scaffold_with(BatchInferenceScaffolder)
class BatchInferenceComponent(dg.Component, dg.Model, dg.Resolvable):
    """A table whose rows a model scores hour by hour: its assets, checks, job, schedule and sensor.

    What is left out comes from the environment variables and their defaults.
    """

    name: Annotated[
        str,
        Field(
            # Of Dagster's names and of a column of 64 characters, with what is written behind it.
            pattern=r"^[a-z][a-z0-9_]{0,31}$",
            description="The name of the pipeline, the prefix of its assets. Without one, or as `items`, it is the "
            "pipeline that the environment describes.",
        ),
    ] = ENVIRONMENT_PIPELINE
    connection: Annotated[
        str,
        Field(
            pattern=r"^[A-Z][A-Z0-9_]*$",
            description="What the environment variables of its database begin with: with SHOP, these are SHOP_SERVER, "
            "SHOP_USER and so on in the place of MYSQL_SERVER, MYSQL_USER.",
        ),
    ] = DEFAULT_CONNECTION
    table: TableAttributes = TableAttributes()
    # Not `model`, which is a method of `Resolvable`.
    files: Annotated[ModelAttributes | None, Field(alias="model")] = None
    challenger: Annotated[
        ChallengerAttributes | None, Field(description="A second model, which is compared with the first.")
    ] = None
    first_hour: Annotated[
        FirstHour | None,
        Field(description="Rows that were created before it are not scored, for example 2026-11-01-00:00."),
    ] = None
    schedule: ScheduleAttributes = ScheduleAttributes(minute=SCHEDULE_MINUTE)
    retry: RetryAttributes = RetryAttributes()
    pace: PaceAttributes = PaceAttributes()
    scoring: ScoringAttributes = ScoringAttributes()

    def declaration(self, project_root: Path) -> Declaration:
        """Returns the pipeline as it is declared.

        Args:
            project_root: The folder from which the files of the model are named.
        """
        settings = {
            **self.retry.variables(),
            **self.pace.variables(),
            **self.scoring.variables(),
            "BATCH_FIRST_HOUR": self.first_hour,
            "BATCH_CHALLENGER_ITEMS": self.challenger.items if self.challenger else None,
        }
        regression = self.files is not None and self.files.task == "regression"
        return Declaration(
            name=self.name,
            items=self.table.declared("value" if regression else "probabilities"),
            schedule_minute=self.schedule.minute,
            connection=self.connection,
            model=self.files.declared(project_root) if self.files else None,
            challenger_model=self.challenger.declared(project_root) if self.challenger else None,
            folder=project_root,
            settings={name: str(value) for name, value in settings.items() if value is not None},
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Returns what Dagster is given of the pipeline.

        Raises:
            SettingsError: Another pipeline of the project has the same name, or writes the same column.
        """
        # Refuses those that contradict each other, whichever of them is loaded first.
        declared_pipelines(context.component_tree)
        return pipeline_definitions(self.declaration(context.project_root))


def declared_pipelines(tree: dg.ComponentTree) -> list[Declaration]:
    """Returns the pipelines that a project declares.

    Args:
        tree: The components of the project.

    Raises:
        SettingsError: Two of them have the same name, or write the same column.
    """
    components = tree.get_all_components(BatchInferenceComponent)
    declarations = [component.declaration(tree.project_root) for component in components]
    names = Counter(declaration.name for declaration in declarations)
    for name, count in names.items():
        if count > 1:
            raise SettingsError(f"{count} pipelines are called {name!r}: give each a name of its own.")
    written: dict[tuple[str, str, str], str] = {}
    for declaration in declarations:
        for output in declaration.items.outputs:
            column = (declaration.connection, declaration.items.name, output.column)
            other = written.setdefault(column, declaration.name)
            if other != declaration.name:
                raise SettingsError(
                    f"The pipelines {other!r} and {declaration.name!r} both write {'.'.join(column[1:])}: give each a "
                    "column of its own."
                )
    return declarations
