"""The MySQL IO manager: what a user's own asset returns stands in its table, whole or not at all."""

import subprocess
import sys
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.io_manager import MySQLIOManager
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.stored_assets import (
    FIRST,
    HOURS,
    SECOND,
    failure_of,
    load,
    reader,
    refused,
    run,
    store,
    stored,
)

pytestmark = pytest.mark.usefixtures("database_environment")

COLUMNS = {"id": "BIGINT NOT NULL", "at": "DATETIME NOT NULL", "amount": "DOUBLE", "note": "VARCHAR(40) NOT NULL"}


def orders(key: str, ids: tuple[int, ...] = (1, 2), note: str = "old") -> pd.DataFrame:
    hour = pd.to_datetime(key, format="%Y-%m-%d-%H:%M")
    return pd.DataFrame(
        {
            "id": ids,
            "at": [hour + pd.Timedelta(minutes=position) for position in range(len(ids))],
            "amount": [position + 0.5 for position in range(len(ids))],
            "note": note,
        }
    )


def hourly(make: Any = orders, **options: Any) -> dg.AssetsDefinition:
    return stored(make, COLUMNS, HOURS, partition_expr="at", **({"key": "id"} | options))


def ids(sql: Sql) -> list[int]:
    return [row[0] for row in sql("SELECT id FROM orders ORDER BY id")]


def test_an_hour_stored_twice_has_one_set_of_rows(sql: Sql) -> None:
    asset = hourly()
    store(asset, FIRST)
    store(asset, FIRST)
    assert [(str(at), amount) for at, amount in sql("SELECT at, amount FROM orders ORDER BY id")] == [
        ("2026-01-01 05:00:00", 0.5),
        ("2026-01-01 05:01:00", 1.5),
    ]


def test_storing_an_hour_leaves_its_neighbour_alone(sql: Sql) -> None:
    made = {FIRST: orders(FIRST), SECOND: orders(SECOND, (3, 4))}
    asset = hourly(made.__getitem__)
    store(asset, FIRST)
    store(asset, SECOND)
    assert ids(sql) == [1, 2, 3, 4]
    made[FIRST] = orders(FIRST, (7,), "new")
    store(asset, FIRST)
    assert sql("SELECT id, note FROM orders ORDER BY id") == [(3, "old"), (4, "old"), (7, "new")]


def test_an_asset_without_partitions_replaces_its_table(sql: Sql) -> None:
    store(stored(lambda _: orders(FIRST, (1, 2, 3)), COLUMNS))
    store(stored(lambda _: orders(FIRST, (4,)), COLUMNS))
    assert ids(sql) == [4]


def test_what_was_stored_is_loaded_with_its_types() -> None:
    asset = hourly()
    store(asset, FIRST)
    frame = load(asset, partition=FIRST).sort_values("id").reset_index(drop=True)
    assert list(frame.columns) == list(COLUMNS)
    assert frame.dtypes.astype(str).to_dict() == {
        "id": "int64",
        "at": "datetime64[us]",
        "amount": "float64",
        "note": "str",
    }
    assert frame.to_dict("list") == {
        "id": [1, 2],
        "at": [pd.Timestamp("2026-01-01 05:00"), pd.Timestamp("2026-01-01 05:01")],
        "amount": [0.5, 1.5],
        "note": ["old", "old"],
    }


def test_an_input_without_an_annotation_is_a_frame() -> None:
    asset = hourly()
    store(asset, FIRST)
    assert isinstance(load(asset, Any, FIRST), pd.DataFrame)


def test_an_empty_first_hour_is_loaded_with_the_same_types(sql: Sql) -> None:
    asset = hourly(lambda key: orders(key).iloc[:0])
    metadata = store(asset, FIRST)
    assert metadata["rows"] == metadata["dagster/partition_row_count"] == 0
    assert sql("SELECT COUNT(*) FROM orders") == [(0,)]
    frame = load(asset, partition=FIRST)
    assert len(frame) == 0
    assert frame.dtypes.astype(str).tolist() == ["int64", "datetime64[us]", "float64", "str"]


