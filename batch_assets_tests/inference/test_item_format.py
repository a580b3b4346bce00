"""Checking `items.values`: one outcome per text, whatever the text and whatever its neighbours."""

import json
import math
import subprocess
import sys

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.inference.item_format import BLOCK_ITEMS, CheckedValues, check_values

FLOAT32, FLOAT64, INT64 = (np.dtype(name) for name in ("float32", "float64", "int64"))
DTYPES = [FLOAT32, FLOAT64, INT64]
GOOD = "[5.1, 3.5, 1.4, 0.2]"


def code_of(text: str | None, dtype: np.dtype = FLOAT32, width: int = 4) -> str:
    """The code of a text that must be refused, also as the neighbour of a good one."""
    alone = check_values([text], width, dtype)
    assert len(alone.features) == len(alone.positions) == 0
    (bad,) = alone.bad
    good = json.dumps([1] * width)
    among = check_values([good, text, good], width, dtype)
    assert among.positions.tolist() == [0, 2]
    assert among.bad == [bad._replace(index=1)]
    bad.message.encode()  # a lone surrogate in a message could not be stored
    assert bad.message.isprintable()
    assert len(bad.message) < 200
    return bad.code


def message_of(text: str | None, dtype: np.dtype = FLOAT32) -> str:
    return check_values([text], 4, dtype).bad[0].message


def test_good_texts_become_rows_in_their_order() -> None:
    checked = check_values([GOOD, "[1,2,3,4]", " [0, -0.0, 1e-3, 2E2]\n"], 4, FLOAT64)
    assert checked.features.tolist() == [[5.1, 3.5, 1.4, 0.2], [1, 2, 3, 4], [0, 0, 0.001, 200]]
    assert checked.positions.tolist() == [0, 1, 2]
    assert checked.bad == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_texts_make_an_empty_array_of_the_width_and_type_of_the_model(dtype: np.dtype) -> None:
    checked = check_values([], 4, dtype)
    assert checked.features.shape == (0, 4)
    assert checked.features.dtype == dtype
    assert checked.positions.dtype == np.intp
    assert checked.bad == []


@pytest.mark.parametrize(
    "text", ["", "   ", "hello", "[1,2,3,4", "[1,2,3,4]]", "[1,2,3,4]\0", "\ufeff[1,2,3,4]", "[1,2,,4]"]
)
def test_a_text_that_is_not_json(text: str) -> None:
    assert code_of(text) == "not_json"


@pytest.mark.parametrize(
    "text", ["[01,2,3,4]", "[1.,2,3,4]", "[+1,2,3,4]", "[0x1,2,3,4]", "[1,2,3,4,]", "[1_0,2,3,4]", "['a']"]
)
def test_a_number_that_json_does_not_know_is_not_json(text: str) -> None:
    assert code_of(text) == "not_json"


@pytest.mark.parametrize("text", ["{}", '{"0": 1}', "5.1", "true", '"[1, 2, 3, 4]"', "1" * 5000, "NaN"])
def test_a_value_that_is_no_list_is_not_a_list(text: str) -> None:
    assert code_of(text) == "not_a_list"


@pytest.mark.parametrize(
    "text", ["[]", "[1]", "[1,2,3]", "[1,2,3,4,5]", "[[1,2,3,4]]", "[null]", "[NaN]", json.dumps([1] * 200_000)]
)
def test_a_list_of_another_length_is_the_wrong_length(text: str) -> None:
    assert code_of(text) == "wrong_length"


@pytest.mark.parametrize("text", [None, "null", "[1,2,null,4]"])
def test_null_is_a_null_value_wherever_it_stands(text: str | None) -> None:
    assert code_of(text) == "null_value"


@pytest.mark.parametrize(
    "element", ['"abc"', '"1"', "true", "false", "[1]", "{}", '"\\ud800"', '"\\u0000"', "[" * 900 + "]" * 900]
)
def test_anything_but_a_number_among_the_numbers_is_not_numeric(element: str) -> None:
    assert code_of(f"[1,{element},3,4]") == "not_numeric"


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_not_a_number(dtype: np.dtype) -> None:
    assert code_of("[1,2,NaN,4]", dtype) == "not_a_number"
    assert code_of("[NaN,2,1e39,4]", dtype) == "not_a_number"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "1e999", "-1e999"])
def test_infinity_is_infinite_however_it_is_spelled(number: str, dtype: np.dtype) -> None:
    assert code_of(f"[1,2,3,{number}]", dtype) == "infinite"


