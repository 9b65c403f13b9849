"""Whatever a program does: of several outcomes of a call, the first one is all that anybody sees of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import fields
from functools import partial
from typing import Any

import pytest

from rh_agents import MemoryStore, run
from rh_agents.cli.output.tree import RunTree, record_of_node
from rh_agents.core.errors import CallCancelled
from rh_agents.core.history import fact_of_event
from rh_agents.core.plan import plan_run
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._memory.values import written
from rh_agents.testing._records import listed
from tests.properties.virtual import run_virtually
from tests.random_programs.additions import ADDED_FROM, draw_any_program
from tests.random_programs.interpreter import Interpreter
from tests.random_programs.programs import Program

RUN = "t"
LATER = (ExecutionStatus.STARTED, ExecutionStatus.RETRYING, ExecutionStatus.AWAITING, ExecutionStatus.CANCELLED)
ENDINGS = (
    (ExecutionStatus.COMPLETED, None),
    (ExecutionStatus.FAILED, ValueError("another end")),
    (ExecutionStatus.CANCELLED, CallCancelled("cut off")),
)


async def execute(program: Program, store: MemoryStore, chance: random.Random) -> None:
    """Execute a program for a while, or to its end, and perhaps ask for some of its calls to be made again."""
    interpreter = Interpreter(program, lambda line: None, "1", unit=0.001, trial=RUN)
    with contextlib.suppress(Exception):
        await asyncio.wait_for(run(interpreter.workflow, store=store, run_id=RUN), chance.choice((0.003, 0.01, 5.0)))
    keys = list(store._runs[RUN].outcomes)
    store._runs[RUN]._owner = None
    if keys and chance.random() < 0.5:
        await store.supersede(RUN, chance.sample(keys, min(2, len(keys))))


async def plant(store: MemoryStore, chance: random.Random) -> None:
    """Let calls begin once more and come to another end, as programs would that do not know of their outcomes."""
    run, events = store._runs[RUN], await listed(store.events(RUN, values=False))
    ends = {each.event.key: each.event for each in events if each.has_outcome}
    for key, outcome in list(run.outcomes.items()):
        if chance.random() < 0.4:
            continue
        status, error = chance.choice(ENDINGS)
        told = ends[key.hex()]
        for each in (*chance.sample(LATER, 2), status):
            changes = {"execution_status": each, "attempt": 7, "message": "once more"}
            other = outcome._replace(value="another", error=error, made_in=(3, 3, 3))
            run.add(fact_of_event(told.model_copy(update=changes)), written(other) if each is status else None)


async def seen(store: MemoryStore) -> list[Any]:
    """What those who read the journal make of it: plans, the tree, the outcomes, and the fold."""
    info = await store.find_run(RUN)
    assert info is not None
    headers = [outcome.header async for outcome in store.unread_outcomes(RUN)]
    events = await listed(store.events(RUN))
    tree = RunTree()
    for recorded in events:
        tree.add(recorded)
    parents = {header.key.hex(): header.parent.hex() for header in headers}
    roots = tree.roots(parents if tree.is_ambiguous else None)
    recorded_calls = store._runs[RUN].fold()
    fold = {each.name: getattr(recorded_calls, each.name) for each in fields(recorded_calls)}
    return [
        plan_run(info, headers, events),
        plan_run(info, headers, events, retry_failed=False),
        [record_of_node(root) for root in roots],
        headers,
        {name: value for name, value in fold.items() if name not in ("events", "repeated", "spent")},
    ]


@pytest.mark.parametrize("first", [0, 10, ADDED_FROM, ADDED_FROM + 10])
def test_what_follows_the_outcome_of_a_call_changes_nothing_for_anybody_who_reads(first: int) -> None:
    planted = 0
    for seed in range(first, first + 10):
        store, chance = MemoryStore(), random.Random(seed)
        run_virtually(partial(execute, draw_any_program(seed, 8), store, chance))
        before = asyncio.run(seen(store))
        asyncio.run(plant(store, chance))
        planted += len(store._runs[RUN].later)
        assert asyncio.run(seen(store)) == before, f"seed {seed}"
    assert planted > 20
