"""The IO manager itself: a slice described, and handed to what reads or writes it."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg
import sqlalchemy as sa
from pydantic import Field

from batch_assets.database.connection.engine import engine_for, engine_from_url
from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches, BatchesByPartition
from batch_assets.database.slices.reading import count_rows, read_batches, read_columns
from batch_assets.database.slices.reflection import dtype_of
from batch_assets.database.slices.replacing import replace_slice
from batch_assets.database.slices.table_slice import Partition, TableSlice
from batch_assets.database.slices.updating import update_rows
from batch_assets.errors import BatchAssetsError, PartitionsError, SettingsError
from batch_assets.io_manager.asset_metadata import (
    as_batches,
    check_annotation,
    column_names,
    column_update,
    create_declared,
    rows_of_batches,
)
from batch_assets.io_manager.partition_conditions import (
    Context,
    check_partitions_exist,
    conditions_of_asset,
    conditions_of_partitions,
)
from batch_assets.orchestration.failures import as_dagster_failure
from batch_assets.settings.database import DEFAULT_CONNECTION, connection_variables, database_settings
from batch_assets.settings.environment import environment

# In an URL, also in one that is otherwise malformed.
_PASSWORD = re.compile(r"//[^/@]*:[^@]*@")


class MySQLIOManager(dg.ConfigurableIOManager):
    """Stores pandas DataFrames and `Batches` as tables or slices of tables, and loads them.

    What an asset returns replaces its partition, or its table if it has no partitions, in one transaction:
    readers see the old rows or the new ones. With the metadata `update_columns` it updates columns of
    existing rows, batch by batch. An input is loaded as a DataFrame, or lazily if it is annotated with
    `Batches`.
    """

    url: str | None = Field(
        default=None,
        repr=False,
        description="SQLAlchemy URL of the database; MYSQL_SERVER and its companions decide without it. One with a "
        'password is given as `dg.EnvVar("SHOP_URL")`.',
    )
    connection: str = Field(
        default=DEFAULT_CONNECTION,
        description="What the variables of the database begin with, where there is no URL: MYSQL for MYSQL_SERVER and "
        "its companions.",
    )
    schema_: str | None = Field(
        default=None, alias="schema", description="The database of tables whose asset does not name one."
    )

    def get_resource_definition(self) -> Any:
        """Returns what Dagster stores of the IO manager and shows in the UI.

        Raises:
            SettingsError: The password would be among it.
        """
        if isinstance(self.url, str) and not isinstance(self.url, dg.EnvVar) and _PASSWORD.search(self.url):
            raise SettingsError(
                "The URL of the IO manager has its password written out, which Dagster would store and show in the UI: "
                'set an environment variable to the URL, for example SHOP_URL, and give url=dg.EnvVar("SHOP_URL").'
            )
        return super().get_resource_definition()

    @as_dagster_failure
    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Stores what an asset returned; the metadata say what was stored."""
        start = time.perf_counter()
        if isinstance(obj, BatchesByPartition):
            check_partitions_exist(context)
            self._store_each(context, obj)
            return
        batches = as_batches(obj, context)
        check_partitions_exist(context)
        engine, table_slice = self._engine(), self._slice(context, context.definition_metadata)
        metadata = self._store(context, engine, table_slice, batches)
        if not column_update(context.definition_metadata):
            self._add_counts(context, engine, table_slice, metadata["rows"])
        context.add_output_metadata({**metadata, "seconds": round(time.perf_counter() - start, 3)})

    @as_dagster_failure
    def load_input(self, context: dg.InputContext) -> object:
        """Loads what an asset's annotation asks for: a DataFrame, or `Batches` that are read when they are used."""
        start = time.perf_counter()
        check_annotation(context)
        check_partitions_exist(context)
        wanted = context.definition_metadata or {}
        upstream = context.upstream_output.definition_metadata if context.upstream_output else {}
        metadata = {**upstream, **wanted}
        table_slice = self._slice(context, metadata, wanted)
        engine = self._engine()
        if context.has_asset_partitions and not context.asset_partition_keys:
            # An asset that reads its own partition before the first one, when there is no table yet.
            create_declared(engine, table_slice, upstream)
        columns = read_columns(engine, table_slice)
        rows, first_rows = rows_of_batches(context, wanted)
        read = partial(read_batches, engine, batch_rows=rows, first_batch_rows=first_rows)
        described = {"table": str(table_slice), "columns": ", ".join(column.name for column in columns)}
        if context.dagster_type.typing_type is Batches:
            _describe(context, described)
            return _lazily(table_slice, read, _dtypes(columns), partial(conditions_of_partitions, context, metadata))
        from batch_assets.database.slices.frames import frame_of  # noqa: PLC0415 - imports pandas

        names = [column.name for column in columns]
        batches = read(table_slice)
        frame = frame_of(names, [row for batch in batches for row in batch.rows], _dtypes(columns))
        seconds = round(time.perf_counter() - start, 3)
        _describe(context, {**described, "rows": len(frame), "seconds": seconds})
        return frame

    def _store(
        self, context: dg.OutputContext, engine: sa.Engine, table_slice: TableSlice, batches: Batches
    ) -> dict[str, Any]:
        """Stores the rows of a slice, and returns its metadata."""
        update = column_update(context.definition_metadata)
        with batches.scope():
            if update:
                updated = update_rows(engine, table_slice, update, batches)
                metadata: dict[str, Any] = {"rows": updated.rows, "left": updated.skipped}
                metadata["encode_seconds"] = round(updated.encode_seconds, 3)
                metadata["write_seconds"] = round(updated.write_seconds, 3)
            else:
                create_declared(engine, table_slice, context.definition_metadata)
                metadata = {"rows": replace_slice(engine, table_slice, batches)}
        if batches.metadata:
            metadata.update(batches.metadata())
        schema = _table_schema(engine, read_columns(engine, table_slice))
        return metadata | {"dagster/table_name": str(table_slice), "dagster/column_schema": schema}

    def _store_each(self, context: dg.OutputContext, parts: BatchesByPartition) -> None:
        """Stores partition by partition, and records each as materialised at once where a run has several."""
        engine, definition = self._engine(), context.definition_metadata
        several = len(context.asset_partition_keys) > 1
        stored: list[str] = []
        faults: dict[str, BatchAssetsError] = {}
        for key, batches in parts.parts:
            start = time.perf_counter()
            table_slice = self._slice(context, definition, keys=[key])
            try:
                metadata = self._store(context, engine, table_slice, batches)
            except BatchAssetsError as error:
                faults[key] = error
                if several:
                    context.log.error("%s: %s", key, error)
                continue
            stored.append(key)
            metadata["seconds"] = round(time.perf_counter() - start, 3)
            if not column_update(definition):
                metadata["dagster/partition_row_count"] = metadata["rows"]
            context.step_context.add_asset_metadata(metadata, context.asset_key, key)
            if several:
                # In the database at once, whatever becomes of the others.
                context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata))
        if faults and parts.on_failure:
            parts.on_failure(stored)
        if len(faults) == 1 and not stored:
            raise next(iter(faults.values()))
        if faults:
            raise _partitions_error(faults, stored)

    def _engine(self) -> sa.Engine:
        if self.url:
            return engine_from_url(self.url)
        return engine_for(database_settings(connection_variables(environment(), self.connection)))

    def _slice(
        self,
        context: Context,
        metadata: Mapping[str, Any],
        wanted: Mapping[str, Any] | None = None,
        keys: Sequence[str] | None = None,
    ) -> TableSlice:
        path = context.asset_key.path if context.has_asset_key else (context.name,)
        schema = metadata["schema"] if "schema" in metadata else self.schema_ or (path[-2] if len(path) > 1 else None)
        if keys is None:
            keys = context.asset_partition_keys if context.has_asset_partitions else []
        columns = (wanted or {}).get("columns")
        return TableSlice(
            table=metadata.get("table") or path[-1],
            schema=schema or None,
            partitions=conditions_of_partitions(context, metadata, keys)
            if context.has_asset_partitions
            else conditions_of_asset(metadata),
            columns=None if columns is None else column_names(columns),
            where=(wanted or {}).get("where"),
            json_lists=tuple((name, column_names(listed)) for name, listed in metadata.get("json_lists", {}).items()),
            packed_lists=(metadata if wanted is None else wanted).get("packed_lists", False),
        )

    def _add_counts(self, context: dg.OutputContext, engine: sa.Engine, table_slice: TableSlice, rows: int) -> None:
        """Says how many rows there are, of each partition where a run has stored several."""
        if not context.has_asset_partitions:
            context.add_output_metadata({"dagster/row_count": rows})
            return
        keys = context.asset_partition_keys
        if len(keys) == 1:
            context.add_output_metadata({"dagster/partition_row_count": rows})
            return
        slices = [
            replace(table_slice, partitions=conditions_of_partitions(context, context.definition_metadata, [key]))
            for key in keys
        ]
        for key, count in zip(keys, count_rows(engine, slices) if slices else [], strict=True):
            context.step_context.add_asset_metadata(
                {"rows": count, "dagster/partition_row_count": count}, context.asset_key, key
            )


