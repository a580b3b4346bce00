"""Who is notified of incidents, as the environment says it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from batch_assets.settings.environment import secret

# A comma is part of an address, unless another address begins behind it.
_BETWEEN = re.compile(r"\s+|,(?=\s*[A-Za-z][A-Za-z0-9]*://)")


@dataclass(frozen=True)
class AlertSettings:
    """Who is notified of incidents.

    Args:
        addresses: Where messages go, as Apprise writes it: each holds what is needed to get in there.
    """

    addresses: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Reads the variables.

        Raises:
            SettingsError: One has a value that cannot be used.
        """
        text = secret(environment, "BATCH_ALERT_URLS", "BATCH_ALERT_URLS_FILE") or ""
        addresses = (address.strip(",") for address in _BETWEEN.split(text))
        return cls(tuple(address for address in addresses if address))
