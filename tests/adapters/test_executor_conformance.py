"""Every executor does what the port says: one suite for all of them. Ray passes it in `test_ray.py`."""

from __future__ import annotations

from rh_agents.executors import ProcessExecutor, ThreadExecutor
from rh_agents.testing.conformance.executors import ExecutorConformance


class TestThreads(ExecutorConformance):
    """Nothing leaves the process, and a thread cannot be stopped."""

    leaves_process = False
    stops = False
    factory = "rh_agents.executors:ThreadExecutor"

    def make_executor(self) -> ThreadExecutor:
        return ThreadExecutor()


class TestProcesses(ExecutorConformance):
    """Its workers are on this machine, so none of them dies without it."""

    factory = "rh_agents.executors:ProcessExecutor"

    def make_executor(self) -> ProcessExecutor:
        return ProcessExecutor()
