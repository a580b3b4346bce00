"""How a challenger compares with the model in force over many hours: for a person who decides between the two."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa
from rich.table import Table

from batch_assets.database.records.challengers import read_comparisons
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.hours import Hour
from batch_assets.pipeline import Declaration, Pipeline
from batch_assets.wording import counted, short_version

_MEASURES = ("accuracy", "mean_absolute_error", "brier_score")


@dataclass(frozen=True)
class ChallengerSummary:
    """How the challenger of the newest comparison compares with the model that it was compared with.

    Args:
        hours: The rows of `challenger_hours` of these two, oldest first.
        others: How many hours there are of other models.
    """

    hours: Sequence[sa.Row[Any]]
    others: int

    @property
    def compared(self) -> int:
        """Items that both answer."""
        return sum(row.compared for row in self.hours)

    @property
    def known(self) -> int:
        """Those of them of which it is known what came true."""
        return sum(row.known for row in self.hours)

    @property
    def agreement(self) -> float | None:
        """The share of the items to which both give the same label; None where there are no labels."""
        agreed = [row.agreed for row in self.hours if row.agreed is not None]
        return sum(agreed) / self.compared if agreed and self.compared else None

    @property
    def mean_absolute_difference(self) -> float | None:
        """Between two numbers; None where the answers are none."""
        return _mean(self.hours, lambda row: row.compared, "mean_absolute_difference")

    def measure(self, name: str) -> float | None:
        """Returns an accuracy, an error or a Brier score of all items of which it is known what came true.

        Args:
            name: The column of `challenger_hours`.
        """
        return _mean(self.hours, lambda row: row.known, name)

    def label_counts(self) -> dict[str, list[int]]:
        """Returns how many have each label from the model, from the challenger and from both."""
        found: dict[str, list[int]] = {}
        for row in self.hours:
            for label, counts in orjson.loads(row.label_counts).items():
                found[label] = [one + other for one, other in zip(found.get(label, (0, 0, 0)), counts, strict=True)]
        return found


def challenger_summary(
    engine: sa.Engine, pipeline: Pipeline, now: datetime.datetime, count: int
) -> ChallengerSummary | None:
    """Sums up the comparisons of the last hours, None if there are none.

    Args:
        engine: The database.
        pipeline: The pipeline.
        now: The present, in UTC without a zone.
        count: How many hours to go back.
    """
    rows = read_comparisons(engine, pipeline_tables(pipeline), now - datetime.timedelta(hours=count + 1))
    if not rows:
        return None
    both = rows[-1].model_version, rows[-1].challenger_version
    of_both = [row for row in rows if (row.model_version, row.challenger_version) == both]
    return ChallengerSummary(of_both, len(rows) - len(of_both))


def nothing_compared(declaration: Declaration, count: int) -> str:
    """Says that no hour was compared, and what to do.

    Args:
        declaration: The pipeline.
        count: How many hours were looked at.
    """
    if declaration.challenger() is None:
        return "There is no challenger: name one in CHALLENGER_FILEPATH, or declare it with the pipeline."
    job = declaration.prefixed("challenger")
    return f"The challenger was not compared in the last {counted(count, 'hour')}: see the runs of the job {job}."


def challenger_remarks(engine: sa.Engine, declaration: Declaration, now: datetime.datetime, count: int) -> list[str]:
    """Returns what the status of a pipeline says of its challenger, nothing where it has none.

    Args:
        engine: The database.
        declaration: The pipeline.
        now: The present, in UTC without a zone.
        count: How many hours to go back.
    """
    if declaration.challenger() is None:
        return []
    summary = challenger_summary(engine, declaration.load(), now, count)
    if summary is None:
        return [nothing_compared(declaration, count)]
    return [f"{sentences(summary)[0]} To see more: {declaration.command('challenger')}"]


def hours_table(summary: ChallengerSummary) -> Table:
    """Returns the hours as a table for the terminal, with all of them in its last line."""
    shown = [name for name in _MEASURES if summary.measure(name) is not None]
    table = Table(show_footer=True)
    table.add_column("hour (UTC)", "all", no_wrap=True)
    for name in ("compared", "failed"):
        table.add_column(name, f"{sum(getattr(row, name) for row in summary.hours):,}", justify="right")
    has_labels = summary.agreement is not None
    total = _percent(summary.agreement) if has_labels else _digits(summary.mean_absolute_difference)
    table.add_column("agreement" if has_labels else "difference", total, justify="right")
    table.add_column("psi", _digits(_psi(summary)), justify="right")
    table.add_column("known", f"{summary.known:,}", justify="right")
    for name in shown:
        both = _digits(summary.measure(name)), _digits(summary.measure(f"challenger_{name}"))
        table.add_column(name.replace("_", " "), " / ".join(both), justify="right")
    for row in summary.hours:
        agreed = row.agreed / row.compared if has_labels and row.compared else None
        table.add_row(
            Hour(row.hour).key,
            f"{row.compared:,}",
            f"{row.failed:,}",
            _percent(agreed) if has_labels else _digits(row.mean_absolute_difference),
            _digits(row.psi),
            f"{row.known:,}",
            *(f"{_digits(getattr(row, name))} / {_digits(getattr(row, f'challenger_{name}'))}" for name in shown),
        )
    return table


def shares_table(summary: ChallengerSummary) -> Table | None:
    """Returns the share of each label by both as a table for the terminal; None where there is none."""
    counts = summary.label_counts()
    if not counts or not summary.compared:
        return None
    table = Table()
    table.add_column("label")
    for name in ("model", "challenger", "agreement"):
        table.add_column(name, justify="right")
    for label, (model, challenger, both) in counts.items():
        shares = model / summary.compared, challenger / summary.compared, both / model if model else None
        table.add_row(label, *map(_percent, shares))
    return table


def sentences(summary: ChallengerSummary) -> list[str]:
    """Returns in words how the two compare."""
    newest = summary.hours[-1]
    hours, items = counted(len(summary.hours), "hour"), counted(summary.compared, "item")
    in_force = f"the model in force, {short_version(newest.model_version)}"
    if summary.agreement is not None:
        how = f"answers {_percent(summary.agreement)} of {items} of {hours} with the label of {in_force}"
    elif summary.mean_absolute_difference is not None:
        difference = _digits(summary.mean_absolute_difference)
        how = f"differs by {difference} on the average from {in_force}, in {items} of {hours}"
    else:
        how = f"answers {items} of {hours}, in no form that can be compared with {in_force}"
    version = short_version(newest.challenger_version)
    lines = [f"The challenger {newest.challenger}, {version}, {how}."]
    for name in _MEASURES[:2]:
        model, challenger = summary.measure(name), summary.measure(f"challenger_{name}")
        if model is not None and challenger is not None:
            write = _percent if name == "accuracy" else _digits
            lines.append(
                f"The {name.replace('_', ' ')} of the challenger is {write(challenger)}, that of the model "
                f"{write(model)}, of the {counted(summary.known, 'item')} of which it is known what came true."
            )
    if summary.others:
        lines.append(
            f"{counted(summary.others, 'hour')} of other models {'is' if summary.others == 1 else 'are'} left out."
        )
    return lines


def _mean(rows: Sequence[sa.Row[Any]], weight: Callable[[sa.Row[Any]], int], name: str) -> float | None:
    """Returns the mean of a column over the hours that have it, each as heavy as its items."""
    there = [row for row in rows if getattr(row, name) is not None]
    items = sum(map(weight, there))
    return sum(getattr(row, name) * weight(row) for row in there) / items if items else None


def _psi(summary: ChallengerSummary) -> float | None:
    from batch_assets.monitoring.agreement import LabelCounts, psi_of_labels  # noqa: PLC0415 - NumPy, for one command

    return psi_of_labels({label: LabelCounts(*counts) for label, counts in summary.label_counts().items()})


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _digits(number: float | None) -> str:
    return "-" if number is None else f"{number:.4g}"
