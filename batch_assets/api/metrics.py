"""What Prometheus is told: what is left to do, as the tables have it, and how long requests take."""

import datetime
from collections.abc import Iterator

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from batch_assets.database.records.remaining import remaining_by_hour
from batch_assets.database.records.summaries import read_summaries
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.errors import DatabaseError
from batch_assets.hours import Hour, utc_now
from batch_assets.pipeline import Pipeline

PREFIX = "batch_assets"


class Metrics:
    """The metrics of an application.

    Args:
        engine: The database.
        pipeline: Says which is the first hour, and how often an item may fail.
    """

    def __init__(self, engine: sa.Engine, pipeline: Pipeline) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Tables(engine, pipeline))
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
    """What the tables say at the moment at which it is asked."""

    def __init__(self, engine: sa.Engine, pipeline: Pipeline) -> None:
        self._engine = engine
        self._tables = pipeline_tables(pipeline)
        self._first = pipeline.first_hour
        self._max_attempts = pipeline.retry.max_attempts

    def describe(self) -> list[GaugeMetricFamily]:
        """Says nothing in advance: registering it must not need the database."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Asks the database; while that is away this is all there is to say."""
        now = utc_now()
        try:
            left = remaining_by_hour(self._engine, self._tables, self._first, now, self._max_attempts).values()
            newest = read_summaries(self._engine, self._tables, None, 1)
        except DatabaseError:
            yield _gauge("database_up", "Whether the database answers.", 0)
            return
        yield _gauge("database_up", "Whether the database answers.", 1)
        yield _gauge("items_pending", "Items that are to be scored.", sum(hour.pending for hour in left))
        failed = sum(hour.failed + hour.given_up for hour in left)
        yield _gauge("items_failed", "Items that cannot be scored as they are.", failed)
        if newest:
            yield from _last_hour(Hour(newest[0].hour), now)


def _last_hour(hour: Hour, now: datetime.datetime) -> Iterator[GaugeMetricFamily]:
    start = hour.start.replace(tzinfo=datetime.UTC).timestamp()
    yield _gauge("last_scored_hour_timestamp_seconds", "Start of the newest hour that was scored.", start)
    since = (now - hour.end).total_seconds()
    yield _gauge("last_scored_hour_age_seconds", "How long the newest hour that was scored has been over.", since)


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", help_text, value=value)
