import re
import threading
import time
from collections.abc import Iterator

import pymysql
import pytest
import sqlalchemy as sa

from batch_assets.database.records.hour_counts import count_by_hour
from batch_assets.database.records.register import register_items
from batch_assets.database.schema import setup as schema
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import metadata
from batch_assets.errors import DatabaseError, DatabaseUnavailableError, TableError
from batch_assets_tests.support.database import BOOKKEEPING_TABLES, Sql
from batch_assets_tests.support.engines import ITEMS, TABLES, engine_from_environment
from batch_assets_tests.support.interruptions import interrupted_after, listening
from batch_assets_tests.support.servers import Rows, Server

ITEM = "[5.1, 3.5, 1.4, 0.2]"
INDEX = "added an index on items.created_datetime"
CREATED = [f"created table {name}" for name in BOOKKEEPING_TABLES]
PENDING_ON_SQLITE = ["added an index on the items without a prediction"]
PENDING = ["added the virtual column items.prediction_pending", "added an index on items.prediction_pending"]
MADE = len(["created table items", *CREATED, *PENDING])  # on an empty server
NOW = "DEFAULT CURRENT_TIMESTAMP"
# The five columns of the contract, in the shapes that services have.
SHAPES = {
    "contract": (
        "id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, `values` JSON NOT NULL, prediction JSON, "
        f"created_datetime TIMESTAMP NOT NULL {NOW}, updated_datetime TIMESTAMP NOT NULL {NOW} ON UPDATE "
        "CURRENT_TIMESTAMP"
    ),
    "INT, LONGTEXT, DATETIME": (
        "id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, `values` LONGTEXT NOT NULL, prediction LONGTEXT DEFAULT NULL, "
        f"created_datetime DATETIME NOT NULL {NOW}, updated_datetime DATETIME NOT NULL {NOW} ON UPDATE "
        "CURRENT_TIMESTAMP"
    ),
    "BIGINT UNSIGNED, TEXT, TIMESTAMP(6)": (
        "id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, `values` TEXT NOT NULL, prediction TEXT, "
        f"created_datetime TIMESTAMP(6) NOT NULL {NOW}(6), updated_datetime TIMESTAMP NULL"
    ),
    "other columns in another order, Latin-1, a foreign key": (
        "tenant VARCHAR(20) NOT NULL DEFAULT 'käse', updated_datetime TIMESTAMP NOT NULL DEFAULT '2026-10-01 00:00:00' "
        f"ON UPDATE CURRENT_TIMESTAMP, created_datetime TIMESTAMP NOT NULL {NOW}, prediction JSON, "
        "`values` JSON NOT NULL, Note TEXT, id INTEGER AUTO_INCREMENT, parent INTEGER, PRIMARY KEY (id), "
        "KEY by_tenant (tenant, created_datetime), FOREIGN KEY (parent) REFERENCES items (id)) "
        "CHARACTER SET latin1 COMMENT='the service''s own' ROW_FORMAT=COMPACT -- ("
    ),
}
PARTITIONED = (
    "id BIGINT NOT NULL AUTO_INCREMENT, `values` JSON NOT NULL, prediction JSON, "
    f"created_datetime DATETIME NOT NULL {NOW}, updated_datetime DATETIME NOT NULL {NOW}, "
    "PRIMARY KEY (id, created_datetime)) PARTITION BY RANGE COLUMNS (created_datetime) "
    "(PARTITION p0 VALUES LESS THAN ('2026-11-01'), PARTITION p1 VALUES LESS THAN (MAXVALUE)) -- ("
)
SQLITE_SHAPES = {
    "contract": (
        "id INTEGER PRIMARY KEY AUTOINCREMENT, `values` JSON NOT NULL, prediction JSON, created_datetime TIMESTAMP NOT "
        f"NULL {NOW}, updated_datetime TIMESTAMP NOT NULL {NOW}"
    ),
    "other columns in another order": (
        f"note TEXT, updated_datetime DATETIME, created_datetime DATETIME NOT NULL {NOW}, prediction TEXT, "
        "`values` VARCHAR(500) NOT NULL, id INTEGER PRIMARY KEY"
    ),
}


