"""What the sensor decides about an hour, rule by rule, at the boundaries."""

import datetime
from dataclasses import replace

import pytest

from batch_assets.hours import Hour
from batch_assets.pipeline import pipeline_from_environment
from batch_assets.retrying.decision import (
    BACK_OFF,
    BUSY_BACKFILL,
    BUSY_RUN,
    CANCELED,
    FAILED,
    FAILED_ITEMS,
    FAILED_RUN,
    GIVEN_UP,
    LATE_ITEMS,
    LONGEST_PAUSE,
    MISSED_TICK,
    MOST_REQUESTS,
    NO_RUN_YET,
    OPEN,
    RESCORE,
    RESET,
    SCHEDULE,
    SCHEDULED,
    SUCCEEDED,
    TOO_MANY,
    Clear,
    Decisions,
    EndedRun,
    GiveUp,
    HourRequest,
    KnownHour,
    Remaining,
    Request,
    Wait,
    decide,
)
from batch_assets.settings.retry import RetrySettings

FIRST = Hour(datetime.datetime.fromisoformat("2026-11-01"))
HOUR = Hour(datetime.datetime.fromisoformat("2026-11-02T05:00"))
ENDED = datetime.datetime.fromisoformat("2026-11-02T08:00")
NOW = datetime.datetime.fromisoformat("2026-11-02T09:00")
SECOND, MINUTE = datetime.timedelta(seconds=1), datetime.timedelta(minutes=1)
PIPELINE = replace(pipeline_from_environment({}), first_hour=FIRST)

PENDING = Remaining(pending=3, last_id=30)
BAD = Remaining(failed=2, last_id=20)
CORRECTED = Remaining(failed=2, corrected=1, last_id=20)
NOTHING = Remaining()


def run(
    status: str = SUCCEEDED, ended: datetime.datetime = ENDED, *, fault: str = "", permanent: bool = False
) -> EndedRun:
    return EndedRun("4711", status, ended, permanent, fault)


def requested(
    times: int, remaining: Remaining = PENDING, at: datetime.datetime = ENDED - MINUTE, reason: str = LATE_ITEMS
) -> HourRequest:
    return HourRequest(times, reason, remaining.fingerprint, at)


GIVEN_UP_AT = ENDED + MINUTE


def given_up(remaining: Remaining = PENDING, at: datetime.datetime = GIVEN_UP_AT) -> HourRequest:
    return replace(requested(3, remaining), given_up_at=at, given_up_because="the model is missing")


def decided(known: KnownHour, now: datetime.datetime = NOW, settings: RetrySettings = PIPELINE.retry) -> object:
    """The one decision about an hour; None for nothing at all."""
    decisions = decide([known], now, replace(PIPELINE, retry=settings))
    every = [*decisions.requests, *decisions.given_up, *decisions.cleared, *decisions.waiting]
    assert len(every) <= 1
    return every[0] if every else None


def reason_of(known: KnownHour, now: datetime.datetime = NOW) -> str:
    decision = decided(known, now)
    assert isinstance(decision, Request), decision
    return decision.reason


def requested_from(known: KnownHour, reason: str, moment: datetime.datetime, why: str = BACK_OFF) -> None:
    """It is requested for this reason from that moment on, and waits until then."""
    assert decided(known, moment - SECOND) == Wait(HOUR, why)
    assert reason_of(known, moment) == reason


def sentence_of(known: KnownHour) -> str:
    decision = decided(known)
    assert isinstance(decision, GiveUp), decision
    assert decision.after.given_up_at == NOW + SECOND
    assert decision.before == known.request
    return decision.after.given_up_because or ""


# Which hours


def test_an_hour_in_which_nothing_is_left_is_left_alone() -> None:
    assert decided(KnownHour(HOUR)) is None
    assert decided(KnownHour(HOUR, NOTHING, has_summary=True, last_run=run())) is None
    assert decided(KnownHour(HOUR, Remaining(given_up=7), has_summary=True, last_run=run())) is None


