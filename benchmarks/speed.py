"""How long an hour of items takes: the pipeline in turn with the server alone and with other ways to score the hour.

    python -m benchmarks.speed [--items 65322 300000 1000000] [--rounds 3] [--server mariadb|mysql] [--json FILE]
        [--pandas-items 300000] [--ray-items 300000] [--ray-python FILE] [--textbook-items 1000 4000]
        [--memory 100000 5000000] [--table 100000 20000000]

The sides, all of them on the same table, each in a process of its own:

- `predictions`: the step of that name in a real `dagster job execute`, by the times that Dagster has recorded;
- `job`: the whole process of that command, and `no_op`: that of a job of three assets that do nothing;
- `floor`: the server alone reads the rows and sets a constant in each, 10,000 rows a commit over one connection;
- `whole_batch`: the step `predictions` in that retry mode;
- `pandas`, `ray`, `textbook`: see the programs in `benchmarks/rivals/`, whose seconds are those after the imports.

Before each side the predictions are taken away and the server is given time to come to rest; after it every item must
have a prediction, and a sample of them that of the model, or the benchmark fails. `--memory` measures the peak of the
job's memory with so many items in the hour, `--table` the step for one hour in tables of so many rows.

The server is that of MYSQL_SERVER (databases of its own on it, removed afterwards), or a private one of the kind of
--server. An option without numbers leaves its part out: `--items --pandas-items --ray-items --textbook-items
--memory 100000 5000000`.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.servers import Server
from benchmarks.rivals.items_table import HOUR_ITEMS, ItemsTable, SideError, items_table, server_for_benchmark
from benchmarks.rivals.items_table import settings_of as server_settings
from benchmarks.rivals.programs import Measurement, Programs, clean_environment
from benchmarks.rivals.shared import Scorer

Side = Callable[[Programs, ItemsTable], Measurement]

SIDES: dict[str, Side] = {
    "predictions": lambda programs, table: programs.pipeline("partial", table.environment),
    "no_op": lambda programs, table: programs.no_op(table.environment),
    "floor": lambda programs, table: programs.rival("floor", table.environment),
    "whole_batch": lambda programs, table: programs.pipeline("whole_batch", table.environment),
    "pandas": lambda programs, table: programs.rival("pandas", table.environment),
    "ray": lambda programs, table: programs.rival("ray", table.environment),
    "textbook": lambda programs, table: programs.rival("textbook", table.environment),
}
# With what each is compared, round by round.
COMPARED_WITH = {"predictions": "floor", "job": "no_op"} | dict.fromkeys(
    ("whole_batch", "pandas", "ray", "textbook"), "predictions"
)
PACKAGES = ("dagster", "mysql-connector-python", "numpy", "onnxruntime", "pandas", "pymysql", "sqlalchemy")
WARM_UP_ITEMS = 1000


@dataclass
class Benchmark:
    """A benchmark and all that it has measured.

    Args:
        server: The server.
        programs: Runs the sides.
        options: Those of the command line.
        figures: What has been measured, a row for each side of each round.
    """

    server: Server
    programs: Programs
    options: argparse.Namespace
    figures: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> None:
        """Measures all that the options ask for.

        Raises:
            SideError: A side has failed, or has not done its work.
        """
        self.programs.prepare()
        ray_items = self._ray_items()
        # The first run makes the tables of the Dagster instance and fills the caches of the file system.
        with self._table(WARM_UP_ITEMS) as table:
            table.reset()
            for side in ("no_op", "predictions"):
                SIDES[side](self.programs, table)
        pandas_items, textbook_items = self.options.pandas_items, self.options.textbook_items
        for items in sorted({*self.options.items, *pandas_items, *ray_items, *textbook_items}):
            sides = ["predictions", "no_op"]
            sides += ["floor", "whole_batch"] if items in self.options.items else []
            sides += ["pandas"] if items in pandas_items else []
            sides += ["ray"] if items in ray_items else []
            sides += ["textbook"] if items in textbook_items else []
            with self._table(items) as table:
                for number in range(self.options.rounds):
                    for side in sides if number % 2 == 0 else reversed(sides):
                        self._measure("speed", number, side, table)
        for items in self.options.memory:
            with self._table(items) as table:
                self._measure("memory", 0, "predictions", table)
        self._measure_tables()

    def _ray_items(self) -> list[int]:
        if self.options.ray_items and not self.programs.has_ray():
            print("Ray is not installed: `make bench RAY=1` installs it in a place of its own and measures it too.")
            return []
        return list(self.options.ray_items)

    def _measure_tables(self) -> None:
        """Measures one hour in tables of several sizes, in turn."""
        items = min([HOUR_ITEMS, *self.options.table])
        with contextlib.ExitStack() as stack:
            tables = {rows: stack.enter_context(self._table(items, rows)) for rows in self.options.table}
            for number in range(self.options.rounds if tables else 0):
                for rows, table in tables.items():
                    self._measure("table", number, "predictions", table, rows)

    def _table(self, items: int, rows: int | None = None) -> contextlib.AbstractContextManager[ItemsTable]:
        return items_table(self.server, items, self.options.settle, rows=rows)

    def _measure(self, part: str, number: int, side: str, table: ItemsTable, rows: int | None = None) -> None:
        """Runs a side once, verifies what it has done, and notes what it took."""
        settled = table.reset()
        measured = SIDES[side](self.programs, table)
        if side != "no_op":
            table.verify(side, None if side == "floor" else Scorer(self.programs.environment["MODEL_FILEPATH"]))
        size = {"items": table.items, "rows": rows or table.items}
        figure = {"part": part, **size, "round": number, "side": side, "settled_seconds": settled, **asdict(measured)}
        self.figures.append(figure)
        if side == "predictions" and part == "speed":
            self.figures.append({**figure, "side": "job", "seconds": measured.process_seconds, "phases": {}})
        print(f"{part}, {size['rows']:,} rows, round {number}: {side} {measured.seconds:.2f} s", file=sys.stderr)


def summed_up(figures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns for each part, size and side the medians, and the median of the ratios round by round."""
    rows = []
    groups = dict.fromkeys((figure["part"], figure["rows"], figure["side"]) for figure in figures)
    for part, size, side in groups:
        here = [figure for figure in figures if (figure["part"], figure["rows"]) == (part, size)]
        own = [figure for figure in here if figure["side"] == side]
        seconds = [figure["seconds"] for figure in own]
        other = COMPARED_WITH.get(side)
        others = {figure["round"]: figure["seconds"] for figure in here if figure["side"] == other}
        ratios = [figure["seconds"] / others[figure["round"]] for figure in own if figure["round"] in others]
        names = dict.fromkeys(name for figure in own for name in figure["phases"])
        rows.append(
            {
                "part": part,
                "rows": size,
                "side": side,
                "seconds": statistics.median(seconds),
                "from_seconds": min(seconds),
                "to_seconds": max(seconds),
                "peak_mebibytes": statistics.median(figure["peak_mebibytes"] for figure in own),
                "compared_with": other if ratios else None,
                "ratio": statistics.median(ratios) if ratios else None,
                "phases": {name: statistics.median(figure["phases"][name] for figure in own) for name in names},
            }
        )
    return rows


