"""Tables as they stand in the database, looked up when a slice of one is used."""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.connection.json_lists import JSONList, PackedList, check_json_list, type_code_of
from batch_assets.database.connection.sqlite_time import SQLiteTime
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.errors import TableError

# The database, the name of the table, and what is made of its columns.
_Place = tuple[sa.Engine, str, tuple[tuple[str, tuple[str, ...]], ...], bool]
# What the definition of a table was read as: reading it takes ten times as long as asking whether it has changed.
_tables_by_definition: dict[_Place, tuple[str, sa.Table]] = {}

_IS_JSON = re.compile(r"json_valid\(`((?:[^`]|``)+)`\)", re.IGNORECASE)


class _SQLiteDecimal(sa.TypeDecorator[Decimal]):
    """A DECIMAL column of SQLite, which keeps a number with 15 digits."""

    impl = sa.Double
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Decimal | None:
        """Returns the decimal that was meant."""
        return None if value is None else Decimal(str(value))


def reflect(connection: sa.Connection, table_slice: TableSlice) -> sa.Table:
    """Returns the table as the database has it.

    Raises:
        TableError: There is no such table.
    """
    _check_schema(connection, table_slice)
    place = connection.engine, str(table_slice), table_slice.json_lists, table_slice.packed_lists
    definition = _definition(connection, table_slice)
    known_definition, table = _tables_by_definition.get(place, (None, None))
    if table is None or definition is None or definition != known_definition:
        table = _reflect(connection, table_slice)
        # What MariaDB makes of JSON: a text with a condition.
        table.info["json"] |= {name.replace("``", "`") for name in _IS_JSON.findall(definition or "")}
        _add_json_lists(connection, table, table_slice)
        if definition is not None:
            _tables_by_definition[place] = definition, table
    return table


def _add_json_lists(connection: sa.Connection, table: sa.Table, table_slice: TableSlice) -> None:
    can_be_packed = table_slice.packed_lists and connection.dialect.name != "sqlite"
    for name, names in table_slice.json_lists:
        known_columns(table, names)
        columns = [table.columns[each] for each in names]
        check_json_list(connection, columns)
        type_codes = [type_code_of(column) for column in columns] if can_be_packed else [None]
        if None in type_codes:
            table.append_column(JSONList(name, columns))
        else:
            table.append_column(PackedList(name, columns, [code for code in type_codes if code]))
        table.info["invisible"].add(name)


def _definition(connection: sa.Connection, table_slice: TableSlice) -> str | None:
    """Returns the statement that creates the table: None for a view, and where there is no such table."""
    if connection.dialect.name == "sqlite":
        statement = sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND lower(name) = lower(:table)")
        return connection.execute(statement, {"table": table_slice.table}).scalar()
    if not _has_schema(connection, table_slice):
        return None
    quote = connection.dialect.identifier_preparer.quote_identifier
    name = ".".join(quote(part) for part in (table_slice.schema, table_slice.table) if part)
    try:
        found = connection.exec_driver_sql(f"SHOW CREATE TABLE {name}")
    except sa.exc.ProgrammingError:  # the one fault that has no sentence: there is no such table
        return None
    if next(iter(found.keys())) != "Table":
        found.close()
        return None
    # The number that the next row gets.
    return re.sub(r" AUTO_INCREMENT=\d+", "", found.one()[1])


def _reflect(connection: sa.Connection, table_slice: TableSlice) -> sa.Table:
    try:
        if not _has_schema(connection, table_slice):
            raise sa.exc.NoSuchTableError(table_slice.table)
        table = sa.Table(
            table_slice.table,
            sa.MetaData(),
            schema=table_slice.schema,
            autoload_with=connection,
            resolve_fks=False,
            listeners=[("column_reflect", _unescape_name)],
        )
    except sa.exc.NoSuchTableError:
        raise TableError(
            f"There is no table {table_slice} in {connection.engine.url.database!r}: run `batch-assets init-db` "
            "if it is one of this pipeline's, or declare the columns of your own asset in its metadata "
            "`dagster/column_schema`, of which the table is then created."
        ) from None
    table.info["dialect"] = connection.dialect.name
    table.info["json"] = {column.name for column in table.columns if isinstance(column.type, sa.JSON)}
    for column in table.columns:
        column.type = _type_to_use(connection, column.type)
    table.info["invisible"] = _invisible_columns(connection, table)
    return table


