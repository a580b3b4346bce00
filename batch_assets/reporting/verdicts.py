"""What must hold of an hour that was summed up, and of the newest one: each with what was seen and what is expected."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batch_assets.database.records.profiles import Profile
from batch_assets.hours import Hour
from batch_assets.monitoring.judgement import ALARM, NOT_JUDGED, Judgement
from batch_assets.reporting.answers import SUM_TOLERANCE
from batch_assets.reporting.summary import Outcome
from batch_assets.settings.retry import RetrySettings
from batch_assets.wording import counted

ITEMS_ADD_UP = "items_add_up"
NOTHING_IS_PENDING = "nothing_is_pending"
FAILED_SHARE_IS_WITHIN_LIMIT = "failed_share_is_within_limit"
ANSWERS_ARE_FINITE = "answers_are_finite"
PREDICTIONS_STEM_FROM_CURRENT_MODEL = "predictions_stem_from_current_model"
INPUTS_ARE_AS_IN_TRAINING = "inputs_are_as_in_training"
LABELS_ARE_AS_USUAL = "labels_are_as_usual"
ITEMS_ARE_AS_MANY_AS_USUAL = "items_are_as_many_as_usual"
NEWEST_HOUR_WAS_SCORED_IN_TIME = "newest_hour_was_scored_in_time"
# What holds where the check of that name passes.
CHECKS_OF_HOUR = {
    ITEMS_ADD_UP: "Every item of the hour is predicted, failed or pending, and none of them is two of these.",
    NOTHING_IS_PENDING: "Every item of the hour has a prediction, or a reason why not.\n\nRed: the sensor requests the "
    "hour, unless `batch-assets status` says that it is given up.",
    FAILED_SHARE_IS_WITHIN_LIMIT: "No more items of the hour have failed than BATCH_MAX_FAILED_SHARE and "
    "BATCH_MAX_FAILED_ITEMS allow.",
    ANSWERS_ARE_FINITE: "The predictions of the hour are finite numbers, and probabilities sum to one.",
    PREDICTIONS_STEM_FROM_CURRENT_MODEL: "All predictions of the hour stem from the model in force."
    "\n\nRed: `batch-assets rescore` has the hour scored with this one.",
    INPUTS_ARE_AS_IN_TRAINING: "The features of the hour, and an answer that is a number, are like those of the "
    "baseline. Without one, or with too few items, it is not judged.\n\nRed: look at what the service writes. If the "
    "change is to stay, train the model anew or make another baseline.",
    LABELS_ARE_AS_USUAL: "Each label was answered as often as in the same hours of the past four weeks. With too few "
    "items or hours it is not judged.\n\nRed: look at the features first, then at what the items are about.",
    ITEMS_ARE_AS_MANY_AS_USUAL: "The hour has about as many items as the same hour of the days before. With "
    "fewer than seven of these it is not judged.\n\nRed: look whether the service writes them.",
}
# Of those that are unusual.
FEATURES_NAMED = 10
_NO_LIMIT = "no limit is set"


@dataclass(frozen=True)
class Verdict:
    """Whether something holds.

    Args:
        name: What holds, as a check is named.
        passed: Whether it does.
        seen: What was seen, in words.
        expected: What is expected, in words.
        numbers: What is worth a plot.
        grave: Whether our own books are wrong if it does not hold.
    """

    name: str
    passed: bool
    seen: str
    expected: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    grave: bool = False


def verdicts_of_hour(outcome: Outcome, strays: int, retry: RetrySettings, model: Verdict) -> list[Verdict]:
    """Returns what holds of an hour.

    Args:
        outcome: What became of its items.
        strays: Rows of `failed_items` that stand for none of its failed items.
        retry: The limits.
        model: What `verdict_on_model` says of it.
    """
    counts = f"{outcome.predicted:,} predicted + {outcome.failed:,} failed + {outcome.pending:,} pending"
    adding_up = Verdict(
        ITEMS_ADD_UP,
        outcome.pending >= 0 and not strays,
        f"{outcome.items:,} items = {counts}; {strays:,} rows of failed_items stand for no failed item of the hour",
        "items = predicted + failed + pending; no row of failed_items without a failed item",
        {"strays": strays},
        grave=True,
    )
    pending = Verdict(
        NOTHING_IS_PENDING,
        not outcome.pending,
        f"{outcome.pending:,} of {outcome.items:,} items pending",
        "none pending",
        {"pending": outcome.pending},
    )
    return [
        adding_up,
        pending,
        verdict_on_failures(outcome.failed, outcome.items, retry),
        _verdict_on_answers(outcome),
        model,
    ]


def verdict_on_failures(failed: int, items: int, retry: RetrySettings) -> Verdict:
    """Returns whether the failed items of an hour are within the limits.

    Args:
        failed: How many have failed.
        items: Of how many.
        retry: The limits.
    """
    share, limits, passed = failed / items if items else 0.0, [], True
    if retry.max_failed_share is not None:
        limits.append(f"a share of at most {retry.max_failed_share:g} (BATCH_MAX_FAILED_SHARE)")
        passed = failed <= retry.max_failed_share * items
    if retry.max_failed_items is not None:
        limits.append(f"at most {retry.max_failed_items:,} items (BATCH_MAX_FAILED_ITEMS)")
        passed = passed and failed <= retry.max_failed_items
    seen = f"{failed:,} of {items:,} items failed, a share of {share:.4g}"
    return Verdict(
        FAILED_SHARE_IS_WITHIN_LIMIT, passed, seen, " and ".join(limits) or _NO_LIMIT, {"failed_share": round(share, 6)}
    )


def _verdict_on_answers(outcome: Outcome) -> Verdict:
    answers = outcome.answers
    odd = answers.not_finite + answers.wrong_sums
    seen = (
        f"of {outcome.predicted:,} predictions {answers.not_finite:,} are not finite, and {answers.wrong_sums:,} have "
        "probabilities that do not sum to one"
    )
    if odd:
        seen += f" (items {', '.join(map(str, answers.odd_ids))}{', ...' if odd > len(answers.odd_ids) else ''})"
    return Verdict(
        ANSWERS_ARE_FINITE,
        not odd,
        seen,
        f"all finite, and probabilities that sum to one within {SUM_TOLERANCE:g}",
        {"not_finite": answers.not_finite, "wrong_sums": answers.wrong_sums},
    )


def verdict_on_model(predicted: int, by_others: int, scored_with: str | None, in_force: str) -> Verdict:
    """Returns whether the predictions of an hour stem from the model in force.

    Args:
        predicted: How many there are.
        by_others: How many of them stem from another model than that of the last run.
        scored_with: The model of the run that scored items of the hour last; None if no run is known that did.
        in_force: The model that a run would score with now, or why there is none.
    """
    seen = f"scored last with {scored_with}" if scored_with else "no run is known that scored it"
    if by_others:
        seen += f"; {by_others:,} of {predicted:,} predictions stem from another model, see the table item_models"
    if not predicted:
        seen = "no predictions"
    passed = not predicted or (scored_with == in_force and not by_others)
    expected = f"the model {in_force}"
    return Verdict(
        PREDICTIONS_STEM_FROM_CURRENT_MODEL, passed, seen, expected, {"predicted_by_other_models": by_others}
    )


def verdicts_on_volume(judgement: Judgement) -> list[Verdict]:
    """Returns whether an hour has as many items as usual, nothing where that was not judged."""
    if judgement.verdict == NOT_JUDGED:
        return []
    expected = "no fewer and no more than chance and other days explain"
    return [Verdict(ITEMS_ARE_AS_MANY_AS_USUAL, judgement.verdict != ALARM, judgement.reason, expected)]


def verdicts_on_profile(profile: Profile, command: str) -> list[Verdict]:
    """Returns whether an hour is like those that the model was made for, as far as it was judged.

    Args:
        profile: That of the hour.
        command: Makes a baseline.
    """
    labels = _verdict_on(profile.labels, LABELS_ARE_AS_USUAL, "label", "the shares of past hours")
    if profile.baseline_is_missing:
        seen = f"not judged: the model {profile.model_version} has no baseline, as the model before it has"
        missing = Verdict(INPUTS_ARE_AS_IN_TRAINING, passed=False, seen=seen, expected=f"a baseline, by `{command}`")
        return [missing, *labels]
    return [*_verdict_on(profile.features, INPUTS_ARE_AS_IN_TRAINING, "feature", "the baseline"), *labels]


def _verdict_on(judged: Sequence[Judgement], name: str, thing: str, expected: str) -> list[Verdict]:
    """Returns an alarm if there is one, that all are as usual if all were judged, and nothing otherwise."""
    alarms = [each.name for each in judged if each.verdict == ALARM]
    if not alarms and (not judged or any(each.verdict == NOT_JUDGED for each in judged)):
        return []
    seen = f"{counted(len(judged), thing)}, all as usual"
    if alarms:
        named = ", ".join(alarms[:FEATURES_NAMED]) + (", ..." if len(alarms) > FEATURES_NAMED else "")
        seen = f"{len(alarms):,} of {counted(len(judged), thing)} unusual: {named}"
    explained = f"none further from {expected} than chance and other hours explain"
    return [Verdict(name, not alarms, seen, explained, {"alarms": len(alarms)})]


def newest_due_hour(now: datetime.datetime, deadline_minutes: int) -> Hour:
    """Returns the newest hour that must have been scored by now.

    Args:
        now: The present, in UTC without a zone.
        deadline_minutes: So long after its end an hour must have been scored.
    """
    last_end = (now - datetime.timedelta(minutes=deadline_minutes)).replace(minute=0, second=0, microsecond=0)
    return Hour(last_end - datetime.timedelta(hours=1))


def verdict_on_newest_hour(due: Hour, first: Hour, deadline_minutes: int, *, scored: bool) -> Verdict:
    """Returns whether the newest hour that must have been scored was.

    Args:
        due: The hour.
        first: The first hour of the pipeline.
        deadline_minutes: So long after its end an hour must have been scored.
        scored: Whether it has a summary.
    """
    if due.start < first.start:
        return Verdict(NEWEST_HOUR_WAS_SCORED_IN_TIME, passed=True, seen="no hour is due", expected="none is due")
    deadline = due.end + datetime.timedelta(minutes=deadline_minutes)
    return Verdict(
        NEWEST_HOUR_WAS_SCORED_IN_TIME,
        scored,
        f"the hour {due.key} {'has a' if scored else 'has no'} row in run_summary",
        f"a row by {deadline:%Y-%m-%d %H:%M} UTC, {deadline_minutes} minutes after the end of the hour",
    )
