"""A pace that follows the service: how large transactions are, and how long the pauses between them.

A statement of the service's kind is timed before the run writes and while it writes. Transactions follow a time, as the
chunks of pt-online-schema-change do (`--chunk-time`), and pauses are in proportion to them, as those of gh-ost are
(`--nice-ratio`). Both go by what the statement took.
https://docs.percona.com/percona-toolkit/pt-online-schema-change.html
https://github.com/github/gh-ost/blob/master/doc/throttle.md
"""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace

import sqlalchemy as sa

from batch_assets.database.slices.batch import Batch

FIRST_ROWS = 500
LEAST_ROWS = 250
# What a transaction may take, in seconds. Shorter ones spend most of it on their commit.
LEAST_SECONDS, FIRST_SECONDS, MOST_SECONDS = 0.025, 0.025, 0.05
# The longest pause, in times of the transaction before it. An hour is not to take more than twice as long.
MOST_PAUSE = 0.5
# An hour that takes longer is in danger of not being done when the next one begins.
PACED_SECONDS = 1800
PROBES_ALONE = 10
PROBES_BESIDE = 20
# Statements are a load themselves. Alone they are timed at the same distance, so that both are comparable.
PROBE_SECONDS = 0.02


@dataclass(frozen=True)
class WriteSpeed:
    """How fast a run writes.

    Attributes:
        seconds: What a transaction is to take.
        pause: The pause after it, in times of what it took.
    """

    seconds: float = FIRST_SECONDS
    pause: float = 0.0

    def after(self, slowdown: float, max_slowdown: float) -> "WriteSpeed":
        """Returns the next one: it slows down at once and speeds up in small steps.

        Args:
            slowdown: How many times as long as before the run a statement of the service's kind takes.
            max_slowdown: How many times it may.
        """
        if slowdown > max_slowdown:
            return WriteSpeed(max(LEAST_SECONDS, self.seconds / 2), min(MOST_PAUSE, self.pause + 0.05))
        return WriteSpeed(min(MOST_SECONDS, self.seconds * 1.1), max(0.0, self.pause - 0.01))

    def rows(self, rows: int, seconds: float) -> int:
        """Returns the rows of the next transaction, after one of so many took so long.

        At most twice as many, since one that was fast by chance says little.
        """
        return max(LEAST_ROWS, min(2 * rows, int(rows * self.seconds / max(seconds, 1e-6))))


class Pace:
    """Has a run write as fast as the statements of a service allow.

    Batches are cut into transactions, and the next one is made when the last one is written: what makes them and the
    server that writes them do not take two cores at once.

    Args:
        engine: The database, a server.
        items: The table of the items, one of which is read by its key: that is the statement that is timed.
        max_slowdown: How many times as long it may take as before the run writes.
        on_progress: Is told when the pace is given up, since the hour takes too long.
    """

    def __init__(
        self, engine: sa.Engine, items: sa.Table, max_slowdown: float, on_progress: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._items = items
        self._max_slowdown = max_slowdown
        self._on_progress = on_progress
        self._speed = WriteSpeed()
        self._rows = FIRST_ROWS
        self._begun_at = 0.0
        self._is_late = False
        self._written = threading.Event()
        self._took = self._paused = 0.0
        self._key: int | None = None
        self._alone = 0.0
        self._beside: deque[float] = deque(maxlen=PROBES_BESIDE)
        self._sum, self._count = 0.0, 0

    @property
    def paused_seconds(self) -> float:
        """How long the pauses took so far."""
        return self._paused

    @property
    def slowdown(self) -> float | None:
        """How many times as long the statement took while the run wrote; None if it was not timed."""
        return round(self._sum / self._count / self._alone, 2) if self._count else None

    def transactions(self, batches: Iterable[Batch]) -> Generator[Batch]:
        """Yields batches cut into what one transaction is to write, each when the one before is written.

        Args:
            batches: The batches; what failed goes with the first part of each.
        """
        self._begun_at = time.monotonic()
        with self._engine.connect() as connection:
            # Each statement sees the table as it is by then, and keeps nothing from being purged.
            connection.execution_options(isolation_level="AUTOCOMMIT")
            for part in (part for batch in batches for part in self._parts(batch)):
                if self._key is None and len(part):
                    self._key = part.column(self._items.c.id.name)[0]
                    self._probe_alone(connection)
                self._written.clear()
                yield part
                if self._key is not None and not self._is_late:
                    self._wait_beside(connection, len(part))

    def after_write(self, seconds: float) -> None:
        """Notes that a transaction has ended, be it by a fault. Called by the thread that writes."""
        self._took = seconds
        self._written.set()

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        position, failed = 0, batch.failed
        while position < len(batch) or failed:
            self._look_at_the_clock()
            end = len(batch) if self._is_late else position + self._rows
            yield replace(batch, rows=batch.rows[position:end], failed=failed)
            position, failed = end, ()

    def _look_at_the_clock(self) -> None:
        if not self._is_late and time.monotonic() - self._begun_at > PACED_SECONDS:
            self._is_late = True
            self._on_progress(
                f"The hour has been written at the pace of the service for {PACED_SECONDS // 60} minutes. The rest is "
                "written at full speed, so that it is done before the next one."
            )

    def _probe(self, connection: sa.Connection) -> float:
        statement = sa.select(self._items.c.id).where(self._items.c.id == self._key)
        start = time.perf_counter()
        connection.execute(statement).all()
        return time.perf_counter() - start

    def _probe_alone(self, connection: sa.Connection) -> None:
        took = []
        for _ in range(2 + PROBES_ALONE):
            took.append(self._probe(connection))
            time.sleep(PROBE_SECONDS)
        # Without the first ones, for which the statement is made.
        self._alone = statistics.median(took[2:])

    def _wait_beside(self, connection: sa.Connection, rows: int) -> None:
        """Times the statement until a transaction has ended, and pauses as long as that demands."""
        ended = False
        while not ended:
            took = self._probe(connection)
            self._beside.append(took)
            self._sum, self._count = self._sum + took, self._count + 1
            ended = self._written.wait(PROBE_SECONDS)
        if not rows:  # failed items alone, which say nothing of the time that rows take
            return
        self._speed = self._speed.after(statistics.mean(self._beside) / self._alone, self._max_slowdown)
        self._rows = self._speed.rows(rows, self._took)
        pause = self._took * self._speed.pause
        time.sleep(pause)
        self._paused += pause
