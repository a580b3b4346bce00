"""The MySQL IO manager and partitions: which rows an hour, a range, a region or a combination of them has."""

import contextlib
import datetime
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster._check import CheckError

from batch_assets.database.slices.batches import Batches
from batch_assets.io_manager import MySQLIOManager
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.stored_assets import (
    FIRST,
    HOURS,
    SECOND,
    THIRD,
    failure_of,
    load,
    range_tags,
    reader,
    refused,
    run,
    store,
    stored,
)

# Of Dagster: ranges of partitions in one run are a beta.
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `backfill_policy` of function `asset` is currently in beta")

DAYS = dg.DailyPartitionsDefinition(start_date="2026-03-01")
REGIONS = dg.StaticPartitionsDefinition(["eu", "EU", "us", 'it\'s 100%\\ "ünï" 🍋', "a:b"])
BOTH = dg.MultiPartitionsDefinition({"day": DAYS, "region": dg.StaticPartitionsDefinition(["eu", "us", "asia"])})


def one_row(key: Any) -> pd.DataFrame:
    return pd.DataFrame({"hour": [pd.to_datetime(key, format="%Y-%m-%d-%H:%M")], "amount": [1]})


def hourly(make: Any = one_row, policy: dg.BackfillPolicy | None = None, **metadata: Any) -> dg.AssetsDefinition:
    columns = {"hour": "DATETIME NOT NULL", "amount": "INT NOT NULL"}
    return stored(make, columns, HOURS, backfill_policy=policy, **({"partition_expr": "hour"} | metadata))


def test_a_range_of_hours_is_stored_in_one_run(database_environment: dict[str, str], sql: Sql) -> None:
    def make(keys: Sequence[str]) -> pd.DataFrame:
        return pd.concat([one_row(key) for key in keys for _ in range(2 if key == SECOND else 1)])

    asset = hourly(make, dg.BackfillPolicy.single_run())
    for _ in range(2):
        result = run(asset, tags=range_tags(FIRST, THIRD))
        assert result.success
        assert [str(row[0])[11:13] for row in sql("SELECT hour FROM orders ORDER BY hour")] == ["05", "06", "06", "07"]
    counts = {
        event.partition: (event.metadata["dagster/partition_row_count"].value, event.metadata["rows"].value)
        for event in result.asset_materializations_for_node("orders")
    }
    assert counts == {FIRST: (1, 1), SECOND: (2, 2), THIRD: (1, 1)}


def test_a_range_of_hours_is_loaded_in_one_run(database_environment: dict[str, str]) -> None:
    asset = hourly()
    for key in (FIRST, SECOND, THIRD):
        store(asset, key)
    for kind in (pd.DataFrame, Batches):
        seen: list[Any] = []
        down = reader(asset, seen, kind, HOURS)
        assert run(asset, down, only=down, tags=range_tags(FIRST, SECOND)).success
        assert len(seen[0] if kind is pd.DataFrame else seen[0][0]) == 2


def test_an_asset_without_partitions_loads_all_of_them(database_environment: dict[str, str]) -> None:
    asset = hourly()
    for key in (FIRST, THIRD):
        store(asset, key)
    assert sorted(load(asset)["hour"].dt.hour) == [5, 7]


def test_a_day_loads_its_hours(database_environment: dict[str, str]) -> None:
    asset = hourly()
    for key in ("2026-01-01-23:00", "2026-01-02-00:00", "2026-01-02-23:00", "2026-01-03-00:00"):
        store(asset, key)
    days = dg.DailyPartitionsDefinition(start_date="2026-01-01")
    frame = load(asset, partition="2026-01-02", partitions_def=days)
    assert sorted(frame["hour"].dt.strftime("%d-%H")) == ["02-00", "02-23"]


def test_an_asset_reads_its_own_hour_before(database_environment: dict[str, str], sql: Sql) -> None:
    @dg.asset(
        name="orders",
        partitions_def=dg.HourlyPartitionsDefinition(start_date="2026-01-01-05:00", fmt="%Y-%m-%d-%H:%M"),
        ins={"before": dg.AssetIn("orders", partition_mapping=dg.TimeWindowPartitionMapping(-1, -1))},
        metadata={
            "partition_expr": "hour",
            "dagster/column_schema": dg.TableSchema(
                [dg.TableColumn("hour", "DATETIME"), dg.TableColumn("amount", "INT")]
            ),
        },
        io_manager_key="mysql_io_manager",
        backfill_policy=dg.BackfillPolicy.multi_run(1),
    )
    def running_total(context: dg.AssetExecutionContext, before: pd.DataFrame) -> pd.DataFrame:
        return one_row(context.partition_key).assign(amount=before["amount"].sum() + 1)

    for key in (FIRST, SECOND, THIRD):
        assert store(running_total, key)["rows"] == 1
    assert sql("SELECT amount FROM orders ORDER BY hour") == [(1,), (2,), (3,)]