def test_an_open_hour_waits_for_its_end_and_is_done_from_then_on() -> None:
    open_hour = KnownHour(HOUR, PENDING, has_summary=True)
    assert decided(open_hour, HOUR.end - SECOND) == Wait(HOUR, OPEN)
    assert reason_of(open_hour, HOUR.end) == LATE_ITEMS


def test_hours_before_the_first_are_nobodys_business() -> None:
    before = Hour(FIRST.start - datetime.timedelta(hours=1))
    assert decided(KnownHour(before, PENDING, has_summary=True)) is None
    assert isinstance(decided(KnownHour(FIRST, PENDING, has_summary=True)), Request)


@pytest.mark.parametrize("busy", [BUSY_RUN, BUSY_BACKFILL])
@pytest.mark.parametrize("request_", [None, requested(0, reason=RESET), requested(3)])
def test_an_hour_that_a_run_or_a_backfill_will_yet_score_waits_for_it(busy: str, request_: HourRequest | None) -> None:
    known = KnownHour(
        HOUR, PENDING, has_summary=True, last_run=run(FAILED, permanent=True), busy=busy, request=request_
    )
    assert decided(known) == Wait(HOUR, busy)


def test_hours_are_requested_oldest_first_and_no_more_than_fifty_a_tick() -> None:
    hours = [Hour(HOUR.start - datetime.timedelta(hours=back)) for back in range(60)]
    first = Hour(hours[-1].start)
    decisions = decide(
        [KnownHour(hour, PENDING, has_summary=True) for hour in hours], NOW, replace(PIPELINE, first_hour=first)
    )
    assert [request.hour for request in decisions.requests] == sorted(hours, key=lambda hour: hour.start)[:50]
    assert [wait.why for wait in decisions.waiting] == [TOO_MANY] * 10
    assert MOST_REQUESTS == 50
    assert len(decide([KnownHour(HOUR, PENDING, has_summary=True)], NOW, PIPELINE, most=0).requests) == 0


# What for


def test_the_policy_decides_the_mode_and_leave_requests_nothing() -> None:
    known = KnownHour(HOUR, PENDING, has_summary=True, request=given_up())
    late = replace(known, request=None)
    for mode in ("partial", "whole_batch"):
        decision = decided(late, settings=RetrySettings(policy=mode))
        assert isinstance(decision, Request)
        assert decision.mode == mode
    assert decide([known, late], NOW, replace(PIPELINE, retry=RetrySettings(policy="leave"))) == Decisions()


def test_an_hour_that_nobody_has_run_is_a_missed_tick_five_minutes_after_the_schedules_turn() -> None:
    requested_from(KnownHour(HOUR, PENDING), MISSED_TICK, HOUR.end + 24 * MINUTE, SCHEDULED)


def test_late_items_are_requested_at_once() -> None:
    assert reason_of(KnownHour(HOUR, PENDING, has_summary=True, last_run=run()), ENDED) == LATE_ITEMS
    # Also where nobody remembers the run, or nothing was summed up.
    assert reason_of(KnownHour(HOUR, PENDING, has_summary=True), HOUR.end) == LATE_ITEMS
    assert reason_of(KnownHour(HOUR, PENDING, last_run=run()), ENDED) == LATE_ITEMS


def test_failed_items_are_tried_again_five_minutes_after_the_run() -> None:
    requested_from(KnownHour(HOUR, BAD, has_summary=True, last_run=run()), FAILED_ITEMS, ENDED + 5 * MINUTE)


def test_corrected_items_are_tried_again_at_once() -> None:
    assert reason_of(KnownHour(HOUR, CORRECTED, has_summary=True, last_run=run()), ENDED) == FAILED_ITEMS


@pytest.mark.parametrize("remaining", [PENDING, BAD, CORRECTED, NOTHING])
def test_a_failed_run_is_repeated_after_five_minutes_also_when_only_the_summary_is_missing(
    remaining: Remaining,
) -> None:
    requested_from(KnownHour(HOUR, remaining, last_run=run(FAILED)), FAILED_RUN, ENDED + 5 * MINUTE)


# Progress


