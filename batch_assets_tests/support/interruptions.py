"""Hearing the statements of an engine, and ending what it does in the middle."""

import contextlib
import traceback
from collections.abc import Callable, Iterator

import sqlalchemy as sa

DEFINITIONS = ("CREATE", "ALTER", "DROP")
CHANGES = (*DEFINITIONS, "INSERT", "UPDATE", "DELETE")


class Interruption(BaseException):
    """As a process that ends here."""


@contextlib.contextmanager
def listening(engine: sa.Engine, event: str, listener: Callable[[str], object]) -> Iterator[None]:
    """Has the listener told each statement, at an event of SQLAlchemy's that comes before or after it."""

    def hear(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        listener(statement)

    sa.event.listen(engine, event, hear)
    try:
        yield
    finally:
        sa.event.remove(engine, event, hear)


def interrupted_after(
    engine: sa.Engine, limit: int, action: Callable[[], object], counted: tuple[str, ...] = CHANGES
) -> int:
    """Ends the action after so many of the statements that begin so; returns how many there were."""
    seen = 0

    def count(statement: str) -> None:
        nonlocal seen
        if statement.lstrip().startswith(counted):
            seen += 1
            if seen == limit:
                raise Interruption

    with listening(engine, "after_cursor_execute", count):
        try:
            action()
        except Interruption as interruption:
            # SQLite's connection lives, and has the file locked, as long as a cursor that the traceback holds.
            traceback.clear_frames(interruption.__traceback__)
    return seen
