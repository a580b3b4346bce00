"""The incidents of which the alerts notify somebody: the table `incidents`.

An incident is recorded before the receivers are notified, and that they were notified is recorded afterwards. A process
that dies in between leaves an incident of which they are notified again: at least once, and at most twice.
"""

import datetime
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot, writing
from batch_assets.database.schema.tables import PipelineTables, incidents
from batch_assets.hours import Hour

_SEPARATOR = "\n"


@dataclass(frozen=True)
class Incident:
    """Something of which somebody must be notified.

    Args:
        kind: Of what kind it is, for example `hour failed`.
        subject: What it is about, for example an hour. Of a kind and a subject there is one incident at a time.
        hour: The hour in which it was found.
        cause: Why, in a sentence.
    """

    kind: str
    subject: str
    hour: Hour
    cause: str


@dataclass(frozen=True)
class RecordedIncident:
    """An incident of which a receiver is yet to be notified.

    Args:
        number: Its number among those of the pipeline.
        incident: The incident.
        opened_at: When it was found, in UTC without a zone.
        notified_at: When every receiver had the message.
        over_at: When it was found to be over.
        over_notified_at: When every receiver had the message of that.
        received_by: The receivers that have had the message that others are yet to get.
    """

    number: int
    incident: Incident
    opened_at: datetime.datetime
    notified_at: datetime.datetime | None = None
    over_at: datetime.datetime | None = None
    over_notified_at: datetime.datetime | None = None
    received_by: frozenset[str] = frozenset()

    @property
    def is_unnotified(self) -> bool:
        """Whether a receiver is yet to hear that it is there, or that it is over."""
        return self.over_at is not None or self.notified_at is None

    def notified(self, receiver: str, receivers: Collection[str], now: datetime.datetime) -> Self:
        """Returns it as it is when a receiver has had its message.

        Args:
            receiver: Who has had it.
            receivers: Who is to have it: with the last of them everybody is notified.
            now: The present, in UTC without a zone.
        """
        heard = self.received_by | {receiver}
        if not heard >= set(receivers):
            return replace(self, received_by=heard)
        moment = now.replace(microsecond=0)
        return replace(
            self,
            notified_at=self.notified_at or moment,
            over_notified_at=moment if self.over_at else None,
            received_by=frozenset(),
        )


def unfinished_incidents(engine: sa.Engine, tables: PipelineTables) -> list[RecordedIncident]:
    """Returns the incidents that are not over, or of whose end a receiver is yet to be notified; oldest first."""
    columns = incidents.c
    unfinished = sa.and_(tables.has(incidents), columns.over_notified_at.is_(None))
    with snapshot(engine) as connection:
        rows = connection.execute(sa.select(incidents).where(unfinished).order_by(columns.number)).all()
    return [
        RecordedIncident(
            row.number,
            Incident(row.kind, row.subject, Hour(row.hour), row.cause),
            row.opened_at,
            row.notified_at,
            row.over_at,
            row.over_notified_at,
            frozenset(row.received_by.split(_SEPARATOR)) - {""},
        )
        for row in rows
    ]


def record_changes(
    engine: sa.Engine,
    tables: PipelineTables,
    opened: Sequence[Incident],
    over: Collection[RecordedIncident],
    now: datetime.datetime,
) -> None:
    """Records which incidents are new and which are over; nobody is notified of either yet.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        opened: New ones.
        over: Recorded ones that are over. Where nobody was notified of the beginning, one message says that it is over.
        now: The present, in UTC without a zone.
    """
    columns, moment = incidents.c, now.replace(microsecond=0)
    with writing(engine) as connection:
        last = connection.execute(sa.select(sa.func.max(columns.number)).where(tables.has(incidents))).scalar()
        rows = [
            {
                "pipeline": tables.pipeline,
                "number": number,
                "kind": incident.kind,
                "subject": incident.subject,
                "hour": incident.hour.start,
                "cause": incident.cause,
                "opened_at": moment,
                "received_by": "",
            }
            for number, incident in enumerate(opened, start=(last or 0) + 1)
        ]
        if rows:
            connection.execute(sa.insert(incidents), rows)
        if over:
            these = columns.number.in_([each.number for each in over])
            # What was heard so far was another message.
            ended = sa.update(incidents).where(tables.has(incidents), these).values(over_at=moment, received_by="")
            connection.execute(ended)


def record_notified(engine: sa.Engine, tables: PipelineTables, notified: Iterable[RecordedIncident]) -> None:
    """Records which receivers were notified of some incidents, in one transaction."""
    columns = incidents.c
    with writing(engine) as connection:
        for each in notified:
            same = sa.and_(tables.has(incidents), columns.number == each.number)
            values = {
                "notified_at": each.notified_at,
                "over_notified_at": each.over_notified_at,
                "received_by": _SEPARATOR.join(sorted(each.received_by)),
            }
            connection.execute(sa.update(incidents).where(same).values(values))


def remove_incidents(engine: sa.Engine, tables: PipelineTables, before: datetime.datetime) -> int:
    """Removes incidents of whose end everybody was notified before a moment of UTC; returns how many there were."""
    old = sa.and_(tables.has(incidents), incidents.c.over_notified_at < before)
    with writing(engine) as connection:
        return connection.execute(sa.delete(incidents).where(old)).rowcount
