"""What the sensor does about each hour: a pure function of what is known of it. No Dagster, no database, no clock.

Times are UTC without a zone.
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from batch_assets.hours import Hour
from batch_assets.pipeline import Pipeline
from batch_assets.settings.retry import LEAVE, WHOLE_BATCH
from batch_assets.wording import counted

# Why an hour is requested; tags of runs and the bookkeeping have them as they stand here.
LATE_ITEMS, MISSED_TICK, FAILED_RUN, FAILED_ITEMS = "late items", "missed tick", "failed run", "failed items"
# How an hour comes into the bookkeeping otherwise.
SCHEDULE, RESET = "schedule", "put back"
# Somebody wants all of its items scored again, and it is requested as a whole batch until that is done.
RESCORE = "rescore"

SUCCEEDED, FAILED, CANCELED = "succeeded", "failed", "canceled"

MOST_REQUESTS = 50
FIRST_PAUSE = datetime.timedelta(minutes=5)
LONGEST_PAUSE = datetime.timedelta(days=1)
# A run that failed longer ago is looked at only if something is left of its hour.
FAILED_RUNS_AGE = datetime.timedelta(days=1)
# What the schedule has for its tick, from its minute on.
SCHEDULE_GRACE = datetime.timedelta(minutes=5)

BUSY_RUN, BUSY_BACKFILL = "a run queued or in progress", "a backfill on its way"
BACK_OFF, NO_RUN_YET, SCHEDULED, GIVEN_UP, OPEN, TOO_MANY = (
    "a pause before the next attempt",
    "a run that was just requested",
    "the schedule's turn",
    "somebody, having been given up",
    "their own end",
    f"the next tick, since one requests no more than {MOST_REQUESTS}",
)


@dataclass(frozen=True)
class Remaining:
    """What has no prediction in an hour.

    Args:
        pending: Items that have not failed either.
        last_id: The largest id without a prediction.
        failed: Failed items that may be tried again.
        corrected: Those of them whose values are no longer those that failed.
        given_up: Failed items that have been tried often enough.
    """

    pending: int = 0
    last_id: int = 0
    failed: int = 0
    corrected: int = 0
    given_up: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to score."""
        return not self.pending and not self.failed

    @property
    def fingerprint(self) -> str:
        """Differs when something has been done about it, or something has been added."""
        return f"{self.pending} {self.last_id} {self.failed} {self.corrected}"


@dataclass(frozen=True)
class EndedRun:
    """A run of an hour that has ended.

    Args:
        run_id: The run.
        status: `succeeded`, `failed` or `canceled`.
        ended_at: When it ended.
        permanent: Whether it failed for a fault that stays until somebody fixes it.
        fault: Why it failed, as far as that is known.
        of_run: Whether what became of it lies in how it was requested or where it ran, and not in the hour.
    """

    run_id: str
    status: str
    ended_at: datetime.datetime
    permanent: bool = False
    fault: str = ""
    of_run: bool = False


class LastRuns(NamedTuple):
    """The last runs of an hour that have ended.

    Args:
        proper: The last one that tells something about the hour.
        mistaken: The last of those after it, which do not.
    """

    proper: EndedRun | None = None
    mistaken: EndedRun | None = None


@dataclass(frozen=True)
class HourRequest:
    """The bookkeeping of an hour: its row in `hour_requests`.

    Args:
        requests: How often it has been requested in a row without progress.
        reason: Why it was requested last, or how it came into the bookkeeping.
        left_over: The fingerprint of what was left then.
        requested_at: When that was.
        given_up_at: Since when it is no longer requested.
        given_up_because: And why.
    """

    requests: int
    reason: str
    left_over: str
    requested_at: datetime.datetime
    given_up_at: datetime.datetime | None = None
    given_up_because: str | None = None


@dataclass(frozen=True)
class KnownHour:
    """All that the decision about an hour rests on.

    Args:
        hour: The hour.
        remaining: What has no prediction.
        has_summary: Whether it has a row in `run_summary`.
        last_run: Its last run that has ended and tells something about it.
        mistaken_run: A later one, which does not.
        busy: What keeps it busy: a run or a backfill that has not ended; None for neither.
        request: Its bookkeeping.
    """

    hour: Hour
    remaining: Remaining = field(default_factory=Remaining)
    has_summary: bool = False
    last_run: EndedRun | None = None
    mistaken_run: EndedRun | None = None
    busy: str | None = None
    request: HourRequest | None = None


