"""Model calls to a server that takes 50 ms for each, beside the bare client with a semaphore."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import openai

from rh_agents import ExecutionState, open_store
from rh_agents.llms import OpenAIChat

_SECONDS = 0.050
_IN_FLIGHT = 200
_ANSWER = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"stub","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Hello."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}'
)
_REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_ANSWER), _ANSWER)


class _Stub(asyncio.Protocol):
    """One connection: whatever is asked, the answer comes 50 ms later."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._waiting = b""

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while True:
            head, separator, rest = self._waiting.partition(b"\r\n\r\n")
            if not separator:
                return
            size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(rest) < size:
                return
            self._waiting = rest[size:]
            asyncio.get_running_loop().call_later(_SECONDS, self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_REPLY)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Stub, "127.0.0.1", 0, backlog=1000)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


@asynccontextmanager
async def _stub_server() -> AsyncIterator[str]:
    """The server in a process of its own; it ends when its input is closed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.models", stdin=pipe, stdout=pipe, cwd=Path(__file__).parents[1]
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}/v1"
    finally:
        process.stdin.close()
        await process.wait()


async def _bare(base_url: str, count: int) -> None:
    semaphore = asyncio.Semaphore(_IN_FLIGHT)
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:

        async def ask(number: int) -> str | None:
            async with semaphore:
                response = await client.chat.completions.create(
                    model="stub", messages=[{"role": "user", "content": f"Question {number}?"}]
                )
                return response.choices[0].message.content

        assert len(await asyncio.gather(*map(ask, range(count)))) == count


async def _group(base_url: str, count: int, store: str | None) -> None:
    opened = None if store is None else open_store(store)
    try:
        async with (
            ExecutionState(store=opened) as state,
            OpenAIChat("stub", base_url=base_url, api_key="none") as model,
            state.parallel(max_workers=_IN_FLIGHT) as p,
        ):
            p.map(lambda number: model(f"Question {number}?"), range(count))
            assert all(result.ok for result in await p.gather())
    finally:
        if opened is not None:
            await opened.aclose()


async def _measure(count: int, rounds: int) -> dict[str, list[float]]:
    """Efficiencies by what was measured, in turn."""
    ideal = count / _IN_FLIGHT * _SECONDS
    found: dict[str, list[float]] = {"bare": [], "group": [], "recorded": []}
    async with _stub_server() as base_url:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(rounds):
                ways: dict[str, Callable[[], Awaitable[None]]] = {
                    "bare": lambda: _bare(base_url, count),
                    "group": lambda: _group(base_url, count, None),
                    "recorded": lambda number=number: _group(base_url, count, f"{folder}/{number}.db"),  # type: ignore[misc]
                }
                for name, way in ways.items():
                    start = time.perf_counter()
                    await way()
                    found[name].append(ideal / (time.perf_counter() - start))
    return found


def table(*, quick: bool) -> str:
    """How near calls come to the time that the server alone would take, and how near to the bare client."""
    count = 500 if quick else 2_000
    found = asyncio.run(_measure(count, 3 if quick else 5))
    labels = {
        "bare": "`openai` client with a semaphore (= 1)",
        "group": "group of `OpenAIChat` calls",
        "recorded": "the same, recorded in SQLite",
    }
    rows = []
    for name, label in labels.items():
        ratio = statistics.median([mine / bare for mine, bare in zip(found[name], found["bare"], strict=True)])
        rows.append(f"| {label} | {statistics.median(found[name]):.2f} | {ratio:.2f} × |")
    return "\n".join(
        [
            "\n## Model calls\n",
            f"{count:,} calls to a local server that takes {_SECONDS * 1e3:.0f} ms for each, {_IN_FLIGHT} in flight. "
            "Efficiency is the time that the server alone would take, divided by the time taken.\n",
            "| | efficiency | ratio |",
            "|---|---:|---:|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    asyncio.run(_serve())
