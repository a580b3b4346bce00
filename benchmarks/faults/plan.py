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
# What hits the server or the rows, and with them every pipeline at once; the others hit the runs of one.
OF_ALL = {"restart_server", "kill_server", "service", "row_locks", "read_only"}
# Where faults are meant to hit, and how often.
STEPS = {"start": 1, "raw_items": 1, "predictions": 7, "run_summary": 2}
ITEMS = (3_000, 12_000, 25_000)
FIRST_HOUR = datetime.datetime(2026, 1, 1)  # noqa: DTZ001 - UTC without a zone, as in the database
# Bad for a model that takes 32 bits, as that of the environment; the second model takes 64.
TOO_LARGE = "[1e300, 1, 1, 1]"
BAD = ("[5.1, null, 1.4, 0.2]", "[1, 2]", '"setosa"', '{"width": 1}', '[5.1, "x", 1.4, 0.2]', TOO_LARGE)
# One in so many items is bad from the beginning.
BAD_EVERY = 97
# No model says this of an item: by it predictions of "an old model" are told from new ones.
OLD = "[0.5, 0.25, 0.25]"
# The service writes to these items and to those that it inserts; all others are nobody's but the runs'.
SERVICE_SHARE = 5
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Fault:
    """A fault as it is planned: which pipeline's run decides when, in which step, after which part of its duration."""

    kind: str
    step: str
    part: float
    pipeline: int


@dataclass(frozen=True)
class Plan:
    """A round as the seed has it: the mode of each pipeline, faults, and one that hits while the others are at rest."""

    number: int
    modes: tuple[str, ...]
    busy: str
    items: int
    scored: float
    command_line: bool
    faults: tuple[Fault, ...]
    alone: Fault | None

    @property
    def start(self) -> datetime.datetime:
        """The start of the round's hour."""
        return FIRST_HOUR + datetime.timedelta(hours=self.number)


def plan(number: int, seed: int, kinds: Sequence[str], modes: Sequence[str], pipelines: int) -> Plan:
    """Draws a round."""
    draw, draw_pipeline = random.Random(f"{seed}/{number}"), random.Random(f"{seed}/{number}/pipeline")
    steps = draw.choices(list(STEPS), list(STEPS.values()), k=len(kinds))
    busy, items, scored = draw.choice(["wait", "fail"]), draw.choice(ITEMS), draw.choice([0, 0.3])
    command_line = draw.random() < 0.1
    # The root favours the later part of a step: the first part of the scoring one loads the model.
    faults = [
        Fault(kind, step, draw.random() ** 0.5, draw_pipeline.randrange(pipelines))
        for kind, step in zip(kinds, steps, strict=True)
    ]
    # The service writes to the items of all: while it does, no pipeline is at rest.
    alone = next((fault for fault in reversed(faults) if fault.kind != "service"), None) if pipelines > 1 else None
    return Plan(
        number=number,
        # Each mode of one beside each of the other.
        modes=tuple(modes[number // len(modes) ** place % len(modes)] for place in range(pipelines)),
        busy=busy,
        items=items,
        scored=scored,
        command_line=command_line,
        faults=tuple(fault for fault in faults if fault is not alone),
        alone=alone,
    )


def kinds_in_turn(seed: int) -> Iterator[str]:
    """Yields kinds in a random order in which each has its turn as often as every other."""
    draw = random.Random(seed)
    while True:
        yield from draw.sample(KINDS, len(KINDS))
