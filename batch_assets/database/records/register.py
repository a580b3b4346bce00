"""Registers items: rows of the table of a pipeline, all of them or none."""

import datetime
import json
from collections.abc import Iterable, Iterator

import sqlalchemy as sa

from batch_assets.database.connection.statements import BATCH_CHARACTERS, BATCH_ROWS
from batch_assets.database.records.items import check_numbered, refusals, stored_rows
from batch_assets.database.schema.tables import feature_key
from batch_assets.hours import utc_now
from batch_assets.pipeline import ITEM_TABLE, ItemTable


def register_items(
    engine: sa.Engine, items: sa.Table, texts: Iterable[str], created_at: datetime.datetime | None
) -> int:
    """Registers items in one transaction: all of them or none.

    Args:
        engine: The database.
        items: Their table.
        texts: The values of each item as JSON text: a list in their order where they are columns.
        created_at: When they were created, in UTC without a zone; None for now.

    Returns:
        How many there were.

    Raises:
        ItemRefusedError: The table does not take these items, or takes none without the service.
    """
    names: ItemTable = items.info["names"]
    if created_at is None and names != ITEM_TABLE:
        # Another table need not date its rows by itself, and what has no date is never scored.
        created_at = utc_now().replace(microsecond=0)
    times = {name: created_at for name in ("created_datetime", "updated_datetime") if created_at and name in items.c}
    keys = [feature_key(name) for name in names.scored_columns] if names.from_columns else ["values"]
    count = 0
    with engine.begin() as connection, refusals(names):
        for part in _parts(texts):
            rows = [json.loads(text) if names.from_columns else [text] for text in part]
            stored = stored_rows(connection, names, rows)
            connection.execute(sa.insert(items), [dict(zip(keys, row, strict=True)) | times for row in stored])
            count += len(part)
        check_numbered(connection, items)
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
