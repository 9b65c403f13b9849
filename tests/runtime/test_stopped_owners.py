"""A process that stood still for longer than its lease begins nothing before it knows that its run is still its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rh_agents import ConcurrencyLimit, MemoryStore, RetryPolicy, agent, parallel, run, tool
from rh_agents.core.errors import LeaseLost
from rh_agents.core.ports import Journal, RunRequest
from rh_agents.executors.processes import ProcessExecutor
from rh_agents.executors.threads import ThreadExecutor
from tests.properties.virtual import run_virtually


class Doubtful:
    """A journal of which it is not certain whether its run is still its owner's."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.is_ours = True
        self.is_lost = False
        self.proved = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def prove(self) -> None:
        self.proved += 1
        await asyncio.sleep(1.0)
        if self.is_lost:
            raise LeaseLost("run 'monday' has been taken over by somebody else")
        self.is_ours = True


class DoubtfulStore(MemoryStore):
    journal: Doubtful

    async def open_run(self, request: RunRequest) -> Any:
        self.journal = Doubtful(await super().open_run(request))
        return self.journal

    def stand_still(self, *, is_lost: bool) -> None:
        """The process has stood still for longer than its lease, and goes on now."""
        self.journal.is_ours, self.journal.is_lost = False, is_lost


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "retried": {"retry": RetryPolicy(max_attempts=3)},
    "limited": {"limits": ConcurrencyLimit(4)},
    "timed": {"timeout": 60.0},
    "external": {"effect": "external", "on_unknown": "retry"},
}


def program(store: DoubtfulStore, begun: list[int], kind: str, *, is_lost: bool) -> Callable[[], Any]:
    """Members of which the first ends after the process has stood still, with three more under way beside it."""

    @tool(**KINDS[kind])
    async def work(number: int) -> int:
        begun.append(number)
        await asyncio.sleep(5.0)
        if number == 0:
            store.stand_still(is_lost=is_lost)
        return number

    async def main() -> int:
        async with parallel(max_workers=4, name="items") as p:
            p.map(work, range(20))
            return len(await p.gather())

    return main


@pytest.mark.parametrize("kind", KINDS)
def test_who_has_lost_the_run_begins_no_call_in_any_free_slot(kind: str) -> None:
    store, begun = DoubtfulStore(), list[int]()
    with pytest.raises(LeaseLost):
        run_virtually(lambda: run(program(store, begun, kind, is_lost=True), store=store))
    assert begun == [0, 1, 2, 3]
    assert store.journal.proved == 1


@pytest.mark.parametrize("kind", KINDS)
def test_who_still_has_the_run_goes_on_when_that_is_certain(kind: str) -> None:
    store, begun = DoubtfulStore(), list[int]()
    assert run_virtually(lambda: run(program(store, begun, kind, is_lost=False), store=store)) == 20
    assert begun == list(range(20))
    assert store.journal.proved == 1, "all that wait are told by one question"


def blocked(number: int, folder: str) -> int:
    """Begin, and end when the file is there that says so."""
    (Path(folder) / f"{number}.begun").touch()
    while not (Path(folder) / "go").exists():
        time.sleep(0.005)
    return number


def wait_for_first(folder: Path) -> None:
    while not list(folder.glob("*.begun")):
        time.sleep(0.005)


@pytest.mark.parametrize("engine", ["thread", "process"])
@pytest.mark.parametrize("is_lost", [True, False])
def test_a_call_that_has_waited_for_its_turn_on_an_engine_begins_only_if_the_run_is_still_ours(
    engine: str, is_lost: bool, tmp_path: Path
) -> None:
    executors: dict[str, Any] = {"thread": ThreadExecutor(1), "process": ProcessExecutor(1)}
    store = DoubtfulStore()
    work = tool(blocked, engine=engine)

    async def main() -> int:
        async with parallel(max_workers=4, name="items") as p:
            p.map(lambda number: work(number, str(tmp_path)), range(4))
            await asyncio.to_thread(wait_for_first, tmp_path)
            store.stand_still(is_lost=is_lost)
            (tmp_path / "go").touch()
            return len(await p.gather())

    running = run(main, store=store, executors=executors)
    if is_lost:
        with pytest.raises(LeaseLost):
            asyncio.run(running)
    else:
        assert asyncio.run(running) == 4
    assert len(list(tmp_path.glob("*.begun"))) == (1 if is_lost else 4), "the others had waited"


def test_an_attempt_begins_as_little_as_a_call() -> None:
    store, begun = DoubtfulStore(), list[int]()

    @tool(retry=RetryPolicy(max_attempts=5))
    async def fail() -> None:
        begun.append(1)
        if len(begun) == 2:
            store.stand_still(is_lost=True)
        raise OSError

    @agent
    async def main() -> None:
        await fail()

    with pytest.raises(LeaseLost):
        run_virtually(lambda: run(main, store=store))
    assert len(begun) == 2
