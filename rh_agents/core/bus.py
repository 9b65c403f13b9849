"""The event bus: tells subscribers what happens, and never lets one of them change what happens."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, Self, TypeAlias

from rh_agents.core._loops.exits import FAILURES, failure_of, task_of
from rh_agents.core._loops.homes import Home, home
from rh_agents.core.errors import OptionError, UsageError
from rh_agents.core.events import ExecutionEvent, Fact, Subscriber
from rh_agents.core.policies._checks import number
from rh_agents.core.redaction import logger
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Usage

__all__ = ["EventBus", "EventStream", "OnFull", "Subscription"]

_log = logger("rh_agents.bus")

Event: TypeAlias = "ExecutionEvent[Any]"  # quoted: Pydantic would build a model for it at import


_OF_EVERY_MEMBER = frozenset({ExecutionStatus.STARTED, ExecutionStatus.RECOVERED, ExecutionStatus.PROGRESS})


def _is_routine(status: ExecutionStatus, index: int | None, message: str | None, usage: Usage | None) -> bool:
    """See `EventBus.subscribe`. What is recovered costs nothing now."""
    if index is None:
        return status is ExecutionStatus.PROGRESS
    if status is ExecutionStatus.COMPLETED:
        return usage is None
    return status in _OF_EVERY_MEMBER and message is None


class _Delivery:
    """An event in the hands of one asynchronous handler, known in the context of all that this does."""

    __slots__ = ("bus", "is_over", "outer")

    def __init__(self, bus: EventBus) -> None:
        self.bus = bus
        self.is_over = False
        self.outer = _delivery.get()

    def begin(self, answer: Awaitable[object]) -> asyncio.Task[object]:
        """Await what the handler returned, in a task."""
        token = _delivery.set(self)
        try:
            return task_of(answer)
        finally:
            _delivery.reset(token)


_delivery: ContextVar[_Delivery | None] = ContextVar("rh_agents_delivery", default=None)


def _is_within_delivery(bus: EventBus) -> bool:
    """Whether a handler of this bus that is being waited for does this."""
    delivery = _delivery.get()
    while delivery is not None and (delivery.is_over or delivery.bus is not bus):
        delivery = delivery.outer
    return delivery is not None


async def _tell(event: Event, subscriptions: Sequence[Subscription]) -> None:
    for subscription in subscriptions:
        answer = subscription.take(event)
        if answer is not None:
            await answer


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
        self,
        bus: EventBus,
        handler: Subscriber,
        buffer: int,
        on_full: OnFull,
        handler_timeout: float,
        *,
        routine: bool = True,
    ) -> None:
        self.handler = handler
        self.routine: bool = routine
        """Whether it gets routine events as well."""
        self.delivered: int = 0
        """Events that the handler has taken without an error."""
        self.errors: int = 0
        """Events at which it raised, or took longer than `handler_timeout`."""
        self.dropped: int = 0
        """Events that it never got, because its buffer was full or because it had been given up."""
        self.last_error: BaseException | None = None
        self._bus = bus
        self._buffer = buffer
        self._on_full = on_full
        self._timeout = handler_timeout
        self._waiting: deque[Event] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._progress = asyncio.Event()
        self._turn = _Turn()
        self._is_given_up = False

    def __repr__(self) -> str:
        return (
            f"<Subscription {_name(self.handler)}: {self.delivered} delivered, {self.errors} errors, "
            f"{self.dropped} dropped>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the subscription. What waits in its buffer is still delivered, see `EventBus.drain`."""
        self._bus.unsubscribe(self)

    def move(self) -> None:
        """Another event loop publishes from now on; what was under way on the one before is left there."""
        self._worker = None
        self._progress = asyncio.Event()
        self._turn = _Turn()

    def take(self, event: Event) -> Awaitable[None] | None:
        """Hand over an event; what comes back, if anything, is to be awaited before the call goes on."""
        if not self.routine and _is_routine(event.execution_status, event.parallel_index, event.message, event.usage):
            return None
        if self._is_given_up:
            self.dropped += 1
            return None
        return self._enqueue(event) if self._buffer else self._handle(event)

    def _handle(self, event: Event) -> Awaitable[None] | None:
        try:
            answer = self.handler(event)
        except (*FAILURES, asyncio.CancelledError) as error:  # the border between subscriber and run
            self._failed(error)
            return None
        if inspect.isawaitable(answer):
            return self._finish(answer)
        self.delivered += 1
        return None

    async def _finish(self, answer: Awaitable[object]) -> None:
        """Wait for an asynchronous handler, in a task of its own, so that one that does not come back can be left."""
        delivery = _Delivery(self._bus)
        try:
            task = delivery.begin(answer)
        except Exception as error:  # noqa: BLE001 - the event loop's task factory is somebody else's
            self._failed(error)
            return
        cancelled: asyncio.CancelledError | None = None
        try:
            ends_at = task.get_loop().time() + self._timeout
            while not task.done() and (left := ends_at - task.get_loop().time()) > 0:
                try:
                    await asyncio.wait([task], timeout=left)
                except asyncio.CancelledError as error:  # meant for the call, which waits until the handler has ended
                    cancelled = error
                    task.cancel()
        finally:
            delivery.is_over = True
        if not task.done():
            self._give_up(task)
        elif not task.cancelled():
            self._finished(task.exception())
        elif cancelled is None:
            self._failed(asyncio.CancelledError("it was cancelled, but not by the run"))
        if cancelled is not None:
            raise cancelled

    def _finished(self, error: BaseException | None) -> None:
        if error is None:
            self.delivered += 1
        else:
            self._failed(error)

    def _enqueue(self, event: Event) -> Awaitable[None] | None:
        is_full = len(self._waiting) >= self._buffer
        if self._on_full is OnFull.WAIT and (is_full or self._turn.is_taken):
            return self._enqueue_when_free(event)
        if is_full:
            self._waiting.popleft()
            self.dropped += 1
        self._append(event)
        return None

    async def _enqueue_when_free(self, event: Event) -> None:
        async with self._turn:  # first come, first served
            while len(self._waiting) >= self._buffer and not self._is_given_up:
                self._progress.clear()
                await self._progress.wait()
        if self._is_given_up:
            self.dropped += 1
        else:
            self._append(event)

    def _append(self, event: Event) -> None:
        self._waiting.append(event)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work(), name=f"deliver to {self!r}")

    async def _work(self) -> None:
        """Deliver what waits, and end when nothing does: an idle subscription has no task."""
        self._worker = asyncio.current_task()  # an eager task makes its first step before anybody else knows it
        while self._waiting:
            event = self._waiting.popleft()
            self._progress.set()
            answer = self._handle(event)
            if answer is not None:
                await answer

    def _give_up(self, task: asyncio.Task[object]) -> None:
        self.errors += 1
        self.last_error = TimeoutError(f"it took longer than {self._timeout:g} s")
        self._bus.leave(task)
        self._is_given_up = True
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self._progress.set()
        self._bus.unsubscribe(self)
        _log.error("%s took longer than %g s; it gets no more events", _name(self.handler), self._timeout)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, SystemExit):
            error = failure_of(error)
        self.errors += 1
        self.last_error = error
        if self.errors == 1:
            _log.error("subscriber %s raised; the run continues", _name(self.handler), exc_info=error)

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
        self._is_closed = False
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
            if self._bus.is_closed or self._is_closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()

    def wake(self) -> None:
        """Look again: the bus has been closed."""
        self._wake.set()

    def close(self) -> None:
        """Take no more events; what is there can still be read."""
        self._subscription.close()
        self._is_closed = True
        self._wake.set()


