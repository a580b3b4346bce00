"""The MySQL IO manager: assets as tables, or as slices of tables, on MySQL, MariaDB and SQLite.

Driven by the asset's metadata, under the keys of Dagster's own database IO managers where they have one:

| metadata of an asset | meaning |
| --- | --- |
| `table` | the table; the last part of the asset key without it |
| `schema` | the database that holds the table; the key's prefix, or the connection's database without it |
| `partition_expr` | the column or SQL expression of the partition; for multi-partitions one for each dimension |
| `dagster/column_schema` | the columns (`dg.TableSchema`), of which a missing table is created |
| `key` | the primary key |
| `update_columns` | set these columns of existing rows, found by `key`, instead of replacing rows |
| `unchanged_columns` | with `update_columns`: leave a row in which one of these texts has changed since it was read |

| metadata of an input | meaning |
| --- | --- |
| `columns` | read only these |
| `where` | a further condition in SQL |
| `batch_rows` | rows of a batch at the most, for `Batches` |
"""

import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster import MultiPartitionKey, TimeWindowPartitionsDefinition
from pydantic import Field

from batch_assets.database.batches import Batches
from batch_assets.database.engine import engine_from_environment, engine_from_url
from batch_assets.database.reading import read_batches, read_columns
from batch_assets.database.slices import Keys, TableSlice, TimeWindows, create_table, dtype_of
from batch_assets.database.statements import BATCH_ROWS
from batch_assets.database.writing import ColumnUpdate, replace_slice, update_rows
from batch_assets.errors import HourError, TableError
from batch_assets.failures import explained

# What may follow a column's name: a type with numbers or texts in brackets.
_SQL_TYPE = re.compile(r"[A-Za-z]+( [A-Za-z]+)*( ?\([\w ,']+\))?( [A-Za-z]+)*")


class MySQLIOManager(dg.ConfigurableIOManager):
    """Stores pandas DataFrames and `Batches` as tables or slices of tables, and loads them.

    What an asset returns replaces its partition, or its table if it has no partitions, in one transaction:
    readers see the old rows or the new ones. With the metadata `update_columns` it updates columns of
    existing rows, batch by batch. An input is loaded as a DataFrame, or lazily if it is annotated with
    `Batches`.
    """

    url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the database; MYSQL_SERVER and its companions decide without it.",
    )
    schema_: str | None = Field(
        default=None, alias="schema", description="The database of tables whose asset does not name one."
    )

    @explained()
    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Stores what an asset returned; the metadata say what was stored."""
        start = time.perf_counter()
        batches = obj if isinstance(obj, Batches) else _one_batch(obj, context)
        metadata = context.definition_metadata
        table_slice = self._slice(context, metadata)
        update = _update(metadata)
        engine = self._engine()
        if update:
            updated = update_rows(engine, table_slice, update, batches)
            rows = updated.rows
            context.add_output_metadata({"left": updated.left, "write_seconds": round(updated.seconds, 3)})
        else:
            _create_declared(engine, table_slice, metadata)
            rows = replace_slice(engine, table_slice, batches)
            counted = "dagster/partition_row_count" if context.has_asset_partitions else "dagster/row_count"
            context.add_output_metadata({counted: rows})
        if batches.metadata:
            context.add_output_metadata(batches.metadata())
        columns = read_columns(engine, table_slice)
        context.add_output_metadata(
            {
                "rows": rows,
                "seconds": round(time.perf_counter() - start, 3),
                "dagster/table_name": str(table_slice),
                "dagster/column_schema": _table_schema(engine, columns),
            }
        )

    @explained()
    def load_input(self, context: dg.InputContext) -> object:
        """Loads what an asset's annotation asks for: a DataFrame, or `Batches` that are read when they are used."""
        start = time.perf_counter()
        wanted = context.definition_metadata or {}
        upstream = context.upstream_output.definition_metadata if context.upstream_output else {}
        table_slice = self._slice(context, {**upstream, **wanted})
        engine = self._engine()
        columns = read_columns(engine, table_slice)
        read = partial(read_batches, engine, table_slice, wanted.get("batch_rows", BATCH_ROWS))
        described = {"table": str(table_slice), "columns": ", ".join(column.name for column in columns)}
        if context.dagster_type.typing_type is Batches:
            context.add_input_metadata(described)
            return Batches(read, _dtypes(columns))
        _check_frame(context)
        from batch_assets.database.frames import frame_of  # noqa: PLC0415 - imports pandas

        names = [column.name for column in columns]
        frame = frame_of(names, [row for batch in read() for row in batch.rows], _dtypes(columns))
        seconds = round(time.perf_counter() - start, 3)
        context.add_input_metadata({**described, "rows": len(frame), "seconds": seconds})
        return frame

    def _engine(self) -> sa.Engine:
        return engine_from_url(self.url) if self.url else engine_from_environment()

    def _slice(self, context: dg.OutputContext | dg.InputContext, metadata: Mapping[str, Any]) -> TableSlice:
        path = context.asset_key.path if context.has_asset_key else (context.name,)
        schema = metadata.get("schema") or self.schema_ or (path[-2] if len(path) > 1 else None)
        columns = metadata.get("columns") if isinstance(context, dg.InputContext) else None
        return TableSlice(
            table=metadata.get("table") or path[-1],
            schema=schema,
            partitions=_partitions(context, metadata),
            columns=tuple(columns) if columns else None,
            where=metadata.get("where") if isinstance(context, dg.InputContext) else None,
        )


