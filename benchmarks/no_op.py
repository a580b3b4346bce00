"""Three hourly assets that do nothing: what any job of three assets costs on this machine."""

import dagster as dg

hours = dg.HourlyPartitionsDefinition("2026-01-01-00:00")


@dg.asset(partitions_def=hours)
def first() -> None:
    """Does nothing."""


@dg.asset(partitions_def=hours, deps=[first])
def second() -> None:
    """Does nothing."""


@dg.asset(partitions_def=hours, deps=[second])
def third() -> None:
    """Does nothing."""


defs = dg.Definitions(
    assets=[first, second, third],
    jobs=[dg.define_asset_job("no_op", selection=[first, second, third])],
    executor=dg.in_process_executor,
)