@pytest.mark.parametrize("partitions_def", [HOURS, None], ids=["by hour", "whole"])
def test_assets_that_share_a_table_replace_and_load_their_own_rows_only(
    partitions_def: dg.PartitionsDefinition[Any] | None, database_environment: dict[str, str], sql: Sql
) -> None:
    columns = {"hour": "DATETIME NOT NULL", "region": "VARCHAR(9) NOT NULL", "amount": "INT NOT NULL"}

    def sales(region: str, amount: int, written: str | None = None) -> dg.AssetsDefinition:
        def make(key: Any) -> pd.DataFrame:
            return one_row(key or FIRST).assign(region=written or region, amount=amount)

        metadata: dict[str, Any] = {"table": "sales", "constant_columns": {"region": region}, "partition_expr": "hour"}
        return stored(make, columns, partitions_def, region, **metadata)

    key = FIRST if partitions_def else None
    for region, amount in (("eu", 1), ("us", 2), ("eu", 3)):
        store(sales(region, amount), key)
    rows = [("eu", 3), ("us", 2)]
    assert sql("SELECT region, amount FROM sales ORDER BY region") == rows
    assert [list(load(sales(region, 0), partition=key)["amount"]) for region in ("eu", "us")] == [[3], [2]]
    assert "region" in refused(sales("eu", 4, written="us"), key)
    assert sql("SELECT region, amount FROM sales ORDER BY region") == rows


@pytest.mark.parametrize("key", ["2099-01-01-00:00", "2026-01-01-05:30"])
def test_an_hour_that_is_none_is_refused(database_environment: dict[str, str], sql: Sql, key: str) -> None:
    # `dagster job execute --tags` does not look, so neither does this.
    asset = hourly()
    store(asset, FIRST)
    down = reader(asset, [], pd.DataFrame, HOURS)
    for only in (asset, down):
        job = dg.Definitions(
            assets=[asset, down],
            jobs=[dg.define_asset_job("job", [only])],
            resources={"mysql_io_manager": MySQLIOManager()},
        ).resolve_job_def("job")
        with dg.DagsterInstance.ephemeral() as instance:
            result = job.execute_in_process(tags={"dagster/partition": key}, raise_on_error=False, instance=instance)
        assert f"{key!r} is no partition of {only.key.path[0]}" in failure_of(result)
    assert sql("SELECT COUNT(*) FROM orders") == [(1,)]


@pytest.mark.parametrize("key", ["2025-01-01-00:00", "yesterday"])
def test_an_hour_that_dagster_refuses_by_itself_changes_nothing(
    database_environment: dict[str, str], sql: Sql, key: str
) -> None:
    store(hourly(), FIRST)
    with contextlib.suppress(ValueError, dg.DagsterUnknownPartitionError, CheckError):
        assert not run(hourly(), tags={"dagster/partition": key}).success
    assert sql("SELECT COUNT(*) FROM orders") == [(1,)]


def test_the_start_belongs_to_an_hour_and_the_end_does_not(database_environment: dict[str, str], sql: Sql) -> None:
    times = ["05:00:00", "05:59:59", "06:00:00"]
    asset = hourly()
    store(asset, FIRST)
    sql("DELETE FROM orders")
    for time in times:
        sql("INSERT INTO orders VALUES (%s, 1)", f"2026-01-01 {time}")
    assert sorted(load(asset, partition=FIRST)["hour"].dt.strftime("%H:%M:%S")) == times[:2]
    store(asset, SECOND)
    assert [str(row[0])[11:] for row in sql("SELECT hour FROM orders ORDER BY hour")] == times


def test_fractions_of_a_second_stay_in_their_hour(database_environment: dict[str, str], sql: Sql) -> None:
    last = pd.DataFrame({"hour": [pd.Timestamp("2026-01-01 05:59:59.999999")], "amount": [1]})
    store(hourly(lambda _: last), FIRST)
    assert [str(row[0])[:19] for row in sql("SELECT hour FROM orders")] == ["2026-01-01 05:59:59"]