@pytest.mark.parametrize(
    ("number", "dtype"),
    [
        ("3.5e38", FLOAT32),
        ("-1e300", FLOAT32),
        ("1" + "0" * 40, FLOAT32),
        ("1" + "0" * 309, FLOAT32),
        ("1" + "0" * 309, FLOAT64),
        ("-" + "9" * 5000, FLOAT64),
        ("9" * 5000, INT64),
        ("9223372036854775808", INT64),
        ("-9223372036854775809", INT64),
        ("18446744073709551615", INT64),
        ("18446744073709551616", INT64),
        ("9223372036854775807.0", INT64),
        ("1e300", INT64),
    ],
)
def test_a_number_beyond_the_type_of_the_model_is_too_large(number: str, dtype: np.dtype) -> None:
    assert code_of(f"[1,2,3,{number}]", dtype) == "too_large"


@pytest.mark.parametrize("number", ["0.5", "1e-300", "-4.000001"])
def test_a_fraction_is_not_an_integer_for_a_model_that_takes_integers(number: str) -> None:
    assert code_of(f"[1,2,3,{number}]", INT64) == "not_an_integer"


def test_whole_numbers_written_as_fractions_are_integers() -> None:
    checked = check_values(["[5.0, -2.0, 1e3, 7]", "[1, 2, 3, 4]"], 4, INT64)
    assert checked.features.tolist() == [[5, -2, 1000, 7], [1, 2, 3, 4]]
    assert checked.features.dtype == INT64


@pytest.mark.parametrize("neighbour", ["[1,2]", "[3.0,4]", "[5,6]", "oops"])
def test_integers_keep_every_digit_next_to_anything(neighbour: str) -> None:
    exact = [9007199254740993, -9223372036854775808]
    mixed = "[9223372036854775807, 1.0]"
    checked = check_values([json.dumps(exact), mixed, neighbour], 2, INT64)
    assert checked.features[:2].tolist() == [exact, [9223372036854775807, 1]]


def test_the_limits_of_each_type_are_still_good() -> None:
    largest = 3.4028234663852886e38
    rounds_to_it = 3.4028235677973362e38
    rounds_to_infinity = 3.4028235677973366e38
    texts = [json.dumps([number]) for number in (largest, rounds_to_it, rounds_to_infinity, -largest)]
    checked = check_values(texts, 1, FLOAT32)
    assert checked.features.ravel().tolist() == [largest, largest, -largest]
    assert [bad.index for bad in checked.bad] == [2]
    assert check_values(texts[:2], 1, FLOAT32).features.ravel().tolist() == [largest, largest]
    assert check_values(["[1.7976931348623157e308]", "x"], 1, FLOAT64).features.item() == sys.float_info.max


def test_big_integers_become_the_nearest_float() -> None:
    texts = [json.dumps([number]) for number in (2**63, 2**64 - 1, 2**64, 2**64 + 2049, 10**300)]
    expected = [[float(number)] for number in (2**63, 2**64 - 1, 2**64, 2**64 + 2049, 10**300)]
    assert check_values(texts, 1, FLOAT64).features.tolist() == expected
    assert check_values([*texts, "x"], 1, FLOAT64).features.tolist() == expected


def test_a_text_nested_too_deeply_is_refused_like_any_other() -> None:
    assert code_of("[" * 500_000 + "]" * 500_000) == "not_json"
    assert code_of("[1,2,3," + '{"a":' * 200_000 + "1" + "}" * 200_000 + "]") == "not_json"


