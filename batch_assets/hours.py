"""The hours of UTC: the partitions of a pipeline, and how they are written."""

import datetime
from dataclasses import dataclass

HOUR_FORMAT = "%Y-%m-%d-%H:%M"


@dataclass(frozen=True)
class Hour:
    """An hour of UTC, half open.

    Args:
        start: Its first moment, without a zone as the database has it.
    """

    start: datetime.datetime

    @property
    def end(self) -> datetime.datetime:
        """The first moment that is no longer in it."""
        return self.start + datetime.timedelta(hours=1)

    @property
    def key(self) -> str:
        """How it is written as a partition, for example `2026-11-01-05:00`."""
        return self.start.strftime(HOUR_FORMAT)


def hour_of_key(key: str) -> Hour | None:
    """Returns the hour that is written as `key`, None if it is none."""
    try:
        moment = datetime.datetime.strptime(key, HOUR_FORMAT)  # noqa: DTZ007 - UTC without a zone, as in the database
    except ValueError:
        return None
    return Hour(moment) if Hour(moment).key == key and moment.minute == 0 else None


def utc_now() -> datetime.datetime:
    """Returns the present in UTC without a zone, as the database has times."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def open_hour() -> Hour:
    """Returns the hour that has not ended."""
    return Hour(utc_now().replace(minute=0, second=0, microsecond=0))


def hours_between(first: Hour, last: Hour) -> list[Hour]:
    """Returns the hours from one to another, both included."""
    count = (last.end - first.start) // datetime.timedelta(hours=1)
    return [Hour(first.start + datetime.timedelta(hours=number)) for number in range(count)]
