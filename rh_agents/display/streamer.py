"""Events for a browser: server-sent events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from pydantic_core import to_json

from rh_agents.core.errors import UsageError
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.policies._options import takes_options
from rh_agents.core.redaction import redact
from rh_agents.display.text import brief, harmless

__all__ = ["EventStreamer", "event_json"]


@takes_options("EventStreamer")
class EventStreamer:
    """A subscriber that gives events as the text of server-sent events, to one reader:

        streamer = EventStreamer()
        with state.event_bus.subscribe(streamer):
            async for chunk in streamer.stream():
                await response.write(chunk)

    Up to `buffer` events wait for the reader. When more come, the oldest are dropped: the reader learns how many from
    an event named "dropped", and `dropped` counts them all. No one ever waits for the reader. May be called from any
    thread, with or without an event loop.
    """

    def __init__(self, *, buffer: int = 1000) -> None:
        if buffer < 1:
            raise ValueError(f"{buffer=}: at least 1 event must be able to wait")
        self.dropped: int = 0
        """Events that the reader never got."""
        self.is_closed: bool = False
        self._waiting: deque[ExecutionEvent[Any]] = deque()
        self._buffer = buffer
        self._reported = 0
        self._reader: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self._is_read = False

    def __call__(self, event: ExecutionEvent[Any]) -> None:
        if self.is_closed:
            return
        if len(self._waiting) >= self._buffer:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(event)
        self._wake()

    def close(self) -> None:
        """Take no more events. The reader gets those that wait, and then its loop ends."""
        self.is_closed = True
        self._wake()

    async def stream(self) -> AsyncGenerator[str, None]:
        """The events from the first one that waits, each as "event: tool_call\\ndata: {…}\\n\\n", until `close`.

        Raises:
            UsageError: another reader is active.
        """
        if self._is_read:
            raise UsageError("an EventStreamer has one reader; subscribe another EventStreamer for another reader")
        self._is_read = True
        try:
            while self._waiting or not self.is_closed:
                if self.dropped > self._reported:
                    yield f'event: dropped\ndata: {{"dropped": {self.dropped - self._reported}}}\n\n'
                    self._reported = self.dropped
                elif self._waiting:
                    event = self._waiting.popleft()
                    yield f"event: {event.event_type.value}\ndata: {event_json(event)}\n\n"
                else:
                    await self._event()
        finally:
            self._is_read = False

    async def _event(self) -> None:
        loop = asyncio.get_running_loop()
        self._reader = (loop, loop.create_future())
        try:
            # Looked at again after the reader can be woken: what came in between would wake no one.
            if not self._waiting and not self.is_closed:
                await self._reader[1]
        finally:
            self._reader = None

    def _wake(self) -> None:
        reader = self._reader
        if reader is not None:
            loop, future = reader
            loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def event_json(event: ExecutionEvent[Any]) -> str:
    """The event as JSON on one line, without secrets.

    A result that has no JSON form is given as its `repr`, cut to 200 characters.
    """
    try:
        return redact(event.model_dump_json())
    except (ValueError, TypeError, RecursionError):
        return redact(to_json(_spelled_out(event)).decode())


def _spelled_out(event: ExecutionEvent[Any]) -> Any:
    """The event as plain data with nothing in it but text that can be encoded."""
    result, progress = (None if each is None else brief(each) for each in (event.result, event.progress))
    return _harmless(event.model_copy(update={"result": result, "progress": progress}).model_dump(mode="json"))


def _harmless(data: Any) -> Any:
    if isinstance(data, str):
        return harmless(data)
    if isinstance(data, dict):
        return {harmless(str(name)): _harmless(each) for name, each in data.items()}
    return [_harmless(each) for each in data] if isinstance(data, list) else data
