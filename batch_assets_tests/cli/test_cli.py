"""The command line as a person meets it: in a process of its own, judged by its output and by the rows."""

import contextlib
import datetime
import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from batch_assets.database.connection.statements import checksum
from batch_assets.database.schema.setup import initialize_database
from batch_assets_tests.support.command_line import (
    COMMAND,
    SECONDS,
    assert_demonstrated,
    batch_assets,
    misused,
    refused,
    succeeded,
    table_rows,
)
from batch_assets_tests.support.database import BOOKKEEPING_TABLES, Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets_tests.support.programs import MissingProgramError
from batch_assets_tests.support.servers import Server, free_port

pytestmark = pytest.mark.above_sql

ITEM = "[5.1,3.5,1.4,0.2]"
MADE = ["items", *BOOKKEEPING_TABLES]
TABLES = {*MADE, "batch_assets_alembic_version"}


def tables(sql: Sql) -> set[str]:
    if "MYSQL_SERVER" in os.environ:
        return {row[0] for row in sql("SHOW TABLES")}
    return {row[0] for row in sql("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")}


def stored(sql: Sql) -> list[list[float]]:
    return [json.loads(row[0]) for row in sql("SELECT `values` FROM items ORDER BY id")]


def created(sql: Sql) -> set[str]:
    return {str(row[0]) for row in sql("SELECT DISTINCT created_datetime FROM items")}


def hour(back: int) -> datetime.datetime:
    """The start of an hour before this one."""
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    return now - datetime.timedelta(hours=back)


def key(back: int) -> str:
    return f"{hour(back):%Y-%m-%d-%H:%M}"


def written(tmp_path: Path, content: str) -> str:
    file = tmp_path / "some items"
    file.write_text(content, "utf-8")
    return str(file)


# init-db


