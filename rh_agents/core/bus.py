"""The event bus: tells subscribers what happens, and never lets one of them change what happens."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeAlias

from rh_agents.core.errors import UsageError
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.ports import Subscriber

__all__ = ["EventBus", "EventStream", "OnFull", "Subscription"]

_log = logging.getLogger("rh_agents.bus")

Event: TypeAlias = "ExecutionEvent[Any]"  # quoted: Pydantic would build a model for it at import


class OnFull(StrEnum):
    """What happens to events for a subscriber whose buffer is full."""

    DROP_OLDEST = "drop_oldest"
    """The oldest waiting event is dropped and counted."""
    WAIT = "wait"
    """The call that has something to tell waits. A subscriber that hangs is given up after `handler_timeout`."""


class Subscription:
    """One subscriber's place on the bus; `close()` it, or use it as a context manager, to end it.

    Without a buffer each event is handled before the call that it tells of goes on. With `buffer=n`, up to n events
    wait while a task of the subscription's own hands them over, in their order.
    """

    def __init__(
        self, bus: EventBus, handler: Subscriber, buffer: int, on_full: OnFull, handler_timeout: float
    ) -> None:
        self.handler = handler
        self.delivered: int = 0
        """Events that the handler has taken without an error."""
        self.errors: int = 0
        """Events at which it raised, or took longer than `handler_timeout`."""
        self.dropped: int = 0
        """Events that it never got, because its buffer was full or because it had been given up."""
        self.last_error: Exception | None = None
        self._bus = bus
        self._buffer = buffer
        self._on_full = on_full
        self._timeout = handler_timeout
        self._waiting: deque[Event] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._progress = asyncio.Event()

    def __repr__(self) -> str:
        return (
            f"<Subscription {_name(self.handler)}: {self.delivered} delivered, {self.errors} errors, "
            f"{self.dropped} dropped>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the subscription. What waits in its buffer is still delivered, see `EventBus.drain`."""
        self._bus.unsubscribe(self)

    def take(self, event: Event) -> Awaitable[None] | None:
        """Hand over an event; what comes back, if anything, is to be awaited before the call goes on."""
        if self._buffer:
            return self._enqueue(event)
        try:
            answer = self.handler(event)
        except Exception as error:  # noqa: BLE001 - the border between a subscriber and the run
            self._failed(error)
            return None
        if inspect.isawaitable(answer):
            return self._finish(answer)
        self.delivered += 1
        return None

    async def _finish(self, answer: Awaitable[object]) -> None:
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                await answer
        except TimeoutError as error:
            self._failed(error)
            if limit.expired():
                self._give_up()
        except Exception as error:  # noqa: BLE001 - the border between a subscriber and the run
            self._failed(error)
        else:
            self.delivered += 1

    def _enqueue(self, event: Event) -> Awaitable[None] | None:
        if len(self._waiting) >= self._buffer:
            if self._on_full is OnFull.WAIT:
                return self._enqueue_when_free(event)
            self._waiting.popleft()
            self.dropped += 1
        self._append(event)
        return None

    async def _enqueue_when_free(self, event: Event) -> None:
        while len(self._waiting) >= self._buffer:
            self._progress.clear()
            await self._progress.wait()
        self._append(event)

    def _append(self, event: Event) -> None:
        self._waiting.append(event)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work(), name=f"deliver to {self!r}")

    async def _work(self) -> None:
        """Deliver what waits, and end when nothing does: an idle subscription has no task."""
        while self._waiting:
            event = self._waiting.popleft()
            self._progress.set()
            try:
                answer = self.handler(event)
            except Exception as error:  # noqa: BLE001 - the border between a subscriber and the run
                self._failed(error)
                continue
            if inspect.isawaitable(answer):
                await self._finish(answer)
            else:
                self.delivered += 1

    def _give_up(self) -> None:
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self._progress.set()
        self._bus.unsubscribe(self)
        _log.error("%s took longer than %g s; it gets no more events", _name(self.handler), self._timeout)

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        self.last_error = error
        if self.errors == 1:
            _log.error("subscriber %s raised; the run goes on", _name(self.handler), exc_info=error)

    async def drain(self) -> None:
        """Wait until nothing waits in the buffer."""
        while self._worker is not None and not self._worker.done():
            await asyncio.wait([self._worker])


