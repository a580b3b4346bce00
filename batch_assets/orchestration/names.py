"""What the parts of a pipeline are called in Dagster, and where its items are."""

from typing import Any, NamedTuple

import dagster as dg

from batch_assets.pipeline import Declaration
from batch_assets.settings.database import DEFAULT_CONNECTION

JOB = "batch_inference"
CANARY = "canary"
CHALLENGER = "challenger"
CHALLENGER_PREDICTIONS, HOUR_QUALITY = "challenger_predictions", "hour_quality"
IO_MANAGER = "mysql_io_manager"


class AssetKeys(NamedTuple):
    """The keys of the assets of a pipeline, in the order in which they are materialised."""

    raw_items: dg.AssetKey
    predictions: dg.AssetKey
    run_summary: dg.AssetKey


def asset_keys(declaration: Declaration) -> AssetKeys:
    """Returns the keys of the assets that the job of a pipeline materialises."""
    return AssetKeys(*(asset_key(declaration, name) for name in AssetKeys._fields))


def asset_key(declaration: Declaration, name: str) -> dg.AssetKey:
    """Returns the key of an asset of a pipeline: with its name as prefix, but for that of the environment."""
    return dg.AssetKey([name] if declaration.is_of_environment else [declaration.name, name])


def job_name(declaration: Declaration) -> str:
    """Returns the name of the job of a pipeline."""
    return declaration.prefixed(JOB)


def group_name(declaration: Declaration) -> str:
    """Returns the group of the assets of a pipeline."""
    return JOB if declaration.is_of_environment else declaration.name


def io_manager_key(declaration: Declaration) -> str:
    """Returns the resource that stores the assets of a pipeline: one for each connection."""
    connection = declaration.connection
    return IO_MANAGER if connection == DEFAULT_CONNECTION else f"{connection.lower()}_io_manager"


def table_metadata(declaration: Declaration) -> dict[str, Any]:
    """Returns the metadata by which the IO manager finds the items of an hour."""
    table = declaration.items
    # Without a schema of its own: the prefix of the asset's key is the pipeline's name.
    found = {"table": table.name, "schema": "", "partition_expr": table.created, "key": table.key}
    return found | ({"json_lists": table.json_lists} if table.json_lists else {})


def run_tag(name: str, declaration: Declaration) -> str:
    """Returns the name of a tag of a run: a run may be for several pipelines, each of which has its own."""
    return name if declaration.is_of_environment else f"{name}.{declaration.name}"
