"""Finding the items without a prediction at the cost of what there is of them, not of what the table holds.

On the servers by a virtual column with an index, on SQLite by an index of those rows alone. A table to which the server
cannot add the column without writing it anew (one that is partitioned) goes without: it is read as far as it is asked
for.
"""

import sqlalchemy as sa

# Tables in which the column was seen: once it is there, it stays.
_seen_in: set[tuple[str, str]] = set()


def pending_column(items: sa.Table) -> str:
    """Returns the name of the virtual column that is 1 for an item without a prediction."""
    return f"{items.c.prediction.name}_pending"


def pending_index(items: sa.Table) -> str:
    """Returns the name of the index by which items without a prediction are found."""
    return f"ix_{items.name}_{pending_column(items)}"


def is_pending(connection: sa.Connection, items: sa.Table) -> sa.ColumnElement[bool]:
    """Returns the condition that an item has no prediction, such that an index finds it."""
    return _indexed(connection, items) == 1 if _has_column(connection, items) else items.c.prediction.is_(None)


def is_predicted(connection: sa.Connection, items: sa.Table) -> sa.ColumnElement[bool]:
    """Returns the condition that an item has a prediction, such that an index finds it."""
    return _indexed(connection, items) == 0 if _has_column(connection, items) else items.c.prediction.is_not(None)


def _indexed(connection: sa.Connection, items: sa.Table) -> sa.ColumnElement[int]:
    prepare = connection.dialect.identifier_preparer
    return sa.literal_column(f"{prepare.format_table(items)}.{prepare.quote(pending_column(items))}", sa.Integer)


def _has_column(connection: sa.Connection, items: sa.Table) -> bool:
    if connection.dialect.name == "sqlite":
        return False
    place = (connection.engine.url.render_as_string(), items.name)
    if place not in _seen_in:
        named = sa.text(
            "SELECT COUNT(*) FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = :table AND column_name = :column"
        )
        if not connection.execute(named, {"table": items.name, "column": pending_column(items)}).scalar_one():
            return False
        _seen_in.add(place)
    return True
