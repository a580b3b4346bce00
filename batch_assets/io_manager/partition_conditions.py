"""From Dagster's partitions to the conditions in SQL by which their rows are found."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from batch_assets.database.slices.table_slice import AnyOf, Keys, Partition, TimeWindows
from batch_assets.errors import HourError, TableError

Context = dg.OutputContext | dg.InputContext


def conditions_of_asset(metadata: Mapping[str, Any]) -> tuple[Keys, ...]:
    """Returns the conditions that all rows of an asset fulfil whose table has rows of others too."""
    constants: Mapping[str, str] = metadata.get("constant_columns") or {}
    return tuple(Keys(column, (value,)) for column, value in constants.items())


def conditions_of_partitions(
    context: Context, metadata: Mapping[str, Any], keys: Sequence[str]
) -> tuple[Partition, ...]:
    """Returns the conditions that the rows of some partitions of an asset fulfil.

    Raises:
        TableError: The asset's `partition_expr` does not say by which columns its partitions are found.
    """
    definition, expression = context.asset_partitions_def, metadata.get("partition_expr")
    if isinstance(definition, dg.MultiPartitionsDefinition) and isinstance(expression, Mapping):
        return (*conditions_of_asset(metadata), *_dimensions(definition, expression, keys))
    if not isinstance(definition, dg.MultiPartitionsDefinition) and isinstance(expression, str):
        return (*conditions_of_asset(metadata), _condition(definition, expression, keys))
    example = '"the_column"'
    if isinstance(definition, dg.MultiPartitionsDefinition):
        example = "{" + ", ".join(f'"{part.name}": "its_column"' for part in definition.partitions_defs) + "}"
    raise TableError(
        f"The asset {context.asset_key.to_user_string()} has partitions, and partition_expr, by which their rows are "
        f'found, is {expression!r}: add metadata={{"partition_expr": {example}}} to it.'
    )


def _dimensions(
    definition: dg.MultiPartitionsDefinition, expressions: Mapping[str, str], keys: Sequence[str]
) -> tuple[Partition, ...]:
    """Returns a condition for each dimension if the keys are all combinations of theirs, else exactly the keys."""
    first, second = definition.partitions_defs
    missing = [part.name for part in (first, second) if part.name not in expressions]
    if missing:
        raise TableError(
            f"partition_expr names no column for the dimension {', '.join(missing)}: it needs one for each of "
            f"{first.name}, {second.name}."
        )
    firsts_of: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        names = definition.get_partition_key_from_str(key).keys_by_dimension
        firsts_of[names[second.name]].append(names[first.name])
    seconds_of: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for name, firsts in firsts_of.items():
        seconds_of[frozenset(firsts)].append(name)
    rectangles = [
        (
            _condition(first.partitions_def, expressions[first.name], sorted(firsts)),
            _condition(second.partitions_def, expressions[second.name], seconds),
        )
        for firsts, seconds in seconds_of.items()
    ]
    return rectangles[0] if len(rectangles) == 1 else (AnyOf(tuple(rectangles)),)


def _condition(definition: dg.PartitionsDefinition[Any], expression: str, keys: Sequence[str]) -> TimeWindows | Keys:
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return Keys(expression, tuple(keys))
    windows: list[tuple[Any, Any]] = []
    for window in sorted(definition.time_window_for_partition_key(key) for key in keys):
        if windows and windows[-1][1] == window.start:
            windows[-1] = (windows[-1][0], window.end)
        else:
            windows.append((window.start, window.end))
    return TimeWindows(expression, tuple(windows))


def check_partitions_exist(context: Context) -> None:
    """Dagster's command line starts runs for any partition that it is given, known or not.

    Of a key that is none Dagster makes another one (of 05:30 the hour after) or no key at all.
    """
    try:
        step = context.step_context
    except dg.DagsterInvariantViolationError:  # loaded or stored outside of a run
        return
    definition = step.entity_partitions_def
    if definition is None or not (step.has_partition_key or step.has_partition_key_range):
        return
    asked = step.partition_key_range
    with dg.partition_loading_context(dynamic_partitions_store=step.instance):
        ends = {asked.start, asked.end}
        known = definition.filter_valid_partition_keys(ends)
        unknown = ends - known
        if not unknown:
            unknown = ends - set(
                definition.empty_subset().with_partition_key_range(definition, asked).get_partition_keys()
            )
    if unknown:
        raise HourError(
            f"{', '.join(map(repr, sorted(unknown)))} is no partition of {step.op.name} (an "
            "hour or a day must have passed to be one): choose one that the UI shows."
        )
