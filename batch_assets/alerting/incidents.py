"""Which incidents there are, by what is known of the hours: pure functions. No Dagster, no database, no clock.

Each looks at how things stand and not at what has happened, so that nothing is lost while nobody looks. What is
undecided, because something is still being done about it, stays as it was at the last look.
"""

import datetime
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from batch_assets.database.records.incidents import Incident, RecordedIncident
from batch_assets.database.records.profiles import JudgedHour
from batch_assets.hours import Hour
from batch_assets.monitoring.judgement import ALARM, NOT_JUDGED
from batch_assets.reporting.newest_hour import VolumeOfHour
from batch_assets.reporting.verdicts import Verdict
from batch_assets.retrying.decision import FAILED, LONGEST_PAUSE, EndedRun, HourRequest

HOUR_FAILED, CHECK_FAILED, DRIFT, DEADLINE_MISSED = "hour failed", "check failed", "drift", "deadline missed"
CANARY_FAILED = "canary failed"
VOLUME = "volume"
NEXT_HOUR = "next hour"
NEWEST_HOUR = "newest hour"
BASELINE = "baseline"
# What happened before is past: a tick stays cheap, and the first one does not report the whole history.
WINDOW = datetime.timedelta(days=7)
_CAUSE_CHARACTERS = 500


class Subject(NamedTuple):
    """What an incident is about: there is one at a time."""

    kind: str
    name: str


@dataclass(frozen=True)
class CheckOfHour:
    """What a check has found last of an hour.

    Args:
        name: The check.
        hour: The hour.
        passed: Whether it holds; None while that is not known, since a run is to say it anew.
        found: What was seen and what is expected.
    """

    name: str
    hour: Hour
    passed: bool | None
    found: str


@dataclass(frozen=True)
class Findings:
    """How things stand.

    Args:
        open: The incidents that there are.
        undecided: What is not known yet: it stays as it was at the last look.
    """

    open: list[Incident] = field(default_factory=list)
    undecided: set[Subject] = field(default_factory=set)

    def __or__(self, other: "Findings") -> "Findings":
        return Findings([*self.open, *other.open], self.undecided | other.undecided)


class Changes(NamedTuple):
    """What is new since the last look.

    Args:
        opened: Incidents that are new.
        over: Recorded ones that are over.
    """

    opened: list[Incident]
    over: list[RecordedIncident]


def changes(found: Findings, recorded: Iterable[RecordedIncident]) -> Changes:
    """Compares the incidents that there are with those that were recorded.

    Args:
        found: How things stand.
        recorded: Those that were not over at the last look, and those of whose end a receiver is yet to be notified.
    """
    known = {subject_of(each.incident): each for each in recorded if each.over_at is None}
    there = {subject_of(incident): incident for incident in found.open}
    return Changes(
        [incident for subject, incident in there.items() if subject not in known],
        [each for subject, each in known.items() if subject not in there and subject not in found.undecided],
    )


def subject_of(incident: Incident) -> Subject:
    """Returns what an incident is about."""
    return Subject(incident.kind, incident.subject)


def hours_given_up(
    requests: Mapping[Hour, HourRequest], since: datetime.datetime, recorded: Collection[Hour]
) -> Findings:
    """Returns which hours are requested no more: those that are requested again are nobody's business.

    Args:
        requests: The bookkeeping of who requested which hour.
        since: What was given up before is past.
        recorded: The hours with a recorded incident that is not over, whenever they failed.
    """
    return Findings(
        [
            _of_hour(hour, f"given up: {request.given_up_because or 'nothing is known of why'}")
            for hour, request in sorted(requests.items(), key=lambda each: each[0].start)
            if request.given_up_at and (request.given_up_at >= since or hour in recorded)
        ]
    )


def hours_left_failed(runs: Mapping[Hour, EndedRun], busy: Collection[Hour]) -> Findings:
    """Returns which hours have failed where nothing is retried by itself.

    Args:
        runs: The last run of each hour that has ended.
        busy: The hours that a run or a backfill will yet score.
    """
    return Findings(
        [
            _of_hour(hour, f"its run {run.run_id} failed, and BATCH_RETRY is leave: {run.fault or 'see there why'}")
            for hour, run in runs.items()
            if run.status == FAILED and hour not in busy
        ],
        {Subject(HOUR_FAILED, hour.key) for hour in busy},
    )


