"""What is known of a pipeline: its settings, in one typed object that is made of the environment and handed down."""

from collections.abc import Mapping
from dataclasses import dataclass

from batch_assets.errors import SettingsError
from batch_assets.hours import Hour, hour_of_key
from batch_assets.settings.database import MySQLSettings, SQLiteSettings, database_settings
from batch_assets.settings.environment import environment
from batch_assets.settings.model import ModelFiles
from batch_assets.settings.retry import RetrySettings
from batch_assets.settings.throttle import ThrottleSettings

FIRST_HOUR = "2026-11-01-00:00"


@dataclass(frozen=True)
class ItemTable:
    """The table that the web service writes, and which of its columns are which.

    Args:
        name: The table.
        key: Its primary key, a whole number.
        values: What is scored, JSON.
        prediction: What is written once an item is scored, JSON; NULL until then.
        created: When an item was created, which decides its hour.
        updated: When it was last changed.
    """

    name: str = "items"
    key: str = "id"
    values: str = "values"
    prediction: str = "prediction"
    created: str = "created_datetime"
    updated: str = "updated_datetime"


# What the pipeline that the environment describes is called; rows from before there were others have this name.
ENVIRONMENT_PIPELINE = "items"
# The table of the pipeline that the environment describes.
ITEM_TABLE = ItemTable()
# The minute at which its schedule scores the hour that has just closed.
SCHEDULE_MINUTE = 19


@dataclass(frozen=True)
class Pipeline:
    """A table whose items are scored by a model hour by hour, and all that is set about it.

    Args:
        name: By which its rows are known in the tables that pipelines share.
        database: Where the table is.
        items: The table and its columns.
        model: The files of the model.
        first_hour: Items that were created before it are not scored.
        schedule_minute: The minute at which the hour that has just closed is scored.
        retry: What is done about what could not be done at once.
        throttle: What the others on the server are to be spared.
    """

    name: str
    database: MySQLSettings | SQLiteSettings
    items: ItemTable
    model: ModelFiles
    first_hour: Hour
    schedule_minute: int
    retry: RetrySettings
    throttle: ThrottleSettings


def pipeline_from_environment(variables: Mapping[str, str] | None = None) -> Pipeline:
    """Returns the pipeline that the environment describes.

    Args:
        variables: Other variables than those of this process.

    Raises:
        SettingsError: A variable is missing or has a value that cannot be used.
    """
    variables = environment() if variables is None else variables
    return Pipeline(
        name=ENVIRONMENT_PIPELINE,
        database=database_settings(variables),
        items=ITEM_TABLE,
        model=ModelFiles.from_environment(variables),
        first_hour=first_hour(variables),
        schedule_minute=SCHEDULE_MINUTE,
        retry=RetrySettings.from_environment(variables),
        throttle=ThrottleSettings.from_environment(variables),
    )


def first_hour(variables: Mapping[str, str]) -> Hour:
    """Returns the first hour of the pipeline: `BATCH_FIRST_HOUR`, or the start of November 2026.

    Raises:
        SettingsError: The variable is not an hour.
    """
    text = variables.get("BATCH_FIRST_HOUR") or FIRST_HOUR
    hour = hour_of_key(text)
    if hour is None:
        raise SettingsError(f"BATCH_FIRST_HOUR is {text!r}: write an hour of UTC as 2026-11-01-05:00.")
    return hour