def test_init_db_makes_the_tables_of_an_empty_database_and_nothing_the_second_time(
    database_environment: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    first = succeeded(batch_assets("init-db")).splitlines()
    assert first[: len(MADE)] == [f"created table {name}" for name in MADE]
    assert tables(sql) == TABLES
    if "MYSQL_SERVER" not in database_environment:
        assert first[len(MADE) :] == [
            "added an index on the items without a prediction",
            f"made the Dagster instance {tmp_path}/home: export DAGSTER_HOME={tmp_path}/home to use it",
        ]
        assert (tmp_path / "home" / "dagster.yaml").is_file()
    sql(f"INSERT INTO items (`values`) VALUES ('{ITEM}')")
    assert succeeded(batch_assets("init-db")) == "nothing to do\n"
    assert stored(sql) == [json.loads(ITEM)]


@pytest.mark.slow
def test_init_db_by_many_processes_at_once_makes_each_table_once(
    database_environment: dict[str, str], sql: Sql
) -> None:
    started = [
        subprocess.Popen([COMMAND, "init-db"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        for _ in range(6)
    ]
    ended = [process.communicate(timeout=SECONDS) for process in started]
    assert [(process.returncode, stderr) for process, (_, stderr) in zip(started, ended, strict=True)] == [(0, "")] * 6
    said = "".join(stdout for stdout, _ in ended).splitlines()
    for name in MADE:
        assert said.count(f"created table {name}") == 1
    assert tables(sql) == TABLES
    assert sql("SELECT COUNT(*) FROM batch_assets_alembic_version") == [(1,)]


def test_init_db_says_by_name_what_is_wrong_with_an_items_table(database_environment: dict[str, str], sql: Sql) -> None:
    sql("CREATE TABLE items (id INTEGER PRIMARY KEY, `values` TEXT NOT NULL)")
    sentence = refused(batch_assets("init-db"))
    for name in ("prediction", "created_datetime", "updated_datetime"):
        assert f"the column {name} (" in sentence
    assert sentence.endswith("Fix the table, or use another database; nothing was changed.")
    assert tables(sql) == {"items"}


@pytest.fixture
def the_hour_goes_on() -> None:
    """What a test takes for this hour is this hour until its end."""
    left = hour(-1) - datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    if left < datetime.timedelta(seconds=15):
        time.sleep(left.total_seconds() + 1)


# register


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(f"[{ITEM}, {ITEM},\n[4.9, 3, 1.4, 0.2]]", id="JSON array"),
        pytest.param(f'{ITEM}\n{{"values": {ITEM}}}\n[4.9, 3, 1.4, 0.2]\n', id="JSON Lines"),
        pytest.param("a,b,c,d\n5.1,3.5,1.4,0.2\n5.1,3.5,1.4,0.2\n4.9,3,1.4,0.2\n", id="CSV"),
    ],
)
@pytest.mark.usefixtures("empty_tables")
def test_register_takes_every_format_from_a_file_and_from_standard_input(
    content: str, sql: Sql, tmp_path: Path
) -> None:
    items = [[5.1, 3.5, 1.4, 0.2], [5.1, 3.5, 1.4, 0.2], [4.9, 3, 1.4, 0.2]]
    assert succeeded(batch_assets("register", written(tmp_path, content))) == "3 items registered\n"
    assert stored(sql) == items
    assert succeeded(batch_assets("register", "-", stdin=content.encode())) == "3 items registered\n"
    assert stored(sql) == items * 2
    assert sql("SELECT COUNT(*) FROM items WHERE prediction IS NULL") == [(6,)]


@pytest.mark.usefixtures("empty_tables")
def test_register_reads_a_pipe_that_has_a_name(sql: Sql, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([COMMAND, "register", str(pipe)], stdout=subprocess.PIPE, encoding="utf-8") as process:
        pipe.write_text(f"{ITEM}\n")
        assert process.communicate(timeout=SECONDS)[0] == "1 item registered\n"
    assert stored(sql) == [json.loads(ITEM)]


@pytest.mark.usefixtures("empty_tables")
def test_register_keeps_the_order_of_a_large_file(sql: Sql, tmp_path: Path) -> None:
    file = written(tmp_path, "".join(f"{number},0.5\n" for number in range(30_000)))
    assert succeeded(batch_assets("register", file)) == "30,000 items registered\n"
    assert stored(sql) == [[number, 0.5] for number in range(30_000)]
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    for moment in created(sql):
        assert abs(datetime.datetime.fromisoformat(moment) - now) < datetime.timedelta(minutes=2)


@pytest.mark.usefixtures("empty_tables")
def test_register_refuses_a_malformed_file_by_line_and_reason_and_takes_back_what_went_before(
    sql: Sql, tmp_path: Path
) -> None:
    # More good lines than go to the database at once.
    lines = [ITEM] * 25_000 + ["[5.1,null,1.4,0.2]"]
    reason = "line 25001: value 2 is not a number: null. Nothing of the file was registered: fix the line and register"
    assert refused(batch_assets("register", written(tmp_path, "\n".join(lines)))) == f"some items, {reason} it again."
    done = batch_assets("register", "-", stdin="\n".join(lines).encode())
    assert refused(done) == f"standard input, {reason} it again."
    assert stored(sql) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(ITEM.encode(), mtime=0), "is compressed with gzip: unpack it"),
        (b"", "the file holds no items"),
        (ITEM.encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
        (b"[[1,2],[3]]", "item 2: has 1 value, the first item has 2"),
    ],
)
def test_register_refuses_what_is_no_file_of_items(
    content: bytes, reason: str, database_environment: dict[str, str], sql: Sql
) -> None:
    initialize_database(engine_from_environment(), ITEMS)
    assert reason in refused(batch_assets("register", "-", stdin=content))
    assert stored(sql) == []


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-01T05:30", "2026-11-01 05:30:00"),
        ("2026-11-01 05:30:10Z", "2026-11-01 05:30:10"),
        ("2026-11-01T05:30:00+05:30", "2026-11-01 00:00:00"),
        ("2026-10-31T22:30-02:00", "2026-11-01 00:30:00"),
        ("2026-11-02", "2026-11-02 00:00:00"),
        # Not rounded into the next hour.
        ("2026-11-01T05:59:59.999", "2026-11-01 05:59:59"),
    ],
)
@pytest.mark.usefixtures("empty_tables")
def test_register_fills_past_hours_at_a_time_of_utc(text: str, moment: str, sql: Sql) -> None:
    succeeded(batch_assets("register", "-", "--created-at", text, stdin=ITEM.encode()))
    assert created(sql) == {moment}
    assert {str(row[0]) for row in sql("SELECT updated_datetime FROM items")} == {moment}