def _lazily(
    table_slice: TableSlice,
    read: Callable[[TableSlice], Iterator[Batch]],
    dtypes: Mapping[str, str],
    partitions: Callable[[Sequence[str]], tuple[Partition, ...]],
) -> Batches:
    """Returns a slice that is read when it is used, and can be select until then."""

    def select(key: str | None, condition: str | None) -> Batches:
        conditions = [f"({part})" for part in (table_slice.where, condition) if part]
        part = replace(table_slice, where=" AND ".join(conditions) or None)
        if key is not None:
            part = replace(part, partitions=partitions([key]))
        return _lazily(part, read, dtypes, partitions)

    return Batches(partial(read, table_slice), dtypes, select=select)


def _partitions_error(faults: Mapping[str, BatchAssetsError], stored: Sequence[str]) -> PartitionsError:
    """Says which partitions failed and why, each reason once."""
    reasons: dict[str, list[str]] = {}
    for key, fault in faults.items():
        reasons.setdefault(str(fault), []).append(key)
    described = " ".join(f"{', '.join(keys)}: {reason}" for reason, keys in reasons.items())
    count = len(faults) + len(stored)
    return PartitionsError(
        f"{len(faults)} of {count} partitions could not be stored; the others are. {described}",
        faults,
    )


def _describe(context: dg.InputContext, metadata: Mapping[str, Any]) -> None:
    if context.has_asset_partitions and len(context.asset_partition_keys) != 1:
        # Dagster takes metadata of an input for one partition only.
        context.log.info("Input %s: %s", context.name, ", ".join(f"{key} {value}" for key, value in metadata.items()))
    else:
        context.add_input_metadata(metadata)


def _dtypes(columns: Sequence[sa.Column[Any]]) -> dict[str, str]:
    return {column.name: dtype_of(column) for column in columns}


def _table_schema(engine: sa.Engine, columns: Sequence[sa.Column[Any]]) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                column.type.compile(engine.dialect),
                constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)),
            )
            for column in columns
        ]
    )