@dataclass(frozen=True)
class Request:
    """The hour is to be requested.

    Args:
        hour: The hour.
        reason: Why.
        mode: The retry mode of the run.
        before: The bookkeeping that this was decided on.
        after: The bookkeeping from now on.
    """

    hour: Hour
    reason: str
    mode: str
    before: HourRequest | None
    after: HourRequest


@dataclass(frozen=True)
class GiveUp:
    """The hour is not to be requested any more before somebody has done something; `after` says why."""

    hour: Hour
    before: HourRequest | None
    after: HourRequest


@dataclass(frozen=True)
class Clear:
    """Nothing is left of the hour: its bookkeeping goes."""

    hour: Hour
    before: HourRequest


@dataclass(frozen=True)
class Wait:
    """The hour has something left, and waits for what `why` says."""

    hour: Hour
    why: str


@dataclass
class Decisions:
    """What becomes of all hours, each list oldest first."""

    requests: list[Request] = field(default_factory=list)
    given_up: list[GiveUp] = field(default_factory=list)
    cleared: list[Clear] = field(default_factory=list)
    waiting: list[Wait] = field(default_factory=list)


def last_runs_of(hour: Hour, latest_first: Iterable[EndedRun]) -> LastRuns:
    """Returns the last run that tells something about an hour, and the last one after it, which does not.

    Whoever starts a run by mistake, before the hour has ended or with a tag that means nothing, is not to have the hour
    given up by it.

    Args:
        hour: The hour.
        latest_first: Its runs that have ended; no more of them are looked at than need be.
    """
    mistaken = None
    for run in latest_first:
        if not run.of_run and run.ended_at >= hour.end:
            return LastRuns(run, mistaken)
        mistaken = mistaken or run
    return LastRuns(None, mistaken)


def decide(
    hours: Iterable[KnownHour], now: datetime.datetime, pipeline: Pipeline, most: int = MOST_REQUESTS
) -> Decisions:
    """Decides about some hours.

    Args:
        hours: What is known of them.
        now: The present.
        pipeline: Its retry settings, its first hour, and the minute of its schedule.
        most: How many hours to request at the most.
    """
    decisions = Decisions()
    if pipeline.retry.policy == LEAVE:
        return decisions
    for known in sorted(hours, key=lambda known: known.hour.start):
        decision = _decide(known, now, pipeline) if known.hour.start >= pipeline.first_hour.start else None
        if isinstance(decision, Request) and len(decisions.requests) >= most:
            decision = Wait(known.hour, TOO_MANY)
        if isinstance(decision, Request):
            decisions.requests.append(decision)
        elif isinstance(decision, GiveUp):
            decisions.given_up.append(decision)
        elif isinstance(decision, Clear):
            decisions.cleared.append(decision)
        elif isinstance(decision, Wait):
            decisions.waiting.append(decision)
    return decisions


def _decide(known: KnownHour, now: datetime.datetime, pipeline: Pipeline) -> Request | GiveUp | Clear | Wait | None:
    why = _waits_for(known, now)
    if why:
        return Wait(known.hour, why)
    if _is_done(known):
        return Clear(known.hour, known.request) if known.request else None
    without_progress = _requests_without_progress(known)
    because = _hopeless(known, without_progress, pipeline.retry.max_attempts)
    if because:
        return _give_up(known, now, because)
    reason, due, waits_for = _reason(known, without_progress, pipeline.schedule_minute)
    if now < due:
        return Wait(known.hour, waits_for)
    after = HourRequest(without_progress + 1, reason, known.remaining.fingerprint, _next_second(now))
    mode = WHOLE_BATCH if reason == RESCORE else pipeline.retry.policy
    return Request(known.hour, reason, mode, known.request, after)


def _waits_for(known: KnownHour, now: datetime.datetime) -> str | None:
    if known.hour.end > now:
        return OPEN
    if known.busy:
        return known.busy
    if _requested_just_now(known, now):
        return NO_RUN_YET
    if known.request and known.request.given_up_at and not _is_done(known):
        return None if _starts_anew(known.last_run, known.remaining, known.request) else GIVEN_UP
    return None


def _is_done(known: KnownHour) -> bool:
    """Whether nothing is left; a run that failed may yet have to sum up what it has scored."""
    if _awaits_rescoring(known):
        return False
    return known.remaining.is_empty and (known.last_run is None or known.last_run.status != FAILED)


