"""What helps to test programs that use the library: cassettes, no real requests, a clock that jumps, the plugin."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from rh_agents import ExecutionState, MemoryStore, open_store, tool
from rh_agents.core.errors import RunMismatchError, UsageError
from rh_agents.testing import (
    Cassette,
    Drift,
    JumpingClock,
    RealRequestError,
    ScriptedLLM,
    assert_no_paid_calls_on_resume,
    no_real_requests,
)

ROOT = Path(__file__).parents[2]

PYTEST = [
    *(sys.executable, "-m", "pytest", "-q"),
    *(f"-pno:{name}" for name in ("cacheprovider", "langsmith_plugin", "anyio", "hypothesispytest", "xdist")),
]
"""pytest as users start it, without the plugins of other packages, which take most of its start."""


class World:
    def __init__(self) -> None:
        self.asked = 0
        self.answer = "Paris"

    async def workflow(self, country: str) -> str:
        def reply(_: object) -> str:
            self.asked += 1
            return self.answer

        return await ScriptedLLM(reply).ask(f"The capital of {country}?")


# -- cassettes --------------------------------------------------------------------------------------------------------


def test_a_workflow_is_recorded_once_and_replayed_from_a_file_that_stays_as_it_is(tmp_path: Path) -> None:
    world, path = World(), tmp_path / "new" / "capital.db"
    cassette = Cassette(path, open_store)
    assert asyncio.run(cassette.play(world.workflow, "France")) == "Paris"
    before = path.read_bytes()
    for mode in ("auto", "replay"):
        world.answer = "Lyon"
        assert asyncio.run(Cassette(path, open_store, mode).play(world.workflow, "France")) == "Paris"
    assert world.asked == 1
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_validation_says_what_is_different_now(tmp_path: Path) -> None:
    world, path = World(), tmp_path / "capital.db"
    asyncio.run(Cassette(path, open_store).play(world.workflow, "France"))
    assert asyncio.run(Cassette(path, open_store, "validate").play(world.workflow, "France")) == "Paris"
    world.answer = "Lyon"
    with pytest.raises(Drift, match=r"(?s)capital\.db.*Paris.*Lyon"):
        asyncio.run(Cassette(path, open_store, "validate").play(world.workflow, "France"))


def test_a_replay_of_what_is_not_there_or_was_something_else_is_an_error(tmp_path: Path) -> None:
    world, path = World(), tmp_path / "capital.db"
    with pytest.raises(UsageError, match="--cassettes=record"):
        asyncio.run(Cassette(path, open_store, "replay").play(world.workflow, "France"))
    asyncio.run(Cassette(path, open_store).play(world.workflow, "France"))
    with pytest.raises(RunMismatchError):
        asyncio.run(Cassette(path, open_store, "replay").play(world.workflow, "Peru"))


def test_a_recording_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    world, path = World(), tmp_path / "capital.db"
    asyncio.run(Cassette(path, open_store).play(world.workflow, "France"))

    async def failing(country: str) -> str:
        raise LookupError(country)

    with pytest.raises(LookupError):
        asyncio.run(Cassette(path, open_store, "record").play(failing, "France"))
    assert asyncio.run(Cassette(path, open_store, "replay").play(world.workflow, "France")) == "Paris"


# -- real requests ----------------------------------------------------------------------------------------------------


def test_another_machine_cannot_be_reached_by_any_way_and_this_one_can() -> None:
    async def connect(host: str) -> None:
        await asyncio.open_connection(host, 80)

    with no_real_requests(allow_loopback=True):
        with pytest.raises(RealRequestError, match=r"tried to reach example\.org"):
            asyncio.run(connect("example.org"))
        with pytest.raises(RealRequestError, match=r"192\.0\.2\.1"):
            socket.create_connection(("192.0.2.1", 80))
        with pytest.raises(RealRequestError, match=r"example\.com"):
            urllib.request.urlopen("http://example.com")
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).close()
    with no_real_requests(), pytest.raises(RealRequestError, match=r"127\.0\.0\.1"):
        socket.create_connection(("127.0.0.1", 1))


def test_it_holds_in_other_threads_and_ends_with_its_block() -> None:
    found: list[BaseException] = []

    def reach() -> None:
        try:
            socket.create_connection(("192.0.2.1", 80), timeout=0.01)
        except (AssertionError, OSError) as error:
            found.append(error)

    def reach_in_a_thread() -> None:
        thread = threading.Thread(target=reach)
        thread.start()
        thread.join()

    with no_real_requests():
        reach_in_a_thread()
    reach_in_a_thread()
    assert [type(error) is RealRequestError for error in found] == [True, False]


def test_a_model_that_would_be_asked_for_real_fails_at_once() -> None:
    pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")
    from rh_agents.llms import OpenAIChat  # noqa: PLC0415

    async def ask() -> None:
        await OpenAIChat("gpt-4.1-mini", base_url="https://api.example.org/v1", api_key="k").ask("Hello?")

    with no_real_requests(), pytest.raises(RealRequestError, match=r"api\.example\.org"):
        asyncio.run(asyncio.wait_for(ask(), 5))


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_calls_that_are_made_again_on_resume_are_named() -> None:
    world = World()
    assert asyncio.run(assert_no_paid_calls_on_resume(world.workflow, "France", store=MemoryStore())) == "Paris"
    numbers = iter(range(100))

    @tool
    async def look(number: int) -> int:
        return number

    async def different_each_time() -> int:
        return await look(next(numbers)) * 0

    with pytest.raises(AssertionError, match=r"1 calls were made, and paid for, again .* look"):
        asyncio.run(assert_no_paid_calls_on_resume(different_each_time, store=MemoryStore()))


def test_a_clock_jumps_and_what_has_expired_is_asked_again() -> None:
    clock, asked = JumpingClock(), list[str]()

    @tool(cache="store", ttl=60.0)
    async def look(word: str) -> str:
        asked.append(word)
        return word

    async def main() -> None:
        store = MemoryStore(clock=clock)
        for seconds in (0.0, 59.0, 2.0):
            clock.advance(seconds)
            async with ExecutionState(store=store, clock=clock):
                await look("a")

    before = clock()
    asyncio.run(main())
    assert len(asked) == 2
    assert clock() - before == 61.0


def test_hours_of_waiting_pass_in_no_time() -> None:
    clock = JumpingClock()

    async def wait() -> str:
        async with asyncio.timeout(7200):
            await asyncio.sleep(3600)
            return await asyncio.to_thread(str, 1)

    assert clock.run(wait()) == "1"
    assert clock.elapsed == 3600.0


def test_the_plugin_gives_its_fixtures_to_any_test(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        """
import asyncio, socket, pytest
from rh_agents.testing import RealRequestError, ScriptedLLM

