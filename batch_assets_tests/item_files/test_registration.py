import csv
import datetime
import io
import json
import math
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.database.records.register import register_items
from batch_assets.database.schema.setup import initialize_database
from batch_assets.errors import RegistrationError
from batch_assets.item_files import parser as registration
from batch_assets.item_files.parser import read_items
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment

IRIS = ["[5.1,3.5,1.4,0.2]", "[4.9,3.0,1.4,0.2]"]


def read(content: str | bytes) -> list[str]:
    raw = content.encode() if isinstance(content, str) else content
    return list(read_items(io.BytesIO(raw), "items"))


def refusal(content: str | bytes) -> str:
    """The message without its ending, which is asserted here."""
    with pytest.raises(RegistrationError) as caught:
        read(content)
    message, _, ending = str(caught.value).rpartition(". Nothing of the file was registered: fix the ")
    unit = next((word for word in ("line", "item") if message.startswith(f"items, {word} ")), "file")
    assert ending == f"{unit} and register it again."
    return message


# What is read


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("[5.1, 3.5, 1.4, 0.2]\n[4.9, 3.0, 1.4, 0.2]\n", id="JSON Lines of lists"),
        pytest.param("[5.1, 3.5, 1.4, 0.2]\r\n[4.9, 3.0, 1.4, 0.2]", id="JSON Lines with Windows line ends"),
        pytest.param('{"values": [5.1, 3.5, 1.4, 0.2]}\n[4.9, 3.0, 1.4, 0.2]', id="JSON Lines, mixed"),
        pytest.param("[[5.1, 3.5, 1.4, 0.2], [4.9, 3.0, 1.4, 0.2]]", id="array of lists"),
        pytest.param('[{"values": [5.1, 3.5, 1.4, 0.2]}, {"values": [4.9, 3.0, 1.4, 0.2]}]', id="of objects"),
        pytest.param("\n [\n [5.1, 3.5,\n 1.4, 0.2],\n [4.9, 3.0, 1.4, 0.2]\n]\n\n", id="array on many lines"),
        pytest.param("5.10,3.5,1.4,0.2\n4.9,3.0,1.4,.2", id="CSV"),
        pytest.param("sepal length (cm),b,c,d\r\n5.1,3.5,1.4,0.2\r\n4.9,3.0,1.4,0.2\r\n", id="CSV with a header"),
        pytest.param('"5.1", "3.5", 1.4 ,+0.2\n4.9,3.0,14e-1,0.2', id="CSV with quotes and spaces"),
    ],
)
def test_every_format_gives_the_same_items(content: str) -> None:
    assert read(content) == IRIS
    assert read(b"\xef\xbb\xbf" + content.encode()) == IRIS
    assert read(content + "\n\n \n") == IRIS


@pytest.mark.parametrize("content", ["[5, -3, 18446744073709551616, 5.0]", "5,-3,18446744073709551616,5.0"])
def test_integers_stay_integers(content: str) -> None:
    assert read(content) == ["[5,-3,18446744073709551616,5.0]"]


def test_a_single_number_is_an_item() -> None:
    assert read("length\n5.1\n4.9\n") == ["[5.1]", "[4.9]"]


def test_a_file_of_one_list_is_one_item_and_not_an_array_of_items() -> None:
    assert read("[5.1, 3.5]") == ["[5.1,3.5]"]


def test_good_items_before_the_fault_are_yielded_before_the_error_is_raised() -> None:
    items = read_items(io.BytesIO(b"1,2\n3,x\n"), "items.csv")
    assert next(items) == "[1,2]"
    with pytest.raises(RegistrationError):
        next(items)


class RepeatedLine(io.BytesIO):
    """A file of the same line again and again that takes no memory."""

    def __init__(self, line: bytes, times: int) -> None:
        super().__init__()
        self.line, self.times = line, times

    def readline(self, size: int | None = -1, /) -> bytes:
        self.times -= 1
        return self.line if self.times >= 0 else b""


@pytest.mark.slow
@pytest.mark.parametrize("line", [b"[5.1, 3.5, 1.4, 0.2]\n", b"5.1,3.5,1.4,0.2\n"])
def test_memory_does_not_grow_with_the_lines(line: bytes) -> None:
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_items(RepeatedLine(line, 50_000), "items"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 50_000
    # If they were kept they would take almost four million; others in this process may allocate some meanwhile.
    assert peak < 1_000_000


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(min_value=-(2**63), max_value=2**64 - 1),
)
tables = st.integers(min_value=1, max_value=6).flatmap(
    lambda width: st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=1, max_size=8)
)


