"""What the sensor decides about an hour over random histories of it: when it may be given up, and that it ends well.

A history is made of what may happen to an hour: items come, somebody starts runs by hand, well or by mistake, cancels
one or puts the hour back, ticks pass, and the runs that these request end in one way or another.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.hours import Hour
from batch_assets.pipeline import pipeline_from_environment
from batch_assets.retrying.decision import (
    CANCELED,
    FAILED,
    GIVEN_UP,
    LONGEST_PAUSE,
    RESCORE,
    RESET,
    SUCCEEDED,
    Clear,
    EndedRun,
    GiveUp,
    HourRequest,
    KnownHour,
    Remaining,
    Request,
    Wait,
    decide,
    last_runs_of,
)
from batch_assets.settings.retry import RetrySettings

FIRST = Hour(datetime.datetime.fromisoformat("2026-11-01"))
HOUR = Hour(datetime.datetime.fromisoformat("2026-11-02T05:00"))
ATTEMPTS = 2
PIPELINE = replace(pipeline_from_environment({}), first_hour=FIRST, retry=RetrySettings(max_attempts=ATTEMPTS))
MINUTE = datetime.timedelta(minutes=1)

# What becomes of a run, and whether that says something about the hour.
SCORED, SCORED_NOTHING, CRASHED, HOPELESS, STOPPED, MISTAKEN = (
    "scored", "scored nothing", "crashed", "hopeless", "stopped", "mistaken",
)  # fmt: skip
ENDS = [SCORED, SCORED_NOTHING, CRASHED, HOPELESS, STOPPED, MISTAKEN]
STATUS = {SCORED: SUCCEEDED, SCORED_NOTHING: SUCCEEDED, STOPPED: CANCELED}


@dataclass
class History:
    """An hour as it goes on, from the middle of it."""

    now: datetime.datetime = HOUR.start + 30 * MINUTE
    pending: int = 0
    items: int = 0
    summed_up: bool = False
    runs: list[EndedRun] = field(default_factory=list)
    request: HourRequest | None = None
    # The last end of a run that says something about the hour, kept beside what is tested.
    last_proper: str | None = None
    requests_in_a_row: int = 0
    # What was scored before a run that came to nothing is not seen by the ticks after it.
    progress: bool = False

    @property
    def remaining(self) -> Remaining:
        return Remaining(pending=self.pending, last_id=self.items if self.pending else 0)

    def items_come(self, count: int) -> None:
        self.pending += count
        self.items += count

    def run_ends(self, end: str) -> None:
        """A run ends the way it is told, or by mistake in an hour that is still open."""
        self.now += MINUTE
        is_open = self.now < HOUR.end
        if is_open and end != STOPPED:
            end = MISTAKEN
        status, number = STATUS.get(end, FAILED), len(self.runs)
        # That the hour is open is known by the time as well: its run need not say so.
        of_run = end == MISTAKEN and not is_open
        permanent = end in (HOPELESS, MISTAKEN)
        self.runs.append(EndedRun(str(number), status, self.now, permanent, end, of_run))
        if end != MISTAKEN and not is_open:
            self.last_proper = end
            self.progress = end == SCORED and self.pending > 0
        if end == SCORED:
            self.pending = 0
        if end in (SCORED, SCORED_NOTHING):
            self.summed_up = True

    def put_back(self) -> None:
        if self.pending:
            self.request = HourRequest(0, RESET, "", self.now.replace(microsecond=0) + MINUTE / 60)
            self.requests_in_a_row = 0

    def rescore(self) -> None:
        """Somebody wants all of it scored again."""
        if self.summed_up and self.now >= HOUR.end:
            self.request = HourRequest(0, RESCORE, "", self.now.replace(microsecond=0) + MINUTE / 60)
            self.requests_in_a_row = 0

    def tick(self) -> Request | GiveUp | Clear | Wait | None:
        self.now += MINUTE
        proper, mistaken = last_runs_of(HOUR, reversed(self.runs))
        known = KnownHour(HOUR, self.remaining, self.summed_up, proper, mistaken, None, self.request)
        decisions = decide([known], self.now, PIPELINE)
        if self.progress:
            self.requests_in_a_row, self.progress = 0, False
        every = (decisions.requests, decisions.given_up, decisions.cleared, decisions.waiting)
        found: list[Request | GiveUp | Clear | Wait] = [decision for kind in every for decision in kind]
        assert len(found) <= 1
        decision = found[0] if found else None
        if isinstance(decision, Request):
            self.request = decision.after
            self.requests_in_a_row += 1
        elif isinstance(decision, GiveUp):
            self.request = decision.after
            self._check_given_up(decision)
        elif isinstance(decision, Clear):
            self.request = None
            self.requests_in_a_row = 0
        return decision

    def _check_given_up(self, decision: GiveUp) -> None:
        because = decision.after.given_up_because or ""
        if "without progress" in because:
            assert self.requests_in_a_row >= ATTEMPTS, because
        else:
            assert self.last_proper in (HOPELESS, STOPPED), because
            assert because in (HOPELESS, "its run was canceled")
        self.requests_in_a_row = 0


Step = Callable[[History], object]


def steps() -> st.SearchStrategy[list[Step]]:
    """What happens, in the order in which it does."""

    def passes(minutes: int) -> Step:
        return lambda history: setattr(history, "now", history.now + minutes * MINUTE)

    def tick_and(end: str | None) -> Step:
        def happens(history: History) -> None:
            if isinstance(history.tick(), Request) and end:  # without an end its run was lost
                history.run_ends(end)

        return happens

    return st.lists(
        st.one_of(
            st.integers(1, 3).map(lambda count: lambda history: history.items_come(count)),
            st.sampled_from(ENDS).map(lambda end: lambda history: history.run_ends(end)),
            st.sampled_from([1, 5, 20, 45, 24 * 60]).map(passes),
            st.sampled_from([*ENDS, None]).map(tick_and),
            st.just(History.put_back),
            st.just(History.rescore),
        ),
        max_size=40,
    )


@settings(max_examples=1000)
@given(steps())
def test_an_hour_is_given_up_for_nothing_but_what_its_last_proper_run_said_or_for_requests_without_progress(
    happens: list[Step],
) -> None:
    history = History()
    for step in happens:
        step(history)  # where a tick gives the hour up, it is checked why


@settings(max_examples=500)
@given(steps())
def test_an_hour_with_something_to_score_is_scored_in_the_end_unless_it_is_given_up(happens: list[Step]) -> None:
    history = History()
    for step in happens:
        step(history)
    history.items_come(1)
    history.now = max(history.now, HOUR.end) + LONGEST_PAUSE
    for _ in range(2):
        decision = history.tick()
        if isinstance(decision, Request):
            history.run_ends(SCORED)
        history.now += LONGEST_PAUSE
    given_up = history.request is not None and history.request.given_up_at is not None
    assert given_up or not history.pending
    if given_up:
        assert history.tick() == Wait(HOUR, GIVEN_UP)


@settings(max_examples=500)
@given(steps())
def test_an_hour_that_somebody_wants_scored_again_is_requested_at_once_and_done_with_a_success(
    happens: list[Step],
) -> None:
    history = History()
    for step in happens:
        step(history)
    history.now = max(history.now, HOUR.end)
    history.run_ends(SCORED)
    history.rescore()
    decision = history.tick()
    assert isinstance(decision, Request)
    assert (decision.reason, decision.mode) == (RESCORE, "whole_batch")
    history.run_ends(SCORED)
    history.tick()
    assert history.request is None


@settings(max_examples=500)
@given(steps(), st.lists(st.sampled_from([MISTAKEN]), min_size=1, max_size=3))
def test_mistaken_runs_change_no_decision(happens: list[Step], mistakes: list[str]) -> None:
    history, with_mistakes = History(), History()
    for step in happens:
        step(history)
        step(with_mistakes)
    before = history.tick()
    for _ in mistakes:
        number = len(with_mistakes.runs)
        with_mistakes.runs.append(EndedRun(str(number), FAILED, with_mistakes.now, fault="typo", of_run=True))
    after = with_mistakes.tick()
    if isinstance(before, GiveUp) and isinstance(after, GiveUp):  # which may name the mistaken one
        before = after
    assert after == before