def test_times_with_a_zone_are_stored_as_utc(database_environment: dict[str, str], sql: Sql) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    local = pd.Timestamp("2026-01-01 07:15", tz=zone)
    rows = [
        pd.DataFrame({"hour": [local], "amount": [1]}),
        pd.DataFrame({"hour": [local.to_pydatetime()], "amount": [2]}, dtype=object),
        pd.DataFrame({"hour": ["2026-01-01T07:15:00+02:00"], "amount": [3]}),
        pd.DataFrame({"hour": ["2026-01-01T05:15:00Z"], "amount": [4]}),
    ]
    store(hourly(lambda _: Batches(rows)), FIRST)
    assert {str(row[0]) for row in sql("SELECT hour FROM orders")} == {"2026-01-01 05:15:00"}
    assert load(hourly(), partition=FIRST)["hour"].tolist() == [pd.Timestamp("2026-01-01 05:15")] * 4


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Kolkata"])
def test_a_day_is_a_date_of_its_own_zone(database_environment: dict[str, str], sql: Sql, zone: str) -> None:
    days = dg.DailyPartitionsDefinition(start_date="2026-03-01", timezone=zone)

    def make(key: str) -> pd.DataFrame:
        day = pd.Timestamp(key)
        return pd.DataFrame({"day": [day.date(), day, key, day.tz_localize(zone), day.to_pydatetime()]}, dtype=object)

    asset = stored(make, {"day": "DATE NOT NULL"}, days, partition_expr="day")
    for key in ("2026-03-28", "2026-03-29", "2026-03-30", "2026-03-29"):
        store(asset, key)
    expected = [("2026-03-28", 5), ("2026-03-29", 5), ("2026-03-30", 5)]
    assert [(str(day), count) for day, count in sql("SELECT day, COUNT(*) FROM orders GROUP BY day")] == expected
    frame = load(asset, partition="2026-03-29")
    assert frame["day"].tolist() == [pd.Timestamp("2026-03-29")] * 5


def test_a_day_of_another_zone_is_a_window_of_utc(database_environment: dict[str, str], sql: Sql) -> None:
    days = dg.DailyPartitionsDefinition(start_date="2026-03-01", timezone="Europe/Berlin")
    inside = ["2026-03-28 23:00:00", "2026-03-29 21:59:59"]  # a day of 23 hours
    asset = stored(lambda _: pd.DataFrame({"at": inside}), {"at": "TIMESTAMP"}, days, partition_expr="at")
    store(asset, "2026-03-29")
    assert [str(row[0]) for row in sql("SELECT at FROM orders ORDER BY at")] == inside
    outside = stored(lambda _: pd.DataFrame({"at": ["2026-03-29 22:00:00"]}), None, days, partition_expr="at")
    assert "1 of 1 rows do not belong" in refused(outside, "2026-03-29")


@pytest.mark.parametrize("key", REGIONS.get_partition_keys())
def test_static_partitions_are_told_apart_exactly(database_environment: dict[str, str], sql: Sql, key: str) -> None:
    def asset(amount: int) -> dg.AssetsDefinition:
        return stored(
            lambda region: pd.DataFrame({"region": [region], "amount": [amount]}),
            {"region": "VARCHAR(40) NOT NULL", "amount": "INT"},
            REGIONS,
            partition_expr="region",
        )

    for region in REGIONS.get_partition_keys():
        store(asset(1), region)
    store(asset(2), key)
    expected = {(region, 2 if region == key else 1) for region in REGIONS.get_partition_keys()}
    assert set(sql("SELECT region, amount FROM orders")) == expected
    assert load(asset(1), partition=key)["amount"].tolist() == [2]


def test_static_partitions_may_be_numbers(database_environment: dict[str, str], sql: Sql) -> None:
    shards = dg.StaticPartitionsDefinition(["1", "2"])
    asset = stored(
        lambda key: pd.DataFrame({"shard": [int(key)]}), {"shard": "INT NOT NULL"}, shards, partition_expr="shard"
    )
    for key in ("1", "2", "1"):
        store(asset, key)
    assert sql("SELECT shard FROM orders ORDER BY shard") == [(1,), (2,)]