@pytest.mark.usefixtures("empty_tables", "the_hour_goes_on")
def test_register_warns_of_times_whose_hours_are_not_scored(sql: Sql) -> None:
    done = batch_assets("register", "-", "--created-at", "2020-02-01T05:30", stdin=ITEM.encode())
    assert (done.returncode, done.stdout) == (0, "1 item registered\n")
    assert done.stderr == (
        "2020-02-01 05:30:00 lies before the first hour, 2026-11-01-00:00: these items are not scored unless "
        "BATCH_FIRST_HOUR is set to 2020-02-01-05:00 or earlier.\n"
    )
    arguments = ("register", "-", "--created-at", "2020-02-01T05:30")
    succeeded(batch_assets(*arguments, stdin=ITEM.encode(), BATCH_FIRST_HOUR="2020-02-01-05:00"))
    later = hour(-48)
    done = batch_assets("register", "-", "--created-at", later.isoformat(), stdin=ITEM.encode())
    assert (done.returncode, done.stdout) == (0, "1 item registered\n")
    assert done.stderr == f"{later} UTC lies in the future: these items can be scored from {hour(-49)} on.\n"
    assert created(sql) == {"2020-02-01 05:30:00", str(later)}


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "1793500000", "0001-01-01T00:00+05:00"])
def test_register_refuses_what_is_no_time(text: str, database_environment: dict[str, str]) -> None:
    done = batch_assets("register", "-", "--created-at", text, stdin=ITEM.encode())
    assert f"--created-at: {text!r} is not a time: write it as 2026-11-01T05:30." in misused(done)


def test_register_names_a_file_that_is_not_there_or_is_a_folder(tmp_path: Path) -> None:
    assert f"'{tmp_path}/none' does not exist" in misused(batch_assets("register", f"{tmp_path}/none"))
    assert f"'{tmp_path}' is a directory" in misused(batch_assets("register", str(tmp_path)))


def test_commands_without_tables_say_how_to_make_them(database_environment: dict[str, str], sql: Sql) -> None:
    for done in (batch_assets("register", "-", stdin=ITEM.encode()), batch_assets("status")):
        sentence = refused(done)
        assert sentence.startswith("A table is missing in ")
        assert sentence.endswith("run `batch-assets init-db`.")
    assert tables(sql) == set()


