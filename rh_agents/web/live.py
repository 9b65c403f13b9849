"""What a run's page shows, kept up to date for all who look at it: one follower, however many viewers.

A page is made of *sections*, each of which is JSON text. A viewer knows up to which version it has seen the page and
gets the sections that are newer, at its own pace: there is no queue for each viewer, so one that stalls misses
versions in between and keeps nobody waiting, and one that comes back gets what it has missed by its `Last-Event-ID`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Iterator, Mapping
from typing import Final, NamedTuple

__all__ = ["SPACING", "Follower", "Update"]

SPACING: Final = 0.25
"""Seconds between two updates for a viewer."""
_LOOK_EVERY: Final = 0.1
_WHOLE_EVERY: Final = 1.0
_BEAT: Final = 15.0

Sections = Mapping[str, bytes]


class Update(NamedTuple):
    """What a viewer has to know to be up to date: `id` names the version, `sections` have changed."""

    id: str
    sections: Sections


class Follower:
    """Looks for changes as long as somebody watches.

    Args:
        probe: something cheap that is another value whenever the page may have changed.
        load: the sections of the page. They may change without the probe's notice, so this is called once a second as
            well; sections that stay equal are not sent again.
    """

    def __init__(self, probe: Callable[[], Awaitable[Hashable]], load: Callable[[], Awaitable[Sections]]) -> None:
        self._probe = probe
        self._load = load
        self._life = secrets.token_hex(4)  # versions of another server, or of a follower before, mean nothing here
        self._version = 0
        self._sections: dict[str, tuple[int, bytes]] = {}
        self._seen: Hashable = None
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    @property
    def watchers(self) -> int:
        """How many viewers follow."""
        return self._watchers

    async def now(self) -> Update:
        """The whole page as it is.

        Raises:
            whatever `probe` and `load` raise.
        """
        await self._look(whole=True)
        return self._since(0)

    async def updates(self, after: str | None) -> AsyncGenerator[Update | None, None]:
        """What changes after a version, given by its id, at most every `SPACING` seconds. None now and then: a sign of
        life. Never ends by itself.

        Raises:
            whatever `probe` and `load` raise.
        """
        known = self._version_of(after)
        with self._watched():
            while True:
                if self._failure is not None:
                    raise self._failure
                if known < self._version:
                    update, known = self._since(known), self._version
                    yield update
                    await asyncio.sleep(SPACING)
                    continue
                try:
                    async with asyncio.timeout(_BEAT):
                        await self._changed.wait()
                except TimeoutError:
                    yield None

    def _version_of(self, name: str | None) -> int:
        life, _, version = (name or "").partition("-")
        return int(version) if life == self._life and version.isdigit() and int(version) <= self._version else 0

    def _since(self, known: int) -> Update:
        newer = {name: text for name, (version, text) in self._sections.items() if version > known}
        return Update(f"{self._life}-{self._version}", newer)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self._watchers += 1
        if self._task is None or self._task.done():
            self._failure = None
            self._task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _follow(self) -> None:
        clock = asyncio.get_running_loop().time
        whole_at = clock()
        try:
            while True:
                is_due = clock() >= whole_at
                if is_due:
                    whole_at = clock() + _WHOLE_EVERY
                await self._look(whole=is_due)
                await asyncio.sleep(_LOOK_EVERY)
        except Exception as error:  # noqa: BLE001 - whoever watches gets it
            self._failure = error
            self._publish()

    async def _look(self, *, whole: bool) -> None:
        async with self._lock:
            seen = await self._probe()
            if seen == self._seen and not whole:
                return
            sections = await self._load()
            self._seen = seen
            changed = {name: text for name, text in sections.items() if self._sections.get(name, (0, b""))[1] != text}
            if changed or not self._version:
                self._version += 1
                self._sections.update({name: (self._version, text) for name, text in changed.items()})
                self._publish()

    def _publish(self) -> None:
        """Wake whoever waits now; who comes later waits for the next time."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
