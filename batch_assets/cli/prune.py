"""`batch-assets prune`: what is old goes."""

import datetime
import re

import click

from batch_assets.cli.pipelines import chosen_pipeline, pipeline_option, pipelines_of_table
from batch_assets.hours import utc_now


def _age(_context: click.Context, _parameter: click.Parameter, text: str | None) -> datetime.timedelta | None:
    from batch_assets.database.records.pruning import LEAST_AGE  # noqa: PLC0415

    if text is None:
        return None
    written = re.fullmatch(r"([0-9]{1,5})([dh])", text)
    if not written:
        raise click.BadParameter(f"{text!r} is not an age: write days as 90d, or hours as 72h.")
    age = int(written[1]) * datetime.timedelta(hours=24 if written[2] == "d" else 1)
    if age < LEAST_AGE:
        raise click.BadParameter(
            f"{text!r} reaches into hours that the sensor may yet request, to score what is left of them: write "
            f"{LEAST_AGE.days}d or more."
        )
    return age


@click.command()
@click.option(
    "--items-older-than", "items_age", metavar="AGE", callback=_age, help="Remove hours older than this, as 90d or 72h."
)
@click.option(
    "--runs-older-than", "runs_age", metavar="AGE", callback=_age, help="Remove runs of Dagster that ended longer ago."
)
@click.option("--unscored-too", is_flag=True, help="Remove items that nobody has scored too.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@pipeline_option
def prune(
    items_age: datetime.timedelta | None,
    runs_age: datetime.timedelta | None,
    unscored_too: bool,
    dry_run: bool,
    name: str | None,
) -> None:
    """Remove old hours, and Dagster's old runs, in small steps beside the service.

    Of an hour its items go, then its rows in failed_items, run_summary, hour_requests and hour_profiles: oldest hour
    first, in short transactions, at the pace of BATCH_MAX_ROWS_PER_SECOND, BATCH_MAX_LOAD and BATCH_REPLICAS. What was
    interrupted the next prune finishes. An hour stays while a run holds it or will yet write it, and while it has items
    that nobody has scored, unless these may go too. Idempotency keys of the web API that are as old go as well, and
    incidents that have been over for as long.

    A run goes with its events and logs, from which the UI knows that an hour was materialised. So the last run of an
    hour stays, however old, until the hour itself is pruned, and that of an asset without hours for good. A pruned
    hour is shown as missing when its runs are gone.

    An hour of a table that several pipelines score is removed only when all of them have scored it.

    The status is 1 if something had to stay, and a sentence says what. DAGSTER_HOME names the instance.
    """
    if items_age is None and runs_age is None:
        raise click.UsageError("Nothing to remove: give --items-older-than, --runs-older-than or both.")
    if unscored_too and items_age is None:
        raise click.UsageError("--unscored-too is about items: give --items-older-than too.")
    from batch_assets.orchestration.prune import Prune, run_prune  # noqa: PLC0415 - imports Dagster

    now = utc_now()
    hours_before = (now - items_age).replace(minute=0, second=0, microsecond=0) if items_age else None
    wanted = Prune(hours_before, now - runs_age if runs_age else None, unscored_too, dry_run)
    run_prune(pipelines_of_table(chosen_pipeline(name)), wanted, click.echo)
