"""How hours are retried, as the environment says it. No Dagster in here."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Self

from batch_assets.errors import RunTagError, SettingsError
from batch_assets.settings.environment import number, one_of


class RetryMode(StrEnum):
    """What a run scores of an hour: what is pending, or every item, published at once."""

    partial = auto()
    whole_batch = auto()


PARTIAL, WHOLE_BATCH, LEAVE = RetryMode.partial.value, RetryMode.whole_batch.value, "leave"
MODES = (PARTIAL, WHOLE_BATCH)


@dataclass(frozen=True)
class RetrySettings:
    """What is done about what could not be done at once.

    Args:
        policy: `partial`, `whole_batch` or `leave`: how the sensor has hours scored again, or that it does not.
        max_attempts: How often an item may fail before it is given up, and how often the sensor requests an hour
            that makes no progress.
        max_failed_items: A run with more failed items in the hour fails; None for no limit.
        max_failed_share: A run with a larger share of failed items in the hour fails; None for no limit.
        wait_for_busy_hour: Whether a run waits for another one on the same hour, or fails.
        backfill_hours: How many hours of a backfill one run takes.
        transient_retries: How often a step is tried again when the database is away or busy.
        transient_retry_seconds: The pause before the first of these; it doubles with each.
    """

    policy: str = PARTIAL
    max_attempts: int = 3
    max_failed_items: int | None = None
    max_failed_share: float | None = None
    wait_for_busy_hour: bool = True
    backfill_hours: int = 24
    transient_retries: int = 5
    transient_retry_seconds: float = 5.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Reads the variables.

        Raises:
            SettingsError: One has a value that cannot be used.
        """
        items, share = environment.get("BATCH_MAX_FAILED_ITEMS"), environment.get("BATCH_MAX_FAILED_SHARE")
        return cls(
            policy=one_of(environment, "BATCH_RETRY", (*MODES, LEAVE), cls.policy),
            max_attempts=int(number(environment, "BATCH_MAX_ATTEMPTS", 1, cls.max_attempts)),
            max_failed_items=int(number(environment, "BATCH_MAX_FAILED_ITEMS", 0, 0)) if items else None,
            max_failed_share=_share(share) if share else None,
            wait_for_busy_hour=one_of(environment, "BATCH_BUSY_HOUR", ("wait", "fail"), "wait") == "wait",
            backfill_hours=int(number(environment, "BATCH_BACKFILL_HOURS", 1, cls.backfill_hours)),
            transient_retries=int(number(environment, "BATCH_TRANSIENT_RETRIES", 0, cls.transient_retries)),
            transient_retry_seconds=number(
                environment, "BATCH_TRANSIENT_RETRY_SECONDS", 0, cls.transient_retry_seconds, whole=False
            ),
        )


def retry_mode(config: RetryMode | None, tag: str | None, settings: RetrySettings) -> str:
    """Returns the retry mode of a run: what its config says, else its tag, else the policy in force.

    Raises:
        RunTagError: The tag is no retry mode.
    """
    mode = config.value if config else tag or (WHOLE_BATCH if settings.policy == WHOLE_BATCH else PARTIAL)
    if mode not in MODES:
        raise RunTagError(f"The tag batch_assets/retry of this run is {mode!r}: set it to {' or '.join(MODES)}.")
    return mode


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise SettingsError(f"BATCH_MAX_FAILED_SHARE is {text!r}: set it to a share from 0 to 1, for example 0.05.")
    return share
