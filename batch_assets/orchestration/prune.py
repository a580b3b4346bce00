"""What `batch-assets prune` does: hours first, since a run may go only when its hour is gone."""

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import dagster as dg
import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.connection.throttle import Throttle
from batch_assets.database.records.incidents import remove_incidents
from batch_assets.database.records.pruning import (
    IN_USE,
    LOCKED,
    UNSCORED,
    PrunedHour,
    Pruning,
    existing_hours,
    old_hours,
    remove_registrations,
)
from batch_assets.database.schema.tables import PipelineTables, pipeline_tables
from batch_assets.errors import PruneError
from batch_assets.hours import Hour
from batch_assets.orchestration.old_runs import OldRuns, hours_in_use, opened_instance
from batch_assets.pipeline import Declaration
from batch_assets.settings.environment import environment
from batch_assets.wording import counted

HOURS_NAMED = 20


@dataclass(frozen=True)
class Prune:
    """What is to be removed.

    Args:
        hours_before: Hours that end by then, with their items; None for none. The start of an hour.
        runs_before: Runs that ended before; None for none.
        unscored_too: Whether to remove items that nobody has scored.
        dry_run: Whether only to say what would be removed.
    """

    hours_before: datetime.datetime | None
    runs_before: datetime.datetime | None
    unscored_too: bool
    dry_run: bool


def run_prune(declared: Sequence[Declaration], wanted: Prune, on_progress: Callable[[str], None]) -> None:
    """Removes what is wanted.

    Args:
        declared: The pipelines that score one table: what all of them are done with can go.
        wanted: What is to be removed; times in UTC without a zone.
        on_progress: Is called with each sentence of progress.

    Raises:
        PruneError: Something had to stay.
        SettingsError: There is no Dagster instance, or a limit of the throttle cannot be used.
        DatabaseUnavailableError: The server is away or busy; what was removed stays so.
    """
    pipeline = declared[0].load()
    engine, tables = engine_for(pipeline.database), [pipeline_tables(declaration) for declaration in declared]
    throttle = Throttle(engine, pipeline.throttle, on_progress)
    hours: list[PrunedHour] = []
    with opened_instance(environment()) as instance:
        if wanted.hours_before:
            pruning = Pruning(engine, tables, throttle, on_progress, unscored_too=wanted.unscored_too)
            found = {hour for each in tables for hour in old_hours(engine, each, wanted.hours_before)}
            old = sorted(found, key=lambda hour: hour.start)
            in_use = partial(_in_use, instance, declared)
            hours = _prune_hours(in_use, pruning, old, wanted, on_progress)
            if not wanted.dry_run:
                forgotten = sum(remove_registrations(engine, each, wanted.hours_before, throttle) for each in tables)
                incidents = sum(remove_incidents(engine, each, wanted.hours_before) for each in tables)
                keys = f"{counted(forgotten, 'idempotency key')} of the web API"
                on_progress(f"{keys} and {counted(incidents, 'incident')} forgotten.")
        if wanted.runs_before:
            gone = {pruned.hour for pruned in hours if not pruned.left}
            _prune_runs(OldRuns(instance, engine, declared, wanted.runs_before), throttle, gone, wanted, on_progress)
    if wanted.dry_run:
        on_progress("Nothing was removed: this was a dry run.")
    _raise_if_left(engine, tables, hours)


def _prune_hours(
    in_use: Callable[[], set[Hour]],
    pruning: Pruning,
    hours: Sequence[Hour],
    wanted: Prune,
    on_progress: Callable[[str], None],
) -> list[PrunedHour]:
    done, start = [], time.monotonic()
    for hour in hours:
        began = time.monotonic()
        # Asked anew for each: a run of it may have been requested meanwhile.
        if hour in in_use():
            pruned = PrunedHour(hour, left=IN_USE)
        else:
            pruned = pruning.look(hour) if wanted.dry_run else pruning.remove(hour)
        done.append(pruned)
        if pruned.removed or not pruned.left:
            how = "would be removed" if wanted.dry_run else f"removed in {time.monotonic() - began:.1f} seconds"
            on_progress(f"{hour.key}: {counted(pruned.removed, 'item')} {how}")
    how = "would be removed" if wanted.dry_run else f"removed in {time.monotonic() - start:.1f} seconds"
    on_progress(
        f"{counted(sum(not pruned.left for pruned in done), 'hour')}, "
        f"{counted(sum(pruned.removed for pruned in done), 'item')} {how}."
    )
    return done


def _prune_runs(
    runs: OldRuns, throttle: Throttle, gone: set[Hour], wanted: Prune, on_progress: Callable[[str], None]
) -> None:
    removed, kept, start = 0, 0, time.monotonic()
    for removable, run_id in runs.removable(gone):
        if removable and not wanted.dry_run:
            runs.remove(run_id, throttle)
        removed, kept = removed + removable, kept + (not removable)
    if not wanted.dry_run:
        runs.forget_status()
    how = "would be removed" if wanted.dry_run else f"removed in {time.monotonic() - start:.1f} seconds"
    stay = f"; {kept:,} as old stay, each the last of an hour or an asset that is there" if kept else ""
    on_progress(f"{counted(removed, 'run')} with events and logs {how}{stay}.")


def _in_use(instance: dg.DagsterInstance, declared: Sequence[Declaration]) -> set[Hour]:
    return {hour for declaration in declared for hour in hours_in_use(instance, declaration)}


def _raise_if_left(engine: sa.Engine, tables: Sequence[PipelineTables], hours: Sequence[PrunedHour]) -> None:
    left = {why: [pruned for pruned in hours if pruned.left == why] for why in (IN_USE, UNSCORED, LOCKED)}
    # Some of them another prune has removed meanwhile.
    in_use = {pruned.hour for pruned in left[IN_USE]}
    there = {hour for each in tables for hour in existing_hours(engine, each, in_use)}
    left[IN_USE] = [pruned for pruned in left[IN_USE] if pruned.hour in there]
    sentences = [_sentence(why, stay) for why, stay in left.items() if stay]
    if sentences:
        raise PruneError(" ".join(sentences))


def _sentence(why: str, stay: Sequence[PrunedHour]) -> str:
    keys = ", ".join(pruned.hour.key for pruned in stay[:HOURS_NAMED])
    keys += f" and {len(stay) - HOURS_NAMED:,} more" if len(stay) > HOURS_NAMED else ""
    hours, items = counted(len(stay), "hour"), counted(sum(pruned.items for pruned in stay), "item")
    return {
        IN_USE: f"Not pruned, since a run holds them, will yet write them or has failed within a day: {hours}, {keys}. "
        "Prune again when it has ended.",
        UNSCORED: f"Not pruned, since nobody has scored {items}: {hours}, {keys}. Materialise them, or have them "
        "requested with `batch-assets retry HOUR`, and prune again; or remove them as they are with --unscored-too.",
        LOCKED: f"Not pruned to the end, since {items} came or were locked by another transaction meanwhile: {hours}, "
        f"{keys}. Prune again.",
    }[why]
