"""The faults that a person can mend, each with a sentence that says how. No Dagster in here.

`transient` says whether the same call may succeed by itself a moment later; `failures.py` hands that on to
Dagster's retries.
"""


class BatchAssetsError(Exception):
    """A fault whose message names the thing, the value and the next step."""

    transient = False


class SettingsError(BatchAssetsError):
    """An environment variable is missing or has a value that cannot be used."""


class DatabaseError(BatchAssetsError):
    """The database refused a statement for a reason that stays until somebody mends it."""


class DatabaseUnavailableError(DatabaseError):
    """The database is away, busy or has dropped the connection: the same statement may succeed later."""

    transient = True


class TableError(BatchAssetsError):
    """A table or a batch of rows does not have the columns or the rows that it must have."""


class ModelError(BatchAssetsError):
    """The model or its labels cannot be used, or do not fit the items."""


class HourError(BatchAssetsError):
    """The hour asked for is not a closed hour of this pipeline."""


class RegistrationError(BatchAssetsError):
    """A file of items is malformed: nothing of it was registered."""