class EventBus:
    """Tells subscribers of events, one after the other, in the order in which they subscribed.

    A subscriber that raises is logged once and counted; the run goes on, and so do the other subscribers. One that
    takes longer than `handler_timeout` seconds (asynchronous handlers only) is given up. Not for use by other threads:
    runs on event loops of several threads need a bus each, and may have the same handlers.
    """

    def __init__(self, *, handler_timeout: float = 10.0) -> None:
        self.handler_timeout: float = number("handler_timeout", handler_timeout, "seconds above 0", zero=False)
        self.is_closed: bool = False
        self.subscriptions: tuple[Subscription, ...] = ()
        """Who listens, with the counts of what each has got."""
        self.wants_routine: bool = False
        """Whether anybody gets routine events."""
        self._ended: list[Subscription] = []
        self._turn = _Turn()
        self._streams: list[EventStream] = []
        self._left: set[asyncio.Task[object]] = set()
        self._home: Home | None = None
        self._runs = 0

    def attach(self) -> None:
        """A run on this event loop publishes here until it closes the bus.

        Raises:
            UsageError: a run on another event loop does.
        """
        mine = home()
        if self._home is not mine:
            if self._home is not None and self._runs and self._home.is_running:
                raise UsageError(
                    "this event bus is used by a run on another event loop, which delivers its events there: give each "
                    "run a bus of its own, and subscribe the handler to both"
                )
            self._home, self._runs = mine, 0
            self._turn = _Turn()
            for subscription in self.subscriptions:
                subscription.move()
        self._runs += 1

    def subscribe(
        self,
        handler: Subscriber,
        *,
        buffer: int = 0,
        on_full: OnFull | str = OnFull.DROP_OLDEST,
        routine: bool = True,
    ) -> Subscription:
        """Tell `handler` of every event from now on.

        Args:
            handler: a function or coroutine function of one event.
            buffer: how many events may wait for a slow handler; 0 makes every call wait for it.
            on_full: what happens when as many wait.
            routine: False leaves out what there is to tell of nearly every member of a group: that it has begun, has
                succeeded without any usage, or was recovered with its value; and what calls say while they are under
                way. A group of thousands takes half the time if no one wants that; who only counts can read the group
                instead (`ParallelExecutionManager.group`).

        Raises:
            OptionError: `handler` cannot be called, `buffer` is negative, or there is no such `on_full`.
            UsageError: the bus is closed.
        """
        if not callable(handler):
            raise OptionError(f"a subscriber is a function of one event, not {handler!r}")
        if self.is_closed:
            raise UsageError("the event bus is closed: subscribe before the run has ended")
        if buffer < 0:
            raise OptionError(f"{buffer=}: a buffer holds 0 or more events")
        subscription = Subscription(self, handler, buffer, OnFull(on_full), self.handler_timeout, routine=routine)
        self._change_to((*self.subscriptions, subscription))
        return subscription

    def _change_to(self, subscriptions: tuple[Subscription, ...]) -> None:
        self.subscriptions = subscriptions
        self.wants_routine = any(subscription.routine for subscription in subscriptions)

    def wants(self, fact: Fact) -> bool:
        """Whether anybody gets an event of this fact."""
        if self.wants_routine or not self.subscriptions:
            return self.wants_routine
        usage = None if fact.more is None else fact.more.get("usage")
        return not _is_routine(fact.status, fact.parallel_index, fact.message, usage)

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription; one that has ended is left alone."""
        if subscription in self.subscriptions:
            self._change_to(tuple(other for other in self.subscriptions if other is not subscription))
            self._ended.append(subscription)

    async def publish(self, event: Event) -> None:
        """Tell everybody. Returns when the unbuffered handlers are done.

        Events that are published side by side reach every subscriber in the same order. What a handler publishes, by
        the calls and groups that it makes itself, gets it at once: it cannot wait for its own turn.
        """
        subscriptions = self.subscriptions
        if self.is_closed and not self._runs:
            return
        if self._turn.is_taken:
            if _is_within_delivery(self):
                await _tell(event, subscriptions)
            else:
                async with self._turn:
                    await _tell(event, subscriptions)
            return
        for position, subscription in enumerate(subscriptions):
            answer = subscription.take(event)
            if answer is not None:
                async with self._turn:  # from here on others wait until this event has been published to all
                    await answer
                    await _tell(event, subscriptions[position + 1 :])
                return

    def leave(self, task: asyncio.Task[object]) -> None:
        """Wait no more for a handler. It is cancelled, unless it awaits another task (that of the run?): this
        would be cancelled with it, and a subscriber changes nothing.
        """
        self._left.add(task)
        task.add_done_callback(self._left_ended)
        if not isinstance(getattr(task, "_fut_waiter", None), asyncio.Task):
            task.cancel()

    def _left_ended(self, task: asyncio.Task[object]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # nobody wants to know any more

    def stream(self, *, buffer: int = 1000) -> EventStream:
        """The events from now on as an async iterator that keeps the newest `buffer` unread ones.

        Raises:
            OptionError: `buffer` is less than 1.
        """
        if buffer < 1:
            raise OptionError(f"{buffer=}: a stream holds at least 1 event")
        stream = EventStream(self, buffer)
        self._streams.append(stream)
        return stream

    async def drain(self) -> None:
        """Wait until all buffers are empty."""
        for subscription in (*self.subscriptions, *self._ended):
            await subscription.drain()
        self._ended.clear()

    async def aclose(self) -> None:
        """Take no more subscribers, deliver what waits, and end all streams.

        After the last run nothing is published: a subscriber that makes calls would have no end.
        """
        self._runs = max(0, self._runs - 1)
        self.is_closed = True
        await self.drain()
        for stream in self._streams:
            stream.wake()


def _name(handler: Subscriber) -> str:
    return getattr(handler, "__qualname__", None) or type(handler).__qualname__


class _Turn:
    """A lock that passes on in the order in which it was asked for, and that knows of those who wait."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._users = 0

    @property
    def is_taken(self) -> bool:
        """Whether someone has it or waits for it. (A lock that is being handed over says that it is free.)"""
        return self._users > 0

    async def __aenter__(self) -> None:
        self._users += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self._users -= 1
            raise

    async def __aexit__(self, *exception: object) -> None:
        self._users -= 1
        self._lock.release()
