"""A service that writes to the hour while it is scored, and a reader that looks at it."""

import datetime
import json
import random
import threading
import time
from collections.abc import Callable, Sequence

import pymysql

from batch_assets_tests.support.servers import Rows
from benchmarks.faults.plan import BAD, OLD, SERVICE_SHARE


class Service:
    """The web service, which alone writes values, and remembers what it has committed.

    Args:
        sql: Executes a statement in a transaction of its own.
        hour: The start of the hour in which it writes.
        texts: The values of the items there are, by id.
        good: Values to choose from.
        columns: The columns of the predictions.
    """

    def __init__(
        self,
        sql: Callable[..., Rows],
        hour: datetime.datetime,
        texts: dict[int, str],
        good: Sequence[str],
        columns: Sequence[str],
    ) -> None:
        self.texts = texts
        self.deleted: set[int] = set()
        self.corrected: set[int] = set()
        self.commits = 0
        self.disturbed = 0
        # What a statement was to make of an item when the connection broke: it may have been committed or not.
        self.in_doubt: dict[int, tuple[str | None, str | None]] = {}
        self._sql, self._good, self.hour = sql, good, hour
        self._nothing = ", ".join(f"{column} = NULL" for column in columns)
        self._created = hour + datetime.timedelta(minutes=45)
        self.last = max(texts)
        self._next = self.last + 1
        self._own = [key for key in texts if key % SERVICE_SHARE == 0]
        self._lock = threading.Lock()  # two bursts may go on at once

    def burst(self, draw: random.Random, seconds: float) -> None:
        """Inserts, corrects and deletes items for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self._lock:
                self._write(draw)
            time.sleep(0.005)

    def _write(self, draw: random.Random) -> None:
        text = draw.choice([*self._good[:20], *BAD])
        action = draw.choice(["insert", "correct", "correct", "delete"])
        if action == "insert":
            key, self._next = self._next, self._next + 1
            statement = "INSERT INTO items (id, `values`, created_datetime) VALUES (%s, %s, %s)"
            self._commit(key, text, statement, key, text, self._created)
            self._own.append(key)
            return
        key = draw.choice(self._own)
        if key not in self.texts or key in self.in_doubt:
            return
        if action == "correct":
            # The contract: whoever corrects values takes every prediction away.
            self.corrected.add(key)
            statement = f"UPDATE items SET `values` = %s, {self._nothing} WHERE id = %s"
            self._commit(key, text, statement, text, key)
        else:
            self._commit(key, None, "DELETE FROM items WHERE id = %s", key)

    def _commit(self, key: int, text: str | None, statement: str, *parameters: object) -> None:
        try:
            self._sql(statement, *parameters)
        except pymysql.err.MySQLError:
            self.disturbed += 1
            self.in_doubt[key] = (self.texts.get(key), text)
            time.sleep(0.1)  # the server is away
        else:
            self.commits += 1
            self._remember(key, text)

    def _remember(self, key: int, text: str | None) -> None:
        if text is None:
            self.texts.pop(key, None)
            self.deleted.add(key)
        else:
            self.texts[key] = text

    @property
    def has_written(self) -> bool:
        """Whether it has changed anything, or may have."""
        return bool(self.commits or self.disturbed)

    def owns(self, key: int) -> bool:
        """Whether it may write to an item."""
        return key % SERVICE_SHARE == 0 or key > self.last

    def settle(self) -> list[int]:
        """Looks up what became of the items in doubt; returns those of which neither version stands there."""
        lost = []
        for key, versions in self.in_doubt.items():
            rows = self._sql("SELECT `values` FROM items WHERE id = %s", key)
            found = [
                text
                for text in versions
                if (in_one_form(text) if text else None) == (in_one_form(rows[0][0]) if rows else None)
            ]
            if not found:
                lost.append(key)
            elif found[0] is not None or key in self.texts:
                self._remember(key, found[0])
        self.in_doubt.clear()
        return lost


# Readers


class Reader:
    """Somebody who reads a whole-batch hour again and again, each time in one statement.

    The items of the service are counted apart from the others. Nobody but the runs writes to the others: of these, all
    good ones must have the old prediction or all the new one. An item of the service has none from the moment when it
    is inserted or corrected until a run publishes; so it may lack one at any time, but never have a new one beside old
    ones, or an old one beside new ones.
    """

    def __init__(
        self, sql: Callable[..., Rows], column: str, service: Service, bad: int, report: Callable[..., None]
    ) -> None:
        self.looks, self.disturbed = 0, 0
        self._sql, self._column, self._bad, self._report = sql, column, bad, report
        self._start, self._last = service.hour, service.last
        self._told: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reader")

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._stop.wait(0.02):
            try:
                groups = self._look()
            except pymysql.err.MySQLError:
                self.disturbed += 1  # the server is away
                continue
            self.looks += 1
            self._judge(groups)

    def _look(self) -> dict[int, tuple[int, int, int]]:
        column = self._column
        rows = self._sql(
            f"SELECT id %% {SERVICE_SHARE} = 0 OR id > %s, SUM({column} IS NULL), SUM({column} LIKE %s),"
            f" SUM({column} NOT LIKE %s) FROM items"
            " WHERE created_datetime >= %s AND created_datetime < %s GROUP BY 1",
            *(self._last, OLD, OLD, self._start, self._start + datetime.timedelta(hours=1)),
        )
        return {int(group): (int(none), int(old or 0), int(new or 0)) for group, none, old, new in rows}

    def _judge(self, groups: dict[int, tuple[int, int, int]]) -> None:
        (none, old, new), (_, service_old, service_new) = groups[0], groups.get(1, (0, 0, 0))
        if old and new:
            self._on_progress("mixture", f"a reader saw {old} old and {new} new predictions at once")
        if none != self._bad:
            self._on_progress("hole", f"a reader saw {none} items without a prediction where {self._bad} are bad")
        if (old and service_new) or (new and service_old):
            seen = f"{old} old and {new} new predictions, of the service's {service_old} and {service_new}"
            self._on_progress("service", f"a reader saw {seen}")

    def _on_progress(self, kind: str, what: str) -> None:
        """Reports the first look of a round that shows a violation, not the hundreds after it."""
        if kind not in self._told:
            self._told.add(kind)
            self._report(what)


_known_texts: dict[str, str] = {}


def in_one_form(text: str) -> str:
    """Returns values in one form: MySQL writes JSON in its own way, and MariaDB keeps the text as it came."""
    if text not in _known_texts:
        _known_texts[text] = json.dumps(json.loads(text), sort_keys=True)
    return _known_texts[text]


BAD_IN_ONE_FORM = {in_one_form(text) for text in BAD}
