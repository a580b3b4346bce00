"""The receivers of messages: chats, e-mail, webhooks and whatever else Apprise knows. The one place that imports it.

An address holds what is needed to get in there: a token, a password. So it is never shown, but for its beginning.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch_assets.alerting.messages import Message
from batch_assets.errors import SettingsError
from batch_assets.settings.alerts import AlertSettings

if TYPE_CHECKING:
    from apprise import NotifyBase


@dataclass(frozen=True)
class Receiver:
    """Somebody who is notified of incidents.

    Args:
        name: The place of its address and how that begins, which is all of it that may be shown.
        service: What sends messages there.
    """

    name: str
    service: "NotifyBase" = field(repr=False)

    def takes(self, message: Message) -> bool:
        """Sends a message; returns whether it was taken."""
        from apprise import NotifyFormat, NotifyType  # noqa: PLC0415 - see above

        kind = NotifyType.SUCCESS if message.is_over else NotifyType.FAILURE
        taken = self.service.notify(
            title=message.title, body=message.body, notify_type=kind, body_format=NotifyFormat.TEXT
        )
        return bool(taken)


def receivers(settings: AlertSettings) -> Sequence[Receiver]:
    """Returns the receivers.

    Raises:
        SettingsError: Apprise is not installed, or it knows nobody by an address.
    """
    try:
        from apprise import Apprise  # noqa: PLC0415 - takes a quarter of a second, and most have no need of it
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"BATCH_ALERT_URLS needs the package {error.name}, which is missing: install batch-assets with the extra "
            "`alerts`, or unset it."
        ) from error
    found = []
    for number, address in enumerate(settings.addresses, start=1):
        name = f"{number} ({_beginning(address)})"
        service = Apprise.instantiate(address)
        if service is None:
            raise SettingsError(
                f"Apprise cannot use address {name} of BATCH_ALERT_URLS: write it as Apprise's documentation says of "
                "that service, for example json://HOST:PORT/PATH for a webhook, and escape what has a meaning in URLs."
            )
        found.append(Receiver(name, service))
    return found


def _beginning(address: str) -> str:
    scheme = re.match(r"[A-Za-z][A-Za-z0-9]{0,31}://", address)
    return f"{scheme[0]}..." if scheme else "without a service at its beginning"
