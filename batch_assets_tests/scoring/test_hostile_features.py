"""Ten thousand items of declared features, of the worst kind: each ends as an independent look at it says."""

import json
import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from onnx import TensorProto, helper

from batch_assets.database.slices.batch import Batch
from batch_assets.inference.model_files import load_model
from batch_assets.pipeline import ItemTable
from batch_assets.scoring.batches import Progress, score
from batch_assets.settings.items import Feature, Output
from batch_assets.settings.model import ModelFiles
from batch_assets_tests.support.hostile_json import IN_QUOTES, NUMBERS, OF_NO_JSON, OTHERS
from batch_assets_tests.support.onnx_models import write_graph

ITEMS = 10_000
GOOD_AFTER = 4
BATCH_ITEMS = 2_500

# Of each feature: the type of its input. "maybe" is nullable, and one has a name that JSON must escape.
TYPES = {
    "size": TensorProto.FLOAT,
    "maybe": TensorProto.DOUBLE,
    "count": TensorProto.INT64,
    'is "new" \u00fc': TensorProto.BOOL,
    "plan": TensorProto.STRING,
}
NAMES = list(TYPES)
GOOD_ITEMS: list[dict[str, Any]] = [
    {"size": 0.5, "maybe": None, "count": 3, NAMES[3]: True, "plan": "gold"},
    {"size": 1, "maybe": 0.1, "count": -(2**63), NAMES[3]: False, "plan": ""},
    {"size": -2.5e3, "maybe": 7, "count": 2**63 - 1, NAMES[3]: 1, "plan": "🌸 \u0000 \"'"},
]

plain_numbers = st.floats(-1e6, 1e6).map(json.dumps) | st.integers(-9, 9).map(str)
strings = st.text(max_size=6).map(json.dumps) | st.text("🌸ü花\u202e'\"%\\`;", max_size=6).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
booleans = st.sampled_from(["true", "false", "0", "1"])
good_values = {
    "size": plain_numbers,
    "maybe": plain_numbers | st.just("null"),
    "count": st.integers(-(2**63), 2**63 - 1).map(str) | st.integers(-9, 9).map(lambda number: f"{number}.0"),
    NAMES[3]: booleans,
    "plan": strings,
}
any_value = (
    plain_numbers
    | st.floats().map(json.dumps)
    | st.integers().map(str)
    | strings
    | booleans
    | st.sampled_from([*NUMBERS, *OF_NO_JSON, *OTHERS, "-0.0", "1.0", "2", "-1"])
    | st.sampled_from(IN_QUOTES).map(lambda text: f'"{text}"')
)


