"""The faults that a person can fix, each with a sentence that says how. No Dagster in here.

This is the one place that says what is retried by whom; `failures.py` hands it on to Dagster. `transient`: the same
call may succeed by itself a moment later, so the step is tried again. `permanent`: nobody tries again before somebody
has fixed something. What is neither is left to the sensor, and a worker that crashed to Dagster's `run_retries`.
"""

from collections.abc import Sequence


class BatchAssetsError(Exception):
    """A fault whose message names the thing, the value and the next step."""

    transient = False
    partitions: Sequence[str] = ()

    @property
    def permanent(self) -> bool:
        """Whether the fault stays until somebody fixes it."""
        return not self.transient


class SettingsError(BatchAssetsError):
    """An environment variable is missing or has a value that cannot be used."""


class DatabaseError(BatchAssetsError):
    """The database refused a statement for a reason that stays until somebody fixes it."""


class DatabaseUnavailableError(DatabaseError):
    """The database is away, busy or has dropped the connection: the same statement may succeed later."""

    transient = True


class TableError(BatchAssetsError):
    """A table or a batch of rows does not have the columns or the rows that it must have."""


class ModelError(BatchAssetsError):
    """The model or its labels cannot be used, or do not fit the items."""


class ModelRunError(ModelError):
    """The model fails while it scores a batch: an item in it may be to blame, or several.

    Args:
        message: The sentence.
        reason: What the model itself says.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class HourError(BatchAssetsError):
    """The hour asked for is not a closed hour of this pipeline."""


class HourBusyError(BatchAssetsError):
    """Another run holds the hour, or has taken it over: it is that one's to score."""

    permanent = False


class ThresholdError(BatchAssetsError):
    """More items of the hour cannot be scored than the settings allow."""


class PartitionsError(BatchAssetsError):
    """Some partitions of a run could not be stored; the others were.

    Args:
        message: The sentence.
        partitions: The keys of those that could not.
        transient: Whether one of them may succeed by itself a moment later.
    """

    def __init__(self, message: str, partitions: Sequence[str], *, transient: bool) -> None:
        super().__init__(message)
        self.partitions = partitions
        self.transient = transient


class RegistrationError(BatchAssetsError):
    """A file of items is malformed: nothing of it was registered."""


class RetryError(BatchAssetsError):
    """An item or an hour cannot be put back to be tried again: nothing was changed."""


class IdempotencyError(BatchAssetsError):
    """An idempotency key was used for other items before: nothing was registered."""


class PruneError(BatchAssetsError):
    """Something that was to be removed had to stay; the rest is gone."""
