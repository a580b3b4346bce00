"""Where and how a model scores, as the environment says it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from batch_assets.errors import SettingsError
from batch_assets.settings.environment import number

CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class InferenceSettings:
    """Where and how a model scores.

    Args:
        threads: So many parts of an hour are scored at once in this process.
        providers: The execution providers of ONNX Runtime, in order of preference.
        ray_address: The Ray cluster that scores in place of this process; None for none.
        ray_actors: So many actors score there; None for one on each processor of the cluster.
    """

    threads: int = 1
    providers: tuple[str, ...] = (CPU,)
    ray_address: str | None = None
    ray_actors: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Reads the variables.

        Raises:
            SettingsError: One has a value that cannot be used.
        """
        actors = "BATCH_RAY_ACTORS"
        return cls(
            threads=int(number(environment, "BATCH_SCORING_THREADS", 1, cls.threads)),
            providers=_providers(environment),
            ray_address=_ray_address(environment),
            ray_actors=int(number(environment, actors, 1, 1)) if environment.get(actors) else None,
        )

    @property
    def providers_here(self) -> tuple[str, ...]:
        """The execution providers in this process, which need not have what the machines of a cluster have."""
        return self.providers if self.ray_address is None else (CPU,)


def cores() -> int:
    """Returns how many cores this process may use. A limit of a container that counts time is none of cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _providers(environment: Mapping[str, str]) -> tuple[str, ...]:
    text = environment.get("BATCH_ONNX_PROVIDERS") or CPU
    names = tuple(part.strip() for part in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise SettingsError(
            f"BATCH_ONNX_PROVIDERS is {text!r}: set it to execution providers of ONNX Runtime in order of preference, "
            f"each once and with commas between them, for example CUDAExecutionProvider,{CPU}."
        )
    return names


def _ray_address(environment: Mapping[str, str]) -> str | None:
    address = (environment.get("BATCH_RAY_ADDRESS") or "").strip()
    if not address:
        return None
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not host or not colon or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
        raise SettingsError(
            f"BATCH_RAY_ADDRESS is {address!r}: set it to ray://HOST:10001, or to HOST:6379 on a machine of the "
            "cluster."
        )
    return address