def spellings(table: list[list[int | float]]) -> Iterator[str]:
    objects = [{"values": values} for values in table]
    for items in (table, objects):
        yield json.dumps(items)
        yield json.dumps(items, indent=2)
        yield "\n".join(map(json.dumps, items))
    for header in ([], [[f"column {n}" for n, _ in enumerate(table[0])]]):
        text = io.StringIO()
        csv.writer(text).writerows([*header, *table])
        yield text.getvalue()


@settings(deadline=None)
@given(tables)
def test_numbers_read_back_the_same_from_every_format(table: list[list[int | float]]) -> None:
    for content in spellings(table):
        back = [json.loads(text) for text in read(content)]
        assert repr(back) == repr(table)


def assert_items_or_refused(raw: bytes) -> None:
    try:
        items = [json.loads(text) for text in read(raw)]
    except RegistrationError:
        return
    assert items
    assert all(math.isfinite(value) for values in items for value in values)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_items_of_finite_numbers_or_refused(raw: bytes) -> None:
    assert_items_or_refused(raw)


@settings(deadline=None)
@given(st.text(alphabet='[]{}",:.-+eE0159 \n\rnulNavs', max_size=40))
def test_any_text_is_items_of_finite_numbers_or_refused(text: str) -> None:
    assert_items_or_refused(text.encode())


# What is refused


def test_the_message_names_the_file_the_line_the_value_and_what_to_do() -> None:
    content = b"1,2,3\n" * 6 + b"1,2,abc\n"
    with pytest.raises(RegistrationError) as caught:
        list(read_items(io.BytesIO(content), "items.csv"))
    assert str(caught.value) == (
        "items.csv, line 7: value 3 is not a number: 'abc'. "
        "Nothing of the file was registered: fix the line and register it again."
    )


@pytest.mark.parametrize("content", ["", "\ufeff", "\n \n\t\n", "[]", "[\n]\n", "a,b,c\n"])
def test_a_file_without_items_is_refused(content: str) -> None:
    assert refusal(content) == "items: the file holds no items"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("null", "value 2 is not a number: null"),
        ("true", "value 2 is not a number: true"),
        ('"5"', "value 2 is not a number: '5'"),
        ("[5]", "value 2 is not a number: [5]"),
        ('{"a": 5}', "value 2 is not a number: {'a': 5}"),
        ("NaN", "value 2 is not a finite number: nan"),
        ("-Infinity", "value 2 is not a finite number: -inf"),
        ("1e999", "value 2 is not a finite number: inf"),
        ("9" * 5000, "a number has too many digits"),
    ],
)
def test_a_json_value_that_is_no_finite_number_is_refused(value: str, reason: str) -> None:
    assert refusal(f"[1, 2]\n[1, {value}]\n") == f"items, line 2: {reason}"
    array = refusal(f"[[1, 2],\n\n[1, {value}]]")
    assert array in (f"items, item 2: {reason}", f"items: {reason}")


@pytest.mark.parametrize("digits", [400, 4000])
@pytest.mark.parametrize("content", ["[1, {}]", "[[1, {}]]", "1,{}"])
def test_an_integer_beyond_the_range_of_a_float_is_refused_in_a_short_message(content: str, digits: int) -> None:
    message = refusal(content.format("9" * digits))
    assert "value 2 is not a finite number: 999" in message
    assert len(message) < 120


@pytest.mark.parametrize(
    "field",
    [
        "",
        "NaN",
        "nan",
        "-inf",
        "Infinity",
        "null",
        "1_000",
        "0x10",
        "٣",
        "5.1;3.5",
        "1 2",
        "--1",
        "e5",
        "5,1",
    ],
)
def test_a_csv_field_that_is_no_number_is_refused(field: str) -> None:
    quoted = f'"{field}"'
    message = refusal(f"1,2\n1,{quoted}\n")
    assert message == f"items, line 2: value 2 is not a number: {field!r}"
    assert refusal(f"1,{quoted}\n1,2\n").startswith("items, line 1: value 2 is not a number")


