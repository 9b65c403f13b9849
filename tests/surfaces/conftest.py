"""What the tests of the commands begin with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.surfaces.cli_kit import Folder

__all__ = ["folder", "no_program_stays"]


@pytest.fixture(autouse=True)
def no_program_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test imports its own program.py: one that stays would be found by whichever test comes next.

    A second file of the same name is imported under the other name.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("program", "_rh_agents_program"):
        sys.modules.pop(name, None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """The working directory, with the program in it; a module that needs another one has its own."""
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)
