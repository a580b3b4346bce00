"""Finding the items without a prediction at the cost of what there is of them, not of what the table holds.

On the servers by a virtual column with an index, on SQLite by an index of those rows alone. A table to which the server
cannot add the column without writing it anew (one that is partitioned) goes without: it is read as far as it is asked
for.
"""

import sqlalchemy as sa

COLUMN = "prediction_pending"
INDEX = f"ix_items_{COLUMN}"

# Databases in which the column was seen: once it is there, it stays.
_seen_in: set[str] = set()


def pending_sql(connection: sa.Connection) -> str:
    """Returns the condition in SQL that an item of `items` has no prediction, such that an index finds it."""
    return f"items.{COLUMN} = 1" if _has_column(connection) else "items.prediction IS NULL"


def predicted_sql(connection: sa.Connection) -> str:
    """Returns the condition in SQL that an item of `items` has a prediction, such that an index finds it."""
    return f"items.{COLUMN} = 0" if _has_column(connection) else "items.prediction IS NOT NULL"


def _has_column(connection: sa.Connection) -> bool:
    if connection.dialect.name == "sqlite":
        return False
    url = connection.engine.url.render_as_string()
    if url not in _seen_in:
        names = sa.text(
            "SELECT COUNT(*) FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = 'items' AND column_name = :name"
        )
        if not connection.execute(names, {"name": COLUMN}).scalar_one():
            return False
        _seen_in.add(url)
    return True
