"""The MySQL IO manager: assets as tables, or as slices of tables, on MySQL, MariaDB and SQLite.

Driven by the asset's metadata, under the keys of Dagster's own database IO managers where they have one:

| metadata of an asset | meaning |
| --- | --- |
| `table` | the table; the last part of the asset key without it |
| `schema` | the database that holds the table; the key's prefix, or the connection's database without it |
| `partition_expr` | the column or SQL expression of the partition; for multi-partitions one for each dimension |
| `dagster/column_schema` | the columns (`dg.TableSchema`), of which a missing table is created |
| `key` | the primary key: a column, or several |
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
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg
import sqlalchemy as sa
from pydantic import Field

from batch_assets.database.batches import Batch, Batches, BatchesByPartition, is_frame
from batch_assets.database.engine import engine_from_environment, engine_from_url
from batch_assets.database.reading import count_rows, read_batches, read_columns
from batch_assets.database.slices import AnyOf, Keys, Partition, TableSlice, TimeWindows, create_table, dtype_of
from batch_assets.database.statements import BATCH_ROWS
from batch_assets.database.updating import ColumnUpdate, update_rows
from batch_assets.database.writing import replace_slice
from batch_assets.errors import BatchAssetsError, HourError, PartitionsError, SettingsError, TableError
from batch_assets.failures import explained

# What may follow a column's name: a type with numbers or texts in brackets. SQLite would take any word for a
# type, and make numbers of texts that look like some.
_SQL_TYPE = re.compile(
    r"(TINYINT|SMALLINT|MEDIUMINT|INT|INTEGER|BIGINT|BOOL|BOOLEAN|FLOAT|DOUBLE|REAL|DECIMAL|NUMERIC|CHAR|VARCHAR"
    r"|(TINY|MEDIUM|LONG)?(TEXT|BLOB)|BINARY|VARBINARY|DATE|TIME|DATETIME|TIMESTAMP|YEAR|JSON|ENUM|SET)"
    r"( ?\([\w ,.'-]+\))?( \w+)*",
    re.IGNORECASE,
)
# In an URL, also in one that is otherwise malformed.
_PASSWORD = re.compile(r"//[^/@]*:[^@]*@")
_Context = dg.OutputContext | dg.InputContext


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

    @explained
    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Stores what an asset returned; the metadata say what was stored."""
        start = time.perf_counter()
        if isinstance(obj, BatchesByPartition):
            _check_known(context)
            self._store_each(context, obj)
            return
        batches = _batches(obj, context)
        _check_known(context)
        engine, table_slice = self._engine(), self._slice(context, context.definition_metadata)
        metadata = self._store(context, engine, table_slice, batches)
        if not _update(context.definition_metadata):
            self._add_counts(context, engine, table_slice, metadata["rows"])
        context.add_output_metadata({**metadata, "seconds": round(time.perf_counter() - start, 3)})

    @explained
    def load_input(self, context: dg.InputContext) -> object:
        """Loads what an asset's annotation asks for: a DataFrame, or `Batches` that are read when they are used."""
        start = time.perf_counter()
        _check_annotation(context)
        _check_known(context)
        wanted = context.definition_metadata or {}
        upstream = context.upstream_output.definition_metadata if context.upstream_output else {}
        metadata = {**upstream, **wanted}
        table_slice = self._slice(context, metadata, wanted)
        engine = self._engine()
        if context.has_asset_partitions and not context.asset_partition_keys:
            # An asset that reads its own partition before the first one, when there is no table yet.
            _create_declared(engine, table_slice, upstream)
        columns = read_columns(engine, table_slice)
        rows = _batch_rows(context, wanted)
        described = {"table": str(table_slice), "columns": ", ".join(column.name for column in columns)}
        if context.dagster_type.typing_type is Batches:
            _describe(context, described)
            read = partial(read_batches, engine, batch_rows=rows)
            return _lazily(table_slice, read, _dtypes(columns), partial(_partitions, context, metadata))
        from batch_assets.database.frames import frame_of  # noqa: PLC0415 - imports pandas

        names = [column.name for column in columns]
        batches = read_batches(engine, table_slice, rows)
        frame = frame_of(names, [row for batch in batches for row in batch.rows], _dtypes(columns))
        seconds = round(time.perf_counter() - start, 3)
        _describe(context, {**described, "rows": len(frame), "seconds": seconds})
        return frame

    def _store(
        self, context: dg.OutputContext, engine: sa.Engine, table_slice: TableSlice, batches: Batches
    ) -> dict[str, Any]:
        """Stores the rows of a slice, and returns what is to be said of it."""
        update = _update(context.definition_metadata)
        with batches.held():
            if update:
                updated = update_rows(engine, table_slice, update, batches)
                metadata: dict[str, Any] = {"rows": updated.rows, "left": updated.left}
                metadata["encode_seconds"] = round(updated.encode_seconds, 3)
                metadata["write_seconds"] = round(updated.write_seconds, 3)
            else:
                _create_declared(engine, table_slice, context.definition_metadata)
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
            if not _update(definition):
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
        return engine_from_url(self.url) if self.url else engine_from_environment()

    def _slice(
        self,
        context: _Context,
        metadata: Mapping[str, Any],
        wanted: Mapping[str, Any] | None = None,
        keys: Sequence[str] | None = None,
    ) -> TableSlice:
        path = context.asset_key.path if context.has_asset_key else (context.name,)
        schema = metadata.get("schema") or self.schema_ or (path[-2] if len(path) > 1 else None)
        if keys is None:
            keys = context.asset_partition_keys if context.has_asset_partitions else []
        columns = (wanted or {}).get("columns")
        return TableSlice(
            table=metadata.get("table") or path[-1],
            schema=schema,
            partitions=_partitions(context, metadata, keys) if context.has_asset_partitions else (),
            columns=None if columns is None else _names(columns),
            where=(wanted or {}).get("where"),
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
            replace(table_slice, partitions=_partitions(context, context.definition_metadata, [key])) for key in keys
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
    """Returns a slice that is read when it is used, and can be narrowed until then."""

    def narrowed(key: str | None, condition: str | None) -> Batches:
        conditions = [f"({part})" for part in (table_slice.where, condition) if part]
        part = replace(table_slice, where=" AND ".join(conditions) or None)
        if key is not None:
            part = replace(part, partitions=partitions([key]))
        return _lazily(part, read, dtypes, partitions)

    return Batches(partial(read, table_slice), dtypes, narrowed=narrowed)


def _partitions_error(faults: Mapping[str, BatchAssetsError], stored: Sequence[str]) -> PartitionsError:
    """Says which partitions failed and why, each reason once."""
    reasons: dict[str, list[str]] = {}
    for key, fault in faults.items():
        reasons.setdefault(str(fault), []).append(key)
    said = " ".join(f"{', '.join(keys)}: {reason}" for reason, keys in reasons.items())
    count = len(faults) + len(stored)
    return PartitionsError(
        f"{len(faults)} of {count} partitions could not be stored; the others are. {said}",
        list(faults),
        transient=any(fault.transient for fault in faults.values()),
    )


def _partitions(context: _Context, metadata: Mapping[str, Any], keys: Sequence[str]) -> tuple[Partition, ...]:
    definition, expression = context.asset_partitions_def, metadata.get("partition_expr")
    if isinstance(definition, dg.MultiPartitionsDefinition) and isinstance(expression, Mapping):
        return _dimensions(definition, expression, keys)
    if not isinstance(definition, dg.MultiPartitionsDefinition) and isinstance(expression, str):
        return (_condition(definition, expression, keys),)
    example = '"the_column"'
    if isinstance(definition, dg.MultiPartitionsDefinition):
        example = "{" + ", ".join(f'"{part.name}": "its_column"' for part in definition.partitions_defs) + "}"
    raise TableError(
        f"The asset {context.asset_key.to_user_string()} has partitions, and partition_expr, by which their rows are "
        f'found, is {expression!r}: add metadata={{"partition_expr": {example}}} to it.'
    )


def _dimensions(
    definition: dg.MultiPartitionsDefinition, expressions: Mapping[str, str], keys: Sequence[str]
) -> tuple[Partition, ...]:
    """Returns a condition for each dimension if the keys are all combinations of theirs, else exactly the keys."""
    first, second = definition.partitions_defs
    missing = [part.name for part in (first, second) if part.name not in expressions]
    if missing:
        raise TableError(
            f"partition_expr names no column for the dimension {', '.join(missing)}: it needs one for each of "
            f"{first.name}, {second.name}."
        )
    firsts_of: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        names = definition.get_partition_key_from_str(key).keys_by_dimension
        firsts_of[names[second.name]].append(names[first.name])
    seconds_of: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for name, firsts in firsts_of.items():
        seconds_of[frozenset(firsts)].append(name)
    rectangles = [
        (
            _condition(first.partitions_def, expressions[first.name], sorted(firsts)),
            _condition(second.partitions_def, expressions[second.name], seconds),
        )
        for firsts, seconds in seconds_of.items()
    ]
    return rectangles[0] if len(rectangles) == 1 else (AnyOf(tuple(rectangles)),)


def _condition(definition: dg.PartitionsDefinition[Any], expression: str, keys: Sequence[str]) -> TimeWindows | Keys:
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return Keys(expression, tuple(keys))
    windows: list[tuple[Any, Any]] = []
    for window in sorted(definition.time_window_for_partition_key(key) for key in keys):
        if windows and windows[-1][1] == window.start:
            windows[-1] = (windows[-1][0], window.end)
        else:
            windows.append((window.start, window.end))
    return TimeWindows(expression, tuple(windows))


def _check_known(context: _Context) -> None:
    """Dagster's command line starts runs for any partition that it is given, known or not.

    Of a key that is none Dagster makes another one (of 05:30 the hour after) or no key at all.
    """
    try:
        step = context.step_context
    except dg.DagsterInvariantViolationError:  # loaded or stored outside of a run
        return
    definition = step.entity_partitions_def
    if definition is None or not (step.has_partition_key or step.has_partition_key_range):
        return
    asked = step.partition_key_range
    with dg.partition_loading_context(dynamic_partitions_store=step.instance):
        ends = {asked.start, asked.end}
        known = definition.filter_valid_partition_keys(ends)
        unknown = ends - known
        if not unknown:
            unknown = ends - set(
                definition.empty_subset().with_partition_key_range(definition, asked).get_partition_keys()
            )
    if unknown:
        raise HourError(
            f"{', '.join(map(repr, sorted(unknown)))} is no partition of {step.op.name} (an "
            "hour or a day must have passed to be one): choose one that the UI shows."
        )


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _update(metadata: Mapping[str, Any]) -> ColumnUpdate | None:
    if not metadata.get("update_columns"):
        return None
    key = _names(metadata.get("key") or ())
    if len(key) != 1:
        raise TableError(
            f'update_columns needs the one column by which rows are found, and the asset\'s metadata "key" is {key}: '
            "name the column there."
        )
    return ColumnUpdate(key[0], _names(metadata["update_columns"]), _names(metadata.get("unchanged_columns") or ()))


def _batch_rows(context: dg.InputContext, wanted: Mapping[str, Any]) -> int:
    rows = wanted.get("batch_rows", BATCH_ROWS)
    if not isinstance(rows, int) or rows < 1:
        raise TableError(f"batch_rows of the input {context.name} is {rows!r}: make it a number of rows, 1 or more.")
    return rows


def _create_declared(engine: sa.Engine, table_slice: TableSlice, metadata: Mapping[str, Any]) -> None:
    schema = metadata.get("dagster/column_schema")
    if not schema:
        return
    columns = {}
    for column in schema.columns:
        if not _SQL_TYPE.fullmatch(column.type):
            raise TableError(
                f"The type of column {column.name} is {column.type!r}, which is no type of MySQL: declare it as for "
                "example BIGINT or VARCHAR(40) in dagster/column_schema."
            )
        constraints = [] if column.constraints.nullable else ["NOT NULL"]
        constraints += ["UNIQUE"] if column.constraints.unique else []
        columns[column.name] = " ".join([column.type, *constraints, *column.constraints.other])
    create_table(engine, table_slice, columns, _names(metadata.get("key") or ()))


def _batches(obj: object, context: dg.OutputContext) -> Batches:
    if isinstance(obj, Batches):
        return obj
    if not is_frame(type(obj)):
        nothing = " (or annotate it with -> None if it stores its rows by itself)" if obj is None else ""
        raise TableError(
            f"{context.step_key} returned {type(obj).__name__}, which cannot be stored in a table: return a pandas "
            f"DataFrame or Batches{nothing}. Nothing was stored, the old rows stay."
        )
    return Batches([obj])  # type: ignore[list-item]


def _check_annotation(context: dg.InputContext) -> None:
    wanted = context.dagster_type.typing_type
    if wanted not in {Any, Batches} and not is_frame(wanted):
        raise TableError(
            f"The input {context.name} is annotated with {getattr(wanted, '__name__', wanted)}: annotate it with "
            "pandas.DataFrame or with Batches, or not at all for a DataFrame."
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
