"""Registers items: rows of `items`, all of them or none."""

import datetime
from collections.abc import Iterable, Iterator

import sqlalchemy as sa

from batch_assets.database.connection.statements import BATCH_CHARACTERS, BATCH_ROWS


def register_items(
    engine: sa.Engine, items: sa.Table, texts: Iterable[str], created_at: datetime.datetime | None
) -> int:
    """Registers items in one transaction: all of them or none.

    Args:
        engine: The database.
        items: Their table.
        texts: The `values` of each item as JSON text.
        created_at: When they were created, in UTC without a zone; None for now.

    Returns:
        How many there were.
    """
    times = {name: created_at for name in ("created_datetime", "updated_datetime") if created_at and name in items.c}
    count = 0
    with engine.begin() as connection:
        for part in _parts(texts):
            connection.execute(sa.insert(items), [{"values": text, **times} for text in part])
            count += len(part)
    return count


def _parts(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yields lists of texts that are bounded in number and in size, so that memory is too."""
    part: list[str] = []
    characters = 0
    for text in texts:
        part.append(text)
        characters += len(text)
        if len(part) >= BATCH_ROWS or characters > BATCH_CHARACTERS:
            yield part
            part, characters = [], 0
    if part:
        yield part
