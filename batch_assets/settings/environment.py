"""The environment: the one place that reads it, and how its variables are read."""

import os
from collections.abc import Mapping
from pathlib import Path

from batch_assets.errors import SettingsError


def environment() -> Mapping[str, str]:
    """Returns the variables of this process."""
    return os.environ


def set_default(name: str, value: str) -> None:
    """Sets a variable that a library reads, unless it is set already."""
    os.environ.setdefault(name, value)


def number(environment: Mapping[str, str], name: str, least: int, default: float, *, whole: bool = True) -> float:
    """Returns the number that a variable is set to.

    Args:
        environment: The variables.
        name: The variable.
        least: The least number that it may be.
        default: What it is where it is not set.
        whole: Whether it must be a whole number.

    Raises:
        SettingsError: It is no such number.
    """
    text = environment.get(name) or str(default)
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = -1
    # Not "<", which lets NaN pass.
    if not least <= value < float("inf"):
        kind = "a whole number" if whole else "a number"
        raise SettingsError(f"{name} is {text!r}: set it to {kind} of {least} or more.")
    return value


def one_of(environment: Mapping[str, str], name: str, values: tuple[str, ...], default: str) -> str:
    """Returns what a variable is set to, which must be one of some values.

    Raises:
        SettingsError: It is another one.
    """
    value = environment.get(name) or default
    if value not in values:
        raise SettingsError(f"{name} is {value!r}: set it to {' or '.join(values)}.")
    return value


def secret(environment: Mapping[str, str], name: str, file_name: str) -> str | None:
    """Returns a secret, None if there is none: of a variable or, where others are shown those, of a file.

    Args:
        environment: The variables.
        name: The variable that holds the secret.
        file_name: The variable that names the file which holds it.

    Raises:
        SettingsError: Both are set, or the file cannot be read.
    """
    file = environment.get(file_name)
    if not file:
        return environment.get(name)
    if environment.get(name):
        raise SettingsError(f"{name} and {file_name} are both set: unset one of them.")
    try:
        # The line break that ends the file belongs to no secret, as MySQL's own images have it.
        return Path(file).read_text("utf-8").rstrip("\n")
    except OSError as error:
        raise SettingsError(
            f"{file_name} names {file!r}, which cannot be read ({error.strerror}): fix the path, or let this account "
            "read the file."
        ) from error
    except UnicodeDecodeError:
        # Without the fault, which holds what was read.
        raise SettingsError(
            f"{file_name} names {file!r}, which is not text in UTF-8: write the secret to it and nothing else."
        ) from None