@pytest.mark.parametrize(("times", "minutes"), [(1, 10), (2, 20)])
def test_the_pause_doubles_with_every_request_without_progress(times: int, minutes: int) -> None:
    for last_run, reason in ((run(FAILED), FAILED_RUN), (run(), LATE_ITEMS)):
        known = KnownHour(HOUR, PENDING, has_summary=True, last_run=last_run, request=requested(times))
        requested_from(known, reason, ENDED + minutes * MINUTE)
        decision = decided(known)
        assert isinstance(decision, Request)
        assert decision.after.requests == times + 1


def test_the_pause_stays_bounded_however_many_attempts_are_set() -> None:
    known = KnownHour(HOUR, PENDING, last_run=run(FAILED), request=requested(5000))
    assert isinstance(decided(known, ENDED + LONGEST_PAUSE, RetrySettings(max_attempts=10_000)), Request)


def test_what_a_request_writes_down_is_what_was_left_and_the_next_full_second() -> None:
    moment = NOW + datetime.timedelta(milliseconds=300)
    decision = decided(KnownHour(HOUR, PENDING, has_summary=True, last_run=run()), moment)
    assert decision == Request(
        HOUR, LATE_ITEMS, "partial", None, HourRequest(1, LATE_ITEMS, PENDING.fingerprint, NOW + SECOND)
    )


@pytest.mark.parametrize(
    "remaining",
    [replace(PENDING, pending=2), replace(PENDING, last_id=31), replace(PENDING, failed=1), replace(BAD, corrected=1)],
)
def test_a_run_that_succeeded_and_left_something_else_starts_the_count_anew(remaining: Remaining) -> None:
    decision = decided(
        KnownHour(HOUR, remaining, has_summary=True, last_run=run(), request=requested(3)), ENDED + SECOND
    )
    assert isinstance(decision, Request)
    assert decision.after.requests == 1


def test_what_a_failed_run_left_is_no_progress_whatever_it_is() -> None:
    known = KnownHour(HOUR, replace(PENDING, pending=1), last_run=run(FAILED), request=requested(1))
    requested_from(known, FAILED_RUN, ENDED + 10 * MINUTE)


def test_the_schedules_own_run_does_not_count_as_a_request() -> None:
    claimed = HourRequest(0, SCHEDULE, "", ENDED - MINUTE)
    requested_from(KnownHour(HOUR, PENDING, last_run=run(FAILED), request=claimed), FAILED_RUN, ENDED + 5 * MINUTE)
    late = KnownHour(HOUR, PENDING, has_summary=True, last_run=run(), request=claimed)
    assert reason_of(late, ENDED) == LATE_ITEMS


def test_a_request_whose_run_is_not_there_yet_is_waited_for_and_then_counts_as_one_without_progress() -> None:
    for times, minutes in ((0, 5), (1, 10)):
        request = requested(times, at=NOW - MINUTE, reason=SCHEDULE if not times else MISSED_TICK)
        for last_run in (None, run(FAILED), run()):
            known = KnownHour(HOUR, PENDING, last_run=last_run, request=request)
            due = request.requested_at + minutes * MINUTE
            assert decided(known, due - SECOND) == Wait(HOUR, NO_RUN_YET)
            decision = decided(known, due)
            assert isinstance(decision, Request)
            assert decision.after.requests == times + 1


def test_the_bookkeeping_of_an_hour_in_which_nothing_is_left_is_cleared() -> None:
    for request in (requested(2), given_up(), requested(0, reason=RESET, at=NOW)):
        for last_run in (run(), run(CANCELED)):
            known = KnownHour(HOUR, NOTHING, has_summary=True, last_run=last_run, request=request)
            assert decided(known) == Clear(HOUR, request)
    assert decided(KnownHour(HOUR, NOTHING, request=requested(1, at=NOW))) == Wait(HOUR, NO_RUN_YET)


# Giving up


