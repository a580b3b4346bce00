"""Tables in Markdown, which the Dagster UI shows."""

import textwrap
from collections.abc import Mapping, Sequence

from batch_assets.database.records.failed_items import FailureKind

EXAMPLES = 3
EXAMPLE_CHARACTERS = 100


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a table; whole numbers get thousands separators."""
    lines = [header, ["---"] * len(header), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shares(counts: Mapping[str, int], what: str) -> str:
    """Returns a table of counts with the share of each in per cent.

    Args:
        counts: Count by name.
        what: Names the first column.
    """
    total = sum(counts.values())
    return markdown_table(
        [what, "items", "share"],
        [[name, count, f"{100 * count / total:.1f} %" if total else "-"] for name, count in counts.items()],
    )


def failures(kinds: Sequence[FailureKind]) -> str:
    """Returns a table of failed items by code, with what is wrong with the first of them, and their ids."""
    return markdown_table(
        ["code", "items", "examples", "ids"],
        [
            [
                kind.code,
                kind.items,
                "; ".join(_shortened(example) for example in dict.fromkeys(kind.examples[:EXAMPLES])),
                ", ".join(map(str, kind.ids)) + (", ..." if kind.items > len(kind.ids) else ""),
            ]
            for kind in kinds
        ],
    )


def _shortened(text: str) -> str:
    return textwrap.shorten(text, EXAMPLE_CHARACTERS, placeholder=" ...")


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("\n", " ")
