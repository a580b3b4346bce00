"""Reads a file of items: JSON, JSON Lines or CSV in, the values of each item out."""

import codecs
import csv
import json
import math
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import BinaryIO

from batch_assets.errors import RegistrationError
from batch_assets.wording import counted, is_unicode

# What keeps memory bounded when a file has no line ends: far above any item a server takes by default.
_MAX_LINE_BYTES = 16 * 1024 * 1024

# The longer marks first: UTF-32 begins as UTF-16 does.
_REFUSED_BEGINNINGS = (
    (codecs.BOM_UTF32_LE, "is UTF-32 text: save it as UTF-8"),
    (codecs.BOM_UTF32_BE, "is UTF-32 text: save it as UTF-8"),
    (codecs.BOM_UTF16_LE, "is UTF-16 text: save it as UTF-8"),
    (codecs.BOM_UTF16_BE, "is UTF-16 text: save it as UTF-8"),
    (b"\x1f\x8b", "is compressed with gzip: unpack it"),
    (b"PK\x03\x04", "is a zip archive or a spreadsheet: save it as CSV"),
    (b"PAR1", "is a Parquet file: save it as CSV"),
)

# An array of items, in contrast to JSON Lines, whose first line may be the list `[5.1, 3.5]`.
_BEGINS_ARRAY = re.compile(rb"\s*\[\s*([\[{\]]|\Z)")

# Narrower than float(), which also takes 1_000, digits of other scripts, "nan" and "infinity".
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

# A first line of these is a broken item. Taken for a header, it would be lost without a word.
_NEVER_A_COLUMN = {"nan", "inf", "infinity", "null", "none", "na", "n/a", "true", "false"}


class _MalformedError(Exception):
    """What is wrong and where; `read_items` adds the name of the file and what to do."""

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place

    def sentence(self, name: str) -> str:
        where = f"{name}, {self.place}" if self.place else name
        unit = self.place.partition(" ")[0] or "file"
        remedy = f"Nothing of the file was registered: fix the {unit} and register it again."
        return f"{where}: {self.reason}. {remedy}"


def read_items(stream: BinaryIO, name: str) -> Iterator[str]:
    """Yields the `values` of every item of a file, one at a time, as compact JSON text: `[5.1,3.5,1.4,0.2]`.

    The format is recognised from the content. All are UTF-8, with or without a byte order mark:

    - JSON Lines: each line a list of numbers, or an object `{"values": [...]}`;
    - CSV: an item a line, with commas, and a header line if its fields are names;
    - a JSON array of lists or of objects as above. It is read whole, so it has to fit into memory; JSON
      Lines and CSV are read line by line and may be of any size.

    An item is a list of finite numbers, all items of a file of the same length. Blank lines may stand only at
    the end.

    Args:
        stream: The file, opened in binary mode. It is not closed.
        name: What error messages call the file.

    Raises:
        RegistrationError: At the first fault, which may come after many good items: whoever stores the items
            must take back those already stored, since the message says that nothing was registered.
    """
    length = 0
    try:
        for place, item in _read(stream):
            values = _checked(item, place)
            length = length or len(values)
            if len(values) != length:
                raise _MalformedError(f"has {counted(len(values), 'value')}, the first item has {length}", place)
            yield _ENCODER.encode(values)
        if not length:
            raise _MalformedError("the file holds no items")
    except _MalformedError as error:
        raise RegistrationError(error.sentence(name)) from None


