"""Who scores: this thread, several threads, or machines of a cluster. The outcomes come in the order of the items."""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.packed_lists import Values
from batch_assets.scoring.outcomes import Outcome, outcome_of

# Beside what is being scored, so much waits in line, so that no worker need wait for it.
_WAITING_IN_LINE = 2


@dataclass(frozen=True)
class Part:
    """Items of one batch that are scored together.

    Args:
        keys: Their keys.
        values: Their values.
        width: How many values an item has.
        is_last: Whether the batch ends with it.
    """

    keys: Sequence[int]
    values: Sequence[Values]
    width: int
    is_last: bool


@dataclass(frozen=True)
class Workers:
    """Those who score.

    Args:
        count: How many of them work at once.
        outcome: Has one of them score a part. Several threads call it at once where there are several workers.
        stop: Has them leave off what they are at; called once, at the end.
    """

    count: int
    outcome: Callable[[Part], Outcome]
    stop: Callable[[], None] = lambda: None


def local_workers(model: OnnxModel, json_columns: Collection[str], threads: int = 1) -> Workers:
    """Returns threads of this process; one is that which asks.

    Args:
        model: The model.
        json_columns: Columns of JSON, which take a label or a number as JSON text.
        threads: How many.
    """
    return Workers(threads, lambda part: outcome_of(model, part.values, part.width, json_columns))


def in_order(
    parts: Iterator[Part], workers: Callable[[], AbstractContextManager[Workers]]
) -> Generator[tuple[Part, Outcome]]:
    """Yields parts with their outcomes, in their order.

    So many are taken ahead as keep all workers busy, and no more. A fault of a worker, or in taking a part, is raised
    when it is its turn: what comes before it is yielded. In the end nobody is left at work, also where the generator is
    closed early.

    Args:
        parts: The parts, made as they are asked for.
        workers: Makes the workers ready. Where there is no part, none are.
    """
    first = next(parts, None)
    if first is None:
        return
    with workers() as ready:
        if ready.count == 1:
            yield first, ready.outcome(first)
            for part in parts:
                yield part, ready.outcome(part)
        else:
            yield from _several_at_once(first, parts, ready)


def _several_at_once(first: Part, parts: Iterator[Part], workers: Workers) -> Iterator[tuple[Part, Outcome]]:
    given: deque[tuple[Part, Future[Outcome]]] = deque()
    part: Part | None = first
    fault: Exception | None = None
    executor = ThreadPoolExecutor(workers.count, "scorer")
    try:
        while part is not None and fault is None:
            given.append((part, executor.submit(workers.outcome, part)))
            if len(given) >= workers.count + _WAITING_IN_LINE:
                yield _taken(given)
            try:
                part = next(parts, None)
            except Exception as error:  # noqa: BLE001 - raised when it is its turn
                fault = error
        while given:
            yield _taken(given)
        if fault is not None:
            raise fault
    finally:
        workers.stop()
        executor.shutdown(cancel_futures=True)


def _taken(given: deque[tuple[Part, Future[Outcome]]]) -> tuple[Part, Outcome]:
    part, future = given.popleft()
    return part, future.result()