def test_an_hour_is_given_up_after_as_many_requests_without_progress_as_are_allowed() -> None:
    failed = run(FAILED, fault="The worker died.")
    assert isinstance(decided(KnownHour(HOUR, PENDING, last_run=failed, request=requested(2))), Request)
    sentence = sentence_of(KnownHour(HOUR, PENDING, last_run=failed, request=requested(3)))
    assert sentence == "it was requested 3 times without progress, and its last run 4711 failed: The worker died."
    sentence = sentence_of(KnownHour(HOUR, PENDING, has_summary=True, last_run=run(), request=requested(3)))
    assert sentence.startswith(
        "it was requested 3 times without progress: its last run 4711 succeeded and left the same"
    )
    lost = KnownHour(HOUR, PENDING, request=requested(3))
    assert sentence_of(lost) == "it was requested 3 times without progress: no run of it was ever started"
    once = KnownHour(HOUR, PENDING, last_run=failed, request=requested(1))
    assert isinstance(decided(once, settings=RetrySettings(max_attempts=1)), GiveUp)


@pytest.mark.parametrize("remaining", [PENDING, NOTHING])
def test_a_permanent_fault_gives_the_hour_up_at_once_with_its_sentence(remaining: Remaining) -> None:
    failed = run(FAILED, ENDED, fault="The model does not fit.", permanent=True)
    assert sentence_of(KnownHour(HOUR, remaining, last_run=failed)) == "The model does not fit."
    assert sentence_of(KnownHour(HOUR, remaining, last_run=failed, request=requested(1))) == "The model does not fit."


def test_an_hour_whose_run_somebody_canceled_waits_for_somebody() -> None:
    assert sentence_of(KnownHour(HOUR, PENDING, has_summary=True, last_run=run(CANCELED))) == "its run was canceled"


@pytest.mark.parametrize(
    "last_run", [run(FAILED), run(FAILED, permanent=True, fault="The model is missing."), run(CANCELED), run(), None]
)
def test_an_hour_that_was_given_up_is_neither_requested_nor_given_up_again(last_run: EndedRun | None) -> None:
    for now in (NOW, NOW + datetime.timedelta(days=30)):
        assert decided(KnownHour(HOUR, PENDING, last_run=last_run, request=given_up()), now) == Wait(HOUR, GIVEN_UP)


def test_an_hour_stays_given_up_from_the_tick_after_the_one_that_gave_it_up() -> None:
    known = KnownHour(HOUR, PENDING, last_run=run(FAILED, NOW - SECOND / 4, permanent=True, fault="No model."))
    decision = decided(known)
    assert isinstance(decision, GiveUp)
    assert decided(replace(known, request=decision.after), NOW + MINUTE) == Wait(HOUR, GIVEN_UP)


def test_a_run_by_hand_that_succeeds_lets_an_hour_that_was_given_up_be_requested_again() -> None:
    later = GIVEN_UP_AT + MINUTE
    decision = decided(KnownHour(HOUR, PENDING, has_summary=True, last_run=run(ended=later), request=given_up()), later)
    assert isinstance(decision, Request)
    assert decision.after == HourRequest(1, LATE_ITEMS, PENDING.fingerprint, later + SECOND)


def test_a_run_by_hand_that_fails_again_is_judged_anew() -> None:
    later = GIVEN_UP_AT + MINUTE
    crashed = KnownHour(HOUR, PENDING, last_run=run(FAILED, later), request=given_up())
    requested_from(crashed, FAILED_RUN, later + 5 * MINUTE)
    hopeless = replace(crashed, last_run=run(FAILED, later, fault="Another fault.", permanent=True))
    assert sentence_of(hopeless) == "Another fault."


def test_new_items_after_a_success_let_an_hour_that_was_given_up_be_requested_again() -> None:
    more = replace(PENDING, pending=4, last_id=40)
    assert reason_of(KnownHour(HOUR, more, has_summary=True, last_run=run(), request=given_up())) == LATE_ITEMS
    # But not after a failure: whatever failed still fails.
    still = KnownHour(HOUR, more, last_run=run(FAILED, permanent=True), request=given_up())
    assert decided(still) == Wait(HOUR, GIVEN_UP)


# Putting back


