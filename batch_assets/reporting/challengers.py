"""How a challenger compares with the model that scored an hour: what both answer, and how right both were."""

import datetime
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.challengers import (
    ChallengerAnswer,
    ComparedHour,
    KnownQuality,
    SampledItem,
    read_challenger_answers,
    read_comparison,
    read_known_answers,
    store_comparison,
    store_known_quality,
)
from batch_assets.database.records.summaries import read_summary
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.errors import ModelError
from batch_assets.hours import Hour
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.monitoring.agreement import Agreement, agreement_of_labels, agreement_of_numbers
from batch_assets.monitoring.quality import Quality
from batch_assets.pipeline import Pipeline
from batch_assets.reporting.answers import add_answers, matrix_of, parsed_label, parsed_texts
from batch_assets.reporting.tables import markdown_table, shortened
from batch_assets.settings.items import Form, Output

EXAMPLES = 10
_NUMBERS: tuple[Form, ...] = ("value", "probability")


@dataclass(frozen=True)
class Comparison:
    """How a challenger compares with the model that scored an hour.

    Args:
        hour: What is stored of it.
        agreement: How far the answers agree.
        failed_by_code: Items that the challenger cannot answer, by code.
        examples: Items whose answers differ: the item, what the model answers, what the challenger answers.
    """

    hour: ComparedHour
    agreement: Agreement
    failed_by_code: Mapping[str, int]
    examples: Sequence[tuple[int, str, str]]

    def numbers(self) -> Mapping[str, int | float]:
        """Returns what is worth a plot: what is not known is left out."""
        hour, agreed = self.hour, self.hour.agreed
        found = {
            "agreement": None if agreed is None or not hour.compared else agreed / hour.compared,
            "mean_absolute_difference": hour.mean_absolute_difference,
            "correlation": hour.correlation,
            "psi": hour.psi,
            **{name: value for name, value in vars(hour.quality).items() if name not in ("measured_at", "known")},
        }
        known = {name: round(value, 6) for name, value in found.items() if value is not None}
        return {
            "sampled": hour.sampled,
            "failed": hour.failed,
            "compared": hour.compared,
            "known": hour.quality.known,
            **known,
        }


def compare_hour(  # noqa: PLR0913, PLR0917 - the hour, both models and what they answer
    pipeline: Pipeline,
    hour: Hour,
    model_version: str,
    labels: Sequence[str],
    challenger: OnnxModel,
    items: Sequence[SampledItem],
    answers: Sequence[ChallengerAnswer],
    now: datetime.datetime,
) -> Comparison:
    """Compares what two models answer to a sample of an hour, and stores it in the place of what was there.

    Args:
        pipeline: The pipeline.
        hour: The hour.
        model_version: SHA-256 of the model that scored it last.
        labels: Its labels, in the order of its probabilities.
        challenger: The second model.
        items: The sample.
        answers: What the challenger answers to each of its items.
        now: The present, in UTC without a zone.

    Raises:
        ModelError: The two models have no label in common.
        DatabaseError: A table is missing, or the server is away.
    """
    if labels and challenger.labels and not set(labels) & set(challenger.labels):
        raise ModelError(
            f"The model {challenger.name} answers {', '.join(challenger.labels)}, the model in force "
            f"{', '.join(labels)}: no label is the same. Point LABEL_FILEPATH at labels of the same names."
        )
    engine, output = engine_for(pipeline.database), _output(pipeline)
    pairs = _comparable(output.form, items, answers)
    agreement = _agreement(
        output.form, [item.answer for item, _ in pairs], [text for _, text in pairs], labels, challenger.labels
    )
    by_item = {item.item_id: text for item, text in pairs}
    compared = ComparedHour(
        model_version,
        challenger.version,
        challenger.name,
        now,
        sampled=len(items),
        failed=sum(answer.answer is None for answer in answers),
        compared=agreement.compared,
        agreed=agreement.agreed,
        label_counts=agreement.labels,
        mean_absolute_difference=agreement.mean_absolute_difference,
        correlation=agreement.correlation,
        psi=agreement.psi,
        labels=labels,
        challenger_labels=challenger.labels,
        quality=_known_quality(engine, pipeline, by_item, labels, challenger.labels, now),
    )
    store_comparison(engine, pipeline_tables(pipeline), hour, compared, answers)
    differing = [pairs[position] for position in agreement.differing[:EXAMPLES]]
    return Comparison(
        compared,
        agreement,
        Counter(answer.code for answer in answers if answer.code is not None),
        [(item.item_id, _shown(item.answer), _shown(text)) for item, text in differing],
    )


