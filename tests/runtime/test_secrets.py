"""Secrets of a program: nowhere that people look, and where the program expects them."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rh_agents import (
    ExecutionEvent,
    RunMismatchError,
    Secret,
    StoreError,
    current,
    forget_secret,
    open_store,
    parallel,
    run,
    tool,
)
from rh_agents.bus_handlers import EventStreamer, ParallelEventPrinter

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