async def capital(country):
    return await ScriptedLLM(["Paris"]).ask(country)

def test_capital(cassette, jumping_clock):
    assert asyncio.run(cassette.play(capital, "France")) == "Paris"
    assert jumping_clock() > 0

def test_network(no_real_requests):
    with pytest.raises(RealRequestError):
        socket.create_connection(("192.0.2.1", 80))
    assert no_real_requests.refused == ["192.0.2.1:80"]
    no_real_requests.refused.clear()
"""
    )
    for mode in ("auto", "replay", "validate"):
        command = [*PYTEST, f"--cassettes={mode}", "test_it.py"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
        assert done.returncode == 0, done.stdout
    assert [path.name for path in (tmp_path / "cassettes").iterdir()] == ["test_it-test_capital.db"]


def test_an_attempt_that_somebody_swallows_fails_the_test_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        """
import contextlib, socket

def test_network(no_real_requests):
    with contextlib.suppress(Exception):
        socket.create_connection(("192.0.2.1", 80))
"""
    )
    command = [*PYTEST, "test_it.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 1, done.stdout
    assert "these hosts were tried: 192.0.2.1:80" in done.stdout


def test_the_plugin_imports_the_library_only_where_a_fixture_is_wanted() -> None:
    code = "import pytest_rh_agents, sys; print('rh_agents' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"