@contextlib.contextmanager
def terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """A command whose standard error is a terminal, as the process and what reads from the terminal."""
    try:
        ours, theirs = pty.openpty()
    except OSError as error:  # as in a chroot into which only /dev is bound
        raise MissingProgramError("a pseudo-terminal", "mount /dev/pts") from error
    with subprocess.Popen([COMMAND, *arguments], stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        yield process, lambda: _read_terminal(ours)
    os.close(ours)


def _read_terminal(ours: int) -> str:
    try:
        return os.read(ours, 65536).decode()
    except OSError:  # which is how the end is told
        return ""


@pytest.mark.usefixtures("empty_tables")
def test_register_shows_its_progress_in_a_terminal_and_keeps_standard_output_clean(sql: Sql, tmp_path: Path) -> None:
    with terminal("register", written(tmp_path, f"{ITEM}\n" * 20_000)) as (process, read):
        shown = "".join(iter(read, ""))
        assert process.communicate(timeout=SECONDS)[0] == b"20,000 items registered\n"
    assert process.returncode == 0
    assert re.search(r"some items .* [1-9]\d?%", shown)
    assert "100%" in shown
    assert sql("SELECT COUNT(*) FROM items") == [(20_000,)]


@pytest.mark.usefixtures("empty_tables")
def test_register_that_is_interrupted_registers_nothing(sql: Sql, tmp_path: Path) -> None:
    with terminal("register", written(tmp_path, f"{ITEM}\n" * 200_000)) as (process, read):
        shown = ""
        while not re.search(r" [1-9]\d?%", shown):
            shown += read()
        process.send_signal(signal.SIGINT)
        shown += "".join(iter(read, ""))
        assert process.communicate(timeout=SECONDS)[0] == b""
    assert process.returncode == 1
    assert shown.endswith("Aborted!\r\n")
    assert "Traceback" not in shown
    assert stored(sql) == []


# status


HEADER = ["hour (UTC)", "items", "predicted", "failed", "pending", "model"]


def fill(
    sql: Sql,
    back: int,
    items: int,
    predicted: int = 0,
    failed: Sequence[int] = (),
    *,
    attempts: int = 1,
    message: str = "it is no list",
) -> None:
    moment = hour(back) + datetime.timedelta(minutes=10)
    for number in range(items):
        prediction = "'[0.9,0.1,0]'" if number < predicted else "NULL"
        sql(
            "INSERT INTO items (`values`, prediction, created_datetime, updated_datetime) "
            f"VALUES ('{ITEM}', {prediction}, '{moment}', '{moment}')"
        )
    for number in failed:
        # As it is stored, which is not as it was written.
        ((key, text),) = sql("SELECT id, `values` FROM items WHERE id = (SELECT MAX(id) FROM items) - %s", number)
        sql(
            "INSERT INTO failed_items (item_id, hour, code, message, attempts, first_failed_at, last_failed_at, "
            "model_version, run_id, values_checksum) VALUES (%s, %s, 'not_a_list', %s, %s, %s, %s, 'abc', 'run', %s)",
            *(key, str(hour(back)), message, attempts, str(hour(back)), str(hour(back)), checksum(text)),
        )


@pytest.mark.usefixtures("empty_tables")
def test_status_of_an_empty_database_is_an_empty_table() -> None:
    assert table_rows(succeeded(batch_assets("status"))) == [HEADER, ["sum", "0", "0", "0", "0", ""]]


@pytest.mark.usefixtures("empty_tables", "the_hour_goes_on")
def test_status_tells_what_became_of_the_items_of_each_hour(sql: Sql) -> None:
    fill(sql, back=5, items=3, predicted=3)
    fill(sql, back=3, items=5, predicted=2, failed=[0, 1])
    fill(sql, back=0, items=2)
    sql(
        "INSERT INTO run_summary (hour, items, predicted, failed, pending, label_counts, model_version, run_id, "
        "finished_at) VALUES (%s, 3, 3, 0, 0, '{}', %s, 'run', %s)",
        *(str(hour(5)), "0123456789abcdef", str(hour(4))),
    )
    output = succeeded(batch_assets("status"))
    assert table_rows(output) == [
        HEADER,
        [key(5), "3", "3", "0", "0", "0123456789ab"],
        [key(3), "5", "2", "2", "1", ""],
        [key(0), "2", "0", "0", "2", "(open)"],
        ["sum", "10", "5", "2", "3", ""],
    ]
    assert "\x1b" not in output
    assert not re.search(r"…|\.\.\.", output)
    assert max(map(len, output.splitlines())) <= 120
    # Where the terminal cannot show lines, and whatever its width is said to be.
    plain = succeeded(batch_assets("status", PYTHONIOENCODING="ascii", COLUMNS="20"))
    assert table_rows(plain) == table_rows(output)


@pytest.mark.usefixtures("empty_tables", "the_hour_goes_on")
def test_status_shows_as_many_hours_as_asked_for_and_says_that_there_are_more(sql: Sql) -> None:
    fill(sql, back=50, items=1)
    fill(sql, back=2, items=1)
    fill(sql, back=1, items=1)
    output = succeeded(batch_assets("status"))
    assert [row[0] for row in table_rows(output)[1:]] == [key(2), key(1), "sum"]
    remark = output.splitlines()[-1]
    assert remark == f"Items go back to {hour(50):%Y-%m-%d %H}:10 UTC: --hours 50 shows them all."
    output = succeeded(batch_assets("status", "--hours", "50"))
    assert [row[0] for row in table_rows(output)[1:]] == [key(50), key(2), key(1), "sum"]
    assert not output.splitlines()[-1].startswith("Items")
    assert [row[0] for row in table_rows(succeeded(batch_assets("status", "--hours", "1")))[1:]] == [key(1), "sum"]


@pytest.mark.usefixtures("empty_tables", "the_hour_goes_on")
def test_status_says_which_items_are_not_scored_or_not_shown(sql: Sql) -> None:
    fill(sql, back=7, items=1)
    fill(sql, back=-3, items=1)
    lines = succeeded(batch_assets("status", BATCH_FIRST_HOUR=key(6))).splitlines()
    assert lines[-2] == (
        f"Items from before the first hour, {key(6)}, are not scored: set BATCH_FIRST_HOUR to {key(7)} if they should "
        "be."
    )
    newest = f"{hour(-3):%Y-%m-%d %H}:10 UTC"
    assert lines[-1] == f"Items are dated up to {newest}: hours that have not begun are not shown."
    assert "not scored" not in succeeded(batch_assets("status", BATCH_FIRST_HOUR=key(7)))
    assert refused(batch_assets("status", BATCH_FIRST_HOUR="05:00")).startswith("BATCH_FIRST_HOUR is '05:00': write")


def give_up(sql: Sql, back: int, because: str) -> None:
    sql(
        "INSERT INTO hour_requests (hour, requests, reason, left_over, requested_at, given_up_at, given_up_because)"
        " VALUES (%s, 3, 'failed run', '', %s, %s, %s)",
        *(str(hour(back)), str(hour(back)), str(hour(back)), because),
    )


@pytest.mark.usefixtures("empty_tables", "the_hour_goes_on")
def test_status_names_what_is_given_up_and_the_next_step(sql: Sql) -> None:
    fill(sql, back=5, items=4, failed=[0, 1, 2], attempts=3)
    fill(sql, back=4, items=2, failed=[0], attempts=2)
    give_up(sql, 90, "The model does not fit.")
    give_up(sql, 5, "its run was canceled")
    sql("INSERT INTO hour_requests (hour, requests, reason, left_over, requested_at) VALUES (%s, 1, '', '', %s)",
        str(hour(4)), str(hour(4)))  # fmt: skip
    lines = succeeded(batch_assets("status")).splitlines()
    next_step = "see batch-assets status --failed, and correct the values, or put them back with batch-assets retry ID."
    again = "Fix that and materialise the hour, or have it requested again: batch-assets retry"
    assert lines[-3:] == [
        f"The hour {key(5)} is given up: its run was canceled. {again} {key(5)}",
        f"The hour {key(90)} is given up: The model does not fit. {again} {key(90)}",
        f"3 failed items are given up: {next_step}",
    ]
    sql("UPDATE items SET `values` = '[9, 9, 9, 9]' WHERE id > 1")
    assert "failed item" not in succeeded(batch_assets("status", BATCH_MAX_ATTEMPTS="9"))
    sql("DELETE FROM hour_requests")
    for back in range(100, 125):
        give_up(sql, back, "no model")
    lines = succeeded(batch_assets("status")).splitlines()
    assert sum("is given up: no model" in line for line in lines) == 20
    assert "5 earlier hours are given up: see the table hour_requests." in lines


FAILED_HEADER = ["id", "hour (UTC)", "code", "message", "attempts", "given up"]


@pytest.mark.usefixtures("empty_tables", "the_hour_goes_on")
def test_status_lists_failed_items_latest_first(sql: Sql) -> None:
    assert succeeded(batch_assets("status", "--failed")).splitlines()[-1] == "No item has failed."
    fill(
        sql, back=5, items=1, failed=[0], attempts=3, message="expected [bold]4[/bold] values, but there are  200 " * 9
    )
    fill(sql, back=4, items=2, failed=[0, 1])
    output = succeeded(batch_assets("status", "--failed"))
    shortened = "expected [bold]4[/bold] values, but there ..."
    assert table_rows(output) == [
        FAILED_HEADER,
        ["3", key(4), "not_a_list", "it is no list", "1", "no"],
        ["2", key(4), "not_a_list", "it is no list", "1", "no"],
        ["1", key(5), "not_a_list", shortened, "3", "yes"],
    ]
    assert max(map(len, output.splitlines())) <= 120
    remark = "What is given up is tried again when its values are corrected, or after: batch-assets retry ID"
    assert output.splitlines()[-1] == remark
    output = succeeded(batch_assets("status", "--failed", "--limit", "2"))
    assert [row[0] for row in table_rows(output)] == ["id", "3", "2"]
    assert output.splitlines()[-1] == "There are more than these 2: --limit shows more."
    sql("UPDATE items SET `values` = '[9, 9, 9, 9]'")
    assert [row[-1] for row in table_rows(succeeded(batch_assets("status", "--failed")))[1:]] == ["no"] * 3


# retry


@pytest.mark.usefixtures("empty_tables", "the_hour_goes_on")
def test_retry_puts_items_and_hours_back_and_says_what_happens_next(sql: Sql) -> None:
    fill(sql, back=5, items=3, failed=[0, 1, 2], attempts=3)
    fill(sql, back=4, items=2, failed=[0, 1], attempts=3)
    give_up(sql, 5, "The model does not fit.")
    assert succeeded(batch_assets("retry", "1")) == (
        "1 failed item is pending again.\n"
        f"The sensor retry_hours requests within a minute, if the daemon runs: {key(5)}\n"
    )
    assert [row[0] for row in sql("SELECT item_id FROM failed_items ORDER BY item_id")] == [2, 3, 4, 5]
    assert sql("SELECT requests, reason, given_up_at, given_up_because FROM hour_requests") == [
        (0, "put back", None, None)
    ]
    assert "is given up" not in succeeded(batch_assets("status"))
    said = succeeded(batch_assets("retry", key(5), "4", BATCH_RETRY="leave"))
    assert said == (
        "3 failed items are pending again.\n"
        "Materialise what is to be scored: BATCH_RETRY is 'leave', so nothing requests "
        f"{key(5)}, {key(4)} by itself.\n"
    )
    assert [row[0] for row in sql("SELECT item_id FROM failed_items")] == [5]


@pytest.mark.usefixtures("empty_tables", "the_hour_goes_on")
def test_retry_of_what_cannot_be_put_back_is_one_sentence_and_changes_nothing(sql: Sql) -> None:
    fill(sql, back=5, items=2, failed=[0])
    for what, reason in (
        ("77", "There is no item 77: nothing was put back."),
        ("1", "The item 1 has not failed, it is pending"),
        (key(3), f"There is nothing to try again in the hour {key(3)}, it has no items: nothing was put back."),
        (key(0), f"The hour {key(0)} has not ended"),
        ("2026-10-31-23:00", "lies before the first one, 2026-11-01-00:00: set BATCH_FIRST_HOUR to 2026-10-31-23:00"),
        (
            "yesterday",
            "'yesterday' is neither an hour nor the id of an item: write an hour of UTC as 2026-11-01-05:00.",
        ),
        ("9" * 30, f"There is no item {'9' * 30}"),
    ):
        assert reason in refused(batch_assets("retry", "2", what))
    assert sql("SELECT item_id FROM failed_items") == [(2,)]
    assert sql("SELECT COUNT(*) FROM hour_requests") == [(0,)]
    assert "Missing argument" in misused(batch_assets("retry"))


@pytest.mark.parametrize("hours", ["0", "-5", "1.5", "99999999999", "all"])
def test_status_refuses_hours_that_are_no_number_of_hours(hours: str) -> None:
    assert "Invalid value for '--hours'" in misused(batch_assets("status", "--hours", hours))


@pytest.mark.slow
def test_no_command_waits_for_imports_that_it_does_not_need(tmp_path: Path) -> None:
    heavy = re.compile(r"\| +(dagster|pandas|sklearn|onnx\w*|skl2onnx|alembic|numpy)\n")
    environment = {**os.environ, "BATCH_ASSETS_HOME": str(tmp_path)}
    for arguments in (
        ["--help"],
        ["status"],
        ["challenger"],
        ["retry", "1"],
        ["register", "/dev/null"],
        ["prune", "--items-older-than", "1d"],
        ["init-db"],
    ):
        command = [sys.executable, "-X", "importtime", "-m", "batch_assets.cli", *arguments]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False, timeout=120)
        assert "sqlalchemy" in done.stderr
        imported = set(heavy.findall(done.stderr))
        assert imported == ({"alembic"} if arguments == ["init-db"] else set())


