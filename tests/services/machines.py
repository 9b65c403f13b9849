"""Machines for tests: each has a network and process ids of its own, and a wire to one port of this one.

A machine is a network namespace with a pair of virtual cables, and in it a PID namespace. What stands behind the port
is a server on loopback, which it reaches through a relay at the other end of its cable. As root on Linux with `ip` and
`unshare`; elsewhere tests that want machines are skipped with the reason.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.services.lossy_proxy import LossyProxy

__all__ = ["Machine", "expect_machines"]

_numbers = itertools.count()


def expect_machines() -> None:
    """Skip the test where no machine can be made."""
    missing = [name for name in ("ip", "unshare") if shutil.which(name) is None]
    if sys.platform != "linux" or os.geteuid() != 0 or missing:
        pytest.skip(f"machines are namespaces, which take Linux, root, `ip` and `unshare`; missing: {missing}")
    name = f"rh{os.getpid()}probe"
    for command in (
        ["ip", "netns", "add", name],
        ["ip", "link", "add", name[-15:], "type", "veth", "peer", "name", "eth0", "netns", name],
        ["ip", "netns", "exec", name, "unshare", "--pid", "--fork", "--mount-proc", "true"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
            pytest.skip(f"namespaces may not be made here: {' '.join(command)}: {done.stderr.strip()}")
    subprocess.run(["ip", "netns", "del", name], check=True)


class Machine:
    """A machine with a wire to a port of this one.

    Args:
        port: a server on loopback.
    """

    def __init__(self, port: int) -> None:
        number = os.getpid() % 50 * 5 + next(_numbers) % 5
        self._name = f"rh{os.getpid()}m{number}"
        self._cable = f"rhv{number}p{os.getpid() % 100000}"[:15]
        self.here, self.there = f"10.213.{number}.1", f"10.213.{number}.2"
        self._server = port
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        inside = ["ip", "netns", "exec", self._name]
        for command in (
            ["ip", "netns", "add", self._name],
            ["ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._name],
            ["ip", "addr", "add", f"{self.here}/30", "dev", self._cable],
            ["ip", "link", "set", self._cable, "up"],
            [*inside, "ip", "addr", "add", f"{self.there}/30", "dev", "eth0"],
            [*inside, "ip", "link", "set", "eth0", "up"],
            [*inside, "ip", "link", "set", "lo", "up"],
        ):
            subprocess.run(command, check=True, capture_output=True)
        self._relay = LossyProxy(self._server, host=self.here)
        self._relay.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        self._relay.__exit__(kind, error, at)
        subprocess.run(["ip", "link", "del", self._cable], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self._name], check=True)

    def reached_at(self, url: str) -> str:
        """How a URL of the server is written on this machine."""
        return url.replace(f"127.0.0.1:{self._server}/", f"{self.here}:{self._relay.port}/")

    def start(self, command: list[str], *, folder: Path, environment: Mapping[str, str]) -> None:
        """Start a program, which has process id 1 there."""
        words = ["ip", "netns", "exec", self._name, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        with (folder / "log").open("ab") as log:
            output = {"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL}
            process = subprocess.Popen([*words, *command], cwd=folder, env=dict(environment), **output)  # type: ignore[call-overload]
        self._processes.append(process)

    def cut(self) -> None:
        """Pull the cable: nothing comes through any more, and nobody is told."""
        subprocess.run(["ip", "link", "set", self._cable, "down"], check=True)

    def kill(self) -> None:
        """Switch it off. What is under way in it ends, whatever it is."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()
