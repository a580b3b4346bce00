"""Items one by one, and in pages: what a web service does with its table."""

import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.connection.statements import statement_rows
from batch_assets.database.schema.pending import is_pending, is_predicted
from batch_assets.database.schema.tables import PipelineTables, registrations
from batch_assets.errors import IdempotencyError
from batch_assets.hours import utc_now


class ItemFilter(StrEnum):
    """The items of which pages are read."""

    all = auto()
    predicted = auto()
    unpredicted = auto()


@dataclass(frozen=True)
class Position:
    """Where a page ends: at this item.

    Args:
        created: When it was created, in UTC without a zone.
        id: Its id.
    """

    created: datetime.datetime
    id: int


def read_page(
    engine: sa.Engine, items: sa.Table, which: ItemFilter, before: Position | None, count: int
) -> Sequence[sa.Row[Any]]:
    """Reads items, the newest first, at the cost of those that are read.

    Args:
        engine: The database.
        items: Their table.
        which: All of them, or those that have a prediction, or none.
        before: Older ones than this only; None for the newest.
        count: How many at the most.

    Returns:
        Rows with `id`, `values` and `prediction` as JSON texts, `created_datetime` and `updated_datetime`.
    """
    created = items.c.created_datetime
    page = sa.select(items).order_by(created.desc(), items.c.id.desc()).limit(count)
    if before:
        # Two ranges of the index, which ends with the id: for a comparison of pairs MySQL would read it from its end.
        of_its_time = sa.and_(created == before.created, items.c.id < before.id)
        page = page.where(sa.or_(created < before.created, of_its_time))
    with snapshot(engine) as connection:
        if which is ItemFilter.predicted:
            page = page.where(is_predicted(connection, items))
        if which is ItemFilter.unpredicted:
            page = page.where(is_pending(connection, items))
        return connection.execute(page).all()


def read_item(engine: sa.Engine, items: sa.Table, item_id: int) -> sa.Row[Any] | None:
    """Returns the row of an item as `read_page` has it, None if there is none."""
    with snapshot(engine) as connection:
        return connection.execute(_item(items, item_id)).one_or_none()


def correct_item(engine: sa.Engine, items: sa.Table, item_id: int, values: str) -> sa.Row[Any] | None:
    """Gives an item other values and takes its prediction away, so that it is scored anew.

    Args:
        engine: The database.
        items: Their table.
        item_id: The item.
        values: Its values as JSON text.

    Returns:
        Its row from now on as `read_page` has it, None if there is no such item.
    """
    change = sa.update(items).where(items.c.id == item_id).values({"values": values, "prediction": None})
    with engine.begin() as connection:
        connection.execute(change)
        return connection.execute(_item(items, item_id)).one_or_none()


def register_once(engine: sa.Engine, tables: PipelineTables, texts: Sequence[str], key: str | None) -> list[int]:
    """Registers items in one transaction, and no second time under the same key.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        texts: The `values` of each item as JSON text.
        key: What a request that is repeated is known by; None for one that is not.

    Returns:
        Their ids, in the order of the texts; those of the first time, where the key is known.

    Raises:
        IdempotencyError: Other items were registered under the key.
    """
    fingerprint = _digest("\n".join(texts))
    while True:
        with engine.connect() as connection:
            known = connection.execute(_known(tables, key)).one_or_none() if key else None
            if known and known.fingerprint != fingerprint:
                raise IdempotencyError(
                    "Other items were registered under this idempotency key: send the same items again, or these under "
                    "a key of their own. Nothing was registered."
                )
            if known:
                ids: list[int] = json.loads(known.ids)
                return ids
            ids = _insert(connection, tables.items, texts)
            # Where a request with the same key comes between, it has registered the items: these are taken back.
            if key is None or _keep(connection, tables, key, fingerprint, ids):
                connection.commit()
                return ids


def _item(items: sa.Table, item_id: int) -> sa.Select[Any]:
    return sa.select(items).where(items.c.id == item_id)


def _known(tables: PipelineTables, key: str) -> sa.Select[str, str]:
    columns = registrations.c
    known = sa.and_(tables.has(registrations), columns.idempotency_key == _digest(key))
    return sa.select(columns.fingerprint, columns.ids).where(known)


def _insert(connection: sa.Connection, items: sa.Table, texts: Sequence[str]) -> list[int]:
    """Inserts items and returns their ids, which one statement gives in their order."""
    sqlite, quote = connection.dialect.name == "sqlite", connection.dialect.identifier_preparer.quote
    ids: list[int] = []
    for part in statement_rows(connection, [(text,) for text in texts]):
        rows = ", ".join(["(?)" if sqlite else "(%s)"] * len(part))
        statement = f"INSERT INTO {quote(items.name)} ({quote(items.c['values'].name)}) VALUES {rows}"
        result = connection.exec_driver_sql(statement, tuple(text for (text,) in part))
        if sqlite:  # which names the last one
            ids += range(result.lastrowid - len(part) + 1, result.lastrowid + 1)
            continue
        step = connection.exec_driver_sql("SELECT @@auto_increment_increment").scalar_one()
        ids += range(result.lastrowid, result.lastrowid + step * len(part), step)
    return ids


def _keep(connection: sa.Connection, tables: PipelineTables, key: str, fingerprint: str, ids: list[int]) -> bool:
    """Writes down what was registered under a key, and returns whether nobody else has done so."""
    ignore = "OR IGNORE" if connection.dialect.name == "sqlite" else "IGNORE"
    row = {
        "pipeline": tables.pipeline,
        "idempotency_key": _digest(key),
        "fingerprint": fingerprint,
        "ids": json.dumps(ids, separators=(",", ":")),
        "registered_at": utc_now().replace(microsecond=0),
    }
    return connection.execute(sa.insert(registrations).prefix_with(ignore).values(row)).rowcount == 1


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
