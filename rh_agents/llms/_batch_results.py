"""The answers of one batch: looked for until they are there, and read line by line.

By the time a batch has ended it is paid for, so no failure of *reading* may look like a failure of the batch. What
can go wrong, and what is done about it:

- a look or a download fails for now (5xx, timeouts, 429): it is repeated, without an end;
- it fails for good (404, 401): providers say 404 of what they have just made, and keys are replaced, so it is
  repeated `PATIENCE` times. Then the requests without an answer fail with why, and the next execution
  begins with this batch, not with a new one;
- one of two files cannot be had: requests whose answers are in the other one do not wait for it;
- a line is no JSON, or lines are missing: the file is fetched again, `FETCHES` times in all. Then that line is the
  failure of its request. Its id is found in what is left of it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic_core import from_json

from rh_agents.core.errors import ModelError, TemporaryModelError
from rh_agents.llms._batch_api import BatchApi, BatchState

PATIENCE = 20
"""How often a look that fails for good is repeated before it is believed."""
FETCHES = 3
"""How often a file is fetched, if what comes is damaged."""
_ID = re.compile(rb'"custom_id"\s*:\s*"([^"\\]+)"')
_HALF = re.compile("[\ud800-\udfff]")

T = TypeVar("T")
Report = Callable[[str], None]
Sleep = Callable[[float], Awaitable[object]]


@dataclass(slots=True)
class Lines:
    """Answers as they were read.

    Attributes:
        good: by the id of the request.
        damaged: what is left of lines that cannot be read, by the id.
        nameless: how many lines do not even say whose they are.
    """

    good: dict[str, dict[str, Any]] = field(default_factory=dict)
    damaged: dict[str, bytes] = field(default_factory=dict)
    nameless: int = 0

    @property
    def has_gaps(self) -> bool:
        """Whether some lines could not be read."""
        return bool(self.damaged or self.nameless)

    def add(self, other: Lines) -> None:
        """What another file has, or the same file when it was fetched again."""
        self.good.update(other.good)
        self.damaged.update(other.damaged)
        for each in self.good:
            self.damaged.pop(each, None)


def read_lines(content: bytes) -> Lines:
    """The lines of a file of answers. Lines end with a line feed, and with nothing else that Unicode takes for one."""
    lines = Lines()
    for text in content.split(b"\n"):
        if not text.strip():
            continue
        line = _read(text)
        if line is not None and isinstance(line.get("custom_id"), str):
            lines.good.setdefault(line["custom_id"], line)
            continue
        found = _ID.search(text)
        if found is None:
            lines.nameless += 1
        else:
            lines.damaged[found[1].decode("utf-8", "replace")] = text
    return lines


def _read(text: bytes) -> dict[str, Any] | None:
    """A line as an object; None if it is none.

    An answer that was cut off between the halves of a surrogate pair is legal JSON that no encoding can write: the
    lone half becomes a replacement character, as where bytes of UTF-8 are cut.
    """
    try:
        value = from_json(text)
    except ValueError:
        try:
            value = _whole(json.loads(text))
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {_whole(name): _whole(each) for name, each in value.items()}
    return value


@dataclass(frozen=True, slots=True)
class Absent:
    """A batch has come to its end without a line for a request.

    Attributes:
        state: how the batch ended; None if that could not be found out.
        error: why its answers could not be had; None if they could.
        remains: what is left of the request's line, if it cannot be read.
        nameless: how many lines could not be read at all, so that one of them may be the one.
        refusals: why single requests were refused, by their ids.
    """

    state: BatchState | None = None
    error: ModelError | None = None
    remains: bytes | None = None
    nameless: int = 0
    refusals: Mapping[str, str] = field(default_factory=dict)


class Answers:
    """The answers of one batch. One task looks for them, for all who ask, and only while somebody does."""

    def __init__(self, api: BatchApi, batch: str, *, poll_every: float, sleep: Sleep, report: Report) -> None:
        self.loop = asyncio.get_running_loop()
        self._api = api
        self._batch = batch
        self._poll_every = poll_every
        self._sleep = sleep
        self._report = report
        self._said = ""
        self._state: BatchState | None = None
        self._lines = Lines()
        self._read: set[str] = set()
        self._nameless: dict[str, int] = {}
        self._waiting: dict[str, list[asyncio.Future[dict[str, Any] | Absent]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def line(self, request: str) -> dict[str, Any] | Absent:
        """The line of a request, as soon as it can be had."""
        if request in self._lines.good:
            return self._lines.good[request]
        future: asyncio.Future[dict[str, Any] | Absent] = self.loop.create_future()
        self._waiting.setdefault(request, []).append(future)
        if self._task is None or self._task.done():
            self._task = self.loop.create_task(self._look_until_done())
            self._task.add_done_callback(self._pass_on)
        try:
            return await future
        finally:
            if not future.done() or future.cancelled():
                self._forget(request, future)

    def _forget(self, request: str, future: asyncio.Future[Any]) -> None:
        futures = self._waiting.get(request, [])
        if future in futures:
            futures.remove(future)
        if not futures:
            self._waiting.pop(request, None)
        if not self._waiting and self._task is not None:
            self._task.cancel()
            self._task = None  # whoever asks next needs another one

    def _pass_on(self, task: asyncio.Task[None]) -> None:
        """Nobody waits for a task that has ended: whatever ended it is what they get."""
        if task is not self._task:
            return
        waiting, self._waiting = self._waiting, {}
        error = None if task.cancelled() else task.exception()
        for future in (each for futures in waiting.values() for each in futures):
            if future.done():
                continue
            if error is None:
                future.cancel()
            else:
                future.set_exception(error)

    async def _look_until_done(self) -> None:
        try:
            state = await self._until_ended()
            await self._collect(state)
        except _Impatient as gone:
            error = gone.error
            self._end(lambda _: Absent(self._state, error))

    async def _patiently(self, what: str, do: Callable[[], Awaitable[T]], patience: int = PATIENCE) -> T:
        """Try until it succeeds.

        Raises:
            _Impatient: it has failed for good so often, on end.
        """
        failures = 0
        while True:
            try:
                return await do()
            except ModelError as error:
                self._say(f"{what} failed: {error}")
                failures += not isinstance(error, TemporaryModelError)
                if failures >= patience:
                    raise _Impatient(error) from error
            await self._sleep(self._poll_every)

    async def _until_ended(self) -> BatchState:
        while True:
            state = self._state = await self._patiently("looking", lambda: self._api.retrieve(self._batch))
            self._say(state.status)
            if state.is_ended:
                return state
            await self._sleep(self._poll_every)

    def _say(self, what: str) -> None:
        if what != self._said:
            self._said = what
            self._report(f"batch {self._batch}: {what}")

    async def _collect(self, state: BatchState) -> None:
        """Read the files. What is found in one is given out before the next is fetched or waited for."""
        left = [file for file in state.files if file not in self._read]
        missing: ModelError | None = None
        for patience in (1, PATIENCE):
            failed = []
            for file in left:
                try:
                    await self._fetch(state, file, patience)
                except _Impatient as gone:
                    failed.append(file)
                    missing = gone.error
                if not self._waiting:
                    return
            left = failed
        refusals = await self._refusals(state)
        self._end(lambda request: self._absent(state, request, missing if left else None, refusals))

    async def _fetch(self, state: BatchState, file: str, patience: int) -> None:
        for _ in range(FETCHES):
            content = await self._patiently(f"fetching {file}", lambda: self._api.content(state, file), patience)
            lines = read_lines(content)
            self._lines.add(lines)
            self._nameless[file] = lines.nameless
            self._give_out()
            if not self._waiting or not (lines.has_gaps or len(lines.good) < state.files[file]):
                break
            await self._sleep(self._poll_every)
        self._read.add(file)

    async def _refusals(self, state: BatchState) -> Mapping[str, str]:
        """Why single requests were refused, by their ids."""
        if not state.refused:
            return {}
        ids = await self._patiently("reading what was submitted", lambda: self._api.requested(state)) or ()
        return {ids[number]: why for number, why in state.refused.items() if 0 <= number < len(ids)}

    def _absent(
        self, state: BatchState, request: str, missing: ModelError | None, refusals: Mapping[str, str]
    ) -> Absent:
        remains = self._lines.damaged.get(request)
        return Absent(state, missing, remains, sum(self._nameless.values()), refusals)

    def _give_out(self) -> None:
        for request in [each for each in self._waiting if each in self._lines.good]:
            for future in self._waiting.pop(request):
                if not future.done():
                    future.set_result(self._lines.good[request])

    def _end(self, absent: Callable[[str], Absent]) -> None:
        waiting, self._waiting = self._waiting, {}
        for request, futures in waiting.items():
            for future in futures:
                if not future.done():
                    future.set_result(absent(request))


class _Impatient(Exception):
    """Trying has not helped."""

    def __init__(self, error: ModelError) -> None:
        super().__init__(str(error))
        self.error = error


async def answered_ids(api: BatchApi, state: BatchState, wait: Callable[[], Awaitable[object]]) -> list[str]:
    """The ids of the requests of an ended batch that were done, whether or not their lines can be read."""
    found: list[str] = []
    for file in state.files:
        content = await _content(api, state, file, wait)
        lines = read_lines(content)
        found += [each for each, line in lines.good.items() if api.is_answer(line)]
        found += lines.damaged
    return found


async def _content(api: BatchApi, state: BatchState, file: str, wait: Callable[[], Awaitable[object]]) -> bytes:
    """A file, as soon as it can be had; nothing if it never can."""
    failures = 0
    while True:
        try:
            return await api.content(state, file)
        except ModelError as error:
            failures += not isinstance(error, TemporaryModelError)
            if failures >= PATIENCE:
                return b""
        await wait()