@pytest.mark.parametrize("field", ["1e999", "-1e999", "9" * 5000])
def test_a_csv_number_that_overflows_is_refused(field: str) -> None:
    assert "items, line 1: value 2 is not a finite number: " in refusal(f"1,{field}")


@pytest.mark.parametrize("line", ["nan,nan", "null,null", "N/A,N/A", ",", "5.1cm,3.5cm", "\ufeff\ufeff5.1", "-,-"])
def test_a_broken_first_item_is_not_taken_for_a_header(line: str) -> None:
    assert refusal(f"{line}\n1,2\n").startswith("items, line 1: value 1 is not a number: ")


def test_an_index_column_without_a_name_is_refused() -> None:
    assert refusal(",a,b\n0,5.1,3.5\n") == "items, line 1: value 1 is not a number: ''"


def test_a_second_header_is_refused() -> None:
    assert refusal("a,b\n1,2\na,b\n") == "items, line 3: value 1 is not a number: 'a'"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2\n1,2,3\n", "items, line 2: has 3 values, the first item has 2"),
        ("a,b\n1\n", "items, line 2: has 1 value, the header line names 2"),
        ("[1, 2]\n[1]\n", "items, line 2: has 1 value, the first item has 2"),
        ("[[1, 2], [1, 2], [1, 2, 3]]", "items, item 3: has 3 values, the first item has 2"),
    ],
)
def test_an_item_of_another_length_is_refused(content: str, message: str) -> None:
    assert refusal(content) == message


@pytest.mark.parametrize("line", ["1,2", "[1, 2]"])
def test_a_blank_line_before_an_item_is_refused(line: str) -> None:
    blank = "is blank: blank lines may stand only at the end of the file"
    assert refusal(f"\n{line}\n") == f"items, line 1: {blank}"
    assert refusal(f"{line}\n \n\n{line}\n") == f"items, line 2: {blank}"


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("[]", "the list of values is empty"),
        ("7", "is not a list of numbers: 7"),
        ('{"values": 7}', "is not a list of numbers: 7"),
        ('{"values": null}', "is not a list of numbers: null"),
        ('{"values": {"values": [1]}}', "is not a list of numbers: {'values': [1]}"),
        ("{}", 'the object has no "values", but the keys []'),
        ('{"value": [1, 2]}', "the object has no \"values\", but the keys ['value']"),
        ('{"id": 1, "values": [1, 2]}', "the object has keys other than \"values\": ['id']"),
    ],
)
def test_an_item_of_another_shape_is_refused(item: str, reason: str) -> None:
    assert refusal(f"[1, 2]\n{item}") == f"items, line 2: {reason}"
    assert refusal(f"[[1, 2], {item}]") == f"items, item 2: {reason}"


def test_values_that_stand_twice_in_an_object_are_refused() -> None:
    item = '{"values": [1], "values": [2]}'
    assert refusal(item) == "items, line 1: an object has the key 'values' twice"
    assert refusal(f"[{item}]") == "items: an object has the key 'values' twice"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]\n[3, 4", "items, line 2, column 6: the JSON ends too early"),
        ("[1, 2]\n[3, 4] 5", "items, line 2, column 8: is not JSON: Extra data"),
        ("[1, 2]\n3,4", "items, line 2, column 2: is not JSON: Extra data"),
        ("[[1, 2],\n [3, 4]\n", "items, line 2, column 8: the JSON ends too early"),
        ("[[1, 2],\n [3; 4]]", "items, line 2, column 4: is not JSON: Expecting ',' delimiter"),
        ("[[1, 2]]\n[[3, 4]]", "items, line 2, column 1: is not JSON: Extra data"),
        ("[", "items, line 1, column 2: the JSON ends too early"),
        ("[5.1,\n3.5]", "items, line 1, column 6: the JSON ends too early"),
        ('1,2\n"1,2\n3,4', "items, line 2: is not CSV: unexpected end of data"),
    ],
)
def test_broken_syntax_is_refused_with_its_place(content: str, message: str) -> None:
    assert refusal(content) == message


@pytest.mark.parametrize("content", ["[" * 200_000, '[1]\n{"values":' + "[" * 200_000])
def test_deep_nesting_is_refused(content: str) -> None:
    assert refusal(content).endswith("the JSON is nested too deeply")


