"""Hourly batch inference on Dagster and MySQL."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batch_assets.component import BatchInferenceComponent

__all__ = ["BatchInferenceComponent"]


def __getattr__(name: str) -> object:
    # Dagster looks for components here; nobody else waits for Dagster.
    if name == "BatchInferenceComponent":
        from batch_assets.component import BatchInferenceComponent  # noqa: PLC0415

        return BatchInferenceComponent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
