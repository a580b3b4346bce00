"""The hours that a command is told."""

from batch_assets.errors import RetryError
from batch_assets.hours import Hour, hour_of_key, utc_now


def closed_hour(text: str, first: Hour, or_else: str = "") -> Hour:
    """Returns the hour that is written as a text, which must be one that can be scored.

    Args:
        text: What was written.
        first: The first hour of the pipeline.
        or_else: What else it might have been, in words.

    Raises:
        RetryError: It is no hour, has not ended, or lies before the first one.
    """
    hour = hour_of_key(text)
    if hour is None:
        what = f"is neither an hour nor {or_else}" if or_else else "is no hour"
        raise RetryError(f"{text!r} {what}: write an hour of UTC as 2026-11-01-05:00. Nothing was changed.")
    if hour.end > utc_now():
        raise RetryError(f"The hour {text} has not ended: it is scored from {hour.end} UTC on. Nothing was changed.")
    if hour.start < first.start:
        raise RetryError(
            f"The hour {text} lies before the first one, {first.key}: set BATCH_FIRST_HOUR to {text} or earlier. "
            "Nothing was changed."
        )
    return hour
