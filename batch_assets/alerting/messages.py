"""The messages about incidents: one for those of a kind that are new, and one for those that are over."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from batch_assets.alerting.incidents import (
    CANARY_FAILED,
    CHECK_FAILED,
    DEADLINE_MISSED,
    DRIFT,
    HOUR_FAILED,
    VOLUME,
)
from batch_assets.database.records.incidents import RecordedIncident
from batch_assets.hours import Hour
from batch_assets.wording import counted

# A whole backfill may fail at once.
INCIDENTS_NAMED = 10
_TITLES = {
    HOUR_FAILED: "{count} failed",
    CHECK_FAILED: "{count} of an hour failed",
    DRIFT: "{count} of drift",
    VOLUME: "an unusual number of items",
    DEADLINE_MISSED: "the newest hour was not scored in time",
    CANARY_FAILED: "the canary failed",
}
_THINGS = {
    HOUR_FAILED: "hour",
    CHECK_FAILED: "check",
    DRIFT: "alarm",
    VOLUME: "hour",
    DEADLINE_MISSED: "hour",
    CANARY_FAILED: "canary",
}


@dataclass(frozen=True)
class Message:
    """A message about some incidents at once.

    Args:
        title: What it is about, in a line.
        body: The cause of each, and where to look.
        is_over: Whether it says that they are over.
        incidents: What it is of.
    """

    title: str
    body: str
    is_over: bool
    incidents: Sequence[RecordedIncident]


def messages(
    pipeline: str, incidents: Iterable[RecordedIncident], link_of: Callable[[Hour], str] | None
) -> list[Message]:
    """Returns the messages: first what is over, then what is new.

    Args:
        pipeline: The name of the pipeline, which each message begins with.
        incidents: Those that they are about.
        link_of: Where an hour can be looked at, None if that is not known.
    """

    def kind(incident: RecordedIncident) -> tuple[bool, str]:
        return incident.over_at is None, incident.incident.kind

    return [
        _message(pipeline, name, list(group), link_of, is_over=not is_new)
        for (is_new, name), group in groupby(sorted(incidents, key=kind), kind)
    ]


def _message(
    pipeline: str,
    kind: str,
    incidents: Sequence[RecordedIncident],
    link_of: Callable[[Hour], str] | None,
    *,
    is_over: bool,
) -> Message:
    title = _TITLES[kind].format(count=counted(len(incidents), _THINGS[kind]))
    lines = []
    for each in incidents[:INCIDENTS_NAMED]:
        incident, since = each.incident, f"since {each.opened_at:%Y-%m-%d %H:%M} UTC"
        lines.append(f"{incident.subject}: {f'over, {since}: ' if is_over else ''}{incident.cause}.")
        if link_of:
            lines.append(link_of(incident.hour))
    if len(incidents) > INCIDENTS_NAMED:
        lines.append(f"And {len(incidents) - INCIDENTS_NAMED:,} more: see the table incidents.")
    return Message(f"{pipeline}: {'over: ' if is_over else ''}{title}", "\n".join(lines), is_over, incidents)
