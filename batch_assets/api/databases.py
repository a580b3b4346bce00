"""Asking all databases at once, so that one that is silent holds up no answer about the others."""

from collections.abc import Callable, Collection

import anyio
import anyio.to_thread
import sqlalchemy as sa


async def ask_databases(engines: Collection[sa.Engine], ask: Callable[[sa.Engine], None], seconds: float) -> None:
    """Asks each database in a thread of its own, and waits no longer than so many seconds for all of them.

    Args:
        engines: The databases.
        ask: Asks one and takes note of what it says. Of one that is silent it may go on after the time is over.
        seconds: How long to wait.
    """
    # Of its own: a database that is silent keeps its thread, which no request is to wait for.
    threads = anyio.CapacityLimiter(len(engines))

    async def ask_one(engine: sa.Engine) -> None:
        await anyio.to_thread.run_sync(ask, engine, abandon_on_cancel=True, limiter=threads)

    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as group:
            for engine in engines:
                group.start_soon(ask_one, engine)
