"""What a plan says a resume would cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rh_agents.cli.expected_costs import ExpectedCost, expected_cost, expected_cost_of_items
from rh_agents.core.plan import Fate, Plan, PlannedCall, PlannedGroup
from rh_agents.core.types import EventType
from tests.surfaces.cli_kit import QUIET, Folder, said

PAID = """
import os
from rh_agents import Usage, llm, parallel, report_usage, tool, agent

@llm
async def ask(text: str) -> int:
    report_usage(Usage(input_tokens=10, requests=1, cost=0.25))
    return len(text)

@tool
async def rate(text: str) -> int:
    if text == "bad" and os.path.exists("broken"):
        raise ValueError("bad")
    return await ask(text)

@agent
async def flow() -> int:
    async with parallel(name="asked") as p:
        p.map(ask, ["a", "b"])
        await p.gather()
    if os.path.exists("broken"):
        raise ValueError("broken")
    return 1
"""


@pytest.fixture
def paid(folder: Folder) -> Folder:
    (folder.path / "paid.py").write_text(PAID)
    folder.flag("broken")
    return folder


def test_what_new_and_failed_items_of_a_map_would_cost_follows_from_those_that_have_ended(
    paid: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("in.txt").write_text("one\ntwo\nsix\nbad\n")
    said(capfd, "map", "paid.py:rate", "in.txt", "--run-id", "r", *QUIET, code=1)
    # three of four have cost 0.25: an item costs 0.1875
    assert "what would be made costs about $0.19, as calls like it did" in said(capfd, "plan", "r")[0]
    Path("in.txt").write_text("one\ntwo\nsix\nbad\nten\n")
    assert "what would be made costs about $0.38, as" in said(capfd, "plan", "r")[0]
    assert json.loads(said(capfd, "plan", "r", "--json")[0])["expected_cost"] == pytest.approx(0.375)
    Path("in.txt").write_text("one\n")
    assert "what would be made" not in said(capfd, "plan", "r")[0]
    assert json.loads(said(capfd, "plan", "r", "--json")[0])["expected_cost"] is None


def call(name: str, fate: Fate, group_id: str | None = None) -> PlannedCall:
    return PlannedCall(name.encode(), name.encode(), name, name, "1", EventType.TOOL_CALL, fate, group_id=group_id)


def test_calls_that_would_be_made_cost_as_much_as_others_of_their_group_or_actor() -> None:
    calls = (
        call("ask", Fate.TRIED_AGAIN),
        call("ask", Fate.REUSED),
        call("look", Fate.SUPERSEDED, "g"),
        call("lost", Fate.UNKNOWN),
    )
    costs = {"ask": 0.5, "g": 0.01, "lost": 2.0}
    assert expected_cost(Plan(calls), costs, lambda _: False) == ExpectedCost(0.51)
    assert expected_cost(Plan(calls), costs, lambda _: True) == ExpectedCost(2.51)
    group = PlannedGroup("g", "g", "g", 10)
    assert expected_cost(Plan((), (group,)), costs, lambda _: False) == ExpectedCost(0.1)
    assert expected_cost(Plan((), (group,)), {}, lambda _: False) is None
    assert expected_cost_of_items(Plan(calls), "other", 1.0, 3) is None


def test_what_is_not_known_of_all_is_the_least() -> None:
    some = (call("ask", Fate.TRIED_AGAIN), call("new", Fate.CONTINUED))
    found = expected_cost(Plan(some), {"ask": 0.004}, lambda _: False)
    assert found == ExpectedCost(0.004, True)
    assert str(found) == "at least $0.004"
    below = (call("ask", Fate.TRIED_AGAIN), call("inner", Fate.NOT_REACHED))
    assert str(expected_cost(Plan(below), {"ask": 1234.5}, lambda _: False)) == "at least $1,234.50"