class EventStream:
    """Events as an async iterator: `async for event in bus.stream()`. It ends when the bus is closed."""

    def __init__(self, bus: EventBus, buffer: int) -> None:
        self._events: deque[Event] = deque()
        self._buffer = buffer
        self._bus = bus
        self._wake = asyncio.Event()
        self.dropped: int = 0
        """Events that were overwritten because nobody had read them."""
        self._subscription = bus.subscribe(self._take)

    def _take(self, event: Event) -> None:
        if len(self._events) >= self._buffer:
            self._events.popleft()
            self.dropped += 1
        self._events.append(event)
        self._wake.set()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._bus.is_closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()

    def wake(self) -> None:
        """Look again: the bus has been closed."""
        self._wake.set()

    def close(self) -> None:
        """Take no more events."""
        self._subscription.close()


class EventBus:
    """Tells subscribers of events, one after the other, in the order in which they subscribed.

    A subscriber that raises is logged once and counted; the run goes on, and so do the other subscribers. One that
    takes longer than `handler_timeout` seconds (asynchronous handlers only) is given up. Not for use by other threads.
    """

    def __init__(self, *, handler_timeout: float = 10.0) -> None:
        self.handler_timeout = handler_timeout
        self.is_closed: bool = False
        self.subscriptions: tuple[Subscription, ...] = ()
        """Who listens, with the counts of what each has got."""
        self._ended: list[Subscription] = []
        self._streams: list[EventStream] = []

    def subscribe(
        self, handler: Subscriber, *, buffer: int = 0, on_full: OnFull | str = OnFull.DROP_OLDEST
    ) -> Subscription:
        """Tell `handler` of every event from now on.

        Args:
            handler: a function or coroutine function of one event.
            buffer: how many events may wait for a slow handler; 0 makes every call wait for it.
            on_full: what happens when as many wait.

        Raises:
            UsageError: the bus is closed.
        """
        if not callable(handler):
            raise TypeError(f"a subscriber is a function of one event, not {handler!r}")
        if self.is_closed:
            raise UsageError("the event bus is closed: subscribe before the run has ended")
        if buffer < 0:
            raise ValueError(f"{buffer=}: a buffer holds 0 or more events")
        subscription = Subscription(self, handler, buffer, OnFull(on_full), self.handler_timeout)
        self.subscriptions = (*self.subscriptions, subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription; one that has ended is left alone."""
        if subscription in self.subscriptions:
            self.subscriptions = tuple(other for other in self.subscriptions if other is not subscription)
            self._ended.append(subscription)

    async def publish(self, event: Event) -> None:
        """Tell everybody. Returns when the unbuffered handlers are done."""
        for subscription in self.subscriptions:
            answer = subscription.take(event)
            if answer is not None:
                await answer

    def stream(self, *, buffer: int = 1000) -> EventStream:
        """The events from now on as an async iterator that keeps the newest `buffer` unread ones."""
        if buffer < 1:
            raise ValueError(f"{buffer=}: a stream holds at least 1 event")
        stream = EventStream(self, buffer)
        self._streams.append(stream)
        return stream

    async def drain(self) -> None:
        """Wait until all buffers are empty."""
        for subscription in (*self.subscriptions, *self._ended):
            await subscription.drain()
        self._ended.clear()

    async def aclose(self) -> None:
        """Deliver what waits, then take no more subscribers and end all streams."""
        await self.drain()
        self.is_closed = True
        for stream in self._streams:
            stream.wake()


def _name(handler: Subscriber) -> str:
    return getattr(handler, "__qualname__", None) or type(handler).__qualname__