@pytest.mark.parametrize("depth", [100, 900])
def test_nesting_that_still_parses_is_refused_in_a_short_message(depth: int) -> None:
    message = refusal('{"values":' + "[" * depth + "]" * depth + "}")
    assert message.startswith("items, line 1: ")
    assert len(message) < 120


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32-be", "UTF-32"),
    ],
)
@pytest.mark.parametrize("content", ["[1, 2]\n", "1,2\n", "[[1, 2]]"])
def test_another_encoding_is_refused_by_name(content: str, encoding: str, named: str) -> None:
    message = refusal(content.encode(encoding))
    assert named in message
    assert message.endswith("save it as UTF-8")


@pytest.mark.parametrize("content", ["1,2\nä,2\n", "[1, 2]\n[ä, 2]\n", "[[1, 2],\n[ä, 2]]"])
def test_a_byte_that_is_not_utf8_is_refused_with_its_line(content: str) -> None:
    assert refusal(content.encode("latin-1")).startswith("items, line 2: byte 0xe4 is not UTF-8 text (Latin-1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08\x00rubbish", "items: is compressed with gzip: unpack it"),
        (b"PK\x03\x04rubbish", "items: is a zip archive or a spreadsheet: save it as CSV"),
        (b"PAR1rubbish", "items: is a Parquet file: save it as CSV"),
        (b"1,2\n1,\x002\n", "items, line 2: holds a NUL character: the file is binary, not text"),
        (b"[[1, 2],\n[1, \x002]]", "items, line 2: holds a NUL character: the file is binary, not text"),
        (b"\x89PNG\r\n\x1a\n", "items, line 1: byte 0x89 is not UTF-8 text"),
    ],
)
def test_a_binary_file_is_refused(content: bytes, message: str) -> None:
    assert refusal(content).startswith(message)


@pytest.mark.parametrize("content", ["1,2\n" + "1" * 200, '{"values": [' + "1," * 100])
def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "_MAX_LINE_BYTES", 100)
    assert refusal(content).endswith("is longer than 100 bytes")


def test_an_array_on_one_line_may_be_longer_than_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "_MAX_LINE_BYTES", 100)
    assert len(read(json.dumps([[1, 2]] * 200))) == 200


# What is stored


@pytest.mark.parametrize("created_at", [None, datetime.datetime(2026, 11, 1, 5, 30)])  # noqa: DTZ001 - UTC
@pytest.mark.usefixtures("database_environment")
def test_items_are_stored_in_order_with_their_time(created_at: datetime.datetime | None, sql: Sql) -> None:
    engine = engine_from_environment()
    initialize_database(engine, ITEMS)
    before = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)
    assert register_items(engine, ITEMS, (f"[{number}]" for number in range(25_000)), created_at) == 25_000
    assert [row[0] for row in sql("SELECT `values` FROM items ORDER BY id")] == [f"[{n}]" for n in range(25_000)]
    assert sql("SELECT COUNT(*) FROM items WHERE prediction IS NULL") == [(25_000,)]
    for pair in sql("SELECT DISTINCT created_datetime, updated_datetime FROM items"):
        first, second = (datetime.datetime.fromisoformat(str(moment)) for moment in pair)
        assert first == second
        assert first == created_at or (created_at is None and first >= before)


@pytest.mark.usefixtures("database_environment")
def test_items_before_a_fault_are_taken_back(sql: Sql) -> None:
    engine = engine_from_environment()
    initialize_database(engine, ITEMS)
    file = io.BytesIO(b"1,2\n" * 25_000 + b"3\n")
    with pytest.raises(RegistrationError, match="line 25001"):
        register_items(engine, ITEMS, read_items(file, "items"), None)
    assert sql("SELECT COUNT(*) FROM items") == [(0,)]


@pytest.mark.usefixtures("database_environment")
def test_memory_does_not_grow_with_the_items_nor_with_their_size(sql: Sql) -> None:
    engine = engine_from_environment()
    initialize_database(engine, ITEMS)
    item = "[" + "1.5," * 100_000 + "1]"
    tracemalloc.start()
    try:
        assert register_items(engine, ITEMS, (item + " " * number for number in range(200)), None) == 200
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sql("SELECT COUNT(*) FROM items") == [(200,)]
    # All of them together are 80 MB.
    assert peak < 30_000_000
