"""Conversations that earlier versions recorded, in both databases: nothing in them is asked or called again."""

from __future__ import annotations

import asyncio
import json
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rh_agents import open_store, run
from rh_agents.core.ports import Store
from rh_agents.stores._sql import read_migrations
from tests.services.model_server import ModelServer, model_server

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")

from tests.stress.golden.conversations import PROGRAMS, QUESTION, SCHEMA, URL, answer_as_recorded, made

GOLDEN = sorted((Path(__file__).parent / "golden").glob("conversations_*.tar.gz"))
DATABASES = [(path, kind) for path in GOLDEN for kind in ("sqlite", "postgresql")]
FRAMEWORKS = ("pydantic_ai_agents", "openai_agents_sdk", "langchain_graphs")


@dataclass(frozen=True)
class Recorded:
    """A database with the runs, and what their programs returned."""

    url: str
    results: dict[str, Any]
    version: int

    @property
    def endpoint(self) -> str | None:
        """Where the models have to be; None: it was no part of what they are when this was recorded."""
        return URL if self.version >= 4 else None


@pytest.fixture(scope="module", params=DATABASES, ids=lambda each: f"{each[1]} {each[0].name[14]}")
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """The journals, unpacked once for all tests: what they start leaves what is recorded as it is."""
    path, kind = request.param
    version = int(path.name.partition(".")[0].rpartition("_")[2])
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(path) as tar:
        tar.extractall(folder, filter="data")
    results = json.loads((folder / "results.json").read_text())
    if kind == "sqlite":
        yield Recorded(f"sqlite:///{folder}/runs.db", results, version)
        return
    server = request.getfixturevalue("postgresql_server")
    server.execute((folder / "postgresql.sql").read_text())
    yield Recorded(server.url(schema=SCHEMA), results, version)
    server.execute(f"DROP SCHEMA {SCHEMA} CASCADE")


@asynccontextmanager
async def listening(recorded: Recorded, *, is_asked: bool) -> AsyncIterator[ModelServer]:
    """The models. Those that are asked again have to be where they were, and another test may be there just now."""
    port = urlsplit(recorded.endpoint).port or 0 if is_asked and recorded.endpoint else 0
    while True:
        async with AsyncExitStack() as stack:
            try:
                server = await stack.enter_async_context(model_server(answer_as_recorded, port))
            except OSError:
                await asyncio.sleep(0.05)
                continue
            yield server
            return


def execute(
    monkeypatch: pytest.MonkeyPatch,
    recorded: Recorded,
    body: Callable[[Store], Awaitable[None]],
    *,
    is_asked: bool = False,
) -> int:
    """How many requests the models got meanwhile. Which functions were called stands in `made`."""
    made.clear()

    async def main() -> int:
        async with listening(recorded, is_asked=is_asked) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", recorded.endpoint or server.base_url)
            store = open_store(recorded.url)
            try:
                await body(store)
            finally:
                await store.aclose()
            return len(server.exchanges)

    return asyncio.run(main())


def program_named(name: str) -> Callable[[], Awaitable[Any]]:
    if name not in FRAMEWORKS:
        return PROGRAMS[name]
    for package, extra in (("agents", "openai-agents"), ("pydantic_ai", "pydantic-ai"), ("langgraph", "langchain")):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'rh_agents[{extra}]'")
    from tests.stress.golden.frameworks import PROGRAMS as FRAMEWORK_PROGRAMS  # noqa: PLC0415 - may not be installed

    return FRAMEWORK_PROGRAMS[name]


@pytest.mark.parametrize("name", [*(name for name in PROGRAMS if name != "awaiting"), *FRAMEWORKS])
def test_a_recorded_conversation_is_replayed_without_a_request_or_a_call(
    name: str, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = program_named(name)

    async def replay(store: Store) -> None:
        found = await run(program, store=store, run_id=name, retry_failed=False)
        assert json.loads(json.dumps(found)) == recorded.results[name]

    assert execute(monkeypatch, recorded, replay) == 0
    assert made == []


def test_what_a_person_is_asked_can_be_answered_later_and_the_conversation_continues_there(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer_and_resume(store: Store) -> None:
        (question,) = await store.questions("awaiting")
        assert question.text == QUESTION
        await store.answer("awaiting", question.id, b"true")
        assert await run(PROGRAMS["awaiting"], store=store, run_id="awaiting") == ["Blue.", "It is sent, too."]

    assert execute(monkeypatch, recorded, answer_and_resume, is_asked=True) == 1
    assert made == ["send for ever"]


def test_another_run_gets_what_the_cache_holds(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    async def share(store: Store) -> None:
        found = await run(PROGRAMS["sharing"], store=store, run_id="another")
        assert json.loads(json.dumps(found)) == recorded.results["sharing"]

    assert execute(monkeypatch, recorded, share) == 0
    assert made == []


def test_the_database_is_sound_and_everything_in_it_can_be_read(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(store: Store) -> None:
        assert await store.check() == []
        for info in await store.runs():
            outcomes = [outcome async for outcome in store.outcomes(info.run_id)]
            events = [event async for event in store.events(info.run_id)]
            assert len(outcomes) == info.outcomes
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))

    assert execute(monkeypatch, recorded, read) == 0


def test_there_are_golden_conversations_for_the_versions_of_the_schema_from_the_second_on() -> None:
    numbers = [migration.number for migration in read_migrations("sqlite") if migration.number >= 2]
    assert [path.name for path in GOLDEN] == [f"conversations_{number}.tar.gz" for number in numbers]
