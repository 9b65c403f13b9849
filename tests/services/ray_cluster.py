"""A Ray cluster of the tests' own, on loopback: nodes are processes of this machine, which can be killed one by one."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["SLOW_START", "RayCluster", "expect_ray"]

SLOW_START = "timed out during startup"
"""What Ray says when a machine is too busy."""
_STARTS = 4
_MEMORY = 200_000_000
"""Bytes of a node's object store."""


def expect_ray() -> None:
    """Skip the test where there is no Ray; on CI it is an error, where Ray can be had."""
    if importlib.util.find_spec("ray") is not None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads that once, when it is imported
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex())
        return
    reason = "Ray is not installed: pip install 'rh_agents[ray]' (there are no wheels for Python 3.14)"
    if os.environ.get("CI") and sys.version_info < (3, 14) and sys.platform == "linux":
        pytest.fail(reason)
    pytest.skip(reason)


class RayCluster:
    """A head without processors for tasks, and nodes on which tasks run. Ends with its block."""

    def __init__(self) -> None:
        self._cluster: Any = _started()
        self._nodes: list[Any] = []

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *_: object) -> None:
        import ray  # noqa: PLC0415

        ray.shutdown()
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        """For `ray.init`."""
        address: str = self._cluster.address
        return address

    def add_node(self, **options: Any) -> None:
        """Another machine, as far as Ray knows, with two processors unless the options say something else."""
        wanted = {"num_cpus": 2, "object_store_memory": _MEMORY, **options}
        self._nodes.append(_patiently(lambda: self._cluster.add_node(**wanted)))

    def expect_nodes(self, count: int) -> None:
        """Have at least so many."""
        while len(self._nodes) < count:
            self.add_node()

    def kill_node_of(self, process: int) -> None:
        """Kill -9 the raylet of the node whose worker this process is, and the worker, as if its power were cut.

        Nothing is done if they are dead already.
        """
        try:
            parent = _parent_of(process)
        except FileNotFoundError:
            return
        for node in self._nodes:
            raylet = node.all_processes["raylet"][0].process
            if raylet.pid == parent:
                raylet.kill()
                raylet.wait()
                self._nodes.remove(node)
                self._cluster.worker_nodes.discard(node)
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            return


def _started() -> Any:
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - it may not be installed

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _MEMORY}
    return _patiently(lambda: Cluster(initialize_head=True, head_node_args=head))


def _patiently(start: Callable[[], Any]) -> Any:
    """Ray gives a node 30 seconds to start, which is little on a machine that many tests keep busy."""
    for _ in range(_STARTS - 1):
        try:
            return start()
        except Exception as error:
            if SLOW_START not in str(error):
                raise
    return start()


def _parent_of(process: int) -> int:
    with open(f"/proc/{process}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])
