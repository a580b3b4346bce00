"""The faults that a person can fix, each with a sentence that says how. No Dagster in here.

This is the one place that says what is retried by whom; `failures.py` hands it on to Dagster. `transient`: the same
call may succeed by itself a moment later, so the step is tried again. `permanent`: nobody tries again before somebody
has fixed something. `of_run`: the fault lies in how one run was requested or where it ran; it says nothing about the
hour, for which the run before it counts. What is none of these is left to the sensor, and a worker that crashed to
Dagster's `run_retries`.
"""

from collections.abc import Mapping, Sequence


class BatchAssetsError(Exception):
    """A fault whose message names the thing, the value and the next step."""

    transient = False
    of_run = False
    partitions: Sequence[str] = ()

    @property
    def permanent(self) -> bool:
        """Whether the fault stays until somebody fixes it."""
        return not self.transient and not self.of_run


class SettingsError(BatchAssetsError):
    """An environment variable is missing or has a value that cannot be used: another process may have other ones."""

    of_run = True


class RunTagError(BatchAssetsError):
    """A tag of the run has a value that cannot be used."""

    of_run = True


class DatabaseError(BatchAssetsError):
    """The database refused a statement for a reason that stays until somebody fixes it."""


class DuplicateKeyError(DatabaseError):
    """The database refused a row because another one has its key."""


class DatabaseUnavailableError(DatabaseError):
    """The database is away, busy or has dropped the connection: the same statement may succeed later."""

    transient = True


class DatabaseAccessError(DatabaseError):
    """The database does not let this process in: another one may have other settings or another address."""

    of_run = True


class TableError(BatchAssetsError):
    """A table or a batch of rows does not have the columns or the rows that it must have."""


class BaselineError(BatchAssetsError):
    """Of the hours or the items that were named no baseline can be made."""


class PromotionError(BatchAssetsError):
    """No other model can be put in force, or none be taken back: nothing was changed."""


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


class RegistryError(ModelError):
    """The registry of models does not let this process in: another one may have other settings."""

    of_run = True


class RegistryUnavailableError(RegistryError):
    """The registry of models is away or busy: the same question may be answered later."""

    transient = True
    of_run = False


class ClusterUnavailableError(BatchAssetsError):
    """The cluster that is to score does not answer, or lost a part of an hour more than once: it may come back."""

    transient = True


class HourError(BatchAssetsError):
    """The hour asked for is not a closed hour of this pipeline."""

    of_run = True


class HourBusyError(BatchAssetsError):
    """Another run holds the hour, or has taken it over: it is that one's to score."""

    of_run = True


class CanaryError(BatchAssetsError):
    """The model answers otherwise than when it scored the same items."""


class ThresholdError(BatchAssetsError):
    """More items of the hour cannot be scored than the settings allow."""


class PartitionsError(BatchAssetsError):
    """Some partitions of a run could not be stored; the others were.

    Args:
        message: The sentence.
        faults: Why each of those that could not, by its key.
    """

    def __init__(self, message: str, faults: Mapping[str, BatchAssetsError]) -> None:
        super().__init__(message)
        self.partitions = list(faults)
        self.transient = any(fault.transient for fault in faults.values())
        self.of_run = all(fault.of_run for fault in faults.values())
        self._permanent = all(fault.permanent for fault in faults.values())

    @property
    def permanent(self) -> bool:
        """Whether the fault of each of them stays until somebody fixes it."""
        return self._permanent


class RegistrationError(BatchAssetsError):
    """A file of items is malformed: nothing of it was registered."""


class RetryError(BatchAssetsError):
    """An item or an hour cannot be put back to be tried again: nothing was changed."""


class IdempotencyError(BatchAssetsError):
    """An idempotency key was used for other items before: nothing was registered."""


class ItemRefusedError(BatchAssetsError):
    """A table does not take items as they were given, or takes none without the service: nothing was changed."""


class ActualError(BatchAssetsError):
    """Actuals name an item that is not there, or cannot be read: nothing was stored."""


class AlertError(BatchAssetsError):
    """A receiver could not be notified of an incident: it is tried again at the next look."""

    transient = True


class PruneError(BatchAssetsError):
    """Something that was to be removed had to stay; the rest is gone."""