def _awaits_rescoring(known: KnownHour) -> bool:
    """Whether somebody wants the hour scored again, and no run that was requested for that has done it."""
    request, run = known.request, known.last_run
    if request is None or request.reason != RESCORE:
        return False
    # A run that was under way when it was asked for may have the old model.
    done = request.requests and run and run.status == SUCCEEDED and _is_answer(run, request)
    return not done


def _is_answer(run: EndedRun, request: HourRequest | None) -> bool:
    """Whether the run ended after the last request, and so tells what came of it."""
    return request is None or run.ended_at >= request.requested_at


def _requested_just_now(known: KnownHour, now: datetime.datetime) -> bool:
    request, run = known.request, known.last_run
    if request is None or request.reason == RESET or request.given_up_at or (run and _is_answer(run, request)):
        return False
    if request.reason == RESCORE and not request.requests:
        return False
    return now < request.requested_at + _pause(request.requests)


def _starts_anew(run: EndedRun | None, remaining: Remaining, request: HourRequest) -> bool:
    """Whether an hour that was given up has been run by somebody since, or has got new items after a success."""
    if run is None or request.given_up_at is None:
        return False
    return run.ended_at >= request.given_up_at or (
        run.status == SUCCEEDED and remaining.fingerprint != request.left_over
    )


def _requests_without_progress(known: KnownHour) -> int:
    request, run = known.request, known.last_run
    if request is None or request.given_up_at:
        return 0
    if (
        run
        and _is_answer(run, request)
        and run.status == SUCCEEDED
        and known.remaining.fingerprint != request.left_over
    ):
        return 0
    return request.requests


def _reason(known: KnownHour, without_progress: int, schedule_minute: int) -> tuple[str, datetime.datetime, str]:
    """Returns why the hour is to be requested, from when on, and what it waits for until then."""
    remaining, run, request = known.remaining, known.last_run, known.request
    at_once = known.hour.end
    if _awaits_rescoring(known):
        failed = request and request.requests and run and run.status == FAILED
        return RESCORE, run.ended_at + _pause(without_progress) if run and failed else at_once, BACK_OFF
    if run is None and not known.has_summary:
        was_reset = request and request.reason == RESET
        scheduled = known.hour.end + datetime.timedelta(minutes=schedule_minute)
        return MISSED_TICK, at_once if was_reset else scheduled + SCHEDULE_GRACE, SCHEDULED
    reason = LATE_ITEMS if remaining.pending else FAILED_ITEMS
    due = run.ended_at + _pause(without_progress) if run else at_once
    if run and run.status == FAILED:
        reason = FAILED_RUN
    elif not without_progress and (remaining.pending or remaining.corrected):
        due = at_once
    if request and request.reason == RESET and run and not _is_answer(run, request):
        due = at_once
    return reason, due, BACK_OFF


def _pause(without_progress: int) -> datetime.timedelta:
    # Bounded twice: whoever sets the attempts may set many.
    return min(FIRST_PAUSE * 2.0 ** min(without_progress, 20), LONGEST_PAUSE)


def _next_second(now: datetime.datetime) -> datetime.datetime:
    """Returns the present without fractions, which the tables do not have; never before what has already ended."""
    return now.replace(microsecond=0) + datetime.timedelta(seconds=1)


def _hopeless(known: KnownHour, without_progress: int, max_attempts: int) -> str | None:
    """Returns why the hour is not to be requested again, None if it is."""
    run, request = known.last_run, known.request
    answer = run if run and _is_answer(run, request) else None
    if answer and answer.status == CANCELED:
        return "its run was canceled"
    if answer and answer.permanent:
        return answer.fault or f"its run {answer.run_id} failed"
    if without_progress < max_attempts:
        return None
    often = f"it was requested {counted(without_progress, 'time')} without progress"
    mistaken = known.mistaken_run
    if mistaken and mistaken.status == FAILED and _is_answer(mistaken, request):
        answer = mistaken
    if answer is None:
        return f"{often}: no run of it was ever started"
    if answer.status == FAILED:
        return f"{often}, and its last run {answer.run_id} failed: {answer.fault or 'see there why'}"
    return f"{often}: its last run {answer.run_id} succeeded and left the same items without a prediction"


def _give_up(known: KnownHour, now: datetime.datetime, because: str) -> GiveUp:
    before, at = known.request, _next_second(now)
    after = HourRequest(
        before.requests if before else 0,
        before.reason if before else "",
        known.remaining.fingerprint,
        before.requested_at if before else at,
        at,
        because,
    )
    return GiveUp(known.hour, before, after)