def _partitions(
    context: dg.OutputContext | dg.InputContext, metadata: Mapping[str, Any]
) -> tuple[TimeWindows | Keys, ...]:
    if not context.has_asset_partitions:
        return ()
    expression = metadata.get("partition_expr")
    if not expression:
        raise TableError(
            f"The asset {context.asset_key.to_user_string()} has partitions, but no column to find them by: add "
            'metadata={"partition_expr": "the_column"} to it.'
        )
    definition, keys = context.asset_partitions_def, context.asset_partition_keys
    _check_known(context, definition, keys)
    if not isinstance(definition, dg.MultiPartitionsDefinition):
        return (_condition(definition, expression, keys),)
    return _dimensions(definition, expression, keys)


def _dimensions(
    definition: dg.MultiPartitionsDefinition, expressions: Mapping[str, str], keys: Sequence[str]
) -> tuple[TimeWindows | Keys, ...]:
    missing = [part.name for part in definition.partitions_defs if part.name not in expressions]
    if missing:
        raise TableError(
            f"partition_expr names no column for the dimension {', '.join(missing)}: it needs one for each of "
            f"{', '.join(part.name for part in definition.partitions_defs)}."
        )
    chosen = [key.keys_by_dimension for key in keys if isinstance(key, MultiPartitionKey)]
    conditions = [
        _condition(
            part.partitions_def,
            expressions[part.name],
            list(dict.fromkeys(key[part.name] for key in chosen)),
        )
        for part in definition.partitions_defs
    ]
    return tuple(conditions)


def _condition(definition: dg.PartitionsDefinition[Any], expression: str, keys: Sequence[str]) -> TimeWindows | Keys:
    if not isinstance(definition, TimeWindowPartitionsDefinition):
        return Keys(expression, tuple(keys))
    windows: list[tuple[Any, Any]] = []
    for window in sorted(definition.time_window_for_partition_key(key) for key in keys):
        if windows and windows[-1][1] == window.start:
            windows[-1] = (windows[-1][0], window.end)
        else:
            windows.append((window.start, window.end))
    return TimeWindows(expression, tuple(windows))


def _check_known(
    context: dg.OutputContext | dg.InputContext, definition: dg.PartitionsDefinition[Any], keys: Sequence[str]
) -> None:
    """Dagster's command line starts runs for any partition that it is given, known or not."""
    unknown = [key for key in keys if not definition.has_partition_key(key)]
    if unknown:
        raise HourError(
            f"{', '.join(map(repr, unknown))} is no partition of {context.asset_key.to_user_string()} (an hour or a "
            "day must have passed to be one): choose one that the UI shows."
        )


def _update(metadata: Mapping[str, Any]) -> ColumnUpdate | None:
    if not metadata.get("update_columns"):
        return None
    if not metadata.get("key"):
        raise TableError('update_columns needs the column by which rows are found: add "key" to the asset\'s metadata.')
    return ColumnUpdate(
        metadata["key"], tuple(metadata["update_columns"]), tuple(metadata.get("unchanged_columns", ()))
    )


def _create_declared(engine: sa.Engine, table_slice: TableSlice, metadata: Mapping[str, Any]) -> None:
    schema = metadata.get("dagster/column_schema")
    if not schema:
        return
    columns = {}
    for column in schema.columns:
        if not _SQL_TYPE.fullmatch(column.type):
            raise TableError(
                f"The type of column {column.name} is {column.type!r}, which is no SQL type: declare it as for "
                "example BIGINT or VARCHAR(40) in dagster/column_schema."
            )
        constraints = [] if column.constraints.nullable else ["NOT NULL"]
        constraints += ["UNIQUE"] if column.constraints.unique else []
        columns[column.name] = " ".join([column.type, *constraints, *column.constraints.other])
    create_table(engine, table_slice, columns, metadata.get("key"))


def _one_batch(obj: object, context: dg.OutputContext) -> Batches:
    if not _is_frame(type(obj)):
        raise TableError(
            f"{context.step_key} returned {type(obj).__name__}, which cannot be stored in a table: return a pandas "
            "DataFrame or Batches."
        )
    return Batches([obj])  # type: ignore[list-item]


def _check_frame(context: dg.InputContext) -> None:
    wanted = context.dagster_type.typing_type
    if wanted is not Any and not _is_frame(wanted):
        raise TableError(
            f"The input {context.name} is annotated with {getattr(wanted, '__name__', wanted)}: annotate it with "
            "pandas.DataFrame or with Batches, or not at all for a DataFrame."
        )


def _is_frame(kind: Any) -> bool:
    """Whether it is pandas' DataFrame, asked without importing pandas."""
    return any(
        base.__name__ == "DataFrame" and base.__module__.startswith("pandas") for base in getattr(kind, "__mro__", ())
    )


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
