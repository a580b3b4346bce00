"""The summary of an hour: counted from rows, whatever the rows are."""

import datetime
import json

import pytest

from batch_assets.database.slices.batch import Batch
from batch_assets.pipeline import ITEM_TABLE, ItemTable
from batch_assets.reporting.summary import OTHER_LABELS, Outcome, Summary, columns_to_count, count_outcome
from batch_assets.settings.items import Form, Output

LABELS = ("setosa", "versicolor", "virginica")
HOUR = datetime.datetime(2026, 11, 2, 5)  # noqa: DTZ001 - UTC without a zone, as in the database
FINISHED = datetime.datetime(2026, 11, 2, 6, 19, 3, 999_999, datetime.UTC)
SCORING = {
    "run_id": "a run",
    "model_version": "a version",
    "retry": "partial",
    "started_at": "2026-11-02T06:19:01+00:00",
    "finished_at": FINISHED,
    "scored": 300,
    "ignored_keys": 7,
    "seconds": 2.0,
    "read_seconds": 0.5,
    "check_seconds": 0.0,
    "score_seconds": 0.15,
}


def batch(*rows: tuple[int, str | None]) -> Batch:
    return Batch(("id", "prediction"), list(rows))


def outcome_of(batches: list[Batch], failed: set[int], labels: tuple[str, ...]) -> Outcome:
    return count_outcome(batches, ITEM_TABLE, failed, labels)


def row_of(summary: Summary) -> dict[str, object]:
    stored = summary.batch()
    assert len(stored) == 1
    return dict(zip(stored.columns, stored.rows[0], strict=True))


def test_items_are_counted_by_what_became_of_them_over_all_batches() -> None:
    outcome = outcome_of(
        [
            batch((1, "[0.9, 0.1, 0.0]"), (2, None), (3, None)),
            batch((4, "[0.1, 0.2, 0.7]"), (5, "[0.0, 0.1, 0.9]")),
            batch(),
        ],
        {3, 99},
        LABELS,
    )
    assert (outcome.items, outcome.predicted, outcome.failed, outcome.pending) == (5, 3, 1, 1)
    assert outcome.label_counts == {"setosa": 1, "versicolor": 0, "virginica": 2}


def test_an_item_with_a_prediction_has_not_failed_whatever_the_failed_items_say() -> None:
    outcome = outcome_of([batch((1, "[1, 0, 0]"))], {1}, LABELS)
    assert (outcome.items, outcome.predicted, outcome.failed, outcome.pending) == (1, 1, 0, 0)


def test_an_hour_without_items_counts_every_label_with_zero() -> None:
    outcome = outcome_of([], set(), LABELS)
    assert (outcome.items, outcome.predicted, outcome.failed, outcome.pending) == (0, 0, 0, 0)
    assert outcome.label_counts == dict.fromkeys(LABELS, 0)


def test_predictions_of_another_model_are_counted_apart() -> None:
    texts = ["[0.5, 0.5]", "[0.2, 0.5, 0.3]", "[1]", "null", '{"setosa": 1}', "[]"]
    outcome = outcome_of([batch(*enumerate(texts))], set(), LABELS)
    assert outcome.predicted == 6
    assert outcome.label_counts == {"setosa": 0, "versicolor": 1, "virginica": 0, OTHER_LABELS: 5}


def test_predictions_that_no_model_has_made_are_counted_apart() -> None:
    odd = ['["a", "b", "c"]', "[null, 0, 1]", "[[1], [2, 3], [4]]", '{"a": 1}', "true", "[{}, 0, 0]"]
    outcome = outcome_of([batch((1, "[0, 1, 0]"), *enumerate(odd, 2))], set(), LABELS)
    assert (outcome.items, outcome.predicted) == (7, 7)
    assert outcome.label_counts == {"setosa": 0, "versicolor": 1, "virginica": 0, OTHER_LABELS: 6}


def test_the_row_says_how_the_hour_was_scored_in_whole_seconds() -> None:
    outcome = outcome_of([batch((1, "[1, 0, 0]"), (2, None))], {2}, LABELS)
    row = row_of(Summary("items", HOUR, outcome, SCORING))
    assert json.loads(str(row.pop("label_counts"))) == {"setosa": 1, "versicolor": 0, "virginica": 0}
    assert row == {
        "pipeline": "items",
        "hour": HOUR,
        "items": 2,
        "predicted": 1,
        "failed": 1,
        "pending": 0,
        "predicted_by_other_models": 0,
        "model_version": "a version",
        "retry": "partial",
        "run_id": "a run",
        "started_at": HOUR.replace(hour=6, minute=19, second=1),
        "finished_at": HOUR.replace(hour=6, minute=19, second=3),
        "scored": 300,
        "ignored_keys": 7,
        "rows_per_second": 150.0,
        "read_rows_per_second": 600.0,
        "check_rows_per_second": None,
        "score_rows_per_second": 2000.0,
        "write_rows_per_second": None,
    }


def test_an_hour_that_nobody_has_scored_has_a_row_with_no_more_than_its_counts() -> None:
    row = row_of(Summary("items", HOUR, Outcome(), {"run_id": "a run", "finished_at": FINISHED}))
    known = {name: value for name, value in row.items() if value is not None}
    assert known == {
        "pipeline": "items",
        "hour": HOUR,
        "items": 0,
        "predicted": 0,
        "failed": 0,
        "pending": 0,
        "predicted_by_other_models": 0,
        "label_counts": "{}",
        "ignored_keys": 0,
        "run_id": "a run",
        "finished_at": HOUR.replace(hour=6, minute=19, second=3),
    }


