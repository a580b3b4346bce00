"""Ten thousand items of the worst kind in one hour: each ends as it must, and none takes a neighbour with it."""

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pymysql
import pytest
from hypothesis import strategies as st

from batch_assets.iris.training import iris_items
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.hostile_json import IN_QUOTES, NUMBERS, OF_NO_JSON, OTHERS
from batch_assets_tests.support.onnx_models import write_picky_classifier
from batch_assets_tests.support.pipeline import (
    HALF_PAST,
    Counts,
    assert_hour_adds_up,
    assert_predicted,
    correct,
    failed_of,
    insert_items,
    iris_probabilities,
    rows_of,
    run_job,
)

ITEMS = 10_000
GOOD_AFTER = 5

measures = st.floats(0, 8).map(lambda number: f"{number:.1f}") | st.integers(0, 8).map(str)
any_floats = st.floats().map(json.dumps) | st.floats(width=32).map(json.dumps) | st.floats(-1e7, 1e7).map(json.dumps)
numbers = measures | any_floats | st.integers().map(str) | st.sampled_from(NUMBERS)
strings = st.text(max_size=6).map(json.dumps) | st.text("🌸ü花\u202e'\"%\\`;", max_size=6).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
elements = (
    numbers
    | st.sampled_from(OF_NO_JSON)
    | st.sampled_from(IN_QUOTES).map(lambda text: f'"{text}"')
    | st.sampled_from(OTHERS)
    | strings
)
spaces = st.sampled_from(["", "", "", " ", "\n", "\t \r\n", "\u00a0", "\ufeff"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)


def in_list(*parts: str) -> str:
    """A list of these elements."""
    return f"[{', '.join(parts)}]"


def nested(depth: int, opening: str, closing: str) -> str:
    """A text of so many levels."""
    return opening * depth + closing * depth


lists_of_four = st.lists(numbers, min_size=4, max_size=4).map(lambda parts: in_list(*parts))
texts = st.one_of(
    st.lists(measures, min_size=4, max_size=4).map(lambda parts: in_list(*parts)),
    lists_of_four,
    st.builds(lambda before, text, after: f"{before}{text}{after}", spaces, lists_of_four, spaces),
    # Three good neighbours and one that is anything, at any place.
    st.builds(lambda parts, part, place: in_list(*parts[:place], part, *parts[place:]),
              st.lists(measures, min_size=3, max_size=3), elements, st.integers(0, 3)),
    st.lists(elements, max_size=6).map(lambda parts: in_list(*parts)),
    elements,
    json_values.map(json.dumps),
    st.text(max_size=12),
    st.text('[]{}",:0123456789.eE+-NaIfnulty \n\0', max_size=20),
)  # fmt: skip

# Python and orjson read about a thousand levels, and not the same number: what is nearer to that is left out.
DEPTHS = (2, 31, 33, 90, 99, 101, 400, 3_000, 100_000)
# Hypothesis draws other texts when the constants of a module have changed: what must be among them stands here.
RARE = [
    *(in_list("1", "2", "3", number) for number in ("Infinity", "NaN", "1e39")),
    *(nested(depth, *pair) for depth in DEPTHS for pair in (("[", "]"), ('{"a":[', "]}"))),
    *(in_list("1", "2", "3", nested(depth, "[", "]")) for depth in DEPTHS),
    *(nested(depth, "[", "") for depth in DEPTHS),
    json.dumps([0.5] * 200_000),
    json.dumps([[]] * 250_000),
    json.dumps({str(number): None for number in range(60_000)}),
    json.dumps("x" * 1_000_000),
    in_list("1", "2", "3", json.dumps("🌸" * 100_000, ensure_ascii=False)),
    in_list("1", "2", "3", "4" + " " * 1_000_000),
    in_list("1", "2", "3", "0." + "1" * 1_000_000),
    in_list("1", "2", "3", "1" * 1_000_000),
    json.dumps([0.5] * 1_000_000),
    json.dumps([[]] * 1_100_000),
]


@pytest.fixture(scope="module")
def hostile_texts() -> list[str]:
    """The same texts every time: the rare ones in the midst of the others, and good ones between them."""
    found: list[str] = []

    @hypothesis.settings(
        max_examples=ITEMS,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(texts)
    def collect(text: str) -> None:
        found.append(text)

    collect()
    for number, text in enumerate(RARE):
        found.insert(100 + number * (ITEMS // len(RARE)), text)
    good = iter(map(json.dumps, iris_items(len(found) // GOOD_AFTER, seed=3)))
    return [
        each
        for start in range(0, len(found), GOOD_AFTER)
        for each in (*found[start : start + GOOD_AFTER], next(good, ""))
    ]


@contextlib.contextmanager
def own_connection(tables: dict[str, str]) -> Iterator[Any]:
    """A connection to the database of the test that is not the package's."""
    if "MYSQL_SERVER" not in tables:
        with contextlib.closing(sqlite3.connect(Path(tables["BATCH_ASSETS_HOME"]) / "batch.sqlite")) as connection:
            yield connection
        return
    with pymysql.connect(
        host=tables["MYSQL_SERVER"],
        port=int(tables["MYSQL_PORT"]),
        user=tables["MYSQL_USER"],
        password=tables["MYSQL_PASSWORD"],
        database=tables["MYSQL_DATABASE"],
        charset="utf8mb4",
        init_command="SET time_zone = '+00:00'",
    ) as connection:
        yield connection


def insert_what_is_taken(tables: dict[str, str], texts: Sequence[str]) -> dict[int, str]:
    """Writes items one by one, as the service does; gives back what the database took, as it now has it."""
    mark = "%s" if "MYSQL_SERVER" in tables else "?"
    statement = f"INSERT INTO items (`values`, created_datetime, updated_datetime) VALUES ({mark}, {mark}, {mark})"
    with own_connection(tables) as connection, contextlib.closing(connection.cursor()) as cursor:
        for text in texts:
            # What is refused is no item.
            with contextlib.suppress(pymysql.Error):
                cursor.execute(statement, (text, HALF_PAST, HALF_PAST))
        connection.commit()
        cursor.execute("SELECT id, `values` FROM items")
        return dict(cursor.fetchall())


def code_by_the_book(text: str) -> str | None:
    """What the documentation says of values, in the plainest words there are; None when they are good."""
    if len(text) > 4_000_000:
        return "too_long"
    try:
        # Python reads no integer of more than 4300 digits, and a float from any number of them.
        values = json.loads(text, parse_int=Decimal)
    except (ValueError, RecursionError):
        return "not_json"
    if values is None:
        return "null_value"
    if not isinstance(values, list):
        return "not_a_list"
    if len(values) != 4:
        return "wrong_length"
    return next(filter(None, map(fault_of_element, values)), None)


def fault_of_element(number: Any) -> str | None:
    if number is None:
        return "null_value"
    if isinstance(number, bool) or not isinstance(number, float | Decimal):
        return "not_numeric"
    if isinstance(number, float) and math.isnan(number):
        return "not_a_number"
    if isinstance(number, float) and math.isinf(number):
        return "infinite"
    with np.errstate(over="ignore"):
        return None if np.isfinite(np.float32(float(number))) else "too_large"


@pytest.mark.slow
@pytest.mark.xdist_group("hostile")
def test_ten_thousand_hostile_items_end_as_they_must_and_their_neighbours_are_scored(
    tables: dict[str, str], sql: Sql, hostile_texts: list[str]
) -> None:
    stored = insert_what_is_taken(tables, hostile_texts)
    codes = {key: code_by_the_book(text) for key, text in stored.items()}
    good = {key: text for key, text in stored.items() if codes[key] is None}
    bad = {key: code for key, code in codes.items() if code is not None}
    # MySQL and MariaDB refuse what is no JSON, each in its own way. No kind of fault may be missing by mistake.
    kinds = {"not_a_list", "wrong_length", "null_value", "not_numeric", "too_large", "too_long"}
    if "MYSQL_SERVER" not in tables:
        kinds |= {"not_json", "not_a_number", "infinite"}
        assert len(stored) == len(hostile_texts) > ITEMS
    assert kinds <= set(bad.values())
    assert len(good) > len(hostile_texts) / 6
    assert len(bad) > ITEMS / 10

    run_job().assert_succeeded()
    failed = failed_of(sql)
    assert [
        (stored[key][:300], message, "expected:", bad.get(key))
        for key, (code, message, _) in failed.items()
        if bad.get(key) != code
    ] == []
    assert failed.keys() == bad.keys()
    assert all(0 < len(message) < 200 and message.isprintable() for _, message, _ in failed.values())
    floats = [json.dumps(list(map(float, json.loads(text)))) for text in good.values()]
    assert_predicted(sql, dict(zip(good, iris_probabilities(floats), strict=True)))
    assert assert_hour_adds_up(sql) == Counts(len(stored), len(good), len(bad), 0)


# Values that only the model finds hostile


def test_an_item_on_which_the_model_fails_fails_alone_until_it_is_corrected(
    tables: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    files = write_picky_classifier(tmp_path)
    environment = {
        "MODEL_FILEPATH": str(files.model_filepath),
        "LABEL_FILEPATH": str(files.label_filepath),
        "SAMPLE_DATA_PATH": str(files.sample_data_path),
    }
    classes = [number % 3 for number in range(500)]
    for culprit in (0, 1, 250, 499):
        classes[culprit] = 7
    ids = insert_items(sql, [f"[{number}, 0, 0, 0]" for number in classes])
    culprits = [key for key, number in zip(ids, classes, strict=True) if number == 7]
    answers = {key: np.eye(3)[number] for key, number in zip(ids, classes, strict=True) if number < 3}
    for attempts in (1, 2):
        run_job(**environment).assert_succeeded()
        failed = failed_of(sql)
        assert {key: (code, tried) for key, (code, _, tried) in failed.items()} == dict.fromkeys(
            culprits, ("model_error", attempts)
        )
        assert all("idx=7 must be within the inclusive range" in message for _, message, _ in failed.values())
        assert_predicted(sql, answers)
        assert assert_hour_adds_up(sql) == Counts(500, 496, 4, 0)
    correct(sql, culprits[0], "[2, 0, 0, 0]")
    run_job(**environment).assert_succeeded()
    assert_predicted(sql, answers | {culprits[0]: np.eye(3)[2]})
    assert failed_of(sql).keys() == set(culprits[1:])


def test_a_model_that_fails_on_every_item_of_an_hour_fails_the_run_and_writes_nothing(
    tables: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    files = write_picky_classifier(tmp_path)
    insert_items(sql, ["[7, 0, 0, 0]"] * 100)
    before = rows_of(sql)
    run_job(
        MODEL_FILEPATH=str(files.model_filepath),
        LABEL_FILEPATH=str(files.label_filepath),
        SAMPLE_DATA_PATH=str(files.sample_data_path),
    ).assert_failed_with("The model model.onnx fails on", "idx=7 must be within")
    assert rows_of(sql) == before
