"""Tables in Markdown, which the Dagster UI shows."""

from collections.abc import Mapping, Sequence


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


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("\n", " ")
