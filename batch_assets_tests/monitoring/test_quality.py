"""How right answers were: by sums that are done here by hand, and beside scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, mean_absolute_error

from batch_assets.iris.training import iris_items
from batch_assets.monitoring.quality import Quality

LABELS = ["cat", "dog"]


def test_before_anything_is_known_only_what_is_expected_is_said() -> None:
    quality = Quality()
    quality.add_probabilities(np.array([[0.9, 0.1], [0.3, 0.7]]), LABELS, [None, None])
    assert quality.numbers() == {"predicted": 2, "known": 0, "coverage": 0.0, "expected_accuracy": 0.8}


def test_probabilities_are_judged_by_what_came_true() -> None:
    quality = Quality()
    matrix = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [1.0, 0.0]])
    quality.add_probabilities(matrix, LABELS, ["cat", "cat", None, "cow"])
    assert (quality.predicted, quality.known, quality.right, quality.unknown_labels) == (4, 3, 1, 1)
    assert quality.coverage == pytest.approx(3 / 4)
    assert quality.accuracy == pytest.approx(1 / 3)
    # 0.1² + 0.1², 0.7² + 0.7², and 1² for one that the model does not know.
    assert quality.brier_score == pytest.approx((0.02 + 0.98 + 1.0) / 3)
    assert [(part.items, part.right) for part in quality.bins] == [(0, 0)] * 7 + [(1, 0), (0, 0), (2, 1)]


def test_labels_alone_have_an_accuracy_and_nothing_that_needs_probabilities() -> None:
    quality = Quality()
    quality.add_labels(["cat", "dog", None], ["cat", "cat", "dog"])
    assert quality.numbers() == {"predicted": 3, "known": 3, "coverage": 1.0, "accuracy": 0.333333}


def test_numbers_have_a_mean_absolute_error_and_no_accuracy() -> None:
    random = np.random.default_rng(1)
    predicted, actual = random.normal(size=500), random.normal(size=500)
    quality = Quality()
    quality.add_numbers(predicted.tolist(), actual.tolist())
    quality.add_numbers([1.0], [None])
    assert quality.accuracy is None
    assert quality.mean_absolute_error == pytest.approx(mean_absolute_error(actual, predicted))
    assert (quality.predicted, quality.known) == (501, 500)


def test_in_parts_and_at_once_come_to_the_same_and_to_that_of_scikit_learn() -> None:
    random = np.random.default_rng(2)
    rows = np.array(iris_items(600, 3))
    classes = (rows[:, 2] + random.normal(scale=1.0, size=600) > 3.5).astype(int)
    model = LogisticRegression(max_iter=500).fit(rows, classes)
    matrix, actuals = model.predict_proba(rows), [LABELS[each] for each in classes]
    at_once, in_parts = Quality(), Quality()
    at_once.add_probabilities(matrix, LABELS, actuals)
    for start in range(0, 600, 77):
        part = slice(start, start + 77)
        in_parts.add_probabilities(matrix[part], LABELS, actuals[part])
    assert in_parts.numbers() == at_once.numbers()
    assert at_once.accuracy == pytest.approx(accuracy_score(classes, model.predict(rows)))
    # Of a model that is calibrated, as logistic regression is on what it was fitted to.
    assert at_once.expected_accuracy == pytest.approx(at_once.accuracy, abs=0.03)