def _unescape_name(inspector: sa.Inspector, _table: sa.Table, column: ReflectedColumn) -> None:
    """Corrects the name of a column, which SQLAlchemy takes as MySQL writes it in a statement: with ` doubled."""
    if inspector.dialect.name != "sqlite":
        column["name"] = column["name"].replace("``", "`")


def _invisible_columns(connection: sa.Connection, table: sa.Table) -> set[str]:
    """Returns the columns that `SELECT *` leaves out: helpers like ours, which are computed."""
    if connection.dialect.name == "sqlite" or not any(column.computed is not None for column in table.columns):
        return set()
    statement = sa.text(
        "SELECT column_name FROM information_schema.columns WHERE table_name = :table AND extra LIKE '%INVISIBLE%' "
        "AND table_schema = COALESCE(:schema, DATABASE())"
    )
    return set(connection.execute(statement, {"table": table.name, "schema": table.schema}).scalars())


def _check_schema(connection: sa.Connection, table_slice: TableSlice) -> None:
    if table_slice.schema and connection.dialect.name == "sqlite":
        raise TableError(
            f"{table_slice} names a schema, which SQLite does not have: set MYSQL_SERVER, or leave the schema out."
        )


def _has_schema(connection: sa.Connection, table_slice: TableSlice) -> bool:
    return not table_slice.schema or table_slice.schema in sa.inspect(connection).get_schema_names()


def _type_to_use(connection: sa.Connection, kind: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    if isinstance(kind, sa.JSON):  # as its text, which is what MariaDB and SQLite have anyway
        return sa.Text()
    if connection.dialect.name == "sqlite" and isinstance(kind, sa.DateTime):
        return SQLiteTime()  # type: ignore[no-untyped-call]
    if connection.dialect.name == "sqlite" and isinstance(kind, sa.Numeric):
        return _SQLiteDecimal()
    return kind


def dtype_of(column: sa.Column[Any]) -> str:
    """Returns the pandas type of a table's column: the same for a slice without rows as for a full one.

    Whole numbers that may be NULL are `Int64`, texts (and JSON, as its text) `str`, dates and times
    `datetime64[us]` in UTC; what pandas has no type for stays the Python object of the driver.
    """
    kind = column.type
    # What MySQL makes of a column that is declared BOOLEAN.
    if isinstance(kind, sa.Boolean) or getattr(kind, "display_width", None) == 1:
        return "boolean" if column.nullable else "bool"
    if isinstance(kind, sa.Integer):
        name = "UInt64" if getattr(kind, "unsigned", False) else "Int64"
        return name if column.nullable else name.lower()
    if isinstance(kind, (sa.Float, sa.Double)):
        return "float64"
    if isinstance(kind, (sa.DateTime, sa.Date)):
        return "datetime64[us]"
    return "str" if isinstance(kind, sa.String) else "object"


def json_columns(engine: sa.Engine, table_slice: TableSlice) -> frozenset[str]:
    """Returns the names of the columns that hold JSON.

    Raises:
        TableError: There is no such table.
    """
    with snapshot(engine) as connection:
        return frozenset(reflect(connection, table_slice).info["json"])


def selected_columns(table: sa.Table, table_slice: TableSlice) -> list[sa.Column[Any]]:
    """Returns the columns that reading the slice gives.

    Raises:
        TableError: The table lacks one of them.
    """
    if table_slice.columns is None:
        return [column for column in table.columns if column.name not in table.info["invisible"]]
    known_columns(table, table_slice.columns)
    return [table.columns[name] for name in table_slice.columns]


def known_columns(table: sa.Table, names: Iterable[str]) -> None:
    """Raises a `TableError` that names the columns that the table lacks."""
    unknown = [name for name in names if name not in table.columns]
    if unknown:
        raise TableError(
            f"The table {table.fullname} has no column {', '.join(unknown)}; it has "
            f"{', '.join(table.columns.keys())}: fix the asset's metadata or the table."
        )
