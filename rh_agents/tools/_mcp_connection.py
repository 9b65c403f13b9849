"""The connection to an MCP server, which may die and is started again, and what comes over it.

A connection of the SDK belongs to the task that has opened it, and cannot be opened twice. So each one lives in a task
of its own, which waits until it is asked to end; a server that has died gets a new connection in a new task. It is
started again by the next call that needs it, at most `RESTARTS` times within `RESTARTS_WITHIN` seconds: a server that
dies at once would otherwise be started for ever.

What was being called when a server died may have been done or not. That is a `WorkerLost`, for which `on_unknown` of
the tool decides.

Two things are done to what comes from the server. The end of the stream says that it is gone. And in a list of tools,
those that are not what the protocol asks for are left out: the SDK would refuse the whole list.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, cast

from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CONNECTION_CLOSED, INVALID_REQUEST, CallToolResult
from mcp.types import Tool as ServedTool
from pydantic import ValidationError

from rh_agents.core.context import trace_headers
from rh_agents.core.errors import ToolError, WorkerLost

RESTARTS = 3
RESTARTS_WITHIN = 60.0
"""A server that has died is started again at most so often within so many seconds."""
_TAIL = 2_000
"""How many characters of what a server writes to its standard error are kept."""
_END_OF_TAIL = 1.0
"""Seconds to wait for the rest of them when it has died."""
_EXPIRED = "Session terminated"
"""What the SDK says when a server of HTTP has forgotten the session, so that it has called nothing."""

log = logging.getLogger("rh_agents.tools.mcp")


class Connection:
    """One server, as its tools call it.

    Args:
        server: a command, the URL of a server, or what else `mcp.Client` takes.
        name: for people.
        timeout: seconds for each request, and for the server to be there; None waits.
    """

    def __init__(self, server: StdioServerParameters | str | Any, name: str, timeout: float | None) -> None:
        self._server = server
        self._name = name
        self._timeout = timeout
        self._context = contextvars.copy_context()  # of whoever opens it, and of none of the calls that restart it
        self._lock = asyncio.Lock()
        self._life: _Life | None = None
        self._restarts: deque[float] = deque(maxlen=RESTARTS)
        self.left_out: dict[str, str] = {}
        """The tools that are not what the protocol asks for, with the reason."""

    async def client(self) -> Client:
        """The client of a server that is alive, as far as is known.

        Raises:
            ToolError: there is none, and none can be started.
        """
        async with self._lock:
            life = self._life
            if life is not None and not (life.has_ended and life.can_be_replaced):
                return life.client
            if life is not None:
                self._count_restart(life)
                await self._close()
                log.warning("the MCP server %s has ended and is started again", self._name)
            self._life = await self._started()
            return self._life.client

    async def call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        """Call a tool of the server.

        Raises:
            WorkerLost: the server ended while it was called.
            ToolError: it cannot be called.
        """
        client = await self.client()
        try:
            return await self._called(client, tool, arguments)
        except _SessionExpired:
            return await self._called(await self.client(), tool, arguments)

    async def _called(self, client: Client, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        life = self._life
        try:
            return await client.call_tool(tool, arguments, meta=cast("Any", trace_headers()) or None)
        except MCPError as error:
            if life is not None and error.code == INVALID_REQUEST and str(error) == _EXPIRED and life.can_be_replaced:
                life.has_ended = True
                raise _SessionExpired from error
            if error.code == CONNECTION_CLOSED and life is not None and life.has_ended:
                said = await life.last_words()
                raise WorkerLost(f"the MCP server {self._name} ended while {tool} was called{said}") from error
            raise ToolError(f"{tool}: {error}") from error
        except OSError as error:
            raise ToolError(f"{tool}: its server is gone: {cause(error)}") from error
        except RuntimeError as error:  # the SDK's word for a result that does not fit the tool's own schema
            raise ToolError(f"{tool}: {cause(error)}") from error

    def _count_restart(self, life: _Life) -> None:
        now = asyncio.get_running_loop().time()
        if len(self._restarts) == RESTARTS and now - self._restarts[0] < RESTARTS_WITHIN:
            wait = RESTARTS_WITHIN - (now - self._restarts[0])
            raise ToolError(
                f"the MCP server {self._name} has ended {RESTARTS + 1} times within {RESTARTS_WITHIN:g} s, and is "
                f"started again in {wait:.0f} s at the earliest{life.tail_text()}"
            )
        self._restarts.append(now)

    async def _started(self) -> _Life:
        life = _Life(self._server, self._timeout, self.left_out)
        life.task = asyncio.get_running_loop().create_task(life.live(), context=self._context)
        try:
            async with asyncio.timeout(self._timeout):
                awaited: set[asyncio.Future[Any]] = {life.task, life.ready}
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            await life.end(cancel=True)
            said = await life.last_words()
            raise ToolError(
                f"the MCP server {self._name} cannot be reached: it did not answer within {self._timeout:g} s{said}"
            ) from None
        except BaseException:
            await life.end(cancel=True)
            raise
        if life.ready.done():
            return life
        error = life.task.exception()
        said = await life.last_words()
        raise ToolError(f"the MCP server {self._name} cannot be reached: {cause(error)}{said}") from error

    async def close(self) -> None:
        """End the server that this has started."""
        async with self._lock:
            await self._close()

    async def _close(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            await life.end()


class _SessionExpired(Exception):
    """The server knows nothing of this session any more; it has called nothing."""


class _Life:
    """One connection, from its beginning to its end."""

    task: asyncio.Task[None]

    def __init__(self, server: Any, timeout: float | None, left_out: dict[str, str]) -> None:
        self.ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self.has_ended = False
        self.can_be_replaced = isinstance(server, StdioServerParameters | str)
        self._over = asyncio.Event()
        self._tail: _Tail | None = None
        if isinstance(server, StdioServerParameters):
            self._tail = _Tail()
            server = _Watched(stdio_client(server, errlog=self._tail.errlog), self._stream_ended, left_out)
        elif isinstance(server, str):
            server = _Watched(streamable_http_client(server), self._stream_ended, left_out)
        self._client = Client(server, read_timeout_seconds=timeout)

    @property
    def client(self) -> Client:
        """The client, which is there as soon as the life is ready."""
        return self.ready.result()

    async def live(self) -> None:
        """Connect, and stay so until `end`."""
        try:
            async with self._client as client:
                self._close_tail()  # the server has its own end of it
                if not self.ready.done():
                    self.ready.set_result(client)
                await self._over.wait()
        finally:
            self.has_ended = True
            self._close_tail()

    async def end(self, *, cancel: bool = False) -> None:
        """Let go of the server, and wait until it is gone, however often one is cancelled: that takes seconds."""
        self._over.set()
        if cancel:
            self.task.cancel()
        cancelled: asyncio.CancelledError | None = None
        while not self.task.done():
            try:
                await asyncio.wait({self.task})
            except asyncio.CancelledError as raised:
                cancelled = raised
        if not self.task.cancelled() and (error := self.task.exception()) is not None:
            log.debug("an MCP server did not end in good order: %s", cause(error))
        if cancelled is not None:
            raise cancelled

    def _stream_ended(self) -> None:
        self.has_ended = True

    def _close_tail(self) -> None:
        if self._tail is not None:
            self._tail.close()

    async def last_words(self) -> str:
        """The end of what a server that has ended has written to its standard error, behind a colon."""
        if self._tail is not None:
            await asyncio.to_thread(self._tail.wait, _END_OF_TAIL)
        return self.tail_text()

    def tail_text(self) -> str:
        """The same without waiting for the rest of it."""
        text = "" if self._tail is None else self._tail.text()
        return f"; it wrote: {text}" if text else ""


class _Tail:
    """The end of what a process writes to its standard error. Its lines are logged as well, for INFO."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self.errlog = os.fdopen(writing, "w")
        self._kept = b""
        self._thread = threading.Thread(target=self._read, args=(reading,), name="mcp stderr", daemon=True)
        self._thread.start()

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                self._kept = (self._kept + line)[-4 * _TAIL :]
                log.info("%s", line.decode(errors="replace").rstrip())

    def close(self) -> None:
        """The process has been started; what it has inherited stays open until its end."""
        self.errlog.close()

    def wait(self, seconds: float) -> None:
        """Wait until the process, and what it has started, can write no more."""
        self._thread.join(seconds)

    def text(self) -> str:
        text = " ".join(self._kept.decode(errors="replace").split())
        return text if len(text) <= _TAIL else f"… {text[-_TAIL:]}"


