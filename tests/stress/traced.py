"""Children under strace, which kills them or lets their system calls fail at a chosen one."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.stress.children import PATIENCE, Child
from tests.stress.endings import GO

__all__ = ["CHANGES", "count_calls", "traced"]

CHANGES = (
    *("openat", "mkdir", "mkdirat", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat"),
    *("write", "writev", "pwrite64", "pwritev", "ftruncate", "fallocate"),
    *("fsync", "fdatasync", "sync_file_range", "msync"),
)
"""The system calls that change a file or make a change last."""


@contextmanager
def traced(child: Child, *options: str | Path) -> Iterator[None]:
    """Trace a child that is held, let it go on, and wait until it has ended, and the tracer with it."""
    strace = shutil.which("strace")
    if strace is None:
        child.kill()
        pytest.skip("strace is not installed")
    words = [strace, "-f", "-qq", "-p", str(child.process), *options]
    tracer = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_attached(tracer, child)
        child.signal(GO)
        yield
        child.wait()
    finally:
        child.kill()
        tracer.communicate(timeout=PATIENCE)


def _wait_until_attached(tracer: subprocess.Popen[str], child: Child) -> None:
    deadline = time.monotonic() + PATIENCE
    while not re.search(r"TracerPid:\s+[1-9]", Path(f"/proc/{child.process}/status").read_text()):
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            pytest.skip(f"strace cannot trace here: {tracer.stderr.read().strip()}")
        assert time.monotonic() < deadline, "strace does not attach"
        time.sleep(0.0005)


def count_calls(trace: Path) -> Counter[str]:
    """For each kind of system call, the most that one thread made; strace counts by thread as well."""
    made: dict[str, Counter[str]] = {}
    for line in trace.read_text().splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if found:
            made.setdefault(found[1], Counter())[found[2]] += 1
    most: Counter[str] = Counter()
    for calls in made.values():
        most |= calls
    return most
