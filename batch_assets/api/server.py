"""Serving the API: on an address, with a log of JSON lines, until a signal ends it."""

from collections.abc import Mapping, Sequence
from typing import Any

import uvicorn
from pythonjsonlogger.core import RESERVED_ATTRS

from batch_assets.api.application import application
from batch_assets.pipeline import Declaration
from batch_assets.settings.api import ApiSettings

# What a request that is being worked on has left to end when the API is told to.
GRACE_SECONDS = 25

LOG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
            # Uvicorn's message once more, for terminals.
            "reserved_attrs": [*RESERVED_ATTRS, "color_message"],
            "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}


def serve(environment: Mapping[str, str], declarations: Sequence[Declaration]) -> None:
    """Serves the API until a signal ends it: SIGTERM lets requests end that are being worked on.

    Args:
        environment: The variables of the databases, the models and the API.
        declarations: The pipelines that it serves.

    Raises:
        SettingsError: A variable has a value that cannot be used.
        ModelError: The model or its labels cannot be used.
    """
    settings = ApiSettings.from_environment(environment)
    uvicorn.run(
        application(environment, declarations),
        host=settings.host,
        port=settings.port,
        log_config=LOG,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
