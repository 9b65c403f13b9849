"""Reads the async iterables of a group: waiting for an item must not keep members from being started."""

from __future__ import annotations

import asyncio
from typing import Protocol

from rh_agents.core._base.foreign import noted
from rh_agents.core._group.members import Source
from rh_agents.core._group.roster import Roster

__all__ = ["Feeder", "FeederListener"]


class FeederListener(Protocol):
    """Who starts the members that are made of items."""

    @property
    def has_room(self) -> bool:
        """Whether another item may be pulled: there is a slot for it, and a reader for what comes of it."""
        ...

    def fill(self) -> None:
        """Members may have come."""

    def feeder_waits(self) -> None:
        """No more items come until there is room."""

    def failed(self, error: BaseException) -> None:
        """It could not begin to read."""

    def feeder_ended(self, task: asyncio.Task[None]) -> None:
        """It has read an iterable to its end, or has let go of it."""


class Feeder:
    """Pulls items in a task of its own, one iterable after the other, each item when there is room for it.

    Args:
        roster: has the iterables, and makes members of items.
        listener: starts these, and says when there is room.
    """

    def __init__(self, roster: Roster, listener: FeederListener) -> None:
        self._roster = roster
        self._listener: FeederListener | None = listener
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None

    def close(self) -> None:
        """The group has ended."""
        self._listener = None

    @property
    def is_active(self) -> bool:
        """Whether an iterable is being read."""
        return self._task is not None

    @property
    def may_bring_more(self) -> bool:
        """Whether an item may come though nothing else happens in the group."""
        return self._task is not None and (self._room is None or self._room.done())

    def cancel(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()

    def feed(self, source: Source) -> None:
        """Begin to read an iterable, or read on if there is room now."""
        listener = self._listener
        if listener is None:
            return
        if self._task is None:
            self._start(source, listener)
        elif self._room is not None and not self._room.done() and listener.has_room:
            self._room.set_result(None)

    def _start(self, source: Source, listener: FeederListener) -> None:
        steps = self._feed(source, listener)
        try:
            task = self._loop.create_task(steps, name="rh_agents: pull items", context=source.context.copy())
        except BaseException as error:
            listener.failed(noted(error, "raised by the event loop; a task factory takes `context=`"))
            steps.close()
            if not isinstance(error, Exception):
                raise
        else:
            self._task = task
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if self._listener is not None:
            self._listener.feeder_ended(task)

    async def _feed(self, source: Source, listener: FeederListener) -> None:
        """Read an async iterable, and let go of it if it is not read to its end."""
        self._task = asyncio.current_task()  # an eager task makes its first step before anybody else knows it
        try:
            await self._feed_from(source, listener)
        finally:
            if self._loop.is_running():
                await source.aclose()

    async def _feed_from(self, source: Source, listener: FeederListener) -> None:
        while self._roster.async_source is source:
            if not listener.has_room:
                await self._wait_for_room(listener)
                continue
            member = await self._roster.pull_async(source, self._loop.time)
            if member is not None:
                self._roster.wait(member)  # a slot may have been taken meanwhile
            listener.fill()

    async def _wait_for_room(self, listener: FeederListener) -> None:
        self._room = self._loop.create_future()
        listener.feeder_waits()
        try:
            await self._room
        finally:
            self._room = None
