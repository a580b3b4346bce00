"""pandas: the hour as one DataFrame, scored in batches, and written back by an `executemany` in one transaction."""

import time

import pandas as pd
import sqlalchemy as sa

from benchmarks.rivals.shared import WITHIN_HOUR, Scorer, engine, report


def main() -> None:
    """Measures and tells."""
    start = time.perf_counter()
    database = engine()
    frame = pd.read_sql(sa.text(f"SELECT id, `values` FROM items WHERE {WITHIN_HOUR}"), database)
    read = time.perf_counter()
    predictions = Scorer().predictions(frame["values"].tolist())
    scored = time.perf_counter()
    rows = [{"id": key, "p": text} for key, text in zip(frame["id"].tolist(), predictions, strict=True)]
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE items SET prediction = :p WHERE id = :id"), rows)
    end = time.perf_counter()
    report(seconds=end - start, read_seconds=read - start, score_seconds=scored - read, write_seconds=end - scored)


if __name__ == "__main__":
    main()
