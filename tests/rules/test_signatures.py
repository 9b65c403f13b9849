"""Options that several functions take are written once, and seen by whoever asks for help."""

from __future__ import annotations

import inspect

import rh_agents
from rh_agents import ExecutionState
from rh_agents.core.parallel import ParallelExecutionManager


def test_what_makes_a_group_shows_the_arguments_of_the_group() -> None:
    _, *expected = inspect.signature(ParallelExecutionManager).parameters.values()
    assert len(expected) == 11
    assert list(inspect.signature(rh_agents.parallel).parameters.values()) == expected
    assert list(inspect.signature(ExecutionState().parallel).parameters.values()) == expected
    assert [*inspect.signature(ExecutionState.parallel).parameters][:2] == ["self", "max_workers"]
