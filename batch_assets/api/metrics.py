"""The metrics for Prometheus: what is left to do, as the tables have it, and how long requests take."""

import datetime
from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from batch_assets.api.served import ServedPipeline
from batch_assets.database.records.remaining import remaining_by_hour
from batch_assets.database.records.summaries import read_summaries
from batch_assets.errors import DatabaseError
from batch_assets.hours import Hour, utc_now

PREFIX = "batch_assets"


# In the order in which they are shown.
_HELP = {
    "database_up": "Whether the database answers.",
    "items_pending": "Items that are to be scored.",
    "items_failed": "Items that cannot be scored as they are.",
    "last_scored_hour_timestamp_seconds": "Start of the newest hour that was scored.",
    "last_scored_hour_age_seconds": "How long the newest hour that was scored has been over.",
}


_DOWN: Mapping[str, float] = {"database_up": 0}


class Metrics:
    """The metrics of an application.

    Args:
        pipelines: What it serves.
    """

    def __init__(self, pipelines: Sequence[ServedPipeline]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Tables(pipelines))
        ProcessCollector(registry=self._registry)
        self._seconds = Histogram(
            f"{PREFIX}_api_request_seconds",
            "How long requests take.",
            ["method", "path", "status"],
            registry=self._registry,
        )

    def observe(self, method: str, path: str, status: int, seconds: float) -> None:
        """Takes note of a request."""
        self._seconds.labels(method, path, str(status)).observe(seconds)

    def text(self) -> bytes:
        """Returns all of them in Prometheus' text format."""
        return generate_latest(self._registry)


class _Tables(Collector):
    """What the tables say at the moment at which it is asked.

    The series of the pipeline of the environment have no label, as they had none before there were others, so that the
    queries of a dashboard or an alert find them. Those of another one have the label `pipeline`.
    """

    def __init__(self, pipelines: Sequence[ServedPipeline]) -> None:
        self._pipelines = pipelines

    def describe(self) -> list[GaugeMetricFamily]:
        """Says nothing in advance: registering it must not need the database."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Asks the databases; of a pipeline whose database is away this is all there is to say."""
        gauges = {name: GaugeMetricFamily(f"{PREFIX}_{name}", text) for name, text in _HELP.items()}
        away: set[sa.Engine] = set()
        for served in self._pipelines:
            labels = {} if served.is_of_environment else {"pipeline": served.pipeline.name}
            # One that does not answer takes seconds to say so, and Prometheus waits for ten.
            values = _DOWN if served.engine in away else _values(served)
            if values == _DOWN:
                away.add(served.engine)
            for name, value in values.items():
                gauges[name].add_sample(f"{PREFIX}_{name}", labels, value)
        yield from (gauge for gauge in gauges.values() if gauge.samples)


def _values(served: ServedPipeline) -> Mapping[str, float]:
    now, pipeline = utc_now(), served.pipeline
    try:
        left = remaining_by_hour(
            served.engine, served.tables, pipeline.first_hour, now, pipeline.retry.max_attempts
        ).values()
        newest = read_summaries(served.engine, served.tables, None, 1)
    except DatabaseError:
        return _DOWN
    values: dict[str, float] = {
        "database_up": 1,
        "items_pending": sum(hour.pending for hour in left),
        "items_failed": sum(hour.failed + hour.given_up for hour in left),
    }
    if newest:
        hour = Hour(newest[0].hour)
        values["last_scored_hour_timestamp_seconds"] = hour.start.replace(tzinfo=datetime.UTC).timestamp()
        values["last_scored_hour_age_seconds"] = (now - hour.end).total_seconds()
    return values
