"""The tools for tests: the clock that jumps, the switch against real requests, cassettes, and resuming."""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rh_agents import ExecutionState, MemoryStore, agent, llm, open_store, parallel, tool
from rh_agents.core.errors import UsageError
from rh_agents.testing import (
    Cassette,
    CassetteMode,
    Drift,
    JumpingClock,
    RealRequestError,
    ScriptedLLM,
    assert_no_paid_calls_on_resume,
    no_real_requests,
)

# -- the clock ---------------------------------------------------------------------------------------------------------


def test_hours_pass_in_no_time_and_timers_keep_their_order() -> None:
    clock, order = JumpingClock(), []

    async def after(hours: float) -> None:
        await asyncio.sleep(hours * 3600)
        order.append(hours)

    async def main() -> None:
        await asyncio.gather(*(after(hours) for hours in (3, 1, 2)))

    began = time.monotonic()
    clock.run(main())
    assert order == [1, 2, 3]
    assert clock.elapsed == 3 * 3600
    assert clock.jumps == [3600, 3600, 3600]
    assert time.monotonic() - began < 60


def test_the_time_of_day_goes_on_by_the_same_seconds() -> None:
    clock, seen = JumpingClock(start=1_000_000.0), []

    @tool
    async def wait(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async def main() -> None:
        state = ExecutionState(clock=clock, store=MemoryStore())
        state.event_bus.subscribe(lambda event: seen.append((event.execution_status, event.timestamp)))
        async with state:
            await wait(90.0)

    clock.run(main())
    assert seen == [("started", 1_000_000.0), ("completed", 1_000_090.0)]


def test_a_timeout_of_a_day_is_over_at_once() -> None:
    clock = JumpingClock()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(86_400):
                await asyncio.get_running_loop().create_future()

    clock.run(main())
    assert clock.elapsed == 86_400


def test_the_clock_waits_for_functions_in_threads_rather_than_jump_over_them() -> None:
    clock, may_end = JumpingClock(), threading.Event()

    async def main() -> str:
        async with asyncio.timeout(60):  # a clock that jumped now would end this
            work = asyncio.create_task(asyncio.to_thread(may_end.wait))
            await asyncio.sleep(0)
            threading.Timer(0.05, may_end.set).start()
            await work
        return "done"

    assert clock.run(main()) == "done"
    assert clock.elapsed == 0.0


def test_time_can_be_advanced_by_hand_and_does_not_go_back() -> None:
    clock = JumpingClock(start=100.0)
    clock.advance(5)
    assert clock() == 105.0
    for seconds in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="forward"):
            clock.advance(seconds)
    with pytest.raises(ValueError, match="patience"):
        JumpingClock(patience=-1)


# -- no real requests --------------------------------------------------------------------------------------------------


def by_socket() -> None:
    with socket.socket() as sock:
        sock.connect(("192.0.2.1", 80))


def by_name() -> None:
    socket.create_connection(("example.invalid", 443), timeout=1)


def by_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", 0, ("192.0.2.1", 53))


def by_urllib() -> None:
    urllib.request.urlopen("http://example.invalid/x", timeout=1)


def by_asyncio() -> None:
    asyncio.run(asyncio.wait_for(asyncio.open_connection("192.0.2.1", 80), 5))


def by_asyncio_and_name() -> None:
    asyncio.run(asyncio.wait_for(asyncio.open_connection("example.invalid", 443), 5))


def by_anyio() -> None:
    anyio = pytest.importorskip("anyio")
    try:
        asyncio.run(anyio.connect_tcp("192.0.2.1", 80))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