def checks_failed(
    checks: Iterable[CheckOfHour],
    requests: Mapping[Hour, HourRequest],
    failed: Collection[Hour],
    now: datetime.datetime,
) -> Findings:
    """Returns which checks of hours have failed that no retry is going to see to.

    An hour that is yet to be requested again is undecided. One that has an incident because it failed needs no second
    message.

    Args:
        checks: What the checks have found.
        requests: The bookkeeping of who requested which hour.
        failed: The hours with an incident because they failed.
        now: The present, in UTC without a zone.
    """
    # Of an older request nothing comes any more: whoever looks after them is off.
    unsettled = {hour for hour, request in requests.items() if request.requested_at > now - LONGEST_PAUSE}
    found = Findings()
    for check in checks:
        subject = f"{check.hour.key} {check.name}"
        if check.hour in unsettled or check.hour in failed or check.passed is None:
            found.undecided.add(Subject(CHECK_FAILED, subject))
        elif not check.passed:
            found.open.append(Incident(CHECK_FAILED, subject, check.hour, _sentence(check.found)))
    return found


def drifted(newest: JudgedHour | None, *, baseline_is_missing: bool) -> Findings:
    """Returns what was unusual in the newest hour that was looked at; what it could not judge stays as it was.

    Args:
        newest: What is said of that hour; None if none was looked at.
        baseline_is_missing: Whether its model has no baseline, where others of the pipeline have one.
    """
    found = Findings()
    if newest is None:
        return found
    for subject, judgement in newest.judgements.items():
        if judgement.verdict == ALARM:
            sizes = {"psi": judgement.psi, "wasserstein": judgement.wasserstein}
            measured = "".join(f", {name} {size:g}" for name, size in sizes.items() if size is not None)
            cause = _sentence(f"unusual {judgement.reason}{measured}")
            found.open.append(Incident(DRIFT, subject, newest.hour, cause))
        elif judgement.verdict == NOT_JUDGED:
            found.undecided.add(Subject(DRIFT, subject))
    if baseline_is_missing:
        cause = f"the model {newest.model_version} has none, as the model before it has: make one"
        found.open.append(Incident(DRIFT, BASELINE, newest.hour, cause))
    return found


def unusual_volume(newest: VolumeOfHour | None) -> Findings:
    """Returns whether the newest hour that was summed up has unusually few or many items.

    A feed that had stopped is back with the first item, also where it is too early to say how many are usual.

    Args:
        newest: That hour; None if none was.
    """
    if newest is None:
        return Findings()
    judgement = newest.judgement
    if judgement.verdict == ALARM:
        return Findings([Incident(VOLUME, judgement.name, newest.hour, _sentence(judgement.reason))])
    return Findings(undecided=set() if newest.items else {Subject(VOLUME, judgement.name)})


def deadline_missed(verdict: Verdict, due: Hour, failed: Collection[Hour]) -> Findings:
    """Returns whether the newest hour that must have been scored by now was not.

    Args:
        verdict: Whether it was.
        due: That hour.
        failed: The hours with an incident because they failed: that they are late as well is no news.
    """
    if verdict.passed:
        return Findings()
    if due in failed:
        return Findings(undecided={Subject(DEADLINE_MISSED, NEWEST_HOUR)})
    cause = _sentence(f"{verdict.seen}; expected: {verdict.expected}")
    return Findings([Incident(DEADLINE_MISSED, NEWEST_HOUR, due, cause)])


def canary_failed(last: EndedRun | None, now: datetime.datetime) -> Findings:
    """Returns whether the last canary found that the next hour would not be scored.

    Args:
        last: Its run; None if none has ended.
        now: The present, in UTC without a zone.
    """
    if last is None or last.status != FAILED:
        return Findings()
    cause = _sentence(f"its run {last.run_id} failed: {last.fault or 'see there why'}")
    return Findings([Incident(CANARY_FAILED, NEXT_HOUR, Hour(now.replace(minute=0, second=0, microsecond=0)), cause)])


def _of_hour(hour: Hour, cause: str) -> Incident:
    return Incident(HOUR_FAILED, hour.key, hour, _sentence(cause))


def _sentence(text: str) -> str:
    """Returns a text in one line, as short as a message needs it."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _CAUSE_CHARACTERS else f"{line[: _CAUSE_CHARACTERS - 4]} ..."
