"""Model calls through the Batch API of OpenAI, and of servers that have it: a day's patience for half the price.

    with in_batches():
        await run(job, store="runs.db", run_id="labels")

Within the block, the requests of all `OpenAIChat` models are gathered, uploaded as one file, and answered when the
provider has done them. A call is the same call as without, so what is recorded already is reused either way. The id of
its batch is recorded below each call: a process that dies meanwhile, or is stopped, finds the batch again and submits
nothing twice.

(https://platform.openai.com/docs/guides/batch)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from pydantic import SecretStr

from rh_agents.core.actors import Tool
from rh_agents.core.calls import Call
from rh_agents.core.chat import ChatModel, ChatRequest, ChatResponse
from rh_agents.core.chat.model import batcher
from rh_agents.core.codec import canonical
from rh_agents.core.errors import IncompleteAnswer, InvalidRequest, ModelTimeout, TemporaryModelError
from rh_agents.core.keys import idempotency_key
from rh_agents.core.ports import RunHandle
from rh_agents.core.scope import current_scope
from rh_agents.llms._openai_errors import ERRORS, TRANSPORT_ERRORS, error_of, error_of_status
from rh_agents.llms._openai_wire import read_answer, read_json, request_body
from rh_agents.llms.openai_chat import OpenAIChat

__all__ = ["OpenAIBatches", "in_batches"]

_CAUGHT = (*ERRORS, *TRANSPORT_ERRORS)
_ENDED = ("completed", "expired", "cancelled", "failed")
_LOST = ("cancelled", "cancelling", "expired", "failed")
_MARK = "rh_agents"
_URL = "/v1/chat/completions"
_LINE_OVERHEAD = 150
"""Bytes of a line that are not the body of its request."""
_LOOKED_AT = 100
"""Batches of the account that are looked at for one that was submitted just before a crash."""
Tell = Callable[[str], None]
_Whose = tuple[str | None, SecretStr | None, str]
"""The server, the key and the model."""


async def _never() -> None:
    """A submission is made by `_Submission`."""


_SUBMIT = Tool(name="submit_to_batch", handler=_never, description="Hands a request over to the Batch API.")


class _Request(NamedTuple):
    """One request: whose it is, and what is asked."""

    owner: str
    body: dict[str, Any]


@dataclass
class _Gathering:
    """Requests to one server that will be one batch."""

    model: OpenAIChat
    requests: list[_Request] = field(default_factory=list)
    size: int = 0
    """Bytes of the file that they will be, about."""
    submission: asyncio.Future[list[dict[str, str]]] | None = None
    """Gives the place of the answer to each request."""

    def has_room(self, size: int, most: int, most_bytes: int) -> bool:
        """Whether another request may come to it: it is neither full, nor sent, nor left over from an earlier loop."""
        is_open = self.submission is not None and not self.submission.done()
        return is_open and len(self.requests) < most and self.size + size <= most_bytes


class OpenAIBatches:
    """Sends requests as batches.

    Args:
        linger: seconds without a further request after which a batch is submitted.
        most: the most requests in one batch; OpenAI takes 50,000.
        most_bytes: the most bytes in the file of one batch; OpenAI takes 200 MB.
        poll_every: seconds between two looks at a batch.
        discount: what a request costs, as a share of its price.
        tell: takes lines for people.
        sleep: what waits.
    """

    def __init__(
        self,
        *,
        linger: float = 2.0,
        most: int = 50_000,
        most_bytes: int = 200_000_000,
        poll_every: float = 30.0,
        discount: float = 0.5,
        tell: Tell | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.discount = discount
        self._linger = linger
        self._most = most
        self._most_bytes = most_bytes
        self._poll_every = poll_every
        self._tell: Tell = tell or (lambda _: None)
        self._sleep = sleep
        self._gathering: dict[_Whose, _Gathering] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._results: dict[str, asyncio.Task[dict[str, dict[str, Any]]]] = {}

    def takes(self, model: ChatModel) -> bool:
        """Whether the model's server has batches."""
        return isinstance(model, OpenAIChat) and model.has_batches

    async def complete(self, model: ChatModel, request: ChatRequest) -> ChatResponse:
        """The answer to a request, when its batch is done.

        Raises:
            ModelError: by kind.
        """
        assert isinstance(model, OpenAIChat)
        names = model.provider.field_names
        body = request_body(request, length_field=model.length_name, stream=False, names=names)
        scope = current_scope.get()
        assert scope is not None
        place = await _Submission([body, scope.tries, scope.attempt], lambda: self._submitted(model, body))
        lines = await _unless_stopped(scope.run, self._lines(model, place["batch"]))
        line = lines.get(place["request"])
        if line is None:
            raise ModelTimeout(f"{model.name}: batch {place['batch']} ended without an answer to this request")
        return _read(line, model.name)

    # -- submitting ---------------------------------------------------------------------------------------------------

    async def _submitted(self, model: OpenAIChat, body: dict[str, Any]) -> dict[str, str]:
        """Where the answer will be: the ids of the batch, and of the request in it."""
        scope = current_scope.get()
        assert scope is not None
        owner = idempotency_key(scope.run.run_id, scope.key)
        size = len(json.dumps(body)) + _LINE_OVERHEAD
        whose = (model.base_url, model.api_key, model.model)
        gathering = self._gathering.get(whose)
        if gathering is None or not gathering.has_room(size, self._most, self._most_bytes):
            gathering = self._gathering[whose] = _Gathering(model)
            gathering.submission = self._start(self._submit_later(whose, gathering))
        index = len(gathering.requests)
        gathering.requests.append(_Request(owner, body))
        gathering.size += size
        assert gathering.submission is not None
        places: list[dict[str, str]] = await _unless_stopped(scope.run, gathering.submission)
        return places[index]

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _submit_later(self, whose: _Whose, gathering: _Gathering) -> list[dict[str, str]]:
        """When no more requests come, submit those that there are."""
        count = -1
        while count < len(gathering.requests) < self._most:
            count = len(gathering.requests)
            await self._sleep(self._linger)
        if self._gathering.get(whose) is gathering:
            del self._gathering[whose]
        return await self._submit(gathering.model, gathering.requests)

    async def _submit(self, model: OpenAIChat, requests: list[_Request]) -> list[dict[str, str]]:
        ids = _ids(requests)
        mark = sha256("".join(sorted(ids)).encode()).hexdigest()
        sdk = await model.sdk()
        try:
            batch = await self._find(sdk, mark)
            if batch is None:
                batch = await self._create(sdk, requests, ids, mark)
                self._tell(f"batch {batch.id}: {len(requests):,} requests submitted")
            else:
                self._tell(f"batch {batch.id}: found again, with {len(requests):,} requests")
        except _CAUGHT as error:
            raise error_of(error, model.name) from error
        return [{"batch": batch.id, "request": each} for each in ids]

    async def _create(self, sdk: Any, requests: list[_Request], ids: list[str], mark: str) -> Any:
        lines = [
            json.dumps({"custom_id": each, "method": "POST", "url": _URL, "body": request.body})
            for each, request in zip(ids, requests, strict=True)
        ]
        file = await sdk.files.create(file=("requests.jsonl", "\n".join(lines).encode()), purpose="batch")
        try:
            return await sdk.batches.create(
                input_file_id=file.id, endpoint=_URL, completion_window="24h", metadata={_MARK: mark}
            )
        except _CAUGHT as error:
            batch = await self._find(sdk, mark) if isinstance(error_of(error, ""), TemporaryModelError) else None
            if batch is None:
                raise
            return batch  # it was made, and only the answer was lost

    async def _find(self, sdk: Any, mark: str) -> Any:
        """The batch of just these requests, if a process submitted it and died before it could record that."""
        page = await sdk.batches.list(limit=_LOOKED_AT)
        for batch in page.data:
            if (batch.metadata or {}).get(_MARK) == mark and batch.status not in _LOST:
                return batch
        return None

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _lines(self, model: OpenAIChat, batch: str) -> asyncio.Future[dict[str, dict[str, Any]]]:
        """The lines of the answer by the ids of the requests; one task waits for all who ask."""
        task = self._results.get(batch)
        if task is None or task.get_loop() is not asyncio.get_running_loop() or _has_failed(task):
            task = self._results[batch] = self._start(self._wait(model, batch))
        return task

    async def _wait(self, model: OpenAIChat, batch_id: str) -> dict[str, dict[str, Any]]:
        said = None
        while True:
            try:
                sdk = await model.sdk()
                batch = await sdk.batches.retrieve(batch_id)
                counts = batch.request_counts
                progress = f" ({counts.completed:,} of {counts.total:,})" if counts is not None else ""
                if f"{batch.status}{progress}" != said:
                    said = f"{batch.status}{progress}"
                    self._tell(f"batch {batch_id}: {said}")
                if batch.status in _ENDED:
                    return await self._download(sdk, model.name, batch)
            except _CAUGHT as error:
                found = error_of(error, model.name)
                if not isinstance(found, TemporaryModelError):
                    raise found from error
            await self._sleep(self._poll_every)

    async def _download(self, sdk: Any, name: str, batch: Any) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for file in (batch.output_file_id, batch.error_file_id):
            if file is None:
                continue
            content = await sdk.files.content(file)
            for text in content.content.splitlines():
                if text.strip():
                    line = read_json(text)
                    found[str(line.get("custom_id"))] = line
        if not found and batch.status == "failed":
            errors = getattr(batch.errors, "data", None) or []
            raise InvalidRequest(
                f"{name}: batch {batch.id} was refused: "
                + ("; ".join(str(each.message) for each in errors) or "no reason")
            )
        return found