@st.composite
def pairs_of_item(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Names and values: good ones, with some that are spoiled, missing, double, more or in disorder."""
    pairs = [(name, draw(good_values[name])) for name in NAMES]
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        place = draw(st.integers(0, len(pairs) - 1))
        pairs[place] = (pairs[place][0], draw(any_value))
    change = draw(st.sampled_from(["none", "none", "missing", "double", "more", "disorder"]))
    if change == "missing":
        del pairs[draw(st.integers(0, len(pairs) - 1))]
    elif change == "double":
        pairs.append((draw(st.sampled_from(NAMES)), draw(any_value)))
    elif change == "more":
        pairs.insert(draw(st.integers(0, len(pairs))), (draw(st.text(max_size=3)), draw(any_value)))
    elif change == "disorder":
        pairs = draw(st.permutations(pairs))
    return pairs


def as_object(pairs: Sequence[tuple[str, str]]) -> str:
    return f"{{{', '.join(f'{json.dumps(name)}: {value}' for name, value in pairs)}}}"


def as_list(pairs: Sequence[tuple[str, str]]) -> str:
    return f"[{', '.join(value for _, value in pairs)}]"


other_texts = any_value | st.text(max_size=12) | st.text('[]{}",:0123456789.eE+-NaIfnulty \n\0', max_size=20)
RARE = [
    *(
        opening * depth + closing * depth
        for depth in (2, 99, 400, 100_000)
        for opening, closing in ("[]", ('{"size":', "}"))
    ),
    *(
        json.dumps(form)
        for size in (math.nan, math.inf)
        for item in ({**GOOD_ITEMS[0], "size": size},)
        for form in (item, list(item.values()))
    ),
    json.dumps({**GOOD_ITEMS[0], "plan": "🌸" * 1_000_000}),
    json.dumps(list({**GOOD_ITEMS[0], "plan": "x" * 1_000_000}.values())),
    json.dumps({**GOOD_ITEMS[0], "note": "x" * 4_000_000}),
    json.dumps({str(number): None for number in range(60_000)} | GOOD_ITEMS[0]),
    json.dumps([*GOOD_ITEMS[0].values(), *range(100_000)]),
    json.dumps({**GOOD_ITEMS[0], "size": "HERE"}).replace('"HERE"', "1" * 100_000),
    json.dumps({**GOOD_ITEMS[0], "count": "HERE"}).replace('"HERE"', "-" + "9" * 5_000),
    *("\ufeff{}", "\u00a0[]", "null", "", " ", "true"),
]


def hostile_texts(by_name: bool) -> list[str]:
    """The same texts every time: the rare ones in the midst of the others, and good ones between them."""
    found: list[str] = []
    write, other = (as_object, as_list) if by_name else (as_list, as_object)
    items = pairs_of_item()

    @hypothesis.settings(
        max_examples=ITEMS,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.one_of(*[items.map(write)] * 6, items.map(other), other_texts))
    def collect(text: str) -> None:
        found.append(text)

    collect()
    for number, text in enumerate(RARE):
        found.insert(100 + number * (ITEMS // len(RARE)), text)
    good = [json.dumps(item if by_name else list(item.values())) for item in GOOD_ITEMS]
    return [
        each
        for number, start in enumerate(range(0, len(found), GOOD_AFTER))
        for each in (*found[start : start + GOOD_AFTER], good[number % len(good)])
    ]


def by_the_book(text: str, by_name: bool) -> str | dict[str, Any]:
    """What the documentation says of an item, in the plainest words there are: a code, or the values for the model."""
    fault, features = features_by_the_book(text, by_name)
    values: dict[str, Any] = {}
    for name, rule in zip(NAMES, (as_float32, as_nullable_double, as_int64, as_boolean, as_string), strict=True):
        if fault is None and name not in features:
            fault = "missing_feature"
        if fault is None:
            fault, values[name] = rule(features[name])
    return fault or values


def features_by_the_book(text: str, by_name: bool) -> tuple[str | None, dict[str, Any]]:
    """A code, or the value of each feature as Python reads it."""
    if len(text) > 4_000_000:
        return "too_long", {}
    try:
        # Python reads no integer of more than 4300 digits; as a decimal it keeps its digits, unlike a float.
        document = json.loads(text, parse_int=Decimal)
    except (ValueError, RecursionError):
        return "not_json", {}
    container, fault = (dict, "not_an_object") if by_name else (list, "not_a_list")
    if not isinstance(document, container):
        return ("null_value" if document is None else fault), {}
    if isinstance(document, list):
        return (None if len(document) == len(NAMES) else "wrong_length"), dict(zip(NAMES, document, strict=False))
    return None, document


Outcome = tuple[str | None, Any]


def as_number(value: Any) -> Outcome:
    if value is None:
        return "null_value", None
    if isinstance(value, bool) or not isinstance(value, float | Decimal):
        return "not_numeric", None
    if isinstance(value, float) and math.isinf(value):
        return "infinite", None
    return ("not_a_number" if isinstance(value, float) and math.isnan(value) else None), value


def as_float32(value: Any) -> Outcome:
    fault, number = as_number(value)
    if fault:
        return fault, None
    with np.errstate(over="ignore"):
        rounded = float(np.float32(float(number)))
    return ("too_large", None) if math.isinf(rounded) else (None, rounded)


def as_nullable_double(value: Any) -> Outcome:
    if value is None:
        return None, None
    fault, number = as_number(value)
    if fault:
        return fault, None
    return ("too_large", None) if math.isinf(float(number)) else (None, float(number))


def as_int64(value: Any) -> Outcome:
    fault, number = as_number(value)
    if fault:
        return fault, None
    if not -(2**63) <= number < 2**63:
        return "too_large", None
    return ("not_an_integer", None) if number != int(number) else (None, int(number))


def as_boolean(value: Any) -> Outcome:
    if value is None:
        return "null_value", None
    if isinstance(value, bool) or (isinstance(value, Decimal) and value in (0, 1)):
        return None, bool(value)
    return "not_a_boolean", None


def as_string(value: Any) -> Outcome:
    if value is None:
        return "null_value", None
    if not isinstance(value, str):
        return "not_a_string", None
    try:
        value.encode()
    except UnicodeEncodeError:
        return "not_a_string", None
    return None, value


def write_echo(folder: Path) -> ModelFiles:
    """A model that answers with its features as they reached it, and with 0 and a sign of it where one is NaN."""
    inputs = [helper.make_tensor_value_info(name, kind, [None, 1]) for name, kind in TYPES.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}!"]) for name in NAMES if name != "maybe"]
    nodes += [
        helper.make_node("IsNaN", ["maybe"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "maybe"], ["maybe!"]),
    ]
    outputs = [helper.make_tensor_value_info(f"{name}!", kind, [None, 1]) for name, kind in TYPES.items()]
    outputs.append(helper.make_tensor_value_info("missing", TensorProto.BOOL, [None, 1]))
    path = write_graph(folder / "model.onnx", nodes, inputs, outputs, {"zero": np.array(0.0)})
    return ModelFiles(path, None, None)


@pytest.mark.slow
@pytest.mark.xdist_group("hostile")
@pytest.mark.parametrize("by_name", [True, False], ids=["objects", "lists"])
def test_ten_thousand_hostile_items_end_as_they_must_and_the_model_gets_what_the_good_ones_say(
    tmp_path: Path, by_name: bool
) -> None:
    texts = hostile_texts(by_name)
    expected = {number: by_the_book(text, by_name) for number, text in enumerate(texts)}
    features = tuple(Feature(name, nullable=name == "maybe") for name in NAMES)
    items = ItemTable(features=features, by_name=by_name, outputs=(Output("echo", "all"),))
    batches = [
        Batch(("id", "values"), list(enumerate(texts[start : start + BATCH_ITEMS], start)))
        for start in range(0, len(texts), BATCH_ITEMS)
    ]
    outcomes = list(score(batches, items, load_model(write_echo(tmp_path), items), Progress(), sample_known=False))

    failed = {row.key: row for outcome in outcomes for row in outcome.failed}
    echoes = {key: json.loads(text) for outcome in outcomes for key, _, text in outcome.rows}
    assert failed.keys() | echoes.keys() == expected.keys()
    assert [
        (texts[key][:300], row.message, "expected:", expected[key])
        for key, row in failed.items()
        if row.code != expected[key]
    ] == []
    assert [
        (texts[key][:300], echo, expected[key]) for key, echo in echoes.items() if echo != echo_of(expected[key])
    ] == []
    assert all(0 < len(row.message) < 200 and row.message.isprintable() for row in failed.values())
    # No kind of fault may be missing by mistake.
    kinds = {"not_json", "null_value", "not_numeric", "not_a_number", "infinite", "too_large", "not_an_integer"}
    kinds |= {"not_a_boolean", "not_a_string", "too_long"}
    kinds |= {"not_an_object", "missing_feature"} if by_name else {"not_a_list", "wrong_length"}
    assert {row.code for row in failed.values()} == kinds
    assert len(echoes) > len(texts) / 6
    assert len(failed) > ITEMS / 4


def echo_of(values: str | dict[str, Any]) -> Any:
    """What the model answers to an item of these values; sizes as the shortest text of a float32."""
    if isinstance(values, str):
        return values
    size = float(str(np.float32(values["size"])))
    plain = values | {"size": size, "maybe": values["maybe"] or 0.0}
    return {f"{name}!": plain[name] for name in NAMES} | {"missing": values["maybe"] is None}