def test_no_batches_are_an_empty_hour(sql: Sql) -> None:
    store(hourly(), FIRST)
    store(hourly(lambda _: Batches([])), FIRST)
    assert ids(sql) == []


def test_an_empty_frame_without_columns_is_an_empty_hour(sql: Sql) -> None:
    store(hourly(), FIRST)
    store(hourly(lambda _: pd.DataFrame()), FIRST)
    assert ids(sql) == []


def test_the_event_describes_itself() -> None:
    metadata = store(hourly(), FIRST)
    assert metadata["rows"] == metadata["dagster/partition_row_count"] == 2
    assert metadata["seconds"] >= 0
    assert metadata["dagster/table_name"] == "orders"
    columns = metadata["dagster/column_schema"].columns
    assert [(column.name, column.constraints.nullable) for column in columns] == [
        ("id", False),
        ("at", False),
        ("amount", True),
        ("note", False),
    ]
    assert columns[0].type.startswith("BIGINT")
    assert store(stored(lambda _: orders(FIRST), COLUMNS))["dagster/row_count"] == 2


def test_batches_describe_themselves_when_they_are_done() -> None:
    made: list[int] = []

    def stream() -> Any:
        made.append(1)
        yield orders(FIRST)

    assert store(hourly(lambda _: Batches(stream(), metadata=lambda: {"made": len(made)})), FIRST)["made"] == 1


def test_values_land_under_their_names(sql: Sql) -> None:
    store(hourly(lambda key: orders(key)[["note", "amount", "id", "at"]]), FIRST)
    assert sql("SELECT id, amount, note FROM orders ORDER BY id") == [(1, 0.5, "old"), (2, 1.5, "old")]


def test_each_batch_may_have_its_own_order_of_columns(sql: Sql) -> None:
    store(
        hourly(lambda key: Batches([orders(key, (1,)), orders(key, (2,))[["note", "amount", "at", "id"]]])),
        FIRST,
    )
    assert sql("SELECT id, note FROM orders ORDER BY id") == [(1, "old"), (2, "old")]