def read_objects(stream: BinaryIO, name: str, features: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yields the features of every item of a file by name, one at a time and in their order.

    The file is JSON Lines or a JSON array as for `read_items`, its items objects `{"age": 42, ...}` or
    `{"values": {"age": 42, ...}}`. It is no CSV, in which a text of digits and a number look the same.

    Args:
        stream: The file, opened in binary mode. It is not closed.
        name: What error messages call the file.
        features: The keys that each item must have, and no others.

    Raises:
        RegistrationError: At the first fault, which may come after many good items: whoever stores the items
            must take back those already stored, since the message says that nothing was registered.
    """
    empty = True
    try:
        for place, item in _read(stream, with_csv=False):
            empty = False
            yield _checked_features(item, place, features)
        if empty:
            raise _MalformedError("the file holds no items")
    except _MalformedError as error:
        raise RegistrationError(error.sentence(name)) from None


def _read(stream: BinaryIO, *, with_csv: bool = True) -> Iterator[tuple[str, object]]:
    """Yields each item as it stands in the file, unchecked, with the place where it stands."""
    head = _head(stream)
    first = head[-1]
    if _BEGINS_ARRAY.match(first):
        return _array_items(b"".join([*head, stream.read()]))
    lines = _text_lines(chain(head, _raw_lines(stream)))
    if first.lstrip()[:1] in (b"[", b"{"):
        return _json_items(lines)
    if not with_csv:
        raise _MalformedError('is not JSON: write each item as an object by the names of its features, {"age": 42}')
    return _csv_items(lines)


def _head(stream: BinaryIO) -> list[bytes]:
    """Returns the first line that is not blank, and the blank ones before it, without the byte order mark."""
    lines = _raw_lines(stream)
    first = next(lines, b"")
    for beginning, refusal in _REFUSED_BEGINNINGS:
        if first.startswith(beginning):
            raise _MalformedError(refusal)
    if b"\0" in first[:2]:
        raise _MalformedError("is binary, or UTF-16 or UTF-32 text: save it as UTF-8")
    head = [first.removeprefix(codecs.BOM_UTF8)]
    while not head[-1].strip():
        line = next(lines, b"")
        if not line:
            raise _MalformedError("the file holds no items")
        head.append(line)
    return head


def _raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    while line := stream.readline(_MAX_LINE_BYTES + 1):
        yield line


def _text_lines(raw_lines: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """Yields number and text of every line but the blank ones at the end."""
    blank = 0
    for number, raw in enumerate(raw_lines, start=1):
        if not raw.strip():
            blank = blank or number
            continue
        if blank:
            raise _MalformedError("is blank: blank lines may stand only at the end of the file", f"line {blank}")
        if len(raw) > _MAX_LINE_BYTES:
            raise _MalformedError(f"is longer than {_MAX_LINE_BYTES} bytes", f"line {number}")
        yield number, _decoded(raw.rstrip(), number)


def _decoded(raw: bytes, first_line: int = 1) -> str:
    """Decodes text that begins on the given line, and name the line of the byte that is not UTF-8."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = first_line + raw.count(b"\n", 0, error.start)
        reason = f"byte 0x{raw[error.start]:02x} is not UTF-8 text (Latin-1, Windows-1252 or binary?)"
        raise _MalformedError(f"{reason}: save the file as UTF-8", f"line {line}") from None
    if "\0" in text:
        line = first_line + text.count("\n", 0, text.index("\0"))
        raise _MalformedError("holds a NUL character: the file is binary, not text", f"line {line}")
    return text


def _array_items(raw: bytes) -> Iterator[tuple[str, object]]:
    items = _parsed(_decoded(raw).rstrip())
    if not isinstance(items, list):
        # What begins with "[" and parses is a list: this is for the type checker.
        raise _MalformedError("is not a JSON array")
    for number, item in enumerate(items, start=1):
        yield f"item {number}", item


def _json_items(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[str, object]]:
    for number, text in lines:
        yield f"line {number}", _parsed(text, number)


def _csv_items(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[str, object]]:
    columns = 0
    for number, text in lines:
        place = f"line {number}"
        fields = _csv_fields(text, place)
        if number == 1 and all(map(_is_column_name, fields)):
            columns = len(fields)
            continue
        if columns and len(fields) != columns:
            raise _MalformedError(f"has {counted(len(fields), 'value')}, the header line names {columns}", place)
        yield place, [_csv_number(field) for field in fields]


def _csv_fields(text: str, place: str) -> list[str]:
    # Each line by itself: a number has no line end within quotes, and a quote left open must not swallow the
    # rest of the file.
    try:
        row = next(csv.reader([text], strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise _MalformedError(f"is not CSV: {error}", place) from None
    return [field.strip() for field in row]


def _is_column_name(field: str) -> bool:
    """Tell a name from a number, a number with a slip in it, and a word for a missing one."""
    begins_as_number = field[:1].isdigit() or field[:1] in ("+", "-", ".")
    has_letter = any(map(str.isalpha, field))
    return has_letter and not begins_as_number and field.lower() not in _NEVER_A_COLUMN


def _csv_number(field: str) -> int | float | str:
    """Returns the number that a field spells, or the field itself, which `_checked` refuses."""
    if not _DECIMAL.fullmatch(field):
        return field
    if not _INTEGER.fullmatch(field):
        return float(field)
    try:
        return int(field)
    except ValueError:  # Python reads no integer of thousands of digits. As a float it is infinite: refused later.
        return float(field)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Builds an object, and refuse a key that stands twice: json would drop the first without a word."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise KeyError(key)
        found[key] = value
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def _parsed(text: str, line: int | None = None) -> object:
    """Parses one line of JSON Lines, or without `line` a whole file."""
    place = f"line {line}" if line else ""
    try:
        parsed: object = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        reason = "the JSON ends too early" if error.pos >= len(text) else f"is not JSON: {error.msg}"
        raise _MalformedError(reason, f"line {line or error.lineno}, column {error.colno}") from None
    except KeyError as error:
        raise _MalformedError(f"an object has the key {_shown(error.args[0])} twice", place) from None
    except RecursionError:
        raise _MalformedError("the JSON is nested too deeply", place) from None
    except ValueError:  # the interpreter's limit for the digits of an integer
        raise _MalformedError("a number has too many digits", place) from None
    return parsed


def _checked(item: object, place: str) -> list[int | float]:
    """Returns the values of an item that can be registered, and refuse any other."""
    values = _unwrapped(item, place)
    if not isinstance(values, list):
        raise _MalformedError(f"is not a list of numbers: {_shown(values)}", place)
    if not values:
        raise _MalformedError("the list of values is empty", place)
    for position, value in enumerate(values, start=1):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _MalformedError(f"value {position} is not a number: {_shown(value)}", place)
        if not _is_finite(value):
            raise _MalformedError(f"value {position} is not a finite number: {_shown(value)}", place)
    return values


def _checked_features(item: object, place: str, features: Sequence[str]) -> dict[str, object]:
    """Returns the features of an item that can be registered, and refuses any other."""
    wrapped = isinstance(item, dict) and "values" in item and "values" not in features
    found = _unwrapped(item, place) if wrapped else item
    if not isinstance(found, dict):
        raise _MalformedError(f"is not an object by the names of its features: {_shown(found)}", place)
    missing = [feature for feature in features if feature not in found]
    if missing:
        raise _MalformedError(f"has no {', '.join(missing)}", place)
    unknown = [key for key in found if key not in features]
    if unknown:
        raise _MalformedError(f"has keys that are no features: {_shown(unknown)}", place)
    for feature in features:
        value = found[feature]
        if isinstance(value, (list, dict)):
            raise _MalformedError(f"{feature} is not a number, a text, true, false or null: {_shown(value)}", place)
        if isinstance(value, float | int) and not _is_finite(value):
            raise _MalformedError(f"{feature} is not a finite number: {_shown(value)}", place)
        if isinstance(value, str) and not is_unicode(value):
            raise _MalformedError(
                f"{feature} is not valid Unicode, it holds half of a surrogate pair: {_shown(value)}", place
            )
    return {feature: found[feature] for feature in features}


def _unwrapped(item: object, place: str) -> object:
    """Returns what stands under "values" in an object, and anything else as it is."""
    if not isinstance(item, dict):
        return item
    if "values" not in item:
        raise _MalformedError(f'the object has no "values", but the keys {_shown(list(item))}', place)
    unknown = [key for key in item if key != "values"]
    if unknown:
        raise _MalformedError(f'the object has keys other than "values": {_shown(unknown)}', place)
    return item["values"]


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of a float
        return False


def _shown(value: object) -> str:
    """Spells a value for a message: briefly whatever its size, and null, true and false as in the file."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return reprlib.repr(value)