@pytest.fixture
def engine(database_environment: dict[str, str]) -> sa.Engine:
    return engine_from_environment()


@pytest.fixture
def on_server(server_environment: dict[str, str]) -> sa.Engine:
    return engine_from_environment()


def make_items(sql: Sql, columns: str) -> None:
    """A table with rows in it, of which the last was deleted."""
    sql(f"CREATE TABLE items ({columns})")
    for number, moment in [(3, "2026-10-31 23:59:59"), (7, "2026-11-01 00:00:00"), (20, "2026-11-01 05:30:00")]:
        sql(
            "INSERT INTO items (id, `values`, prediction, created_datetime, updated_datetime) "
            "VALUES (%s, %s, %s, %s, %s)",
            number,
            ITEM,
            "[1, 0, 0]" if number == 7 else None,
            moment,
            "2026-11-02 01:02:03",
        )
    sql("DELETE FROM items WHERE id = 20")


def tables(engine: sa.Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names())


def created(sql: Sql, table: str = "items") -> str:
    return str(sql(f"SHOW CREATE TABLE {table}")[0][1])


def storage(sql: Sql, server: Server) -> Rows:
    """What changes when a table is written anew."""
    name = "innodb_sys_tables" if server.is_mariadb else "innodb_tables"
    return sql(
        f"SELECT table_id, name, space FROM information_schema.{name} WHERE name LIKE CONCAT(DATABASE(), '/items%%') "
        "AND %s ORDER BY name",
        1,
    )


# Adopting what is there


@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_of_a_service_is_adopted_without_being_rewritten(
    shape: str, on_server: sa.Engine, server: Server, sql: Sql
) -> None:
    make_items(sql, SHAPES[shape])
    rows, statement, stored = sql("SELECT * FROM items"), created(sql), storage(sql, server)
    assert len(rows) == 2
    assert stored
    assert initialize_database(on_server, ITEMS) == [*CREATED, INDEX, *PENDING]
    assert sql("SELECT * FROM items") == rows
    assert storage(sql, server) == stored
    added, count = re.subn(
        r",\n  KEY `ix_items_created_datetime` \(`created_datetime`\)"
        r"|,\n  KEY `ix_items_prediction_pending` \(`prediction_pending`,`created_datetime`\)"
        r"|,\n  `prediction_pending` tinyint.* GENERATED ALWAYS AS \(\(?`prediction` is null\)?\) VIRTUAL"
        r".* INVISIBLE(?: \*/)?",
        "",
        created(sql),
    )
    assert (added, count) == (statement, 3)
    assert initialize_database(on_server, ITEMS) == []
    # The deleted id is not given away again, and what the service writes is counted.
    register_items(on_server, ITEMS, [ITEM], None)
    assert sql("SELECT MAX(id) FROM items") == [(21,)]
    start, end = sql("SELECT MIN(created_datetime), NOW() + INTERVAL 1 HOUR FROM items")[0]
    counts = count_by_hour(on_server, TABLES, start.replace(minute=0, second=0, microsecond=0), end)
    assert [(hour.items, hour.predicted, hour.pending) for hour in counts] == [(1, 0, 1), (1, 1, 0), (1, 0, 1)]


def test_a_partitioned_table_is_adopted_without_what_would_rewrite_it(
    on_server: sa.Engine, server: Server, sql: Sql
) -> None:
    make_items(sql, PARTITIONED)
    rows, stored = sql("SELECT * FROM items"), storage(sql, server)
    done = initialize_database(on_server, ITEMS)
    assert done[: len(CREATED) + 1] == [*CREATED, INDEX]
    if server.is_mariadb:
        (remark,) = done[len(CREATED) + 1 :]
        assert remark.startswith("items goes without the column prediction_pending, which cannot be added to it online")
        assert initialize_database(on_server, ITEMS) == [remark]
        sql(re.findall("(ALTER TABLE .*);", remark)[0])
        assert initialize_database(on_server, ITEMS) == [PENDING[1]]
    else:
        assert done[len(CREATED) + 1 :] == PENDING
        assert storage(sql, server) == stored
    assert sql("SELECT * FROM items") == rows
    assert initialize_database(on_server, ITEMS) == []