# -- what comes from the server ----------------------------------------------------------------------------------------


class _Watched:
    """A transport of the SDK whose messages are looked at."""

    def __init__(self, transport: Any, ended: Callable[[], None], left_out: dict[str, str]) -> None:
        self._transport = transport
        self._ended = ended
        self._left_out = left_out

    async def __aenter__(self) -> tuple[Any, Any]:
        read, write = await self._transport.__aenter__()
        return _Reading(read, self._ended, self._left_out), write

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        found: bool | None = await self._transport.__aexit__(kind, error, trace)
        return found


class _Reading:
    """The messages of a server, in the form that the SDK reads them."""

    def __init__(self, stream: Any, ended: Callable[[], None], left_out: dict[str, str]) -> None:
        self._stream = stream
        self._ended = ended
        self._left_out = left_out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> _Reading:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> bool | None:
        found: bool | None = await self._stream.__aexit__(*raised)
        return found

    def __aiter__(self) -> _Reading:
        return self

    async def __anext__(self) -> Any:
        return await self._next(self._stream.__anext__)

    async def receive(self) -> Any:
        """The next message."""
        return await self._next(self._stream.receive)

    async def _next(self, read: Callable[[], Awaitable[Any]]) -> Any:
        try:
            item = await read()
        except Exception:  # the end of the stream, whatever it is called
            self._ended()
            raise
        result = getattr(getattr(item, "message", None), "result", None)
        if isinstance(result, dict) and isinstance(result.get("tools"), list):
            result["tools"] = [tool for tool in result["tools"] if self._is_good(tool)]
        return item

    def _is_good(self, tool: Any) -> bool:
        problem = problem_of(tool)
        if problem is None:
            return True
        name = tool.get("name") if isinstance(tool, dict) else None
        self._left_out[str(name or tool)] = problem
        return False


def problem_of(tool: ServedTool | Any) -> str | None:
    """Why no model can call this tool of a list; None if one can."""
    try:
        served = tool if isinstance(tool, ServedTool) else ServedTool.model_validate(tool)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if not served.name:
        return "it has no name"
    kind = served.input_schema.get("type", "object")
    return None if kind == "object" else f"its arguments are not an object, but {kind!r}"


def cause(error: BaseException | None) -> str:
    """The first plain error in what may be a group of groups, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())
