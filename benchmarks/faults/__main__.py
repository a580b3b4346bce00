"""A fault campaign: hours are scored on a private server while workers and the server die, and nothing may be lost.

    python -m benchmarks.faults --faults 300 --seed 1 [--server mariadb|mysql] [--pipelines 2]
        [--max-slowdown 2] [--json FILE]

Each round has an hour of its own. While the job runs on it, faults of the kinds in `KINDS` hit it, mostly in the step
that scores. Then the hour is checked by SQL that shares nothing with the package, a healthy run completes it, and it is
checked again. Prints counts by kind and every violation; the exit status is 1 if there is one.

With two pipelines, a project declares a second one on the same table, with a model and a column of its own. The first
one scores lists, the second one columns of numbers. Runs of both score the hour at the same time. A fault hits a run of
one of them, or both where it hits the server or the rows. The one that was not hit must end well by itself. The last
fault of a round hits one pipeline while the other has no run. Nothing of the other may change then.

The seed decides which rounds and faults there are and for which part of which step they are meant. The moment at which
they really hit varies with the machine, and with it what they find. A fault that finds no run is not counted, but tried
again on another run.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batch_assets.settings.folders import root_folder
from benchmarks.faults.campaign import Campaign
from benchmarks.faults.plan import FIRST_HOUR, KINDS, MODES, OF_ALL, Fault, Plan, kinds_in_turn, plan
from benchmarks.faults.round import Round
from benchmarks.faults.run import PRELOADED, PRELOADED_PROJECT
from benchmarks.servers import server_of_kind


def run_campaign(campaign: Campaign, faults: int, modes: Sequence[str]) -> None:
    """Plays rounds until so many faults have hit."""
    kinds, number = kinds_in_turn(campaign.seed), 0
    while (left := faults - campaign.tally.faults.total()) > 0:
        size = min(left, random.Random(f"{campaign.seed}/{number}/size").randint(3, 6))
        planned = plan(number, campaign.seed, [next(kinds) for _ in range(size)], modes, len(campaign.pipelines))
        start = time.monotonic()
        Round(campaign, planned).play()
        print(
            f"round {number}: {' beside '.join(planned.modes)}, {planned.items} items, {_listed(campaign, planned)}; "
            f"{time.monotonic() - start:.1f} s, {campaign.tally.faults.total()} faults so far",
            flush=True,
        )
        number += 1
    campaign.check_earlier_hours()


def _listed(campaign: Campaign, planned: Plan) -> str:
    """Returns the faults of a round in words."""

    def named(fault: Fault) -> str:
        of_one = len(campaign.pipelines) > 1 and fault.kind not in OF_ALL
        return f"{fault.kind} of {campaign.pipelines[fault.pipeline].name}" if of_one else fault.kind

    together = ", ".join(map(named, planned.faults))
    return together + (f"; {named(planned.alone)} alone" if planned.alone else "")


def print_table(document: dict[str, Any]) -> None:
    """Prints what has happened."""
    print(f"\n{'fault':<16}{'hit':>6}{'missed':>8}   runs that ended: {'green':>6}{'red':>6}{'killed':>8}")
    for kind in KINDS:
        ends = document["runs_by_fault"].get(kind, {})
        print(
            f"{kind:<16}{document['faults'].get(kind, 0):>6}{document['missed'].get(kind, 0):>8}{'':>20}"
            f"{ends.get('green', 0):>6}{ends.get('red', 0):>6}{ends.get('killed', 0):>8}"
        )
    for name, counts in document["faults_by_pipeline"].items():
        ends = document["runs_by_pipeline"].get(name)
        print(f"faults of {name}: {_counted(counts)}" + (f"; its runs: {_counted(ends)}" if ends else ""))
    print("\nwhere they hit: " + "; ".join(f"{where} {count}" for where, count in document["where"].items()))
    if document["beside"]:
        print("where a run of the other pipeline was: " + _counted(document["beside"]))
    hidden = {"faults", "faults_by_pipeline", "missed", "where", "beside"}
    hidden |= {"runs_by_fault", "runs_by_pipeline", "violations"}
    print("; ".join(f"{name}: {value}" for name, value in document.items() if name not in hidden))
    print(f"violations: {len(document['violations'])}")
    for violation in document["violations"]:
        print(json.dumps(violation))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def main() -> int:
    """Plays the campaign and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300, help="how many faults are to hit")
    parser.add_argument("--seed", type=int, default=1, help="decides rounds and faults")
    parser.add_argument("--server", choices=["mariadb", "mysql"], help="the kind of server; without it the one found")
    parser.add_argument("--modes", default=",".join(MODES), help="retry modes, in turn")
    parser.add_argument("--pipelines", type=int, choices=[1, 2], default=1, help="how many score the table")
    parser.add_argument("--max-slowdown", help="BATCH_MAX_SLOWDOWN of the runs; without it they write at full speed")
    parser.add_argument("--json", type=Path, help="a file for the counts and violations")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("MYSQL_", "BATCH_", "DAGSTER_"))]:
        del os.environ[name]  # what is set on the machine would only change results
    # The hours are decided when the definitions are imported: for workers, in the process from which they are forked.
    os.environ["BATCH_FIRST_HOUR"] = FIRST_HOUR.strftime("%Y-%m-%d-%H:%M")
    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as home,
        tempfile.TemporaryDirectory() as folder,
        server_of_kind(options.server) as private,
        private.server.database() as database,
    ):
        # What workers find, which are started with the first run.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(root_folder()), folder])
        sys.path.append(folder)
        preloaded = [*PRELOADED, *([PRELOADED_PROJECT] if options.pipelines > 1 else [])]
        multiprocessing.get_context("forkserver").set_forkserver_preload(preloaded)
        project = Path(folder) if options.pipelines > 1 else None
        settings = {"BATCH_MAX_SLOWDOWN": options.max_slowdown} if options.max_slowdown else {}
        campaign = Campaign(private, database, Path(home), options.seed, project, settings)
        run_campaign(campaign, options.faults, options.modes.split(","))
        document = campaign.tally.document(time.monotonic() - start, private.server.version, options.seed)
    print_table(document)
    if options.json:
        options.json.write_text(json.dumps(document, indent=2), "utf-8")
    return 1 if document["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