@pytest.mark.parametrize(
    ("reach", "host"),
    [
        (by_socket, "192.0.2.1:80"),
        (by_name, "example.invalid:443"),
        (by_datagram, "192.0.2.1:53"),
        (by_urllib, "example.invalid:80"),
        (by_asyncio, "192.0.2.1:80"),
        (by_asyncio_and_name, "example.invalid:443"),
        (by_anyio, "192.0.2.1:80"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_real_request_is_an_error_that_names_the_host(reach: Callable[[], None], host: str) -> None:
    with no_real_requests() as guard, pytest.raises(RealRequestError, match=host.replace(".", r"\.")):
        reach()
    assert guard.refused == [host]


def test_a_client_that_hides_the_error_does_not_hide_the_host() -> None:
    def client() -> None:
        try:
            by_name()
        except AssertionError as error:
            raise ConnectionError("no connection") from error

    with pytest.raises(ConnectionError) as caught, no_real_requests():
        client()
    assert "example.invalid" in caught.value.__notes__[0]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    server = socket.create_server(("127.0.0.1", 0))
    yield server
    server.close()


def test_servers_on_this_machine_may_be_reached_on_request(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with no_real_requests(), pytest.raises(RealRequestError, match=rf"127\.0\.0\.1:{port}"):
        socket.create_connection(("127.0.0.1", port))
    with no_real_requests(allow_loopback=True) as guard:
        socket.create_connection(("127.0.0.1", port)).close()
        socket.create_connection(("localhost", port)).close()

        async def main() -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()

        asyncio.run(main())
        with pytest.raises(RealRequestError):
            by_socket()
    assert guard.refused == ["192.0.2.1:80"]


def test_a_host_that_is_allowed_by_name_may_be_reached_at_its_address(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with no_real_requests(allow_hosts=["localhost"]):
        socket.create_connection(("localhost", port)).close()


def test_blocks_are_nested_the_innermost_decides_and_nothing_stays_replaced(listener: socket.socket) -> None:
    before = dict(vars(socket.socket)), socket.getaddrinfo, socket.gethostbyname
    port = listener.getsockname()[1]
    with no_real_requests():
        with no_real_requests(allow_loopback=True):
            socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(RealRequestError):
            socket.create_connection(("127.0.0.1", port))
    socket.create_connection(("127.0.0.1", port)).close()
    assert (dict(vars(socket.socket)), socket.getaddrinfo, socket.gethostbyname) == before


@pytest.mark.skipif(sys.platform == "win32", reason="SKIPPED: there are no Unix sockets")
def test_unix_sockets_are_left_alone(tmp_path: Path) -> None:
    with no_real_requests(), socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        path = str(tmp_path / "s")
        if len(path) > 100:
            pytest.skip("SKIPPED: the temporary folder has too long a name for a Unix socket")
        server.bind(path)
        server.listen()
        client.connect(path)


def test_a_string_of_hosts_is_refused() -> None:
    with pytest.raises(TypeError, match="a list"):
        no_real_requests(allow_hosts="example.com")


# -- cassettes ---------------------------------------------------------------------------------------------------------


class World:
    """A workflow with a model and a tool that count how often they are really called."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.questions = ["rivers", "lakes"]
        self.ending = "."
        self.answer = "much water"

        @llm
        async def model(prompt: str) -> str:
            self.called.append(f"model {prompt}")
            return f"{prompt}: {self.answer}"

        @tool
        async def search(query: str) -> str:
            self.called.append(f"search {query}")
            return query.upper()

        @agent
        async def topic(name: str) -> str:
            self.called.append(f"topic {name}")
            return await model(await search(name)) + self.ending

        async def survey(title: str) -> list[str]:
            async with parallel() as p:
                p.map(topic, self.questions)
                return [title, *[str(result.result) for result in await p.gather()]]

        self.survey = survey


RECORDED = ["A", "RIVERS: much water.", "LAKES: much water."]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassettes" / "survey.db"


def play(world: World, path: Path, mode: str = "auto") -> list[str]:
    world.called.clear()
    with no_real_requests():
        return asyncio.run(Cassette(path, open_store, mode).play(world.survey, "A"))


@pytest.fixture
def world(path: Path) -> World:
    world = World()
    assert play(world, path) == RECORDED
    assert len(world.called) == 6
    return world


def test_a_replay_calls_no_model_and_no_tool_but_executes_the_agents(world: World, path: Path) -> None:
    for mode in ("auto", "replay"):
        assert play(world, path, mode) == RECORDED
        assert sorted(world.called) == ["topic lakes", "topic rivers"]


def test_a_new_question_is_not_asked_and_the_message_says_where_it_came_from(world: World, path: Path) -> None:
    world.questions = ["rivers", "seas"]
    with pytest.raises(Drift) as caught:
        play(world, path)
    message = str(caught.value)
    assert "search is not on the cassette of run '1', so it is not called" in message
    assert "--cassettes=record" in message
    assert world.called.count("search seas") == 0


def test_an_agent_that_comes_to_something_else_is_drift(world: World, path: Path) -> None:
    world.ending = "!"
    with pytest.raises(Drift) as caught:
        play(world, path)
    assert len(caught.value.differences) == 2
    assert "recorded 'RIVERS: much water.', now 'RIVERS: much water!'" in str(caught.value)


def test_what_is_not_called_any_more_is_drift(world: World, path: Path) -> None:
    world.questions = ["rivers"]
    with pytest.raises(Drift, match="now not called"):
        play(world, path)


def test_drift_that_the_program_catches_is_reported_all_the_same(world: World, path: Path) -> None:
    real = world.survey

    async def survey(title: str) -> list[str]:
        try:
            return await real(title)
        except Exception:  # noqa: BLE001 - that is what it is careless about
            return []

    world.survey = survey
    world.questions = ["seas"]
    with pytest.raises(Drift, match="not on the cassette"):
        play(world, path)


def test_a_validation_calls_everything_and_reports_what_the_model_says_now(world: World, path: Path) -> None:
    assert play(world, path, "validate") == RECORDED
    assert len(world.called) == 6
    world.answer = "little water"
    with pytest.raises(Drift, match="recorded 'RIVERS: much water', now 'RIVERS: little water'"):
        play(world, path, "validate")
    assert play(world, path, "replay") == RECORDED  # the recording has stayed as it was


def test_what_a_failed_replay_raises_says_that_it_comes_from_a_cassette(path: Path) -> None:
    @tool
    async def search(query: str) -> str:
        raise LookupError(query)

    with pytest.raises(LookupError):
        asyncio.run(Cassette(path, open_store).play(search, "seas"))
    with pytest.raises(LookupError) as caught:
        asyncio.run(Cassette(path, open_store).play(search, "seas"))
    assert "This was played from" in "".join(caught.value.__notes__)


def test_recording_replaces_what_was_there(world: World, path: Path) -> None:
    world.questions = ["seas"]
    assert play(world, path, "record") == ["A", "SEAS: much water."]
    assert play(world, path, "replay") == ["A", "SEAS: much water."]


def test_failures_are_recorded_and_replayed(path: Path) -> None:
    called: list[str] = []

    @tool
    async def search(query: str) -> str:
        called.append(query)
        raise LookupError(f"nothing found for {query}")

    for _ in range(2):
        with pytest.raises(LookupError, match="nothing found for seas"):
            asyncio.run(Cassette(path, open_store).play(search, "seas"))
    assert called == ["seas"]


@pytest.mark.parametrize("mode", ["replay", "validate"])
def test_without_a_cassette_a_replay_is_an_error(path: Path, mode: str) -> None:
    with pytest.raises(UsageError, match="there is no cassette"):
        play(World(), path, mode)
    assert not path.exists()


def test_a_recording_that_was_cut_off_is_continued(path: Path) -> None:
    cassette, world = Cassette(path, open_store), World()

    async def cut_off() -> None:
        with pytest.raises(KeyError):
            async with cassette.open("x"):
                raise KeyError

    async def killed() -> None:
        async def work() -> None:
            async with Cassette(path, open_store).open("y"):
                await world.survey("A")
                task.cancel()
                await asyncio.sleep(0)

        task = asyncio.create_task(work())
        await asyncio.wait([task])

    asyncio.run(cut_off())
    asyncio.run(killed())
    with pytest.raises(UsageError, match="cut off of run 'y'"):
        asyncio.run(Cassette(path, open_store, "replay").play(world.survey, "A", run_id="y"))
    world.called.clear()
    assert asyncio.run(Cassette(path, open_store).play(world.survey, "A", run_id="y")) == RECORDED
    assert world.called == []


def test_several_runs_of_a_test_are_numbered(path: Path) -> None:
    world = World()
    for _ in range(2):
        cassette = Cassette(path, open_store)
        assert asyncio.run(cassette.play(world.survey, "A"))[0] == "A"
        assert asyncio.run(cassette.play(world.survey, "B"))[0] == "B"
    assert len([call for call in world.called if call.startswith("model")]) == 4
    cassette = Cassette(path, open_store)
    assert "auto" in repr(cassette)
    assert cassette.mode is CassetteMode.AUTO


def test_a_scripted_model_is_recorded_and_replayed(path: Path) -> None:
    model = ScriptedLLM(["Paris"])

    async def ask() -> str:
        return await model.ask("What is the capital of France?")

    for _ in range(2):
        assert asyncio.run(Cassette(path, open_store).play(ask)) == "Paris"
    assert len(model.requests) == 1


# -- resuming ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_after", [None, 1, 2, 3])
def test_a_program_that_asks_the_same_pays_once(stop_after: int | None) -> None:
    asked: list[int] = []

    @llm
    async def ask(number: int) -> int:
        asked.append(number)
        return number * number

    async def squares(count: int) -> list[int]:
        return [await ask(number) for number in range(count)]

    check = assert_no_paid_calls_on_resume(squares, 4, store=MemoryStore(), stop_after=stop_after)
    assert asyncio.run(check) == [0, 1, 4, 9]
    assert sorted(asked) == [0, 1, 2, 3]


@pytest.mark.parametrize("stop_after", [None, 2])
def test_a_date_in_the_prompt_is_paid_for_twice_and_reported(stop_after: int | None) -> None:
    now = itertools.count()

    @llm
    async def ask(prompt: str) -> str:
        return prompt

    async def workflow() -> list[str]:
        return [await ask("hello"), await ask(f"it is {next(now)} o'clock"), await ask("bye")]

    with pytest.raises(AssertionError, match=r"^1 calls were made, and paid for, again .* ask\."):
        asyncio.run(assert_no_paid_calls_on_resume(workflow, store=MemoryStore(), stop_after=stop_after))


def test_a_workflow_that_fails_repeats_its_failure_without_paying() -> None:
    @llm
    async def ask(prompt: str) -> str:
        raise LookupError(prompt)

    async def workflow() -> str:
        return await ask("hello")

    with pytest.raises(LookupError):
        asyncio.run(assert_no_paid_calls_on_resume(workflow, store=MemoryStore()))


def test_cutting_off_after_more_calls_than_there_are_is_an_error() -> None:
    async def workflow() -> None:
        pass

    with pytest.raises(ValueError, match="ended after 0 paid calls"):
        asyncio.run(assert_no_paid_calls_on_resume(workflow, store=MemoryStore(), stop_after=1))