def measure_comparison(pipeline: Pipeline, hour: Hour, now: datetime.datetime) -> None:
    """Measures anew how right both models were, if the hour was compared and has not been scored by another since.

    From the answers as they are stored: nothing is scored again.

    Args:
        pipeline: The pipeline.
        hour: The hour.
        now: The present, in UTC without a zone.

    Raises:
        DatabaseError: A table is missing, or the server is away.
    """
    engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
    row, summary = read_comparison(engine, tables, hour), read_summary(engine, tables, hour)
    if row is None or summary is None or summary.model_version != row.model_version:
        return
    answers = read_challenger_answers(engine, tables, hour)
    labels, challenger_labels = orjson.loads(row.labels), orjson.loads(row.challenger_labels)
    quality = _known_quality(engine, pipeline, answers, labels, challenger_labels, now)
    store_known_quality(engine, tables, hour, quality)


def labels_table(agreement: Agreement) -> str:
    """Returns a table of the labels: the share of each by both, and how many of the model's the challenger shares."""
    rows = [
        [
            label,
            _percent(counts.model, agreement.compared),
            _percent(counts.challenger, agreement.compared),
            _percent(counts.both, counts.model),
        ]
        for label, counts in agreement.labels.items()
    ]
    return markdown_table(["label", "model", "challenger", "agreement"], rows)


def examples_table(comparison: Comparison) -> str:
    """Returns a table of items whose answers differ, with both answers."""
    return markdown_table(["item", "model", "challenger"], [[str(key), *both] for key, *both in comparison.examples])


def _output(pipeline: Pipeline) -> Output:
    return pipeline.items.labelled_output or pipeline.items.outputs[0]


def _comparable(
    form: Form, items: Sequence[SampledItem], answers: Sequence[ChallengerAnswer]
) -> list[tuple[SampledItem, str]]:
    """Returns the items that the challenger answers, with its answers; of numbers those that both give as one."""
    pairs = [(item, answer.answer) for item, answer in zip(items, answers, strict=True) if answer.answer is not None]
    if form not in _NUMBERS:
        return pairs
    return [(item, text) for item, text in pairs if _is_usable(item.answer, form) and _is_usable(text, form)]


def _is_usable(answer: Any, form: Form, labels: Sequence[str] = ()) -> bool:
    """Returns whether it can be said of an answer how right it was: a finite number, or a probability of each label."""
    (document,) = parsed_texts([answer], form)
    if form in _NUMBERS:
        return document is not None and math.isfinite(document)
    if form == "label":
        return True
    if form == "label_and_probabilities":
        document = document.get("probabilities") if isinstance(document, dict) else None
    matrix = matrix_of([document])
    return matrix is not None and matrix.shape[1] == len(labels)


def _agreement(
    form: Form,
    answers: Sequence[Any],
    challenger_answers: Sequence[str],
    labels: Sequence[str],
    challenger_labels: Sequence[str],
) -> Agreement:
    one, other = parsed_texts(answers, form), parsed_texts(challenger_answers, form)
    if form in _NUMBERS:
        return agreement_of_numbers(one, other)
    if form == "all":  # objects of which nothing says what the answer is
        return Agreement(len(one))
    return agreement_of_labels(
        [_label(each, form, labels) for each in one], [_label(each, form, challenger_labels) for each in other], labels
    )


def _label(document: Any, form: Form, labels: Sequence[str]) -> str | None:
    if form == "label":
        return parsed_label(document, labels)
    if form == "label_and_probabilities":
        label = document.get("label") if isinstance(document, dict) else None
        return label if isinstance(label, str) else None
    matrix = matrix_of([document])
    return None if matrix is None or matrix.shape[1] != len(labels) else labels[int(matrix.argmax())]


def _known_quality(  # noqa: PLR0913, PLR0917 - where, what the challenger answers, and both labels
    engine: sa.Engine,
    pipeline: Pipeline,
    answers: Mapping[int, str],
    labels: Sequence[str],
    challenger_labels: Sequence[str],
    now: datetime.datetime,
) -> KnownQuality:
    output, tables = _output(pipeline), pipeline_tables(pipeline)
    known = read_known_answers(engine, tables, output.column, answers)
    model, challenger = Quality(), Quality()
    known = [
        each
        for each in known
        if (each.value if output.form in _NUMBERS else each.label) is not None
        and _is_usable(each.answer, output.form, labels)
        and _is_usable(each.challenger_answer, output.form, challenger_labels)
    ]
    if known:
        written, challenger_written, true_labels, true_values = zip(*known, strict=True)
        for quality, texts, names in ((model, written, labels), (challenger, challenger_written, challenger_labels)):
            add_answers(quality, output.form, parsed_texts(texts, output.form), names, true_labels, true_values)
    return KnownQuality(
        now,
        model.known,
        model.accuracy,
        challenger.accuracy,
        model.mean_absolute_error,
        challenger.mean_absolute_error,
        model.brier_score,
        challenger.brier_score,
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _shown(answer: Any) -> str:
    return shortened(str(answer))
