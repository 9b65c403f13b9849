"""What people read calls a status by words of people."""

from __future__ import annotations

import pytest

from rh_agents.core.actors import BaseActor
from rh_agents.core.events import Fact
from rh_agents.core.types import ExecutionStatus
from rh_agents.display.labels import label_of
from rh_agents.display.lines import LineFormat, event_line


@pytest.mark.parametrize("status", ExecutionStatus)
def test_a_status_is_shown_in_words(status: ExecutionStatus) -> None:
    actor = BaseActor(name="ask", handler=print)
    fact = Fact("r", 0.0, status, actor.event_type, actor, "ask", "ask")
    line = event_line(fact.event(), LineFormat(timestamp=False)).plain
    assert f"  {label_of(status)}" in line
    assert "_" not in line


def test_an_answer_is_told_as_one() -> None:
    assert label_of(ExecutionStatus.HUMAN_INTERVENTION) == "answered"
    assert label_of(ExecutionStatus.AWAITING) == "waiting for an answer"
