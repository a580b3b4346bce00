"""How the API is run, as the environment says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from batch_assets.settings.environment import number, secret


@dataclass(frozen=True)
class ApiSettings:
    """Where the API listens, who may write, and how much it takes.

    Args:
        host: The address that it listens on.
        port: Its port.
        key: What a request that writes must bring; None, and nobody may write.
        connections: To each database at the most. As many requests are worked on at a time, the others wait.
        max_body_bytes: A larger request is refused.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = field(default=None, repr=False)
    connections: int = 10
    max_body_bytes: int = 8_000_000

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Reads the variables.

        Raises:
            SettingsError: One has a value that cannot be used.
        """
        return cls(
            host=environment.get("API_HOST") or cls.host,
            port=int(number(environment, "API_PORT", 1, cls.port)),
            key=secret(environment, "API_KEY", "API_KEY_FILE") or None,
            connections=int(number(environment, "API_CONNECTIONS", 1, cls.connections)),
            max_body_bytes=int(number(environment, "API_MAX_BODY_BYTES", 1, cls.max_body_bytes)),
        )