class _Submission(Call[dict[str, str]]):
    """That a request was handed over, as a call below that of the model: recorded, it is not handed over again."""

    __slots__ = ("_about", "_submit")

    def __init__(self, about: list[Any], submit: Callable[[], Awaitable[dict[str, str]]]) -> None:
        super().__init__(_SUBMIT)
        self._about = about
        self._submit = submit

    def canonical_input(self) -> bytes:
        """The request, and which attempt it is: another one is another request."""
        return canonical(self._about)

    def begin(self, run: RunHandle) -> Awaitable[dict[str, str]]:
        """Hand it over."""
        return self._submit()


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _ids(requests: list[_Request]) -> list[str]:
    """An id for each request, the same whenever its call makes it. Runs that record nothing have no names for calls."""
    digests = [sha256(request.owner.encode() + canonical(request.body)).hexdigest()[:32] for request in requests]
    seen: Counter[str] = Counter()
    found = []
    for digest in digests:
        found.append(f"{digest}-{seen[digest]}")
        seen[digest] += 1
    return found


def _read(line: dict[str, Any], name: str) -> ChatResponse:
    """The answer in a line of the output.

    Raises:
        ModelError: by kind.
    """
    response = line.get("response")
    if not isinstance(response, dict):
        error = line.get("error")
        said = error.get("message") if isinstance(error, dict) else None
        raise ModelTimeout(f"{name}: the batch has no answer to this request: {said or 'it does not say why'}")
    status, body = response.get("status_code"), response.get("body")
    if not isinstance(status, int) or not isinstance(body, dict):
        raise IncompleteAnswer(f"{name}: a line of the batch has no status and no body")
    if status >= 400:
        raise error_of_status(status, body.get("error"), name)
    return read_answer(body)


async def _unless_stopped(run: RunHandle, future: asyncio.Future[Any]) -> Any:
    """What a future gives, unless the run is stopped: the batch goes on all the same, and is found again.

    Raises:
        StopRun: it is.
    """
    stopped = asyncio.get_running_loop().create_future()

    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)

    run.watch_stop(stop)
    try:
        await asyncio.wait({future, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        run.unwatch_stop(stop)
    if not future.done():
        run.expect_running()
    return await asyncio.shield(future)


@contextlib.contextmanager
def in_batches(batches: OpenAIBatches | None = None) -> Iterator[OpenAIBatches]:
    """While the block lasts, the requests of all `OpenAIChat` models go through the Batch API.

    Their timeouts and limits do not hold for it: a batch takes up to a day, and has limits of its own. A group should
    have as many workers as a batch shall have requests.
    """
    chosen = batches or OpenAIBatches()
    token = batcher.set(chosen)
    try:
        yield chosen
    finally:
        batcher.reset(token)
