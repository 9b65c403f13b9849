"""Steps whose pieces arrive while they are made: the streams of models of other frameworks, live and recorded.

A step is a call: it has one outcome, and whoever awaits it gets that outcome and nothing before. A stream is wanted
piece by piece. So the step is made by a task of its own, which hands the pieces over, and the reader gets them as the
provider sends them. What the task and the reader owe each other:

- The stream ends when the outcome is recorded, and not before: a program that has read to the end may rely on it.
- At most `HELD_PIECES` pieces wait for the reader. Then the task reads no further, and the provider has to wait.
- A reader that leaves early cancels the call, unless the provider's answer is there already and is only being recorded.
  A cancelled call has no outcome, so the next execution asks again; what it has used counts. Where the provider had not
  yet said how much that was, it is estimated from the texts.
- A call that is replayed has no pieces. Its recorded outcome is handed over as one, marked as replayed.
- Subscribers get each piece as a PROGRESS event with a `ChatDelta`, and one with `void=True` if the call fails: then
  what was published so far is no part of any answer.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from rh_agents.core._replay.identity import Claimant
from rh_agents.core.actors import BaseActor
from rh_agents.core.chat.messages import ChatDelta
from rh_agents.core.context import report_usage, tell_progress
from rh_agents.core.usage import Usage
from rh_agents.integrations._steps import Step

HELD_PIECES = 64
"""So many pieces wait for a reader that is slow."""
REPLAYED = "rh_agents_replayed"
"""The name of the mark on what comes from a journal; where it stands depends on the framework."""
_CHARACTERS_PER_TOKEN = 3
"""Fewer than in most texts, so that estimates are rather too high than too low."""

Produce = Callable[["Pieces"], Awaitable[Any]]
Published = Callable[[Any], ChatDelta | None]


class NotStreamedWarning(UserWarning):
    """A stream was asked for, and the model cannot stream: the answer comes as one piece, when it is whole."""


def warn_not_streamed(model: str) -> None:
    """Say that nobody will see anything before the answer is whole."""
    warnings.warn(
        f"the model {model} cannot stream, so its answer comes as one piece, when it is whole",
        NotStreamedWarning,
        stacklevel=3,
    )


class _StreamedStep(Step):
    """A step that a task of its own makes, and that is numbered as what the reader does: its calls have an order."""

    __slots__ = ("claimant",)

    def __init__(self, actor: BaseActor, about: Any, make: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(actor, about, make)
        self.claimant: Claimant | None = asyncio.current_task()  # the task that reads


class Pieces:
    """The pieces of a step, and its value as soon as they have ended.

    Attributes:
        is_replayed: whether the value was recorded by an earlier execution; known when the pieces have ended.
        value: the value of the step, likewise.
        usage_so_far: what the provider has said of the usage of a stream that came to no end.
    """

    def __init__(self, actor: BaseActor, about: Any, produce: Produce, published: Published) -> None:
        self._step = _StreamedStep(actor, about, self._make)
        self._produce = produce
        self._published = published
        self._about = about
        self._held: deque[Any] = deque()
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._has_counted = False
        self._characters = 0
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_replayed = False
        self.value: Any = None
        self.usage_so_far: Usage | None = None

    # -- the task that makes the step ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the step."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(lambda _: self._ready.set())

    async def _run(self) -> None:
        try:
            result = await self._step.outcome()
            self.is_replayed = result.is_replayed
            self.value = result.unwrap()
        except BaseException as error:  # noqa: BLE001 - it is the reader's, who raises it
            self._error = error

    async def _make(self) -> Any:
        try:
            return await self._produce(self)
        except BaseException as error:
            is_failure = isinstance(error, Exception)
            # What the provider refuses before it has written anything costs nothing.
            if not self._has_counted and (self._characters or not is_failure):
                self.count(self._estimate())
            if self._characters and is_failure:
                await tell_progress(ChatDelta(void=True))
            raise

    async def give(self, piece: Any) -> None:
        """Hand a piece over, and wait until there is room for it."""
        delta = self._published(piece)
        if delta is not None:
            self._characters += len(delta.text) + len(delta.reasoning) + len(delta.arguments) + len(delta.refusal)
            await tell_progress(delta)
        while len(self._held) >= HELD_PIECES:
            self._room.clear()
            await self._room.wait()
        self._held.append(piece)
        self._ready.set()

    def count(self, usage: Usage) -> None:
        """The provider has said what the step has used."""
        self._has_counted = True
        report_usage(usage)

    def _estimate(self) -> Usage:
        """What a request has used whose answer did not come to its end: what was sent, and what came."""
        sent = len(json.dumps(self._about, ensure_ascii=False, default=str))
        reported = self.usage_so_far or Usage()
        return replace(
            reported,
            input_tokens=reported.input_tokens or sent // _CHARACTERS_PER_TOKEN + 1,
            output_tokens=max(reported.output_tokens, -(-self._characters // _CHARACTERS_PER_TOKEN)),
            requests=1,
            estimates=1,
        )

    # -- the reader ---------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> Any:
        """The next piece.

        Raises:
            StopAsyncIteration: the step has its value.
            BaseException: what the step raised.
        """
        assert self._task is not None
        while not self._held:
            if self._task.done():
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        self._room.set()
        return self._held.popleft()

    async def leave(self) -> None:
        """The reader wants no more; returns when the step has ended, however often this is cancelled meanwhile."""
        task = self._task
        assert task is not None
        task.cancel()  # what is being recorded is recorded all the same
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as raised:
                cancelled = raised
        self._error = None
        if cancelled is not None:
            raise cancelled


@asynccontextmanager
async def streamed(actor: BaseActor, about: Any, produce: Produce, published: Published) -> AsyncIterator[Pieces]:
    """The pieces of a step while the block lasts.

    Args:
        actor: what stands for the model.
        about: data that tells this step from others.
        produce: asks the model, hands its pieces over by `give`, reports what was used by `count`, and gives data.
        published: what is published of a piece; None for nothing.
    """
    pieces = Pieces(actor, about, produce, published)
    pieces.begin()
    try:
        yield pieces
    finally:
        await pieces.leave()
