"""Erasing values in databases: killed at every step, while others read, and so that nothing is left in the files."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw
import pytest

from rh_agents import ExecutionState, tool
from rh_agents.core.errors import StoreError, ValuesErased
from rh_agents.core.ports import Store
from rh_agents.core.ports.keeping import erase_values_of_run, erasure_of
from rh_agents.stores import open_store
from rh_agents.stores._store import SqlStore
from rh_agents.testing._records import COMPLETED, completed, listed, outcome, request

T = TypeVar("T")

TEXT = "a patient by name"
LARGE = [TEXT] * 4000
STEPS = ["strip", "delete", "rewrite", "rewrite", "delete", "rewrite", "forget_old_versions", "strip"]
"""What is done to erase the run that `_record` writes: it has 600 events, and large values among the first and last."""


class Watched:
    """A backend, a writing session or a store of artifacts that reports before it does something."""

    def __init__(self, inner: Any, report: Callable[[str], None]) -> None:
        self._inner = inner
        self._report = report

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "artifacts":
            return Watched(found, self._report)
        if name == "writing":
            return lambda: Watched(found(), self._report)
        if name not in STEPS:
            return found

        def step(*args: Any, **options: Any) -> Any:
            self._report(name)
            return found(*args, **options)

        return step


def watched(url: str, report: Callable[[str], None]) -> SqlStore:
    store = open_store(url)
    assert isinstance(store, SqlStore)
    backend: Any = Watched(store._backend, report)
    return SqlStore(backend)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = open_store(url)
    try:
        yield store
    finally:
        await store.aclose()


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def _record(store: Store, run_id: str) -> None:
    journal = await store.open_run(request(run_id, input=b'"a patient by name"'))
    for number in range(600):
        value = [*LARGE, number, run_id] if number in (10, 590) else f"{TEXT} {number}"
        given = outcome(number, value, input=f"name={TEXT!r}")
        journal.note(completed(run_id, given), given)
    await journal.close(COMPLETED)


def die_at(url: str, run_id: str, step: int) -> None:
    """In a process of its own: erase a run, and be killed before the step of this number, from 0."""
    left = [step]

    def report(_: str) -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    run(watched(url, report).erase_values(run_id))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'runs.db'}"
    found: str = request.getfixturevalue("postgresql_url")
    return found


def test_the_steps_of_erasing_are_these(url: str) -> None:
    found: list[str] = []

    async def main() -> None:
        store = watched(url, found.append)
        await _record(store, "monday")
        assert (await store.erase_values("monday")).values == 600
        await store.aclose()

    run(main())
    assert found == STEPS


def test_a_process_that_is_killed_at_any_step_leaves_what_another_one_finishes(url: str) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    async def prepare() -> None:
        async with opened(url) as store:
            for step in range(len(STEPS)):
                await _record(store, f"run {step}")

    async def look(step: int) -> None:
        run_id = f"run {step}"
        async with opened(url) as store:
            info = await store.find_run(run_id)
            assert info is not None
            erasure = erasure_of(info)
            assert (erasure is not None) is (step > 0)
            assert len(await listed(store.events(run_id))) == 600, "nothing looks like damage"
            assert len(await listed(store.outcomes(run_id, unknown_ok=True))) == 600
            if erasure is None:
                assert await store.check() == []
                await (await store.open_run(request(run_id))).close(COMPLETED)
            else:
                assert not erasure.is_finished
                (finding,) = await store.check()
                assert f"`rh-agents erase {run_id} --values` finishes it" in finding
                with pytest.raises(ValuesErased):
                    await store.open_run(request(run_id))
            await erase_values_of_run(store, run_id)
            assert await store.check() == []
            assert TEXT not in repr(await listed(store.events(run_id)))
            assert await store.collect_garbage(min_age=0.0) == 0, "what only this run had has been deleted"

    run(prepare())
    for step in range(len(STEPS)):
        process = context.Process(target=die_at, args=(url, f"run {step}", step))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        run(look(step))


def test_nothing_of_the_contents_is_left_in_the_files_of_sqlite(tmp_path: Path) -> None:
    """Rows that were moved between pages, replaced and deleted before, the log, and other processes that read."""

    async def main() -> None:
        async with opened(f"{tmp_path}/runs.db") as store, opened(f"{tmp_path}/runs.db") as other:
            first, second = await store.open_run(request("one")), await store.open_run(request("two"))
            for number in range(400):  # in turn, so that pages are split in their middle
                for name, journal, text in (("one", first, TEXT), ("two", second, "another text")):
                    given = outcome(f"{name} {number}", f"{text} {number}" * (1 + number % 90), input=f"about {text}")
                    await journal.append(completed(name, given), given)
            await first.close(COMPLETED)
            await second.close(COMPLETED)
            await (await store.open_run(request("one", facts={"command": f'["{TEXT}"]'}))).close(COMPLETED)
            await (await store.open_run(request("one", input=b'"a patient by name"'))).close(COMPLETED)
            assert len(await listed(other.events("two"))) == 400
            assert _files_with(tmp_path, TEXT)
            assert (await erase_values_of_run(store, "one")).left == ""
            assert _files_with(tmp_path, TEXT) == [], "while both are still open"
            assert _files_with(tmp_path, "another text")
            assert len(await listed(other.outcomes("two"))) == 400
            assert await store.check() == []
            await (await store.open_run(request("two"))).close(COMPLETED)
        assert _files_with(tmp_path, TEXT) == []

    run(main())


def _files_with(folder: Path, text: str) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if text.encode() in path.read_bytes()]


def test_who_reads_meanwhile_gets_what_was_there_or_that_it_was_erased(url: str) -> None:
    async def main() -> None:
        async with opened(url) as store, opened(url) as other:
            await _record(store, "monday")
            events, outcomes = store.events("monday"), store.outcomes("monday", unknown_ok=True)
            unread = await listed(store.unread_outcomes("monday"))
            strict = store.outcomes("monday")
            seen = [repr([await anext(each) for _ in range(20)]) for each in (events, outcomes, strict)]
            assert all(TEXT in each for each in seen)
            await erase_values_of_run(other, "monday")
            assert len([each async for each in events]) == 580
            assert len([each async for each in outcomes]) == 580
            with pytest.raises(ValuesErased):
                [each async for each in strict]
            large = unread[590]
            assert large.is_large
            with pytest.raises(ValuesErased, match="the values of run 'monday' were erased"):
                large.read()
            assert repr(large.read(unknown_ok=True).value) == "<erased>"
            assert unread[11].read().value == f"{TEXT} 11", "it had been read before"

    run(main())


def test_what_another_run_may_be_about_to_use_is_not_deleted(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(f"{tmp_path}/runs.db") as store:
            await _record(store, "monday")
            live = await store.open_run(request("tuesday"))
            with pytest.raises(StoreError, match=r"written less than a minute ago.*erase its values in a minute"):
                await erase_values_of_run(store, "monday")
            info = await store.find_run("monday")
            assert info is not None
            assert erasure_of(info) is None, "nothing has begun"
            assert TEXT in repr(await listed(store.outcomes("monday")))
            _age(tmp_path)
            given = outcome("same", [*LARGE, 10, "monday"])
            await live.append(completed("tuesday", given), given)
            assert (await erase_values_of_run(store, "monday")).artifacts == 1
            assert (await live.load(given.key)).value == [*LARGE, 10, "monday"], "it has come to use it"
            await live.close(COMPLETED)
            assert await store.check() == []

    run(main())


def _age(folder: Path) -> None:
    """Let large results have been written some time ago."""
    for path in folder.glob("runs.db-artifacts/*/*"):
        os.utime(path, (time.time() - 100, time.time() - 100))


def test_a_copy_that_is_being_made_is_complete_or_is_not_made(url: str) -> None:
    """Whether the values go before the copy has read them, or between that and its commit."""

    class Interrupted(Watched):
        def __init__(self, inner: Any, is_late: bool) -> None:
            super().__init__(inner, lambda _: None)
            self.is_late = is_late

        def __getattr__(self, name: str) -> Any:
            if name == "writing":
                return lambda: Interrupted(self._inner.writing(), self.is_late)
            return getattr(self._inner, name)

        def add(self, new: Any, parts: Any) -> bool:
            parts = list(parts) if self.is_late else parts
            run(_erase(url, new.forked_from))
            done: bool = self._inner.add(new, parts)
            return done

    async def main(is_late: bool) -> None:
        run_id = f"source {is_late}"
        async with opened(url) as store:
            await _record(store, run_id)
        inner = open_store(url)
        assert isinstance(inner, SqlStore)
        backend: Any = Interrupted(inner._backend, is_late)
        store = SqlStore(backend)
        with pytest.raises(ValuesErased, match="cannot be copied: its values have been erased meanwhile"):
            await store.fork_run(run_id, "copy", [], [])
        assert await store.find_run("copy") is None
        assert await store.check() == []
        await store.aclose()

    for is_late in (False, True):
        run(main(is_late))


async def _erase(url: str, run_id: str) -> None:
    async with opened(url) as store:
        await erase_values_of_run(store, run_id)


def test_what_is_damaged_is_not_erased_and_what_was_erased_is_told_from_damage(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    async def main() -> None:
        async with opened(f"{path}") as store:
            await _record(store, "one")
            await _record(store, "two")
        connection = apsw.Connection(str(path))
        connection.execute("UPDATE journal SET value = 'null' WHERE place >> 40 = 1 AND place & 1023 = 300")
        connection.close()
        async with opened(f"{path}") as store:
            with pytest.raises(StoreError, match=r"event 300 of run 'one'.*damaged"):
                await erase_values_of_run(store, "one")
            await erase_values_of_run(store, "two")
            (finding,) = await store.check()
            assert "the outcome of event 300 of run 'one' is damaged" in finding
            await store.delete_run("one")
        connection = apsw.Connection(str(path))
        connection.execute("UPDATE journal SET value = 'null' WHERE place >> 40 = 2 AND place & 1023 = 5")
        connection.close()
        async with opened(f"{path}") as store:
            (finding,) = await store.check()
            assert "the outcome of event 5 of run 'two' is damaged" in finding

    run(main())


@pytest.mark.parametrize(
    "options", [{}, {"replay_mode": "validation"}, {"resume_from": "greet"}, {"reuse": True}], ids=repr
)
def test_a_run_without_its_values_is_executed_in_no_way(options: dict[str, Any], tmp_path: Path) -> None:
    called: list[str] = []

    @tool
    async def greet(name: str) -> str:
        called.append(name)
        return f"Dear {name}"

    async def main() -> None:
        async with opened(f"{tmp_path}/runs.db") as store:
            async with ExecutionState(store=store, run_id="monday"):
                await greet("you")
            await erase_values_of_run(store, "monday")
            with pytest.raises(ValuesErased, match=r"run 'monday' cannot be \w+: its values were erased on 20"):
                async with ExecutionState(store=store, run_id="monday", **options):
                    await greet("you")

    run(main())
    assert called == ["you"]
