"""What a model is made of, as another process needs it to open the same model."""

from collections.abc import Mapping
from dataclasses import dataclass

from batch_assets.settings.items import ItemFormat


@dataclass(frozen=True)
class ModelContent:
    """What a model is made of.

    Args:
        name: What it is called.
        model_bytes: The ONNX file.
        weights: The files that it keeps weights in, by name.
        labels: The labels that it was loaded with.
        items: What an item holds, and what is written once it is scored.
    """

    name: str
    model_bytes: bytes
    weights: Mapping[str, bytes]
    labels: tuple[str, ...]
    items: ItemFormat
