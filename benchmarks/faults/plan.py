"""Which rounds and faults there are: drawn from the seed."""

import datetime
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MODES = ("partial", "whole_batch")
KINDS = (
    "kill_worker",
    "cut_connection",
    "kill_query",
    "restart_server",
    "kill_server",
    "service",
    "rival",
    "row_locks",
    "read_only",
)
# What is no reason for a run to fail: it is to be waited for, or does not concern it. (A rival may make a run fail
# that is told not to wait; its output must name the other run then.)
HARMLESS = {"service", "row_locks", "rival"}
# Where faults are meant to hit, and how often.
STEPS = {"start": 1, "raw_items": 1, "predictions": 7, "run_summary": 2}
ITEMS = (3_000, 12_000, 25_000)
FIRST_HOUR = datetime.datetime(2026, 1, 1)  # noqa: DTZ001 - UTC without a zone, as in the database
BAD = ("[5.1, null, 1.4, 0.2]", "[1, 2]", '"setosa"', '{"width": 1}', '[5.1, "x", 1.4, 0.2]', "[1e300, 1, 1, 1]")
# One in so many items is bad from the beginning.
BAD_EVERY = 97
# No model says this of an item: by it predictions of "an old model" are told from new ones.
OLD = "[0.5, 0.25, 0.25]"
# The service writes to these items and to those that it inserts; all others are nobody's but the runs'.
SERVICE_SHARE = 5
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Fault:
    """A fault as it is planned: in which step, and after which part of the step's usual duration."""

    kind: str
    step: str
    part: float


@dataclass(frozen=True)
class Plan:
    """A round as the seed has it."""

    number: int
    mode: str
    busy: str
    items: int
    scored: float
    command_line: bool
    faults: tuple[Fault, ...]

    @property
    def start(self) -> datetime.datetime:
        """The start of the round's hour."""
        return FIRST_HOUR + datetime.timedelta(hours=self.number)


def plan(number: int, seed: int, kinds: Sequence[str], modes: Sequence[str]) -> Plan:
    """Draws a round."""
    draw = random.Random(f"{seed}/{number}")
    steps = draw.choices(list(STEPS), list(STEPS.values()), k=len(kinds))
    return Plan(
        number=number,
        mode=modes[number % len(modes)],
        busy=draw.choice(["wait", "fail"]),
        items=draw.choice(ITEMS),
        scored=draw.choice([0, 0.3]),
        command_line=draw.random() < 0.1,
        # The root favours the later part of a step: the first part of the scoring one loads the model.
        faults=tuple(Fault(kind, step, draw.random() ** 0.5) for kind, step in zip(kinds, steps, strict=True)),
    )


def kinds_in_turn(seed: int) -> Iterator[str]:
    """Yields kinds in a random order in which each has its turn as often as every other."""
    draw = random.Random(seed)
    while True:
        yield from draw.sample(KINDS, len(KINDS))