# Help, and servers that cannot be used


@pytest.mark.parametrize("command", ["init-db", "register", "status", "retry", "challenger", "prune", "demo"])
def test_help_tells_of_every_command(command: str) -> None:
    assert re.search(rf"^  {command}  +[A-Z]", succeeded(batch_assets("--help")), re.MULTILINE)
    output = succeeded(batch_assets(command, "--help"))
    assert output.startswith(f"Usage: batch-assets {command} [OPTIONS]")
    assert output.count("\n") > 5


def test_a_server_that_does_not_answer_is_one_sentence(server_environment: dict[str, str]) -> None:
    port = str(free_port())
    sentence = refused(batch_assets("status", MYSQL_PORT=port))
    assert sentence.startswith(f"No MySQL server answers at {server_environment['MYSQL_SERVER']}:{port} (")


def test_a_wrong_password_is_one_sentence_without_the_password(server_environment: dict[str, str]) -> None:
    done = batch_assets("init-db", MYSQL_USER="batch_assets_nobody", MYSQL_PASSWORD="tiramisu")
    sentence = refused(done)
    assert "refuses user 'batch_assets_nobody' (Access denied for user" in sentence
    assert "fix MYSQL_USER or MYSQL_PASSWORD" in sentence
    assert "tiramisu" not in sentence