def test_what_is_plotted_are_plain_numbers() -> None:
    numbers = Summary("items", HOUR, outcome_of([batch((1, "[1, 0, 0]"))], set(), LABELS), SCORING).numbers()
    assert {type(number) for number in numbers.values()} == {int, float}
    assert numbers["rows_per_second"] == 150.0
    assert "write_rows_per_second" not in numbers


# Predictions of other forms


def written_as(form: Form, column: str = "prediction") -> ItemTable:
    return ItemTable(outputs=(Output(column, form),))


@pytest.mark.parametrize("quote", ["", '"'], ids=["text", "json"])
def test_labels_are_counted_in_a_column_of_texts_and_in_one_of_json(quote: str) -> None:
    texts = [f"{quote}{label}{quote}" for label in ("virginica", "setosa", "virginica", "tulip")]
    outcome = count_outcome([batch(*enumerate(texts), (9, None))], written_as("label"), {9}, LABELS)
    assert (outcome.items, outcome.predicted, outcome.failed) == (5, 4, 1)
    assert outcome.label_counts == {"setosa": 1, "versicolor": 0, "virginica": 2, OTHER_LABELS: 1}


def test_labels_that_only_the_predictions_name_are_counted_as_they_are() -> None:
    texts = ["a", '"b"', "a", 'say "b"', '"']
    outcome = count_outcome([batch(*enumerate(texts))], written_as("label"), set(), ())
    assert outcome.label_counts == {"a": 2, "b": 1, 'say "b"': 1, '"': 1}


def test_labels_beside_probabilities_are_counted() -> None:
    texts = [json.dumps({"label": label, "probabilities": [0.2, 0.8]}) for label in ("setosa", "tulip", 1)]
    outcome = count_outcome([batch(*enumerate([*texts, "[1]"]))], written_as("label_and_probabilities"), set(), LABELS)
    assert outcome.label_counts == {"setosa": 1, "versicolor": 0, "virginica": 0, OTHER_LABELS: 3}


@pytest.mark.parametrize("form", ["value", "probability", "all"])
def test_nothing_is_counted_by_label_where_predictions_have_none(form: Form) -> None:
    rows = Batch(("id", "prediction"), [(1, 0.5), (2, None), (3, 7.25)])
    outcome = count_outcome([rows], written_as(form), {2}, ())
    assert (outcome.items, outcome.predicted, outcome.failed, outcome.label_counts) == (3, 2, 1, {})


def test_labels_are_counted_in_the_column_that_has_them() -> None:
    names = ItemTable(outputs=(Output("amount", "value"), Output("kind", "label"), Output("note", "all")))
    assert columns_to_count(names) == ("id", "amount", "kind")
    rows = Batch(("id", "amount", "kind"), [(1, 0.5, "a"), (2, None, None), (3, 7.25, "b")])
    outcome = count_outcome([rows], names, {2}, ("a", "b", "c"))
    assert (outcome.items, outcome.predicted, outcome.failed) == (3, 2, 1)
    assert outcome.label_counts == {"a": 1, "b": 1, "c": 0}
    assert columns_to_count(ITEM_TABLE) == ("id", "prediction")
    assert columns_to_count(written_as("value", "amount")) == ("id", "amount")


# What the numbers of the answers are like


@pytest.mark.parametrize(
    ("odd", "not_finite", "wrong_sums"),
    [
        ("[0.5, 0.2, 0.2]", 0, 1),
        ("[0.5, 0.5005, 0.0]", 0, 0),
        ("[NaN, 0.5, 0.5]", 1, 0),
        ("[0.5, 1e999, 0.5]", 1, 0),
        (f"[1{'0' * 400}, 0, 0]", 1, 0),
        ('["1", "0", "0"]', 1, 0),
        ("[null, 0, 1]", 1, 0),
        ("[true, 0, 0]", 1, 0),
        ("[]", 1, 0),
        ("{}", 1, 0),
        ("not JSON", 1, 0),
        ("[0.5, 0.5]", 0, 0),
    ],
)
@pytest.mark.parametrize("form", ["probabilities", "label_and_probabilities"])
def test_probabilities_that_are_not_finite_or_do_not_sum_to_one_are_counted(
    form: Form, odd: str, not_finite: int, wrong_sums: int
) -> None:
    texts = ["[0.2, 0.3, 0.5]", odd, "[0, 0, 1]"]
    if form != "probabilities":
        texts = [f'{{"label": "setosa", "probabilities": {text}}}' for text in texts]
    answers = count_outcome([batch(*enumerate(texts, 7), (99, None))], written_as(form), set(), LABELS).answers
    assert (answers.not_finite, answers.wrong_sums) == (not_finite, wrong_sums)
    assert answers.odd_ids == ([8] if not_finite + wrong_sums else [])


def test_of_single_numbers_the_spread_is_told_and_what_is_not_finite_is_counted() -> None:
    rows = [(1, 0.5), (2, None), (3, "7.5"), (4, "NaN"), (5, 1.0), (6, float("inf"))]
    answers = count_outcome(
        [Batch(("id", "prediction"), rows), Batch(("id", "prediction"), [(7, -1)])], written_as("value"), set(), ()
    ).answers
    assert answers.numbers() == {
        "not_finite": 2,
        "wrong_sums": 0,
        "least_value": -1.0,
        "mean_value": pytest.approx(2.0),
        "largest_value": 7.5,
    }
    assert answers.odd_ids == [4, 6]