def test_dynamic_partitions_are_those_of_the_instance(database_environment: dict[str, str], sql: Sql) -> None:
    customers = dg.DynamicPartitionsDefinition(name="customers")
    asset = stored(
        lambda key: pd.DataFrame({"customer": [key]}),
        {"customer": "VARCHAR(9) NOT NULL"},
        customers,
        partition_expr="customer",
    )
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("customers", ["ann", "bob"])
        for key in ("ann", "bob", "ann"):
            store(asset, key, instance=instance)
        assert sql("SELECT customer FROM orders ORDER BY customer") == [("ann",), ("bob",)]
        assert load(asset, partition="bob", instance=instance)["customer"].tolist() == ["bob"]
        assert sorted(load(asset, instance=instance)["customer"]) == ["ann", "bob"]


def both(make: Any, **options: Any) -> dg.AssetsDefinition:
    columns = {"day": "DATE NOT NULL", "region": "VARCHAR(9) NOT NULL", "amount": "INT"}
    return stored(make, columns, BOTH, partition_expr={"day": "day", "region": "region"}, **options)


def cell(key: Any, amount: int = 1) -> pd.DataFrame:
    names = BOTH.get_partition_key_from_str(str(key)).keys_by_dimension
    return pd.DataFrame({"day": [names["day"]], "region": [names["region"]], "amount": [amount]})


def test_a_combination_of_a_day_and_a_region_is_a_partition(database_environment: dict[str, str], sql: Sql) -> None:
    keys = [f"2026-03-0{day}|{region}" for day in (1, 2) for region in ("eu", "us")]
    for key in keys:
        store(both(cell), key)
    store(both(lambda key: cell(key, 2)), keys[0])
    assert [(str(day), *rest) for day, *rest in sql("SELECT day, region, amount FROM orders ORDER BY 1, 2")] == [
        ("2026-03-01", "eu", 2),
        ("2026-03-01", "us", 1),
        ("2026-03-02", "eu", 1),
        ("2026-03-02", "us", 1),
    ]
    assert load(both(cell), partition=keys[0])["amount"].tolist() == [2]
    assert "1 of 1 rows do not belong" in refused(both(lambda _: cell(keys[1])), keys[0])


def test_a_day_loads_all_its_regions_and_a_region_all_its_days(database_environment: dict[str, str]) -> None:
    asset = both(cell)
    for day in (1, 2):
        for region in ("eu", "us"):
            store(asset, f"2026-03-0{day}|{region}")
    of_day = load(asset, partition="2026-03-01", partitions_def=DAYS)
    assert sorted(of_day["region"]) == ["eu", "us"]
    regions = dg.StaticPartitionsDefinition(["eu", "us", "asia"])
    of_region = load(asset, partition="us", partitions_def=regions)
    assert of_region["region"].tolist() == ["us", "us"]
    assert len(load(asset)) == 4


def test_combinations_that_are_no_rectangle_are_loaded_exactly(database_environment: dict[str, str]) -> None:
    asset = both(cell)
    for day in (1, 2):
        for region in ("eu", "us"):
            store(asset, f"2026-03-0{day}|{region}")
    diagonal = ["2026-03-01|eu", "2026-03-02|us"]
    frame = load(asset, partition_mapping=dg.SpecificPartitionsPartitionMapping(diagonal))
    assert sorted(zip(frame["day"].dt.day, frame["region"], strict=True)) == [(1, "eu"), (2, "us")]


def test_a_range_of_combinations_is_replaced_exactly(database_environment: dict[str, str], sql: Sql) -> None:
    for day in (1, 2, 3):
        for region in ("eu", "us", "asia"):
            store(both(cell), f"2026-03-0{day}|{region}")

    def make(keys: Sequence[str]) -> pd.DataFrame:
        return pd.concat([cell(key, 2) for key in keys])

    asset = both(make, backfill_policy=dg.BackfillPolicy.single_run())
    assert run(asset, tags=range_tags("2026-03-01|us", "2026-03-02|asia")).success
    changed = sql("SELECT DISTINCT day, region FROM orders WHERE amount = 2 ORDER BY day, region")
    assert [(str(day), region) for day, region in changed] == [
        ("2026-03-01", "asia"),
        ("2026-03-01", "us"),
        ("2026-03-02", "asia"),
        ("2026-03-02", "us"),
    ]
    assert sql("SELECT COUNT(*) FROM orders") == [(9,)]


@pytest.mark.parametrize("expression", [None, {"hour": "hour"}, 5])
def test_partitions_without_their_column_are_refused(database_environment: dict[str, str], expression: Any) -> None:
    sentence = refused(hourly(partition_expr=expression), FIRST)
    assert 'add metadata={"partition_expr": "the_column"} to it' in sentence


