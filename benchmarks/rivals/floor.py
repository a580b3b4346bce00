"""The server alone: it reads the rows of an hour without sending them, and sets a constant in each.

The floor under everything that reads an hour and writes a prediction into each of its rows over one connection.
"""

import time

from benchmarks.rivals.shared import BATCH_ROWS, WITHIN_HOUR, Scorer, connect, report


def main() -> None:
    """Measures and tells."""
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT MIN(id), MAX(id) FROM items WHERE {WITHIN_HOUR}")
        first, last = cursor.fetchall()[0]
        cursor.execute("SELECT `values` FROM items WHERE id BETWEEN %s AND %s", (first, first + 999))
        texts = sorted(Scorer().predictions([text for (text,) in cursor]), key=len)
        connection.commit()
        constant = texts[len(texts) // 2]
        read = write = 0.0
        for start in range(first, last + 1, BATCH_ROWS):
            batch = (start, min(start + BATCH_ROWS - 1, last))
            begin = time.perf_counter()
            cursor.execute("SELECT SUM(CRC32(`values`)) FROM items WHERE id BETWEEN %s AND %s", batch)
            cursor.fetchall()
            half = time.perf_counter()
            cursor.execute("UPDATE items SET prediction = %s WHERE id BETWEEN %s AND %s", (constant, *batch))
            connection.commit()
            read += half - begin
            write += time.perf_counter() - half
    report(seconds=read + write, read_seconds=read, write_seconds=write)


if __name__ == "__main__":
    main()
