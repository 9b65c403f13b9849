"""What all stress tests need: the server that forks their processes, and two sizes of each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stress.children import Children
from tests.stress.disks import hide_mounts

__all__ = ["children"]


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    """Whoever executes runs in processes of their own. They see what this process mounts, and nobody else does."""
    hide_mounts()
    with Children() as server:
        yield server
