"""A Ray cluster of two nodes, each a few processes of this machine."""

import contextlib
import importlib.util
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from batch_assets_tests.support.programs import MissingProgramError


@dataclass(frozen=True)
class RayCluster:
    """A cluster.

    Args:
        cluster: As Ray's own tests have it.
        client_address: Where it takes in those who are none of its nodes.
    """

    cluster: Any
    client_address: str

    @property
    def address(self) -> str:
        """Where it takes in a process on one of its nodes."""
        return str(self.cluster.address)

    def add_node(self) -> Any:
        """Adds a node with one processor, and returns it."""
        return self.cluster.add_node(num_cpus=1)

    def kill(self, node: Any) -> None:
        """Ends a node as a power failure does."""
        self.cluster.remove_node(node, allow_graceful=False)

    def wait_until_no_actor_is_left(self) -> None:
        """Waits for the end of the processes of its actors, which is soon after these are told to end."""
        until = time.monotonic() + 20
        while self.actors() and time.monotonic() < until:
            time.sleep(0.1)
        assert not self.actors()

    def actors(self) -> list[psutil.Process]:
        """Returns the processes of its actors that score."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if " ".join(process.cmdline()).startswith("ray::ScoringActor"):
                    found.append(process)
        return found


def require_ray() -> None:
    """Raises unless Ray is installed.

    Raises:
        MissingProgramError: It is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingProgramError("Ray", "install it with: pip install 'ray[client]'")


@contextlib.contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """Starts a cluster with a head and one processor there, and ends it.

    Raises:
        MissingProgramError: Ray is not installed.
    """
    require_ray()
    import ray
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": port, "object_store_memory": 2**28}
    with (
        # Ray's own is /tmp/ray, which belongs to whoever was the first to start a cluster.
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("RAY_TMPDIR", folder)
        with pytest.MonkeyPatch.context() as at_start:
            # The server of Ray 2.60 for clients forks: with gRPC's handlers for that, its child sometimes hangs.
            at_start.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
            cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield RayCluster(cluster, f"ray://127.0.0.1:{port}")
        finally:
            ray.shutdown()
            for node in cluster.list_all_nodes():
                cluster.remove_node(node, allow_graceful=False)
