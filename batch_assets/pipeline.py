"""What is known of a pipeline: how it is declared, and its settings, in one typed object that is handed down."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from batch_assets.errors import SettingsError
from batch_assets.hours import Hour, hour_of_key
from batch_assets.settings.database import (
    DEFAULT_CONNECTION,
    MySQLSettings,
    SQLiteSettings,
    connection_variables,
    database_settings,
)
from batch_assets.settings.environment import environment, number
from batch_assets.settings.folders import project_folder
from batch_assets.settings.inference import InferenceSettings
from batch_assets.settings.items import ItemFormat
from batch_assets.settings.model import (
    Challenger,
    ModelSource,
    challenger_from_environment,
    challenger_items,
    model_from_environment,
)
from batch_assets.settings.retry import RetrySettings
from batch_assets.settings.throttle import ThrottleSettings

FIRST_HOUR = "2026-11-01-00:00"


@dataclass(frozen=True)
class ItemTable(ItemFormat):
    """The table that the web service writes, which of its columns are which, and what they hold.

    Args:
        name: The table.
        key: Its primary key, a whole number.
        values: What is scored, JSON.
        from_columns: Whether it is a JSON list that the server makes of the columns of the features.
        created: When an item was created, which decides its hour.
        updated: When it was last changed; None if the table does not say.
    """

    name: str = "items"
    key: str = "id"
    values: str = "values"
    from_columns: bool = False
    created: str = "created_datetime"
    updated: str | None = "updated_datetime"

    @property
    def scored_columns(self) -> list[str]:
        """The columns that say what is to be scored."""
        return [feature.name for feature in self.features] if self.from_columns else [self.values]

    @property
    def json_lists(self) -> dict[str, list[str]]:
        """What the server makes of columns: the name under which it is read, and the columns."""
        return {self.values: self.scored_columns} if self.from_columns else {}


# What the pipeline that the environment describes is called; rows from before there were others have this name.
ENVIRONMENT_PIPELINE = "items"
# The table of the pipeline that the environment describes.
ITEM_TABLE = ItemTable()
# The minute at which its schedule scores the hour that has just closed.
SCHEDULE_MINUTE = 19
LAST_MINUTE = 59
# So long after its end an hour must have been scored: by the end of the next one.
DEADLINE_MINUTES = 60


@dataclass(frozen=True)
class Pipeline:
    """A table whose items are scored by a model hour by hour, and all that is set about it.

    Args:
        name: By which its rows are known in the tables that pipelines share.
        database: Where the table is.
        items: The table and its columns.
        model: The files of the model, or a model of a registry.
        first_hour: Items that were created before it are not scored.
        schedule_minute: The minute at which the hour that has just closed is scored.
        retry: What is done about what could not be done at once.
        throttle: What the others on the server are to be spared.
        deadline_minutes: So long after its end an hour must have been scored.
        challenger: A second model, to compare with the first; None if there is none.
        inference: Where and how the model scores.
        folder: That of the project, which may be another one on the next machine; the empty path if it has none.
    """

    name: str
    database: MySQLSettings | SQLiteSettings
    items: ItemTable
    model: ModelSource
    first_hour: Hour
    schedule_minute: int
    retry: RetrySettings
    throttle: ThrottleSettings
    deadline_minutes: int = DEADLINE_MINUTES
    challenger: Challenger | None = None
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    folder: Path = field(default_factory=project_folder)


@dataclass(frozen=True)
class Declaration:
    """A pipeline as it is declared: what stands before a run, and what differs from the environment.

    Without arguments it is the pipeline that the environment describes.

    Args:
        name: The name of the pipeline.
        items: The table and its columns.
        schedule_minute: The minute at which the hour that has just closed is scored.
        connection: What the variables of its database begin with: with `SHOP`, `SHOP_SERVER` says what
            `MYSQL_SERVER` says of the environment's.
        model: The files of the model, or a model of a registry; None for that of the environment.
        challenger_model: Those of a second model, to compare with the first. None: there is none or, without a `model`,
            it is that of the environment.
        folder: That of the project.
        settings: Variables that have another value for it than in the environment.
    """

    name: str = ENVIRONMENT_PIPELINE
    items: ItemTable = ITEM_TABLE
    schedule_minute: int = SCHEDULE_MINUTE
    connection: str = DEFAULT_CONNECTION
    model: ModelSource | None = None
    challenger_model: ModelSource | None = None
    folder: Path = field(default_factory=project_folder)
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_of_environment(self) -> bool:
        """Whether it is the pipeline that the environment describes, whose assets have no prefix."""
        return self.name == ENVIRONMENT_PIPELINE

    def prefixed(self, name: str) -> str:
        """Returns what a job, a schedule or a sensor of this pipeline is called."""
        return name if self.is_of_environment else f"{self.name}_{name}"

    def command(self, name: str) -> str:
        """Returns the command of `batch-assets` for this pipeline, for somebody to run."""
        return f"batch-assets {name}" + ("" if self.is_of_environment else f" --pipeline {self.name}")

    @property
    def sensor_name(self) -> str:
        """The name of its sensor."""
        return self.prefixed("retry_hours")

    def variables(self, variables: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """Returns the variables as they are for this pipeline.

        Args:
            variables: Other variables than those of this process.
        """
        variables = environment() if variables is None else variables
        return {**connection_variables(variables, self.connection), **self.settings}

    def first_hour(self, variables: Mapping[str, str] | None = None) -> Hour:
        """Returns the first hour of the pipeline: `BATCH_FIRST_HOUR`, or the start of November 2026.

        Raises:
            SettingsError: The variable is not an hour.
        """
        text = self.variables(variables).get("BATCH_FIRST_HOUR") or FIRST_HOUR
        hour = hour_of_key(text)
        if hour is None:
            raise SettingsError(f"BATCH_FIRST_HOUR is {text!r}: write an hour of UTC as 2026-11-01-05:00.")
        return hour

    def canary_minute(self) -> int | None:
        """Returns the minute at which the canary runs, `BATCH_CANARY_MINUTE`; None if it runs only by hand.

        Raises:
            SettingsError: The variable is not a minute.
        """
        text = self.variables().get("BATCH_CANARY_MINUTE")
        if not text:
            return None
        if not text.isdecimal() or int(text) > LAST_MINUTE:
            raise SettingsError(f"BATCH_CANARY_MINUTE is {text!r}: write a minute of the hour, 0 to {LAST_MINUTE}.")
        return int(text)

    def challenger(self, variables: Mapping[str, str] | None = None) -> Challenger | None:
        """Returns the second model, which is compared with the first; None if there is none.

        That of the environment is compared with the model of the environment, not with one of a pipeline's own.

        Args:
            variables: Other variables than those of this process.

        Raises:
            SettingsError: A variable has a value that cannot be used.
        """
        of_pipeline, model = self.variables(variables), self.challenger_model
        if model is None and self.model is None:
            model = challenger_from_environment(of_pipeline)
        return Challenger(model, challenger_items(of_pipeline)) if model else None

    def load(self, variables: Mapping[str, str] | None = None) -> Pipeline:
        """Returns the pipeline with all its settings.

        Args:
            variables: Other variables than those of this process.

        Raises:
            SettingsError: A variable is missing or has a value that cannot be used.
        """
        of_pipeline = self.variables(variables)
        return Pipeline(
            name=self.name,
            database=database_settings(of_pipeline),
            items=self.items,
            model=self.model or model_from_environment(of_pipeline),
            first_hour=self.first_hour(variables),
            schedule_minute=self.schedule_minute,
            retry=RetrySettings.from_environment(of_pipeline),
            throttle=ThrottleSettings.from_environment(of_pipeline),
            deadline_minutes=int(number(of_pipeline, "BATCH_DEADLINE_MINUTES", 1, DEADLINE_MINUTES)),
            challenger=self.challenger(variables),
            inference=InferenceSettings.from_environment(of_pipeline),
            folder=self.folder,
        )


# The pipeline that the environment describes.
OF_ENVIRONMENT = Declaration()


def pipeline_from_environment(variables: Mapping[str, str] | None = None) -> Pipeline:
    """Returns the pipeline that the environment describes.

    Args:
        variables: Other variables than those of this process.

    Raises:
        SettingsError: A variable is missing or has a value that cannot be used.
    """
    return OF_ENVIRONMENT.load(variables)