@pytest.mark.parametrize("expression", [None, "day", {"day": "day"}])
def test_dimensions_without_their_columns_are_refused(database_environment: dict[str, str], expression: Any) -> None:
    asset = stored(cell, {"day": "DATE"}, BOTH, partition_expr=expression)
    assert "region" in refused(asset, "2026-03-01|eu")


def test_a_column_that_holds_no_time_is_refused(database_environment: dict[str, str]) -> None:
    asset = hourly(partition_expr="amount")
    assert "The column amount of orders is INTEGER, which no time window can be compared with" in refused(asset, FIRST)


def test_a_column_of_the_partition_that_is_not_there_is_refused(database_environment: dict[str, str]) -> None:
    assert "A column is missing" in refused(hourly(partition_expr="minute_"), FIRST)


def test_partitions_may_be_found_by_an_expression(database_environment: dict[str, str], sql: Sql) -> None:
    # With a per cent sign, a colon and a quote in it, as drivers read them.
    server = "MYSQL_SERVER" in database_environment
    expression = (
        "STR_TO_DATE(REPLACE(text, '%:\\'', ''), '%Y-%m-%d %H:%i:%s')" if server else "REPLACE(text, '%:''', '')"
    )

    def make(key: str) -> pd.DataFrame:
        return pd.DataFrame({"text": ["%:'" + key.replace("-05", " 05").replace("-06", " 06") + ":00"]})

    asset = stored(make, {"text": "VARCHAR(40)"}, HOURS, partition_expr=expression)
    for key in (FIRST, SECOND, FIRST):
        store(asset, key)
    assert sql("SELECT text FROM orders ORDER BY text") == [
        ("%:'2026-01-01 05:00:00",),
        ("%:'2026-01-01 06:00:00",),
    ]
    assert len(load(asset, partition=SECOND)) == 1
    assert "1 of 1 rows do not belong" in refused(
        stored(lambda _: make(SECOND), None, HOURS, partition_expr=expression), FIRST
    )


def test_an_expression_may_give_a_date(database_environment: dict[str, str], sql: Sql) -> None:
    asset = stored(
        lambda key: pd.DataFrame({"at": [f"{key} 13:00:00"]}), {"at": "DATETIME"}, DAYS, partition_expr="DATE(at)"
    )
    for key in ("2026-03-01", "2026-03-02", "2026-03-01"):
        store(asset, key)
    assert sql("SELECT COUNT(*) FROM orders") == [(2,)]


@pytest.mark.parametrize("way", ["prefix", "metadata", "config"])
def test_a_schema_is_a_database_of_the_server(server_environment: dict[str, str], sql: Sql, way: str) -> None:
    name = f"{server_environment['MYSQL_DATABASE']}_other"
    metadata: dict[str, Any] = {"schema": name} if way == "metadata" else {}
    asset = stored(
        lambda _: pd.DataFrame({"id": [1]}),
        {"id": "INT"},
        name=[name, "orders"] if way == "prefix" else "orders",
        **metadata,
    )
    io_manager = MySQLIOManager(schema=name) if way == "config" else None
    try:
        assert store(asset, io_manager=io_manager)["dagster/table_name"] == f"{name}.orders"
        assert sql(f"SELECT id FROM `{name}`.orders") == [(1,)]
        assert load(asset, io_manager=io_manager)["id"].tolist() == [1]
    finally:
        sql(f"DROP DATABASE IF EXISTS `{name}`")


def test_metadata_names_the_schema_before_config_and_prefix(server_environment: dict[str, str]) -> None:
    asset = stored(lambda _: pd.DataFrame(), name=["c", "orders"], schema=server_environment["MYSQL_DATABASE"])
    sentence = refused(asset, io_manager=MySQLIOManager(schema="b"))
    assert f"There is no table {server_environment['MYSQL_DATABASE']}.orders" in sentence
    asset = stored(lambda _: pd.DataFrame(), name=["c", "orders"])
    assert "There is no table b.orders" in refused(asset, io_manager=MySQLIOManager(schema="b"))
    assert "There is no table c.orders" in refused(asset)


def test_sqlite_has_no_schema(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_ASSETS_HOME", str(tmp_path))
    for columns in (None, {"id": "INT"}):
        asset = stored(lambda _: pd.DataFrame({"id": [1]}), columns, name=["shop", "orders"])
        assert "shop.orders names a schema, which SQLite does not have" in refused(asset)
