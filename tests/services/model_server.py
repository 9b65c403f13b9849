"""A server that speaks the chat protocol of OpenAI and does whatever a test says, also what no server should do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Exchange", "ModelServer", "Reply", "answer", "chunks", "error", "model_server", "streamed", "tool_calls"]


@dataclass
class Exchange:
    """A request, and the connection on which to answer.

    Attributes:
        number: which request this is, from 0.
        body: what was sent.
        headers: by lower-case name.
        path: for instance `/v1/chat/completions`.
        method: the verb.
        data: the body as it came.
    """

    number: int
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    method: str = "POST"
    data: bytes = b""


@dataclass
class Reply:
    """What the server sends.

    Attributes:
        body: the bytes, or a text, or data for JSON.
        status: the HTTP status.
        headers: further headers.
        kind: the content type.
        cut_at: after so many bytes of the body the connection is closed; `reset` says how.
        reset: whether it is torn down instead of being closed.
        hang: "headers" or "body": nothing comes (of it) until the client gives up; "body" sends half.
        byte_every: seconds between two bytes of the body, if they come one by one.
        length: what the server says about the length of the body, if it lies.
        delay: seconds before anything is sent.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    cut_at: int | None = None
    reset: bool = False
    hang: str | None = None
    byte_every: float | None = None
    length: int | None = None
    delay: float = 0.0

    @property
    def data(self) -> bytes:
        """The body as bytes."""
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


def answer(text: str | None = "Hello.", **fields: Any) -> Reply:
    """A whole answer. `fields` are further ones of its message, but for `finish_reason`, `usage` and `model`."""
    about = {name: fields.pop(name) for name in ("finish_reason", "usage", "model") if name in fields}
    return Reply(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": about.get("model", "stub"),
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, **fields},
                    "finish_reason": about.get("finish_reason", "stop"),
                }
            ],
            "usage": about.get("usage", {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}),
        }
    )


def tool_calls(*calls: tuple[str, Mapping[str, Any]]) -> Reply:
    """An answer that wants tools to be called."""
    wanted = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(calls)
    ]
    return answer(None, tool_calls=wanted, finish_reason="tool_calls")


def chunks(text: str = "Hello.", size: int = 3, usage: bool = True) -> list[dict[str, Any]]:
    """The pieces of a streamed answer."""
    about = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "stub"}
    pieces: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    pieces += [{"content": text[start : start + size]} for start in range(0, len(text), size)]
    found = [{**about, "choices": [{"index": 0, "delta": piece, "finish_reason": None}]} for piece in pieces]
    found.append({**about, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        found.append({**about, "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
    return found


def streamed(pieces: Sequence[Any] | None = None, *, end: bool = True, **facts: Any) -> Reply:
    """A stream of pieces, with its end event or without."""
    lines = [f"data: {json.dumps(piece)}\n\n" for piece in (chunks() if pieces is None else pieces)]
    return Reply("".join([*lines, "data: [DONE]\n\n" if end else ""]), kind="text/event-stream", **facts)


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    """An error as OpenAI reports it."""
    body = {"error": {"message": message, "type": "an_error", "code": code, "param": None}}
    return Reply(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


Answering = Callable[[Exchange], Reply | Awaitable[Reply]]


class ModelServer:
    """A running server.

    Attributes:
        base_url: where it answers; ends in `/v1`.
        exchanges: the requests that have come, in their order.
        most: the most requests that were under way at a time.
        accepted: how many connections were made.
    """

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._connections: set[asyncio.Task[None]] = set()
        self.exchanges: list[Exchange] = []
        self.base_url = ""
        self.inside = 0
        self.most = 0
        self.accepted = 0

    async def start(self, port: int = 0) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", port, limit=2**26)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        return server

    async def stop(self) -> None:
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.accepted += 1
        try:
            while await self._serve(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection is kept."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        data = await reader.readexactly(int(headers.get("content-length", 0)))
        is_json = data and "json" in headers.get("content-type", "")
        body = json.loads(data) if is_json else {}
        method, path, _ = first.split(" ")
        exchange = Exchange(len(self.exchanges), path, headers, body, method, data)
        self.exchanges.append(exchange)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            reply = self._answering(exchange)
            if isinstance(reply, Awaitable):
                reply = await reply
            return await self._send(reply, reader, writer)
        finally:
            self.inside -= 1

    async def _send(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        data = reply.data
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.hang == "headers":
            await reader.read()
            return False
        length = len(data) if reply.length is None else reply.length
        headers = {"content-type": reply.kind, "content-length": str(length), **reply.headers}
        writer.write(f"HTTP/1.1 {reply.status} Said\r\n".encode())
        writer.write("".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1") + b"\r\n")
        if reply.hang == "body":
            writer.write(data[: len(data) // 2])
            await reader.read()
            return False
        if reply.byte_every is not None:
            for number in range(len(data)):
                writer.write(data[number : number + 1])
                await writer.drain()
                await asyncio.sleep(reply.byte_every)
            return True
        writer.write(data[: reply.cut_at])
        await writer.drain()
        if reply.cut_at is None:
            return True
        if reply.reset:
            writer.transport.abort()
        return False


@asynccontextmanager
async def model_server(answering: Answering | Reply, port: int = 0) -> AsyncIterator[ModelServer]:
    """A server for the block, which answers as the function says, or always the same; on any free port for 0."""
    server = ModelServer((lambda _: answering) if isinstance(answering, Reply) else answering)
    listening = await server.start(port)
    try:
        yield server
    finally:
        listening.close()
        await server.stop()