def failing_stream(key: str) -> Any:
    yield orders(key, (8,), "new")
    raise dg.Failure("the second batch cannot be made")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda key: orders(key).drop(columns="note"), "note is missing in the rows"),
        (lambda key: orders(key).assign(colour="red"), "colour is not a column of the table"),
        (lambda key: orders(key).rename(columns={"note": "remark"}), "remark is not a column of the table; note is"),
        (lambda key: orders(key, (9, 9)), "refused a statement"),
        (lambda key: Batches([orders(key, (8,)), orders(key, (9, 9))]), "refused a statement"),
        (lambda key: orders(key, (8, 9)).assign(note=pd.Series(["new", None])), "refused a statement"),
        (lambda key: Batches([orders(key, (8,)), orders(key, (9,)).assign(note=None)]), "refused a statement"),
        (lambda key: Batches([orders(key, (8,)), orders(key, (9,)).drop(columns="id")]), "id is missing in the rows"),
        (lambda key: Batches([orders(key, (8,)), ["a row"]]), "A batch is list"),  # type: ignore[list-item]
        (lambda key: Batches(failing_stream(key)), "the second batch cannot be made"),
        (lambda _: orders(SECOND), "2 of 2 rows do not belong to the partition that is being stored in orders (at)"),
        (lambda key: orders(key).assign(at=pd.Timestamp("2026-01-01 06:00")), "2 of 2 rows do not belong"),
        (lambda key: pd.concat([orders(key, (8,)), orders(SECOND, (9,))]), "1 of 2 rows do not belong"),
        (lambda key: orders(key).assign(amount=[1.0, float("inf")]), "The column amount of orders was given inf"),
        (lambda key: orders(key).assign(at="noon"), "was given 'noon', which is no time"),
        (lambda key: orders(key).assign(id=[1.5, 2.0]), "was given 1.5, which is not a whole number"),
        (lambda key: orders(key).assign(id=["one", "two"]), "was given 'one', which is not a whole number"),
        (lambda key: pd.concat([orders(key), orders(key)["note"]], axis=1), "has the column note twice"),
        (lambda _: None, "returned NoneType, which cannot be stored in a table"),
        (lambda _: [1, 2], "returned list, which cannot be stored in a table"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_old_rows_stay(sql: Sql, make: Any, sentence: str) -> None:
    store(hourly(), FIRST)
    assert sentence in refused(hourly(make), FIRST)
    assert sql("SELECT id, note FROM orders ORDER BY id") == [(1, "old"), (2, "old")]


def test_readers_see_the_old_rows_until_all_new_ones_are_there(sql: Sql) -> None:
    store(hourly(), FIRST)
    seen = []

    def stream() -> Any:
        yield orders(FIRST, (3,))
        seen.append(ids(sql))
        yield orders(FIRST, (4,))
        seen.append(ids(sql))

    store(hourly(lambda _: Batches(stream())), FIRST)
    assert seen == [[1, 2], [1, 2]]
    assert ids(sql) == [3, 4]


def test_what_is_stored_in_the_transaction_goes_with_its_rows(sql: Sql) -> None:
    sql("CREATE TABLE log (id INT)")

    def note(connection: Any, batch: Batch) -> None:
        connection.exec_driver_sql(f"INSERT INTO log VALUES ({len(batch)})")

    store(hourly(lambda key: Batches([orders(key)], in_transaction=note)), FIRST)
    refused(hourly(lambda key: Batches(failing_stream(key), in_transaction=note)), FIRST)
    assert sql("SELECT id FROM log") == [(2,)]


def test_columns_that_the_database_fills_may_be_left_out(sql: Sql, database_environment: dict[str, str]) -> None:
    number = "BIGINT PRIMARY KEY AUTO_INCREMENT" if "MYSQL_SERVER" in database_environment else "INTEGER PRIMARY KEY"
    sql(f"CREATE TABLE orders (id {number}, state VARCHAR(9) NOT NULL DEFAULT 'open', amount INT)")
    store(stored(lambda _: pd.DataFrame({"amount": [5, 6]})))
    assert sql("SELECT id, state, amount FROM orders ORDER BY id") == [(1, "open", 5), (2, "open", 6)]


def test_a_column_that_may_be_null_must_be_given_all_the_same(sql: Sql) -> None:
    sql("CREATE TABLE orders (id INT NOT NULL, amount INT NULL)")
    assert "amount is missing in the rows" in refused(stored(lambda _: pd.DataFrame({"id": [5]})))


def test_names_may_be_reserved_words_or_odd(sql: Sql) -> None:
    columns = {"values": "INT", "order": "INT", "a b": "INT", "100%": "INT", "x:y": "INT", "è": "INT"}
    frame = pd.DataFrame([[1, 2, 3, 4, 5, 6]], columns=list(columns))
    asset = stored(lambda _: frame, columns, name="select")
    store(asset)
    store(asset)
    assert sql("SELECT `values`, `order`, `a b`, `100%`, `x:y`, `è` FROM `select`") == [(1, 2, 3, 4, 5, 6)]
    assert load(asset).to_dict("list") == frame.to_dict("list")
    assert load(asset, columns=["x:y", "order"]).to_dict("list") == {"x:y": [5], "order": [2]}


ODD = ["tick`", "two``ticks`", 'double"', "50%", "'quote'", "colon:name", "back\\slash", "%s"]


@pytest.mark.parametrize(("table", "rows"), [("tick`", 2), ('double" 50%', 1500)], ids=["few", "packed"])
def test_names_may_have_every_kind_of_quote_in_them(sql: Sql, table: str, rows: int) -> None:
    key, at = "id`", 'at`%"'
    columns = {key: "BIGINT NOT NULL", at: "DATETIME NOT NULL", **dict.fromkeys(ODD, "VARCHAR(40)")}
    hour = pd.Timestamp("2026-01-01 05:00:00")
    frame = pd.DataFrame({key: range(rows), at: hour, **{name: f"old {name}" for name in ODD}})
    place: dict[str, Any] = {"table": table, "partition_expr": at, "key": key}
    asset = stored(lambda _: frame, columns, HOURS, **place)
    for _ in range(2):
        store(asset, FIRST)
    for wanted in (list(columns), [key, *ODD]):
        loaded = load(asset, partition=FIRST, columns=wanted)
        assert loaded.sort_values(key).to_dict("list") == frame[wanted].to_dict("list")
    new = frame.assign(**{name: f"new {name}" for name in ODD[1:]})
    update: dict[str, Any] = {"update_columns": ODD[1:], "unchanged_columns": ODD[:1]}
    metadata = store(stored(lambda _: new, columns, HOURS, **place, **update), FIRST)
    assert (metadata["rows"], metadata["left"]) == (rows, 0)
    found = sql(f"SELECT * FROM `{table.replace('`', '``')}` ORDER BY 1")
    assert [row[0] for row in found] == list(range(rows))
    assert {row[2:] for row in found} == {("old tick`", *(f"new {name}" for name in ODD[1:]))}


def test_a_missing_table_without_declared_columns_is_refused() -> None:
    asset = stored(lambda _: orders(FIRST))
    assert "There is no table orders" in refused(asset)
    result = run(asset, reader_of := reader(asset, []), only=reader_of)
    assert "declare the columns of your own asset" in failure_of(result)


@pytest.mark.parametrize("kind", ["string", "int64", "DOUBEL", "INT); DROP TABLE orders; --", ""])
def test_a_declared_type_that_is_none_is_refused(kind: str) -> None:
    assert "which is no type of MySQL" in refused(stored(lambda _: orders(FIRST), {"id": kind or "?"}))


def test_declared_constraints_hold(sql: Sql) -> None:
    columns = [
        dg.TableColumn("id", "INT", constraints=dg.TableColumnConstraints(nullable=False)),
        dg.TableColumn("code", "VARCHAR(9)", constraints=dg.TableColumnConstraints(unique=True)),
        dg.TableColumn("share", "INT", constraints=dg.TableColumnConstraints(other=["CHECK (`share` % 100 < 50)"])),
    ]

    def asset(**values: Any) -> dg.AssetsDefinition:
        frame = pd.DataFrame({"id": [1, 2], "code": ["a", "b"], "share": [1, 2]} | values)
        declared: dict[str, Any] = {"dagster/column_schema": dg.TableSchema(columns)}
        return stored(lambda _: frame, key="id", **declared)

    store(asset())
    for values in ({"id": [1, 1]}, {"code": ["a", "a"]}, {"share": [1, 99]}):
        assert "refused a statement" in refused(asset(**values))
    assert sql("SELECT id, code, share FROM orders ORDER BY id") == [(1, "a", 1), (2, "b", 2)]


def test_a_key_of_several_columns_can_be_declared(sql: Sql) -> None:
    frame = pd.DataFrame({"a": [1, 1], "b": [1, 2]})
    asset = stored(lambda _: frame, {"a": "INT", "b": "INT"}, key=["a", "b"])
    store(asset)
    assert "refused" in refused(stored(lambda _: pd.DataFrame({"a": [1, 1], "b": [2, 2]}), key=["a", "b"]))
    assert "names c" in refused(stored(lambda _: frame, {"a": "INT"}, name="other", key=["a", "c"]))
    assert sql("SELECT a, b FROM orders ORDER BY b") == [(1, 1), (1, 2)]


def test_only_the_columns_asked_for_are_loaded() -> None:
    asset = hourly()
    store(asset, FIRST)
    assert list(load(asset, partition=FIRST, columns=["note", "id"]).columns) == ["note", "id"]
    (batch,) = load(asset, Batches, FIRST, columns=["note"])
    assert batch.columns == ("note",)
    assert [tuple(row) for row in batch.rows] == [("old",), ("old",)]


def test_a_column_that_is_not_there_is_named() -> None:
    asset = hourly()
    store(asset, FIRST)
    result = run(asset, reader_of := reader(asset, [], columns=["colour"]), only=reader_of)
    assert "The table orders has no column colour; it has id, at, amount, note" in failure_of(result)


def test_a_condition_is_left_to_the_database() -> None:
    asset = hourly(lambda key: orders(key, (1, 2, 3)).assign(note=["a", "100%", ":x"]))
    store(asset, FIRST)
    for where, expected in (
        ("amount > 1", [2, 3]),
        ("amount > 1 OR id = 1", [1, 2, 3]),
        ("note LIKE '%0%'", [2]),
        ("note = ':x'", [3]),
        ("id % 2 = 1", [1, 3]),
    ):
        assert sorted(load(asset, partition=FIRST, where=where)["id"]) == expected, where


def test_a_condition_is_the_readers_own() -> None:
    asset = hourly(where="id = 1", batch_rows=1)
    store(asset, FIRST)
    assert load(asset, partition=FIRST).shape == (2, 4)


def test_a_condition_that_is_no_sql_fails_with_a_sentence() -> None:
    asset = hourly()
    store(asset, FIRST)
    for where in ("amount >", "colour = 1"):
        result = run(asset, reader_of := reader(asset, [], where=where), only=reader_of)
        assert failure_of(result)


@pytest.mark.parametrize("kind", [list, dict[str, pd.DataFrame], pd.Series, int])
def test_another_annotation_is_refused(kind: Any) -> None:
    asset = hourly()
    store(asset, FIRST)
    result = run(asset, reader_of := reader(asset, [], kind), only=reader_of)
    assert "annotate it with pandas.DataFrame or with Batches" in failure_of(result)


def test_a_table_of_another_name_can_be_given(sql: Sql) -> None:
    asset = hourly(table="orders_of_2026")
    metadata = store(asset, FIRST)
    assert metadata["dagster/table_name"] == "orders_of_2026"
    assert sql("SELECT COUNT(*) FROM orders_of_2026") == [(2,)]
    assert len(load(asset, partition=FIRST)) == 2


def test_the_url_decides_before_the_environment(
    sql: Sql, database_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    url = f"sqlite:///{tmp_path / 'home' / 'batch.sqlite'}"
    if "MYSQL_SERVER" in database_environment:
        given = {name.removeprefix("MYSQL_").lower(): value for name, value in database_environment.items()}
        url = "mysql://{user}:{password}@{server}:{port}/{database}".format(**given)
    monkeypatch.setenv("MYSQL_SERVER", "192.0.2.1")
    monkeypatch.delenv("MYSQL_USER", raising=False)
    monkeypatch.setenv("SHOP_URL", url)
    io_manager = MySQLIOManager(url=dg.EnvVar("SHOP_URL"))
    store(hourly(), FIRST, io_manager=io_manager)
    assert ids(sql) == [1, 2]
    assert len(load(hourly(), partition=FIRST, io_manager=io_manager)) == 2


def test_a_url_that_is_none_is_refused() -> None:
    assert "write it as mysql://" in refused(hourly(), FIRST, io_manager=MySQLIOManager(url="postgresql://u@s/d"))


def test_importing_the_io_manager_imports_no_pandas() -> None:
    code = "import sys, batch_assets.io_manager; sys.exit('pandas' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