def growth(summary: Sequence[dict[str, Any]], part: str, name: str) -> float | None:
    """Returns by how much a figure of a part grows from the smallest size to the largest; None without two sizes."""
    rows = sorted((row for row in summary if row["part"] == part), key=lambda row: row["rows"])
    return rows[-1][name] / rows[0][name] if len(rows) > 1 else None


def print_summary(document: dict[str, Any]) -> None:
    """Prints what has been measured as a table."""
    table = Table("part", "rows", "side", "median s", "from", "to", "ratio", "peak MiB", "phases, s")
    for name in ("rows", "median s", "from", "to", "peak MiB"):
        next(column for column in table.columns if column.header == name).justify = "right"
    for row in document["summary"]:
        table.add_row(
            row["part"],
            f"{row['rows']:,}",
            row["side"],
            *(f"{row[name]:.2f}" for name in ("seconds", "from_seconds", "to_seconds")),
            f"{row['ratio']:.2f} x {row['compared_with']}" if row["ratio"] else "",
            f"{row['peak_mebibytes']:.0f}",
            ", ".join(f"{name.removesuffix('_seconds')} {seconds:.2f}" for name, seconds in row["phases"].items()),
        )
    # A pipe has no width to fit the table to.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
    for sentence, name in (
        ("peak of memory, most items to fewest", "memory_ratio"),
        ("seconds of an hour, largest table to smallest", "table_ratio"),
    ):
        if document[name]:
            console.print(f"{sentence}: {document[name]:.2f}")
    about = document["about"]
    console.print(f"{about['server']}, {about['cores']} cores, commit {about['commit'] or 'unknown'}")


def circumstances(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """Returns what the figures depend on."""
    commit = None
    if git := shutil.which("git"):
        described = subprocess.run(
            [git, "describe", "--always", "--dirty"],
            cwd=root_folder(),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        commit = described.stdout.strip() or None
    return {
        "server": server.version,
        "server_settings": server_settings(server),
        "cores": os.cpu_count(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": commit,
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
    }


def positive(text: str) -> int:
    """Returns the number that an option gives.

    Raises:
        argparse.ArgumentTypeError: It is none from 1 on.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = partial(parser.add_argument, type=positive, nargs="*", metavar="N")
    sizes("--items", default=[HOUR_ITEMS, 300_000], help="items of the hour")
    sizes("--pandas-items", default=[300_000], help="items of the hour for pandas")
    sizes("--ray-items", default=[300_000], help="items of the hour for Ray Data")
    sizes("--textbook-items", default=[1000, 4000], help="items of the hour for the textbook")
    sizes("--memory", default=[], help="items of the hour of which the peak of memory is measured")
    sizes("--table", default=[], help=f"rows of the tables in which an hour of {HOUR_ITEMS:,} is measured")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--server", choices=["mariadb", "mysql"], help="the kind of server; without it the one found")
    parser.add_argument("--settle", type=float, default=60, help="seconds the server has at the most to come to rest")
    parser.add_argument("--ray-python", default=sys.executable, help="the Python that has Ray, if another")
    parser.add_argument("--json", type=Path, help="a file for every figure")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 1 if a side has not done its work."""
    options = parsed(arguments)
    try:
        with (
            tempfile.TemporaryDirectory() as home,
            server_for_benchmark(options.server, os.environ) as server,
        ):
            programs = Programs(Path(home), clean_environment(os.environ), options.ray_python)
            benchmark = Benchmark(server, programs, options)
            benchmark.run()
            about = circumstances(server, options)
    except SideError as error:
        print(f"speed: {error}", file=sys.stderr)
        return 1
    summary = summed_up(benchmark.figures)
    document = {
        "about": about,
        "summary": summary,
        "memory_ratio": growth(summary, "memory", "peak_mebibytes"),
        "table_ratio": growth(summary, "table", "seconds"),
        "figures": benchmark.figures,
    }
    print_summary(document)
    if options.json:
        options.json.write_text(json.dumps(document, indent=2), "utf-8")
    return 0


if __name__ == "__main__":
    # A signal must leave through the contexts that remove the databases.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
