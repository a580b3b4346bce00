"""Texts handed to the server as records of one width in one literal, from which each row cuts its own.

The server finds a record by arithmetic with the row's key. It neither parses a value for each row nor joins a table:
the UPDATE costs what it costs to set a constant. The keys must lie close together, as those of rows do that were
written one after the other.
"""

from collections.abc import Sequence
from itertools import islice
from operator import lt

from batch_assets.database.connection.statements import BATCH_CHARACTERS

# UTF-8 has no such bytes.
_PADDING, _NULL = b"\xff", b"\xfe"
# Keys may leave out so many others: a literal is read faster than a table is joined.
_SPAN_OF_KEY = 8


class PackedUpdate:
    """Texts of rows, in SQL by the key of each.

    Args:
        keys: The keys of the rows, each greater than the one before.
        key: The column of the key in SQL.
    """

    def __init__(self, keys: Sequence[int], key: str) -> None:
        self.first, self.last = keys[0], keys[-1]
        self._places = [number - self.first for number in keys]
        self._span = self.last - self.first + 1
        # MySQL refuses a difference of unsigned numbers that is below zero, also of a row that is not asked for.
        self._place = f"CAST({key} AS SIGNED) - {self.first}"

    @property
    def has_gaps(self) -> bool:
        """Whether there are keys between the first and the last that are not among them."""
        return self._span > len(self._places)

    def is_key(self) -> tuple[str, bytes]:
        """Returns the condition in SQL that a key from the first to the last is one of them, and its parameter."""
        present = bytearray(b"0" * self._span)
        for place in self._places:
            present[place] = ord("1")
        return f"SUBSTRING(%s, {self._place} + 1, 1) = '1'", bytes(present)

    def texts(self, texts: Sequence[str | None]) -> tuple[str, bytes] | None:
        """Returns the text of a row in SQL, and its parameter; None if one literal cannot hold them."""
        records = [_NULL if text is None else text.encode("utf-8", "surrogateescape") for text in texts]
        width = max(1, *map(len, records))
        if width * self._span > BATCH_CHARACTERS:
            return None
        record = f"SUBSTRING(%s, ({self._place}) * {width} + 1, {width})"
        record = f"TRIM(TRAILING x'{_PADDING.hex()}' FROM {record})"
        if None in texts:
            record = f"NULLIF({record}, x'{_NULL.hex()}')"
        return f"CONVERT({record} USING utf8mb4)", self._spread([text.ljust(width, _PADDING) for text in records])

    def numbers(self, numbers: Sequence[int | None], digits: int) -> tuple[str, bytes]:
        """Returns the number of a row in SQL, and its parameter; a number that is missing is all nines."""
        missing = 10**digits - 1
        texts = [b"%0*d" % (digits, missing if number is None else number) for number in numbers]
        return f"SUBSTRING(%s, ({self._place}) * {digits} + 1, {digits})", self._spread(texts)

    def _spread(self, records: Sequence[bytes]) -> bytes:
        if not self.has_gaps:
            return b"".join(records)
        spread = [_PADDING * len(records[0])] * self._span
        for place, record in zip(self._places, records, strict=True):
            spread[place] = record
        return b"".join(spread)


def are_close_together(keys: Sequence[int]) -> bool:
    """Whether keys are in order, each of them once, and close enough together."""
    return keys[-1] - keys[0] < _SPAN_OF_KEY * len(keys) and all(map(lt, keys, islice(keys, 1, None)))
