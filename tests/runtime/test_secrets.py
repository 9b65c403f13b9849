"""Secrets of a program: nowhere that people look, and where the program expects them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import logging
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rh_agents import (
    ExecutionEvent,
    ExecutionState,
    RateLimit,
    RunAwaiting,
    RunMismatchError,
    Secret,
    StoreError,
    current,
    forget_secret,
    fork,
    open_store,
    parallel,
    run,
    tool,
)
from rh_agents.bus_handlers import EventStreamer, ParallelEventPrinter
from rh_agents.core.context import tell_progress
from rh_agents.core.errors import UsageError

COUNT = 50
NAMES = [f"canary-{number}" for number in range(COUNT)]
calls: list[int] = []


def canary(number: int, generation: str = "a") -> str:
    return f"Can4ry/{generation}:{number:02}+t{number * 7919 % 1000:03}"


@pytest.fixture(autouse=True)
def secrets() -> Iterator[list[Secret]]:
    calls.clear()
    yield [Secret(name, canary(number)) for number, name in enumerate(NAMES)]
    for name in NAMES:
        forget_secret(name)


SHAPES: list[Callable[[str], Any]] = [
    lambda text: text,
    lambda text: {"headers": {"Authorization": f"Bearer {text}"}, text: [1, text]},
    lambda text: f"https://api.example/v1?q={urllib.parse.quote(text, safe='')}&page=2",
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: (text.encode() + b"\xff", {text}),
    lambda text: [text] * 700,  # an artifact
]


@tool
async def use(secret: Secret, number: int) -> Any:
    calls.append(number)
    text = secret.reveal()
    logging.getLogger("rh_agents.bus").error("used %s", text)
    if number % 10 == 9:
        try:
            raise KeyError(text)
        except KeyError as error:
            raise PermissionError(f"refused: {text} at https://me:{urllib.parse.quote(text, safe='')}@host/") from error
    return SHAPES[number % len(SHAPES)](text)


async def flow(secrets: list[Secret]) -> list[Any]:
    async with parallel(name="canaries") as p:
        for number, secret in enumerate(secrets):
            p.add(use(secret, number), name=f"call {number}")
        return [result.error or result.result for result in await p.gather()]


def expected(generation: str = "a") -> list[Any]:
    return [
        None if number % 10 == 9 else SHAPES[number % len(SHAPES)](canary(number, generation))
        for number in range(COUNT)
    ]


def without_errors(results: list[Any]) -> list[Any]:
    return [None if isinstance(result, Exception) else result for result in results]


def spelt(number: int) -> list[bytes]:
    text = canary(number)
    forms = [text, urllib.parse.quote(text, safe=""), base64.b64encode(text.encode()).decode()]
    return [form.encode() for form in forms]


def leaks(data: bytes) -> list[int]:
    return [number for number in range(COUNT) if any(form in data for form in spelt(number))]


def execute(folder: Path, secrets: list[Secret], **options: Any) -> list[Any]:
    return asyncio.run(run(flow, secrets, store=f"{folder}/runs.db", run_id="r", **options))


def test_fifty_canaries_are_nowhere_that_people_look(
    tmp_path: Path, secrets: list[Secret], caplog: pytest.LogCaptureFixture
) -> None:
    terminal, events = io.StringIO(), io.StringIO()
    streamer = EventStreamer(buffer=10_000)

    def listen(event: ExecutionEvent[Any]) -> None:
        events.write(f"{event.message} {event.name} {event.address}\n")
        if event.message and "refused" in event.message:
            raise RuntimeError(f"the subscriber has seen {secrets[3].reveal()}")

    handlers = [ParallelEventPrinter(file=terminal, live=False), streamer, listen]
    with caplog.at_level(logging.DEBUG):
        results = execute(tmp_path, secrets, subscribers=handlers)
    assert without_errors(results) == expected()
    streamer.close()

    async def streamed() -> str:
        return "".join([chunk async for chunk in streamer.stream()])

    files = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    seen = {
        **files,
        "terminal": terminal.getvalue().encode(),
        "events": events.getvalue().encode(),
        "stream": asyncio.run(streamed()).encode(),
        "logs": caplog.text.encode(),
    }
    assert {name: found for name, data in seen.items() if (found := leaks(data))} == {}
    assert len(files) > 2, "there are artifacts"
    assert "<secret:canary-3>" in caplog.text
    assert "<secret:canary-9>" in events.getvalue()


def test_a_resumed_run_gets_them_back_as_they_are_now(tmp_path: Path, secrets: list[Secret]) -> None:
    first = execute(tmp_path, secrets)
    calls.clear()
    again = execute(tmp_path, secrets, retry_failed=False)
    assert calls == []
    assert without_errors(again) == without_errors(first) == expected()
    assert [str(error) for error in again if isinstance(error, Exception)] == [
        str(error) for error in first if isinstance(error, Exception)
    ]
    for number, name in enumerate(NAMES):
        Secret(name, canary(number, "b"))
    changed = execute(tmp_path, secrets, retry_failed=False)
    assert calls == [], "a changed password costs nothing"
    assert without_errors(changed) == expected("b")


def test_a_resumed_run_without_a_secret_says_which(tmp_path: Path, secrets: list[Secret]) -> None:
    execute(tmp_path, secrets)
    calls.clear()
    forget_secret(NAMES[6])
    with pytest.raises(StoreError, match="the secret 'canary-6' in it"):
        execute(tmp_path, secrets, retry_failed=False)
    assert calls == []


def test_the_result_of_a_call_is_what_the_function_returned(tmp_path: Path, secrets: list[Secret]) -> None:
    """Shapes of credentials are for people: a presigned URL comes back as it was."""
    presigned = "https://bucket/x?X-Amz-Credential=AKIAABCDEFGHIJKLMNOP&X-Amz-Signature=0af3"

    @tool
    async def presign() -> str:
        calls.append(0)
        return presigned

    for _ in range(2):
        assert asyncio.run(run(presign, store=f"{tmp_path}/runs.db", run_id="r")) == presigned
    assert calls == [0]


def test_questions_and_mismatches_are_shown_without_them(tmp_path: Path, secrets: list[Secret]) -> None:
    text = canary(1)

    async def asks() -> Any:
        return await current().run.ask(f"Send {text} to https://u:pw@h?", bool)

    async def main() -> list[str]:
        store = open_store(f"{tmp_path}/runs.db")
        with pytest.raises(Exception, match="waits for 1 answer"):
            await run(asks, store=store, run_id="asks")
        with pytest.raises(RunMismatchError) as caught:
            for given in (text, text + "!"):
                await run(echo, given, store=store, run_id="echo")
        questions = await store.questions("asks")
        await store.aclose()
        return [questions[0].text, str(caught.value)]

    async def echo(given: str) -> str:
        return given

    question, mismatch = asyncio.run(main())
    assert question == "Send <secret:canary-1> to https://u:***@h?"
    assert leaks(mismatch.encode()) == []
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert leaks(files) == []


def test_a_mismatch_shows_no_credential_of_the_inputs(tmp_path: Path) -> None:
    async def echo(given: str) -> str:
        return given

    async def main() -> str:
        with pytest.raises(RunMismatchError) as caught:
            for given in ("https://u:pw1@h", "https://u:pw2@h"):
                await run(echo, given, store=f"{tmp_path}/runs.db", run_id="echo")
        return str(caught.value)

    text = asyncio.run(main())
    assert "https://u:***@h" in text
    assert "pw1" not in text
    assert "pw2" not in text


async def places(given: str) -> list[Any]:
    """Secrets wherever a program can put text of its own."""
    group, member, result, header = (canary(number) for number in (10, 11, 12, 13))
    async with parallel(name=f"group {group}") as p:
        p.add(echoed(1), name=f"member {member}")
        first = await p.gather_dict()
    second = await echoed(result).with_options(key=canary(14))
    basic = await echoed("Basic " + base64.b64encode(f"me:{header}".encode()).decode())
    answer = await current().run.ask(f"Which? {canary(15)}", str)
    with contextlib.suppress(ValueError):
        await failing(canary(16))
    await cached(canary(17))
    return [*first, second, basic, answer, given]


@tool
async def echoed(value: Any) -> Any:
    calls.append(0)
    return value


async def limited() -> None:
    @tool(limits=RateLimit(requests=9, name=canary(27), shared=True))
    async def observed() -> None:
        await tell_progress(canary(26))

    await observed()


@tool(cache="store")
async def cached(text: str) -> dict[str, str]:
    return {text: text}


@tool
async def failing(text: str) -> None:
    error = KeyError(text)
    error.add_note(f"a note about {text}")
    raise ValueError(f"no {text}") from error


def test_no_name_tag_question_answer_or_fact_of_a_run_brings_a_secret_into_its_store(
    tmp_path: Path, secrets: list[Secret], caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[str] = []

    def listen(event: ExecutionEvent[Any]) -> None:
        shown.append(f"{event!r} {event} {event.detail}")

    async def answered() -> None:
        store = open_store(f"{tmp_path}/runs.db")
        with pytest.raises(RunAwaiting) as caught:
            await run(places, canary(24), store=store, run_id="r", tags=[f"tag {canary(21)}"], subscribers=[listen])
        shown.append(str(caught.value))
        (question,) = await store.questions("r")
        await store.answer("r", question.id, json.dumps(canary(25)).encode())
        found = await run(places, canary(24), store=store, run_id="r", subscribers=[listen])
        assert found == [
            f"member {canary(11)}",
            canary(12),
            "Basic " + base64.b64encode(f"me:{canary(13)}".encode()).decode(),
            canary(25),
            canary(24),
        ]
        assert calls == [0, 0, 0]
        (info,) = await store.runs(tag="tag <secret:canary-21>")
        assert info.run_id == "r"
        await store.aclose()

    async def with_facts() -> None:
        facts = {"command": f'["map", "--set", "x={canary(20)}"]'}
        about: dict[str, Any] = {"workflow": f"flow {canary(22)}", "facts": facts, "input": canary(23)}
        async with ExecutionState(store=f"{tmp_path}/runs.db", **about) as state:
            state.event_bus.subscribe(listen)
            await limited()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(answered())
        asyncio.run(with_facts())
    seen = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    seen |= {"events": "\n".join(shown).encode(), "logs": caplog.text.encode()}
    assert {name: found for name, data in seen.items() if (found := leaks(data))} == {}
    assert "<secret:canary-10>" in "".join(shown)


def test_a_secret_in_the_name_of_a_new_run_is_refused_in_a_sentence_without_it(
    tmp_path: Path, secrets: list[Secret]
) -> None:
    async def main() -> None:
        store = open_store(f"{tmp_path}/runs.db")
        name = f"run {canary(1)}"
        with pytest.raises(
            UsageError, match="'run <secret:canary-1>' has a secret in it: choose another name"
        ) as caught:
            await run(echoed, 1, store=store, run_id=name)
        assert leaks(str(caught.value).encode()) == []
        forget_secret(NAMES[1])
        await run(echoed, 1, store=store, run_id=name)
        with pytest.raises(UsageError, match="has a secret in it"):
            await fork(store, name, f"copy {canary(2)}")
        Secret(NAMES[1], canary(1))
        await run(echoed, 1, store=store, run_id=name)
        assert calls == [0], "what is recorded already is not lost"
        await store.aclose()

    asyncio.run(main())
