"""Tables in Markdown, which the Dagster UI shows."""

import textwrap
from collections.abc import Mapping, Sequence

from batch_assets.database.records.failed_items import FailureKind
from batch_assets.database.records.profiles import Profile
from batch_assets.monitoring.judgement import ALARM

EXAMPLES = 3
EXAMPLE_CHARACTERS = 100
JUDGEMENTS_SHOWN = 100


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
                "; ".join(shortened(example) for example in dict.fromkeys(kind.examples[:EXAMPLES])),
                ", ".join(map(str, kind.ids)) + (", ..." if kind.items > len(kind.ids) else ""),
            ]
            for kind in kinds
        ],
    )


def judgements(profile: Profile, command: str) -> str:
    """Returns a table of what was judged of an hour, what is unusual first.

    Args:
        profile: That of the hour.
        command: Makes a baseline.
    """
    # The reason early: the UI cuts off what is too wide.
    columns = ("name", "verdict", "reason", "adjusted", "psi", "wasserstein", "above")
    judged = sorted([*profile.features, *profile.labels], key=lambda each: each.verdict != ALARM)
    rows = [["-" if value is None else value for value in map(each.document().get, columns)] for each in judged]
    table = markdown_table(columns, rows[:JUDGEMENTS_SHOWN])
    return table if profile.baseline_made_at else f"{table}\n\nThis model has no baseline: `{command}` makes one."


def shortened(text: str) -> str:
    """Returns a text of which an example shows as much as there is room for."""
    return textwrap.shorten(text, EXAMPLE_CHARACTERS, placeholder=" ...")


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("\n", " ")
