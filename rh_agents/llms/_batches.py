"""Requests to models sent as batches: a day's patience for half the price.

    with in_batches():
        await run(job, store="runs.db", run_id="labels")

Within the block, the requests of all models whose provider has batches (`OpenAIChat`, `AnthropicChat`) are gathered,
submitted together, and answered when the provider has done them. A call is the same call as without, so what is
recorded already is reused either way.

A batch is money. These are the rules by which none of it is spent twice:

1. A request has an id that follows from its run, its call, its attempt and its body, so the process that starts the
   run again makes the same one. Where it went (the batch and the id) is recorded below its call. From then on that
   batch is asked, however often.
2. Before a batch is made, those of this run are looked through for the ids that are about to be submitted; what is
   found is not submitted. So a process may die at any moment between submission and record. Batches of this run are
   known by their marks. Where a provider keeps none, only requests whose submission had begun and has no record are
   looked for, and a batch that may hold them is waited for: its answers tell.
3. Whoever made a batch and got no answer about it looks for it, before making another one.
4. What has no answer is submitted again only where the batch says that there will be none: it expired, failed or was
   cancelled before this request was done (then another attempt of the call does it, as `retry` says); it was refused
   as a whole because too much waits already ("enqueued token limit") or because of other requests in it (then it is
   done here, under the same id, as in rule 2).
5. An answer that cannot be read was paid for. It is the failure of its own request, and is not asked for again.
6. If a batch cannot be asked, as when the key was revoked, its calls fail, and that is recorded too: their next
   attempt begins with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, TypeVar

from rh_agents.core._replay.identity import child_key, idempotency_key
from rh_agents.core._run.frame import Frame, current_frame
from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import Tool
from rh_agents.core.calls import Call
from rh_agents.core.chat.messages import ChatRequest, ChatResponse
from rh_agents.core.chat.model import ChatModel, batcher
from rh_agents.core.errors import (
    InvalidRequest,
    ModelError,
    ModelTimeout,
    PermanentModelError,
    RateLimited,
    TemporaryModelError,
    UnreadableAnswer,
)
from rh_agents.core.usage import Usage
from rh_agents.core.values.inputs import CanonicalInput, canonical
from rh_agents.llms._batch_api import BatchApi, BatchState, HasBatches, Marks
from rh_agents.llms._batch_finding import LOOKED_AT, KnownBatches
from rh_agents.llms._batch_results import Absent, Answers, Report, Sleep

T = TypeVar("T")
_LINE_OVERHEAD = 150
"""Bytes of a line that are not the body of its request."""
_CREATIONS = 4
"""How often a batch is made if nothing tells whether it was."""
_ATTEMPTS = 10
"""Attempts of an earlier try that are asked after, at least."""
_NOT_FOUND = 404


async def _never() -> None:
    """What these calls do is done by `_Record`."""


_SUBMIT = Tool(name="submit_to_batch", handler=_never, description="Hands a request over to a batch API.")
_LEAVE = Tool(
    name="leave_in_batch", handler=_never, description="A batch may have an answer that could not be fetched."
)


class _Record(Call[dict[str, str]]):
    """Something that is to be known when the run is started again, as a call below that of the model."""

    __slots__ = ("_about", "_make")

    def __init__(self, actor: Tool, about: list[Any], make: Callable[[], Awaitable[dict[str, str]]]) -> None:
        super().__init__(actor)
        self._about = about
        self._make = make

    def canonical_input(self) -> CanonicalInput:
        """The request, and which attempt it is: another one is another request."""
        return CanonicalInput(self._about)

    def begin(self, run: RunParts) -> Awaitable[dict[str, str]]:
        return self._make()

    def is_recorded(self, frame: Frame) -> bool:
        """Whether it has been done, in this execution of the run or in an earlier one."""
        key = child_key(frame.base, "", self.identity(), 0)
        return frame.run.records and frame.run.recording.is_recorded(key, is_external=self.actor.is_external)


@dataclass
class _Gathering:
    """Requests that will be one batch, by id.

    Attributes:
        run: whose they are.
        mark: stands for the run in the marks of the batch.
        size: bytes of the file that they will be, about.
        in_doubt: whether some of them may be in a batch already that only the provider knows of.
        submission: gives the batch of each request.
    """

    api: BatchApi
    run: RunParts
    mark: str
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    size: int = 0
    in_doubt: bool = False
    submission: asyncio.Future[dict[str, str]] | None = None

    def has_room(self, size: int, most: int, most_bytes: int) -> bool:
        """Whether another request may come to it: it is neither full, nor sent, nor left over from an earlier loop."""
        is_open = self.submission is not None and not self.submission.done()
        return is_open and len(self.requests) < most and self.size + size <= most_bytes


@dataclass
class _Handover:
    """A request on its way into a batch. `in_doubt` says whether it may be in one even if that failed."""

    api: BatchApi
    body: dict[str, Any]
    id: str = ""
    in_doubt: bool = False


class Batches:
    """Sends requests as batches.

    Args:
        linger: seconds without a further request after which a batch is submitted.
        most: the most requests in one batch; by default as many as the provider takes.
        most_bytes: the most bytes of one batch; by default as many as the provider takes.
        poll_every: seconds between two looks at a batch.
        wait_for_room: seconds until a batch is submitted again for which too much was waiting at the provider.
        discount: what a request costs, as a share of its price.
        tell: takes lines for people.
        sleep: what waits.
    """

    def __init__(
        self,
        *,
        linger: float = 2.0,
        most: int | None = None,
        most_bytes: int | None = None,
        poll_every: float = 30.0,
        wait_for_room: float = 300.0,
        discount: float = 0.5,
        tell: Report | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.discount = discount
        self._linger = linger
        self._most = most
        self._most_bytes = most_bytes
        self._poll_every = poll_every
        self._wait_for_room = wait_for_room
        self._report: Report = tell or (lambda _: None)
        self._sleep = sleep
        self._gathering: dict[object, _Gathering] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._answers: dict[str, Answers] = {}
        self._known = KnownBatches(poll_every=poll_every, sleep=sleep, report=self._report)
        self._fitting: dict[object, int] = {}
        self._alone: set[frozenset[str]] = set()
        """Requests that were refused though nothing else was waiting, as far as could be seen."""
        self._crowded: dict[str, asyncio.Task[None]] = {}

    def takes(self, model: ChatModel) -> bool:
        """Whether the model's provider has batches."""
        return isinstance(model, HasBatches) and model.batch_api() is not None

    async def complete(self, model: ChatModel, request: ChatRequest) -> ChatResponse:
        """The answer to a request, when its batch is done.

        Raises:
            ModelError: by kind.
        """
        assert isinstance(model, HasBatches)
        api = model.batch_api()
        assert api is not None
        frame = current_frame.get()
        assert frame is not None
        handover = _Handover(api, api.body(request))
        place = await _left_behind(frame, handover.body)
        was_left = place is not None
        if place is None:
            place = await self._submitted(frame, handover)
        elif not place["batch"]:
            handover = replace(handover, id=place["request"], in_doubt=True)
            place = await self._submitted(frame, handover)
        else:  # from now on this attempt has it
            place = await _Record(
                _SUBMIT, [handover.body, frame.tries, frame.attempt], functools.partial(_given, place)
            )
        while True:
            found = await _unless_stopped(frame.run, self._answers_of(api, place["batch"]).line(place["request"]))
            if isinstance(found, dict):
                return _read(api, found, model, request)
            if _is_not_to_blame(found, place["request"]):
                await self._when_there_is_room(frame.run, api, found)
                place = await self._enter(frame.run, _Handover(api, handover.body, place["request"], in_doubt=True))
                continue
            if found.error is not None:
                if was_left and found.error.status == _NOT_FOUND:
                    was_left = False
                    place = await self._submitted(frame, replace(handover, id="", in_doubt=False))
                    continue
                await _leave(frame, handover.body, place)
            raise _error_of(found, place, api.name, lambda: model.unanswered(request))

    def _answers_of(self, api: BatchApi, batch: str) -> Answers:
        answers = self._answers.get(batch)
        if answers is None or answers.loop is not asyncio.get_running_loop():
            answers = Answers(api, batch, poll_every=self._poll_every, sleep=self._sleep, report=self._report)
            self._answers[batch] = answers
        return answers

    # -- submitting ---------------------------------------------------------------------------------------------------

    async def _submitted(self, frame: Frame, handover: _Handover) -> dict[str, str]:
        """Where the answer will be, recorded: the batch, and the id of the request in it."""
        about = [handover.body, frame.tries, frame.attempt]
        try:
            return await _Record(_SUBMIT, about, lambda: self._hand_over(handover))
        except ModelError:
            if handover.in_doubt:
                await _leave(frame, handover.body, {"batch": "", "request": handover.id})
            raise

    async def _hand_over(self, handover: _Handover) -> dict[str, str]:
        frame = current_frame.get()
        assert frame is not None
        run = frame.run
        await run.recording.acknowledge()  # from now on a crash leaves a trace of it
        if frame.may_be_done:
            handover.in_doubt = True
        if not handover.id and run.records:
            handover.id = _id(idempotency_key(run.run_id, frame.base), handover.body)
        return await self._enter(run, handover)

    async def _enter(self, run: RunParts, handover: _Handover) -> dict[str, str]:
        """Let a request be part of the next batch, and wait until that has been submitted."""
        gathering = self._gathering_for(run, handover)
        if not handover.id:
            handover.id = _free_id(gathering, _id(idempotency_key(run.run_id, b""), handover.body))
        gathering.requests[handover.id] = handover.body
        gathering.in_doubt |= handover.in_doubt
        assert gathering.submission is not None
        try:
            places = await _unless_stopped(run, _shielded(gathering.submission))
        finally:
            handover.in_doubt |= gathering.in_doubt
        return {"batch": places[handover.id], "request": handover.id}

    def _gathering_for(self, run: RunParts, handover: _Handover) -> _Gathering:
        api = handover.api
        mark = sha256(run.run_id.encode()).hexdigest()[:32] if run.records else ""
        whose = (api.account, mark)
        size = len(json.dumps(handover.body)) + _LINE_OVERHEAD
        most, most_bytes = self._most_for(api), min(self._most_bytes or api.most_bytes, api.most_bytes)
        found = self._gathering.get(whose)
        if found is None or handover.id in found.requests or not found.has_room(size, most, most_bytes):
            found = self._gathering[whose] = _Gathering(api, run, mark)
            found.submission = self._start(self._submit_later(whose, found))
        found.size += size
        return found

    def _most_for(self, api: BatchApi) -> int:
        return min(self._most or api.most, api.most, self._fitting.get(api.account, api.most))

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _submit_later(self, whose: object, gathering: _Gathering) -> dict[str, str]:
        """When no more requests come, submit those that there are."""
        count = -1
        while count < len(gathering.requests) < self._most_for(gathering.api):
            count = len(gathering.requests)
            await self._sleep(self._linger)
        if self._gathering.get(whose) is gathering:
            del self._gathering[whose]
        return await self._submit(gathering)

    async def _submit(self, gathering: _Gathering) -> dict[str, str]:
        places = await self._found_again(gathering) if gathering.mark else {}
        for batch in sorted(set(places.values())):
            count = sum(each == batch for each in places.values())
            self._report(f"batch {batch}: found again, with {count:,} requests")
        left = {each: body for each, body in gathering.requests.items() if each not in places}
        if left:
            state = await self._make(gathering, left)
            self._report(f"batch {state.id}: {len(left):,} requests submitted")
            places.update(dict.fromkeys(left, state.id))
        return places

    async def _found_again(self, gathering: _Gathering) -> dict[str, str]:
        marks, since = Marks(gathering.mark, _mark(gathering.requests)), await _beginning(gathering.run)
        return await self._known.holding(
            gathering.api, gathering.requests, marks, since=since, in_doubt=gathering.in_doubt
        )

    async def _make(self, gathering: _Gathering, requests: dict[str, dict[str, Any]]) -> BatchState:
        api, marks = gathering.api, Marks(gathering.mark, _mark(requests))
        began = gathering.run.now()
        prepared = await api.prepare(requests)
        failures: list[TemporaryModelError] = []
        while len(failures) < _CREATIONS:
            try:
                state = await api.create(prepared, marks)
            except RateLimited as error:  # an answer, and a clear one: it was not made
                self._report(f"{api.name}: the batch has to wait: {error}")
                await self._sleep(self._wait_for_room if error.retry_after is None else error.retry_after)
                continue
            except TemporaryModelError as error:
                gathering.in_doubt = True
                self._report(f"{api.name}: it is unknown whether the batch was made: {error}")
                failures.append(error)
                made = await self._known.made_all_the_same(api, marks, requests, began)
                if made is None:
                    continue
                state = made
            else:
                if failures:
                    state = await self._known.only_one(api, marks, state)
            self._known.made[state.id] = list(requests)
            return state
        raise failures[-1]

    # -- too much at a time -------------------------------------------------------------------------------------------

    async def _when_there_is_room(self, run: RunParts, api: BatchApi, absent: Absent) -> None:
        """Wait until a batch may be submitted again that came when too much was waiting already."""
        state = absent.state
        if state is None or not state.is_crowded:
            return
        waiting = self._crowded.get(state.id)
        if waiting is None or waiting.get_loop() is not asyncio.get_running_loop():
            waiting = self._crowded[state.id] = self._start(self._make_room(api, state))
        await _unless_stopped(run, _shielded(waiting))

    async def _make_room(self, api: BatchApi, state: BatchState) -> None:
        is_ours = state.id in self._known.made
        size = len(await self._known.requests_of(api, state)) or state.total or self._most_for(api)
        count = 0
        async for other in self._known.recent(api, in_doubt=True):
            count += 1
            if _succeeds(other, state) and not is_ours:
                return  # an earlier process has submitted it again
            if not other.is_ended or count >= LOOKED_AT:
                break
        else:  # nothing else waits, so it is too large by itself
            ids = frozenset(await self._known.requests_of(api, state))
            if size == 1 and ids in self._alone:
                raise InvalidRequest(f"{api.name}: batch {state.id}: one request alone is too large: {state.refusal}")
            self._alone.add(ids)
            self._fitting[api.account] = max(1, min(self._most_for(api), size) // 2)
            self._report(f"batch {state.id}: too large, submitting it in smaller ones: {state.refusal}")
            return
        self._fitting[api.account] = min(self._most_for(api), size)
        self._report(f"batch {state.id}: submitting it again in {self._wait_for_room:g} s: {state.refusal}")
        await self._sleep(self._wait_for_room)


def _succeeds(other: BatchState, state: BatchState) -> bool:
    """Whether a batch was made of requests of the same run, after `state` was refused."""
    if other.id == state.id or other.marks is None or state.marks is None or other.is_crowded:
        return False
    return other.marks.run == state.marks.run and other.created_at >= state.created_at


def _is_not_to_blame(found: Absent, request: str) -> bool:
    """Whether a request has no answer for reasons that have nothing to do with it, and never will have one there."""
    if found.state is None or found.error is not None:
        return False
    return found.state.is_crowded or bool(found.refusals and request not in found.refusals)


def _read(api: BatchApi, line: dict[str, Any], model: ChatModel, request: ChatRequest) -> ChatResponse:
    """The answer in a line. One that is none was paid for all the same."""
    try:
        return api.read(line, request)
    except UnreadableAnswer as error:
        if error.usage is None:
            error.usage = model.unanswered(request)
        raise


def _error_of(found: Absent, place: dict[str, str], name: str, estimate: Callable[[], Usage]) -> ModelError:
    """Why there is no answer."""
    batch = place["batch"]
    if found.error is not None:
        text = f"{name}: batch {batch} cannot be read now, and is the first that is asked next time: {found.error}"
        return type(found.error)(text, status=found.error.status, code=found.error.code)
    refusal = found.refusals.get(place["request"]) or (found.state.refusal if found.state is not None else "")
    if refusal:
        return InvalidRequest(f"{name}: batch {batch} was refused: {refusal}")
    if found.remains is not None or found.nameless:
        which = "its line" if found.remains is not None else f"{found.nameless:,} of its lines"
        text = f"{name}: batch {batch}: {which} cannot be read, so the answer is lost; it was paid for"
        return UnreadableAnswer(text, usage=estimate())
    return ModelTimeout(f"{name}: batch {batch} ended without an answer to this request")


def _id(owner: str, body: dict[str, Any]) -> str:
    """An id for a request, the same whenever its call makes it. Runs that record nothing have no names for calls."""
    return f"{sha256(owner.encode() + canonical(body)).hexdigest()[:32]}-0"


def _free_id(gathering: _Gathering, wanted: str) -> str:
    stem, number = wanted[:-2], 0
    while f"{stem}-{number}" in gathering.requests:
        number += 1
    return f"{stem}-{number}"


def _mark(ids: Any) -> str:
    return sha256("".join(sorted(ids)).encode()).hexdigest()


async def _left_behind(frame: Frame, body: dict[str, Any]) -> dict[str, str] | None:
    """Where an earlier attempt of the call may have left an answer that it could not fetch."""
    if not (frame.run.records and (frame.tries or frame.attempt > 1)):
        return None
    retry = frame.retry
    most = max(_ATTEMPTS, frame.attempt, 0 if retry is None else retry.max_attempts)
    for tries in range(frame.tries, -1, -1):
        last = frame.attempt - 1 if tries == frame.tries else most
        for attempt in range(last, 0, -1):
            left = _Record(_LEAVE, [body, tries, attempt], _nowhere)
            if left.is_recorded(frame):
                return await left
            left.discard()
            submitted = _Record(_SUBMIT, [body, tries, attempt], _nowhere)
            submitted.discard()
            if submitted.is_recorded(frame):
                return None  # its batch was read, and what it said was not good enough
    return None


async def _nowhere() -> dict[str, str]:
    raise PermanentModelError("recorded results are not repeated")


async def _leave(frame: Frame, body: dict[str, Any], place: dict[str, str]) -> None:
    """Let the next attempt of the call know where its answer may be."""

    if frame.run.records:
        await _Record(_LEAVE, [body, frame.tries, frame.attempt], functools.partial(_given, place))


async def _given(place: dict[str, str]) -> dict[str, str]:
    return place


async def _beginning(run: RunParts) -> float:
    """When the run was begun, in seconds since 1970."""
    info = None if run.store is None else await run.store.find_run(run.run_id)
    return run.now() if info is None else info.created_at


async def _shielded(future: asyncio.Future[T]) -> T:
    return await asyncio.shield(future)


async def _unless_stopped(run: RunParts, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives, unless the run is stopped: the batch goes on all the same, and is found again.

    Raises:
        StopRun: it is.
    """
    loop = asyncio.get_running_loop()
    task, stopped = loop.create_task(work), loop.create_future()

    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)

    run.interruption.watch(stop)
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            run.interruption.expect_running()
        return await task
    finally:
        run.interruption.unwatch(stop)
        if not task.done():
            task.cancel()


@contextlib.contextmanager
def in_batches(batches: Batches | None = None) -> Iterator[Batches]:
    """While the block lasts, the requests of all models whose provider has batches are sent as batches.

    Their timeouts and limits do not hold for it: a batch takes up to a day, and has limits of its own. A group should
    have as many workers as a batch shall have requests.
    """
    chosen = batches or Batches()
    token = batcher.set(chosen)
    try:
        yield chosen
    finally:
        with contextlib.suppress(ValueError):  # the context of a task that Python destroys is another one
            batcher.reset(token)
