"""Users' own assets for the tests of the IO manager, and what became of a run of them."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd

from batch_assets.database.slices.batches import Batches
from batch_assets.io_manager import MySQLIOManager

HOURS = dg.HourlyPartitionsDefinition(start_date="2026-01-01-00:00", timezone="UTC", fmt="%Y-%m-%d-%H:%M")
FIRST, SECOND, THIRD = "2026-01-01-05:00", "2026-01-01-06:00", "2026-01-01-07:00"


def schema(**columns: str) -> dg.TableSchema:
    """The columns of a table, for example `schema(id="BIGINT NOT NULL")`."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                name,
                kind.removesuffix(" NOT NULL"),
                constraints=dg.TableColumnConstraints(nullable=not kind.endswith(" NOT NULL")),
            )
            for name, kind in columns.items()
        ]
    )


def stored(
    make: Callable[..., Any],
    columns: Mapping[str, str] | None = None,
    partitions_def: dg.PartitionsDefinition[Any] | None = None,
    name: str | Sequence[str] = "orders",
    backfill_policy: dg.BackfillPolicy | None = None,
    **metadata: Any,
) -> dg.AssetsDefinition:
    """An asset that returns what `make(partition_key)` gives."""

    def body(context: dg.AssetExecutionContext) -> Any:
        if context.has_partition_key_range and not context.has_partition_key:
            return make(context.partition_keys)
        return make(context.partition_key if context.has_partition_key else None)

    declared = {"dagster/column_schema": schema(**columns)} if columns else {}
    return dg.asset(
        key=dg.AssetKey([name] if isinstance(name, str) else list(name)),
        partitions_def=partitions_def,
        metadata={**declared, **metadata},
        io_manager_key="mysql_io_manager",
        backfill_policy=backfill_policy,
    )(body)


def reader(
    upstream: dg.AssetsDefinition,
    seen: list[Any],
    kind: Any = pd.DataFrame,
    partitions_def: dg.PartitionsDefinition[Any] | None = None,
    partition_mapping: dg.PartitionMapping | None = None,
    **metadata: Any,
) -> dg.AssetsDefinition:
    """An asset that puts what it is given into `seen`: a DataFrame, or the batches of `Batches`."""

    def body(loaded: Any) -> None:
        seen.append(list(loaded) if isinstance(loaded, Batches) else loaded)

    body.__annotations__["loaded"] = kind
    if kind is Any:
        del body.__annotations__["loaded"]
    return dg.asset(
        name="reader",
        ins={"loaded": dg.AssetIn(key=upstream.key, metadata=metadata, partition_mapping=partition_mapping)},
        partitions_def=partitions_def,
    )(body)


def run(
    *assets: dg.AssetsDefinition,
    partition: str | None = None,
    only: dg.AssetsDefinition | None = None,
    instance: dg.DagsterInstance | None = None,
    io_manager: MySQLIOManager | None = None,
    tags: Mapping[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    """Materialises assets, or only one of them; a failure is a result too."""
    with tempfile.TemporaryDirectory() as folder:  # which Dagster would leave to the garbage collector
        return dg.materialize(
            list(assets),
            selection=[only] if only else None,
            partition_key=partition,
            instance=instance or dg.DagsterInstance.ephemeral(tempdir=folder),
            resources={"mysql_io_manager": io_manager or MySQLIOManager()},
            tags=tags,
            raise_on_error=False,
        )


def range_tags(start: str, end: str) -> dict[str, str]:
    """The tags of one run for a range of partitions."""
    return {"dagster/asset_partition_range_start": start, "dagster/asset_partition_range_end": end}


def store(asset: dg.AssetsDefinition, partition: str | None = None, **options: Any) -> dict[str, Any]:
    """Materialises an asset, which must succeed, and returns the metadata of the event."""
    result = run(asset, partition=partition, **options)
    assert result.success, failure_of(result)
    (event,) = result.asset_materializations_for_node("__".join(asset.key.path))
    return {name: value.value for name, value in event.metadata.items()}


def load(upstream: dg.AssetsDefinition, kind: Any = pd.DataFrame, partition: str | None = None, **options: Any) -> Any:
    """Returns what an asset downstream is given, with the same partitions unless others are named."""
    seen: list[Any] = []
    instance = options.pop("instance", None)
    io_manager = options.pop("io_manager", None)
    if partition is not None:
        options.setdefault("partitions_def", upstream.partitions_def)
    asset = reader(upstream, seen, kind, **options)
    result = run(upstream, asset, only=asset, partition=partition, instance=instance, io_manager=io_manager)
    assert result.success, failure_of(result)
    return seen[0]


def refused(asset: dg.AssetsDefinition, partition: str | None = None, **options: Any) -> str:
    """Materialises an asset, which must fail with a sentence, and returns it."""
    return failure_of(run(asset, partition=partition, **options))


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The sentence with which a run has failed, which only a `dg.Failure` has."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data
    assert data.user_failure_data is not None, data.error
    return str(data.user_failure_data.description)