def test_a_database_that_is_not_there_is_one_sentence(server_environment: dict[str, str]) -> None:
    sentence = refused(batch_assets("status", MYSQL_DATABASE="batch_assets_none"))
    assert sentence.startswith("There is no database 'batch_assets_none' on ")


@pytest.mark.parametrize("command", [["init-db"], ["status"], ["demo"]])
def test_settings_that_are_missing_are_one_sentence(command: list[str]) -> None:
    sentence = refused(batch_assets(*command, MYSQL_SERVER="db.example.com", MYSQL_USER="me", MYSQL_DATABASE=""))
    assert "MYSQL_PASSWORD and MYSQL_DATABASE are not set" in sentence


@pytest.mark.parametrize("command", [["init-db"], ["status"], ["demo"]])
def test_a_home_that_cannot_be_made_is_one_sentence(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sentence = refused(batch_assets(*command, BATCH_ASSETS_HOME=str(tmp_path / "file" / "home")))
    assert "make its folder writable, or set BATCH_ASSETS_HOME" in sentence or "make it writable, or set" in sentence


# demo


@pytest.mark.slow
@pytest.mark.one_server
def test_demo_scores_six_hours_and_leaves_their_run_in_the_embedded_instance(
    server_environment: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    # On SQLite it runs in test_wheel.py.
    assert_demonstrated(succeeded(batch_assets("demo")), sql, tmp_path / "home")
    again = batch_assets("demo")
    assert sql("SELECT COUNT(*), COUNT(prediction) FROM items") == [(65_322, 65_322)]
    assert "is not empty: the demonstration adds items to an empty table only" in refused(again)


def test_demo_adds_nothing_to_a_servers_table_that_has_items(
    server: Server, server_environment: dict[str, str], sql: Sql
) -> None:
    initialize_database(engine_from_environment(), ITEMS)
    sql(f"INSERT INTO items (`values`) VALUES ('{ITEM}')")
    name = server_environment["MYSQL_DATABASE"]
    assert refused(batch_assets("demo")) == (
        f"The table items in {name!r} is not empty: the demonstration adds items to an empty table only. Name another "
        "database in MYSQL_DATABASE, or unset MYSQL_SERVER."
    )
    assert sql("SELECT COUNT(*), COUNT(prediction) FROM items") == [(1, 0)]


@pytest.mark.slow
def test_demo_that_cannot_score_its_hours_names_them_and_the_reason(tmp_path: Path) -> None:
    missing = tmp_path / "none.onnx"
    done = batch_assets("demo", BATCH_ASSETS_HOME=str(tmp_path / "home"), MODEL_FILEPATH=str(missing))
    assert done.returncode == 1
    hour = r"\d{4}-\d\d-\d\d-\d\d:00"
    sentence = f"Error: The hours {hour} to {hour} could not be scored: Cannot read the model file "
    assert re.match(sentence + re.escape(str(missing)), done.stderr)
    assert done.stderr.count("\n") == 1