@pytest.mark.parametrize(
    ("last_run", "reason"),
    [
        (run(FAILED, permanent=True, fault="The model is missing."), FAILED_RUN),
        (run(FAILED), FAILED_RUN),
        (run(CANCELED), LATE_ITEMS),
        (run(), LATE_ITEMS),
        (None, MISSED_TICK),
    ],
)
def test_an_hour_that_was_put_back_is_requested_at_once_whatever_its_last_run_was(
    last_run: EndedRun | None, reason: str
) -> None:
    reset_attempts = HourRequest(0, RESET, "", ENDED + SECOND)
    assert reason_of(KnownHour(HOUR, PENDING, last_run=last_run, request=reset_attempts), ENDED + SECOND) == reason


def test_an_hour_that_was_put_back_and_fails_again_for_good_is_given_up_again() -> None:
    reset_attempts = HourRequest(0, RESET, "", ENDED - MINUTE)
    failed = run(FAILED, permanent=True, fault="Still no model.")
    assert sentence_of(KnownHour(HOUR, PENDING, last_run=failed, request=reset_attempts)) == "Still no model."
    crashed = KnownHour(HOUR, PENDING, last_run=run(FAILED), request=reset_attempts)
    requested_from(crashed, FAILED_RUN, ENDED + 5 * MINUTE)


# Scored again


def rescore(times: int = 0, at: datetime.datetime = ENDED + MINUTE) -> HourRequest:
    return HourRequest(times, RESCORE, "", at)


def test_an_hour_that_is_done_is_scored_again_as_a_whole_batch_at_once_where_somebody_wants_that() -> None:
    for last in (None, run(), run(FAILED), run(ended=ENDED + 2 * MINUTE)):
        decision = decided(KnownHour(HOUR, NOTHING, has_summary=True, last_run=last, request=rescore()))
        assert isinstance(decision, Request), last
        assert (decision.reason, decision.mode, decision.after.requests) == (RESCORE, "whole_batch", 1)


def test_it_is_done_with_the_success_of_the_run_that_was_requested_for_it() -> None:
    known = KnownHour(HOUR, NOTHING, has_summary=True, last_run=run(), request=rescore(1))
    assert decided(known, ENDED + 2 * MINUTE) == Wait(HOUR, NO_RUN_YET)
    after = replace(known, last_run=run(ended=ENDED + 2 * MINUTE))
    assert decided(after) == Clear(HOUR, rescore(1))
    # What is left of it then is tried again like anything else.
    decision = decided(replace(after, remaining=BAD))
    assert isinstance(decision, Request)
    assert (decision.reason, decision.mode) == (FAILED_ITEMS, "partial")


def test_one_that_fails_is_requested_again_after_a_pause_and_given_up_in_the_end() -> None:
    failed = run(FAILED, ENDED + 2 * MINUTE, fault="The worker is gone.")
    known = KnownHour(HOUR, NOTHING, has_summary=True, last_run=failed, request=rescore(1))
    requested_from(known, RESCORE, ENDED + 12 * MINUTE)
    assert "requested 3 times without progress" in sentence_of(replace(known, request=rescore(3)))
    hopeless = replace(known, last_run=run(FAILED, ENDED + 2 * MINUTE, permanent=True, fault="the model is missing"))
    assert sentence_of(hopeless) == "the model is missing"


def test_one_that_was_given_up_waits_for_somebody_and_is_done_with_a_run_of_theirs() -> None:
    request = replace(rescore(3), given_up_at=GIVEN_UP_AT, given_up_because="the model is missing")
    known = KnownHour(HOUR, NOTHING, has_summary=True, last_run=run(FAILED, ENDED), request=request)
    assert decided(known) == Wait(HOUR, GIVEN_UP)
    assert decided(replace(known, last_run=run(ended=GIVEN_UP_AT + MINUTE))) == Clear(HOUR, request)


def test_a_busy_hour_is_scored_again_when_it_is_free() -> None:
    known = KnownHour(HOUR, NOTHING, has_summary=True, last_run=run(), request=rescore())
    assert decided(replace(known, busy=BUSY_RUN)) == Wait(HOUR, BUSY_RUN)