@pytest.mark.parametrize("shape", SQLITE_SHAPES)
def test_a_table_of_a_service_on_sqlite_is_adopted(
    shape: str, sql: Sql, database_environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    if "MYSQL_SERVER" in database_environment:
        return
    make_items(sql, SQLITE_SHAPES[shape])
    before = sql("SELECT * FROM items"), sql("SELECT * FROM sqlite_master WHERE tbl_name = 'items'")
    assert initialize_database(engine_from_environment(), ITEMS) == [*CREATED, INDEX, *PENDING_ON_SQLITE]
    after = sql("SELECT * FROM items"), sql("SELECT * FROM sqlite_master WHERE tbl_name = 'items' AND type = 'table'")
    assert after == before
    assert sql("SELECT name FROM sqlite_master WHERE tbl_name = 'items' AND type != 'table' ORDER BY name") == [
        ("ix_items_created_datetime",),
        ("ix_items_prediction_pending",),
    ]
    assert initialize_database(engine_from_environment(), ITEMS) == []


@pytest.mark.parametrize(
    ("columns", "is_enough"),
    [
        ("created_datetime", True),
        ("created_datetime, id", True),
        ("created_datetime, updated_datetime", True),
        ("updated_datetime, created_datetime", False),
    ],
)
def test_an_index_that_begins_with_the_time_is_enough(
    columns: str, is_enough: bool, engine: sa.Engine, sql: Sql
) -> None:
    on_sqlite = engine.dialect.name == "sqlite"
    make_items(sql, SQLITE_SHAPES["contract"] if on_sqlite else SHAPES["contract"])
    sql(f"CREATE INDEX theirs ON items ({columns})")
    pending = PENDING_ON_SQLITE if on_sqlite else PENDING
    assert initialize_database(engine, ITEMS) == [*CREATED, *([] if is_enough else [INDEX]), *pending]
    names = {index["name"] for index in sa.inspect(engine).get_indexes("items")} - {"ix_items_prediction_pending"}
    assert names == ({"theirs"} if is_enough else {"theirs", "ix_items_created_datetime"})


def test_a_migration_history_of_the_service_is_left_alone(engine: sa.Engine, sql: Sql) -> None:
    sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    sql("INSERT INTO alembic_version VALUES ('deadbeef')")
    initialize_database(engine, ITEMS)
    assert initialize_database(engine, ITEMS) == []
    assert sql("SELECT * FROM alembic_version") == [("deadbeef",)]
    assert sql("SELECT * FROM batch_assets_alembic_version") == [("0011",)]


def test_the_service_goes_on_writing_while_the_index_is_added(on_server: sa.Engine, server: Server, sql: Sql) -> None:
    make_items(sql, SHAPES["contract"])
    while sql("SELECT COUNT(*) FROM items")[0][0] < 150_000:
        sql("INSERT INTO items (`values`) SELECT `values` FROM items")
    adding, added, finished = threading.Event(), threading.Event(), []

    def write() -> None:
        connection = pymysql.connect(
            host=server.host, port=server.port, user=server.user, password=server.password, autocommit=True,
            database=str(on_server.url.database),
        )  # fmt: skip
        with connection, connection.cursor() as cursor:
            adding.wait(60)
            while not added.is_set():
                cursor.execute(f"INSERT INTO items (`values`) VALUES ('{ITEM}')")
                finished.append(time.perf_counter())

    with listening(on_server, "before_cursor_execute", lambda text: adding.set() if "ADD INDEX" in text else None):
        writer = threading.Thread(target=write)
        writer.start()
        initialize_database(on_server, ITEMS)
        ended = time.perf_counter()
        added.set()
        writer.join()
    assert sum(moment < ended for moment in finished) > 5


def test_a_transaction_that_keeps_the_table_busy_stops_init_db_and_not_the_service(
    on_server: sa.Engine, server: Server, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_items(sql, SHAPES["contract"])
    monkeypatch.setattr(schema, "TABLE_LOCK_SECONDS", 1)
    connection = pymysql.connect(
        host=server.host, port=server.port, user=server.user, password=server.password,
        database=str(on_server.url.database),
    )  # fmt: skip
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM items")
        start = time.monotonic()
        with pytest.raises(DatabaseUnavailableError, match="waited too long for a lock that another transaction"):
            initialize_database(on_server, ITEMS)
        # By itself the server would wait for a day.
        assert time.monotonic() - start < 60
        sql(f"INSERT INTO items (`values`) VALUES ('{ITEM}')")
    assert initialize_database(on_server, ITEMS) == [INDEX, *PENDING]


# Refusing what does not fit


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("`values` JSON NOT NULL,", "", "the column values (JSON) is missing"),
        ("prediction JSON,", "", "the column prediction (JSON) is missing"),
        ("prediction JSON", "prediction JSON NOT NULL", "the column prediction must allow NULL"),
        ("prediction JSON", "prediction DOUBLE", "the column prediction is DOUBLE, and must be JSON"),
        ("`values` JSON", "`values` INTEGER", "the column values is INTEGER"),
        (
            f"created_datetime TIMESTAMP NOT NULL {NOW}",
            "created_datetime VARCHAR(30)",
            "created_datetime is VARCHAR(30)",
        ),
        (f"created_datetime TIMESTAMP NOT NULL {NOW}", "created_datetime DATE", "created_datetime is DATE, and must"),
        (f"created_datetime TIMESTAMP NOT NULL {NOW}", "created_datetime BIGINT", "created_datetime is BIGINT"),
        ("updated_datetime", "updated", "the column updated_datetime (TIMESTAMP) is missing"),
        ("id ", "item_id ", "the column id (an integer) is missing"),
        (None, "id VARCHAR(36) PRIMARY KEY", "the column id is VARCHAR(36), and must be an integer"),
        (None, "id INTEGER, number INTEGER PRIMARY KEY", "id must be the primary key (it is number)"),
        (None, "id INTEGER", "id must be the primary key (it is none)"),
        (None, "id INTEGER, tenant INTEGER, PRIMARY KEY (tenant, id)", "id must be the primary key (it is tenant, id)"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name_and_nothing_is_changed(
    old: str | None, new: str, sentence: str, engine: sa.Engine, sql: Sql
) -> None:
    shape = (SQLITE_SHAPES if engine.dialect.name == "sqlite" else SHAPES)["contract"]
    if old is None and "PRIMARY KEY (" in new:
        # A key of two columns stands at the end.
        new, key = new.split(", PRIMARY", 1)
        shape += f", PRIMARY{key}"
    sql(f"CREATE TABLE items ({shape.replace(old or shape.split(',')[0], new)})")
    before = sa.inspect(engine).get_columns("items")
    with pytest.raises(TableError) as caught:
        initialize_database(engine, ITEMS)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(f"The table items in {engine.url.database!r} cannot be used as it is: ")
    assert str(caught.value).endswith("Fix the table, or use another database; nothing was changed.")
    assert list(map(str, sa.inspect(engine).get_columns("items"))) == list(map(str, before))
    assert tables(engine) == {"items"}
    assert sa.inspect(engine).get_indexes("items") == []


def test_a_table_without_transactions_is_refused(on_server: sa.Engine, sql: Sql) -> None:
    sql(f"CREATE TABLE items ({SHAPES['contract']}) ENGINE=MyISAM")
    with pytest.raises(TableError, match=r"its storage engine MyISAM has no transactions \(ALTER TABLE items ENGINE"):
        initialize_database(on_server, ITEMS)
    assert tables(on_server) == {"items"}


def test_a_view_is_refused(engine: sa.Engine, sql: Sql) -> None:
    sql("CREATE TABLE theirs (id INTEGER PRIMARY KEY, `values` TEXT)")
    sql("CREATE VIEW items AS SELECT * FROM theirs")
    with pytest.raises(TableError, match="it is a view, and must be a table"):
        initialize_database(engine, ITEMS)
    assert tables(engine) == {"theirs"}


def test_a_table_of_ours_that_is_somebody_elses_is_refused_by_name(engine: sa.Engine, sql: Sql) -> None:
    sql("CREATE TABLE run_summary (hour INTEGER PRIMARY KEY, items INTEGER)")
    with pytest.raises(
        TableError, match=r"The table run_summary in .* has no pipeline, predicted, failed, pending, label_counts"
    ):
        initialize_database(engine, ITEMS)
    assert tables(engine) == {"run_summary"}


def test_a_column_that_was_dropped_is_named(engine: sa.Engine, sql: Sql) -> None:
    initialize_database(engine, ITEMS)
    sql("ALTER TABLE failed_items DROP COLUMN attempts")
    with pytest.raises(TableError, match=r"The table failed_items in .* has no attempts: rename it"):
        initialize_database(engine, ITEMS)


# Interruptions


def snapshot_of(engine: sa.Engine, sql: Sql) -> list[str]:
    if engine.dialect.name == "sqlite":
        return sorted(str(row[0]) for row in sql("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    # Indexes are numbered anew where they were added later.
    return [re.sub(r" AUTO_INCREMENT=\d+", "", created(sql, name)) for name in sorted(tables(engine))]


def test_the_tables_that_the_tests_copy_are_those_that_it_makes(
    empty_tables: dict[str, str], engine: sa.Engine, sql: Sql
) -> None:
    copied, version = snapshot_of(engine, sql), sql("SELECT * FROM batch_assets_alembic_version")
    for name in tables(engine):
        sql(f"DROP TABLE {name}")
    initialize_database(engine, ITEMS)
    assert snapshot_of(engine, sql) == copied
    assert sql("SELECT * FROM batch_assets_alembic_version") == version


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_was_interrupted_anywhere_is_finished_by_the_next_one(engine: sa.Engine, sql: Sql) -> None:
    def drop_all() -> None:
        for name in tables(engine):
            sql(f"DROP TABLE {name}")

    def run(limit: int) -> int:
        return interrupted_after(engine, limit, lambda: initialize_database(engine, ITEMS))

    total = run(0)
    assert total >= 7
    whole = snapshot_of(engine, sql)
    for limit in range(1, total + 1):
        drop_all()
        assert run(limit) == limit
        initialize_database(engine, ITEMS)
        assert snapshot_of(engine, sql) == whole
        assert sql("SELECT * FROM batch_assets_alembic_version") == [("0011",)]


@pytest.mark.parametrize("name", ["items", *metadata.tables, "batch_assets_alembic_version"])
def test_a_table_that_was_dropped_is_made_anew_and_the_others_keep_their_rows(
    name: str, engine: sa.Engine, sql: Sql
) -> None:
    initialize_database(engine, ITEMS)
    whole = snapshot_of(engine, sql)
    register_items(engine, ITEMS, [ITEM], None)
    sql(f"DROP TABLE {name}")
    made = [] if name.endswith("version") else [f"created table {name}"]
    if name == "items":
        made += PENDING_ON_SQLITE if engine.dialect.name == "sqlite" else PENDING
    assert initialize_database(engine, ITEMS) == made
    assert snapshot_of(engine, sql) == whole
    assert sql("SELECT COUNT(*) FROM items") == [(0 if name == "items" else 1,)]


def test_an_index_that_was_dropped_is_made_anew(engine: sa.Engine, sql: Sql) -> None:
    initialize_database(engine, ITEMS)
    whole = snapshot_of(engine, sql)
    pending = PENDING_ON_SQLITE if engine.dialect.name == "sqlite" else PENDING
    for name, said in (("created_datetime", INDEX), ("prediction_pending", pending[-1])):
        sql(f"DROP INDEX ix_items_{name}" + ("" if engine.dialect.name == "sqlite" else " ON items"))
        assert initialize_database(engine, ITEMS) == [said]
    assert sorted(snapshot_of(engine, sql)[0]) == sorted(whole[0])


# What the tables are


def test_the_tables_that_the_migrations_make_are_those_of_the_package(engine: sa.Engine) -> None:
    initialize_database(engine, ITEMS)
    inspector = sa.inspect(engine)
    families = (sa.Integer, sa.Float, sa.DateTime)
    for table in (ITEMS, *metadata.tables.values()):
        found = [column for column in inspector.get_columns(table.name) if column["name"] != "prediction_pending"]
        assert [column["name"] for column in found] == [column.name for column in table.columns]
        for column, declared in zip(found, table.columns, strict=True):
            where = f"{table.name}.{declared.name}"
            assert column["nullable"] == declared.nullable, where
            family = next((one for one in families if isinstance(declared.type, one)), (sa.String, sa.JSON))
            assert isinstance(column["type"], family), where
            if isinstance(declared.type, sa.String) and declared.type.length:
                assert isinstance(column["type"], sa.String), where
                assert column["type"].length == declared.type.length, where
            if isinstance(declared.type, sa.BigInteger) and engine.dialect.name != "sqlite":
                assert isinstance(column["type"], sa.BigInteger), where
        key = [column.name for column in table.primary_key]
        assert inspector.get_pk_constraint(table.name)["constrained_columns"] == key


def test_updates_move_updated_datetime_and_nothing_else_does(engine: sa.Engine, sql: Sql) -> None:
    initialize_database(engine, ITEMS)
    sql(f"INSERT INTO items (`values`, updated_datetime) VALUES ('{ITEM}', '2026-01-01 00:00:00')")
    sql("UPDATE items SET prediction = '[1, 0, 0]'")
    assert sql("SELECT COUNT(*) FROM items WHERE updated_datetime > '2026-11-01 00:00:00'") == [(1,)]
    assert sql("SELECT COUNT(*) FROM items WHERE created_datetime > '2026-11-01 00:00:00'") == [(1,)]


# Names of databases, locks and rights


@pytest.mark.parametrize("name", ["batch-assets 'te\"st' `%s` {x} ünïcödé", "x" * 64])
def test_any_name_of_a_database_will_do(
    name: str, server: Server, server_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quoted = "`" + name.replace("`", "``") + "`"
    server.execute(f"CREATE DATABASE {quoted}")
    try:
        monkeypatch.setenv("MYSQL_DATABASE", name)
        engine = engine_from_environment()
        assert len(initialize_database(engine, ITEMS)) == MADE
        assert initialize_database(engine, ITEMS) == []
        register_items(engine, ITEMS, [ITEM], None)
        assert server.execute(f"SELECT COUNT(*) FROM {quoted}.items") == [(1,)]
    finally:
        engine.dispose()
        server.execute(f"DROP DATABASE {quoted}")


def test_one_process_waits_for_another_on_the_same_database_only(
    on_server: sa.Engine, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "OTHER_PROCESS_SECONDS", 1)
    with on_server.connect() as other, schema._alone(other):
        with pytest.raises(DatabaseUnavailableError, match=r"Another process has been setting up .* for 1 seconds"):
            initialize_database(on_server, ITEMS)
        assert tables(on_server) == set()
        with server.database() as name:
            monkeypatch.setenv("MYSQL_DATABASE", name)
            assert len(initialize_database(engine_from_environment(), ITEMS)) == MADE
    assert len(initialize_database(on_server, ITEMS)) == MADE


def test_the_lock_is_given_back_also_after_a_refusal(
    on_server: sa.Engine, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "OTHER_PROCESS_SECONDS", 5)
    sql("CREATE TABLE items (id INTEGER)")
    with pytest.raises(TableError):
        initialize_database(on_server, ITEMS)
    sql("DROP TABLE items")
    # From another session than the one in the pool.
    other = sa.create_engine(on_server.url)
    assert len(initialize_database(other, ITEMS)) == MADE
    other.dispose()


@pytest.fixture
def reader(server: Server, server_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account that may use the tables but not make any."""
    name = server_environment["MYSQL_DATABASE"][-32:]
    server.execute(f"CREATE USER '{name}'@'%' IDENTIFIED BY 'Secret-pa55'")
    try:
        server.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {server_environment['MYSQL_DATABASE']}.* TO '{name}'")
        monkeypatch.setenv("MYSQL_USER", name)
        monkeypatch.setenv("MYSQL_PASSWORD", "Secret-pa55")
        yield
    finally:
        server.execute(f"DROP USER '{name}'@'%'")


def test_without_the_right_to_create_tables_init_db_succeeds_where_they_are_and_says_so_where_not(
    on_server: sa.Engine, reader: None
) -> None:
    limited = engine_from_environment()
    assert limited is not on_server
    with pytest.raises(DatabaseError, match=r"lacks a right in database '.*' .*CREATE command denied.*: grant it"):
        initialize_database(limited, ITEMS)
    initialize_database(on_server, ITEMS)
    assert initialize_database(limited, ITEMS) == []
