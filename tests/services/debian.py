"""Packages of Debian that tests want where they must not be skipped."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["NotInstalled", "install"]

_PATIENCE = 900.0
"""Seconds for one command."""


class NotInstalled(Exception):
    """A package is not there, and could not be installed."""


def install(package: str) -> None:
    """Install a package without what it only recommends. Processes that want the same wait for each other.

    Raises:
        NotInstalled: this is not for us to do, or it failed.
    """
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotInstalled(f"{package} is not installed (Debian: apt install {package})")
    with _one_at_a_time():
        wanted = ("install", "-y", "-q", "--no-install-recommends", package)
        try:
            _apt(*wanted)
        except NotInstalled:  # the machine may not know yet what packages there are
            _apt("update", "-q")
            _apt(*wanted)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of the processes that run tests, each may be the first to want something."""
    with (Path(tempfile.gettempdir()) / "rh_agents-tests-apt.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _apt(*arguments: str) -> None:
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotInstalled(f"{' '.join(command)} failed: {error}") from None
    if done.returncode != 0:
        raise NotInstalled(f"{' '.join(command)} failed: {(done.stdout + done.stderr)[-2000:]}")
