"""Where Dagster's UI is, for links from the outside."""

from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from batch_assets.errors import SettingsError


def ui_url(environment: Mapping[str, str]) -> str | None:
    """Returns the address of the webserver as BATCH_UI_URL has it, without a slash at its end; None without one.

    Raises:
        SettingsError: It is no address of a web page.
    """
    text = environment.get("BATCH_UI_URL")
    if not text:
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingsError(
            f"BATCH_UI_URL is {text!r}: set it to the address of Dagster's webserver, for example "
            "https://dagster.example.com."
        )
    return text.rstrip("/")


def summaries_url(address: str, pipeline: str | None, hour: str | None = None) -> str:
    """Returns where the UI shows the summaries of a pipeline.

    Args:
        address: That of the webserver.
        pipeline: The name of a declared pipeline, None for that of the environment.
        hour: The key of an hour, None for all of them.
    """
    page = f"{address}/assets/{f'{quote(pipeline)}/' if pipeline else ''}run_summary"
    return page if hour is None else f"{page}?view=partitions&partition={quote(hour, safe='')}"