@pytest.mark.parametrize("text", ["[" + "[]," * 1_400_000 + "1]", "[1,2,3,4" + " " * 4_000_000 + "]", "x" * 4_000_001])
def test_a_text_of_millions_of_characters_is_too_long_and_not_even_read(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def loads(text: str) -> object:
        read.append(len(text))
        return json.loads(text)

    monkeypatch.setattr(orjson, "loads", loads)
    assert code_of(text) == "too_long"
    assert all(length < 100 for length in read)


def test_a_text_may_be_the_longer_the_more_numbers_the_model_takes() -> None:
    text = "[" + "1," * 9_999 + "2" + " " * 4_500_000 + "]"
    assert check_values([text], 10_000, FLOAT32).features.shape == (1, 10_000)
    assert check_values([text, "x"], 10_000, FLOAT32).positions.tolist() == [0]


def test_messages_say_which_value_and_show_it() -> None:
    assert message_of('[1, "abc", 3, 4]') == 'value 2 is a string: "abc"'
    assert message_of("[1, 2, 3, 4, 5]") == "5 values, the model takes 4"
    assert message_of("[1]") == "1 value, the model takes 4"
    assert message_of("[1, 2, 3, null]") == "value 4 is null"
    assert message_of(None) == "the value is NULL"
    assert message_of("[1, 2.5, 3, 4]", INT64) == "value 2 is 2.5, the model takes integers"
    assert message_of("[1, 2, 1e39, 4]") == "value 3 is too large for the model's type float32"
    assert message_of('{"a": 1}') == 'an object, not a list of 4 numbers: {"a": 1}'
    assert message_of("[1, x]") == "not JSON: Expecting value at character 5: [1, x]"
    assert message_of("") == "not JSON: it is empty"
    assert message_of(" " * 4_000_001) == "4000001 characters are too many for a list of 4 numbers"


def test_messages_cut_what_they_show_to_eighty_characters() -> None:
    shown = message_of(json.dumps(["x" * 1_000_000, 2, 3, 4])).removeprefix("value 1 is a string: ")
    assert shown == '"' + "x" * 77 + '..."'


def test_ten_thousand_items_keep_their_places_around_the_bad_ones() -> None:
    texts = [f"[{index}, 0.5]" for index in range(10_000)]
    spoiled = [0, 1, BLOCK_ITEMS - 1, BLOCK_ITEMS, 7_777, 9_999]
    for index in spoiled:
        texts[index] = f'[{index}, "x"]'
    checked = check_values(texts, 2, FLOAT64)
    assert [bad.index for bad in checked.bad] == spoiled
    assert checked.features[:, 0].tolist() == checked.positions.tolist()
    assert checked.positions.tolist() == sorted(set(range(10_000)) - set(spoiled))


def test_checking_loads_neither_onnxruntime_nor_scikit_learn_nor_pandas() -> None:
    code = (
        "import sys, batch_assets.inference.onnx_model, batch_assets.inference.item_format;"
        "print({'onnxruntime', 'sklearn', 'pandas', 'dagster', 'skl2onnx'} & set(sys.modules))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert printed.strip() == "set()"


NUMBERS = (
    st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([1e999, 2**63, -(2**63), 3.5e38, 0.5, 5.0])
)
SCALARS = NUMBERS | st.none() | st.booleans() | st.text(max_size=5)
JSON_VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
)
TEXTS = (
    st.lists(NUMBERS, min_size=2, max_size=2).map(json.dumps)
    | st.lists(st.floats(-1e6, 1e6) | st.integers(-9, 9), min_size=2, max_size=2).map(json.dumps)
    | st.lists(SCALARS, min_size=1, max_size=3).map(json.dumps)
    | JSON_VALUES.map(json.dumps)
    | st.text(st.characters(), max_size=20)  # lone surrogates too
    | st.text('[]{}",:0123456789.eE+-NaNInfinitynull \n', max_size=20)
    | st.none()
)


@given(st.lists(TEXTS, max_size=12), st.sampled_from(DTYPES))
def test_any_text_has_one_outcome_whatever_its_neighbours(texts: list[str | None], dtype: np.dtype) -> None:
    together = check_values(texts, 2, dtype)
    assert together.features.shape == (len(together.positions), 2)
    assert together.features.dtype == dtype
    assert sorted([*together.positions.tolist(), *(bad.index for bad in together.bad)]) == list(range(len(texts)))
    alone = [check_values([text], 2, dtype) for text in texts]
    assert together.features.tolist() == [row for each in alone for row in each.features.tolist()]
    assert [bad[1:] for bad in together.bad] == [bad[1:] for each in alone for bad in each.bad]


@given(TEXTS, st.sampled_from(DTYPES))
def test_a_good_text_has_the_values_that_python_reads_and_a_bad_one_has_none(text: str | None, dtype: np.dtype) -> None:
    checked: CheckedValues = check_values([text], 2, dtype)
    expected = values_by_the_book(text, dtype)
    assert checked.features.tolist() == ([] if expected is None else [expected])


def values_by_the_book(text: str | None, dtype: np.dtype) -> list[int] | list[float] | None:
    """The rule in its plainest form: Python's own parser, number by number. None when the text is bad."""
    try:
        values = json.loads(text)  # type: ignore[arg-type]  # None raises, as bad JSON does
    except (TypeError, ValueError):
        return None
    if not isinstance(values, list) or len(values) != 2 or any(type(value) not in {int, float} for value in values):
        return None
    try:
        if dtype == INT64:
            whole = [int(value) for value in values if math.isfinite(value) and value == int(value)]
            return np.array(whole, dtype).tolist() if len(whole) == 2 else None
        with np.errstate(over="ignore"):
            array = np.array([float(value) for value in values]).astype(dtype)
    except OverflowError:
        return None
    return array.tolist() if np.isfinite(array).all() else None
