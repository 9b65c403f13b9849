"""What batches of requests are, whoever runs them: the shape through which `_batches` meets a provider's batch API.

One file per provider implements `BatchApi`. It translates errors of its client into `ModelError`s, reads no answer
before it is asked to, and decides nothing: when to look again, what to submit and what has failed is decided in one
place for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from rh_agents.core.chat.messages import ChatRequest, ChatResponse
from rh_agents.core.errors import IncompleteAnswer

if TYPE_CHECKING:
    from rh_agents.llms._client_errors import ClientErrors

_PAGE = 100
"""Batches of the account that are listed at a time."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What a batch is found by again.

    Attributes:
        run: stands for the run whose requests it holds; "" for none that records anything.
        requests: stands for exactly these requests.
    """

    run: str
    requests: str


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch as its provider describes it now.

    Attributes:
        id: its name there.
        status: for people.
        is_ended: whether nothing more will be done.
        is_whole: whether all of its requests are done, or will be. Of one that failed, expired or was cancelled,
            those are done that have an answer.
        created_at: seconds since 1970, by the provider's clock.
        files: where its answers are, once it has ended, and how many each has at least.
        source: where what was submitted can be read, if the provider keeps it.
        total: how many requests it was made of; 0 if it does not say.
        marks: what it was made with; None if the provider keeps no marks or it was made by somebody else.
        refusal: why none of it was done, if it was refused as a whole.
        refused: the same for single requests, by their number in the batch, from 0.
        is_crowded: whether it was refused because too much waits already: it can be submitted later.
    """

    id: str
    status: str
    is_ended: bool
    is_whole: bool = True
    created_at: float = 0.0
    files: Mapping[str, int] = field(default_factory=dict)
    source: str = ""
    total: int = 0
    marks: Marks | None = None
    refusal: str = ""
    refused: Mapping[int, str] = field(default_factory=dict)
    is_crowded: bool = False


class BatchApi(Protocol):
    """The batches of one provider, for one model. Every method that asks the provider raises `ModelError`s by kind."""

    most: int
    """The most requests in one batch."""
    most_bytes: int
    """The most bytes of one batch."""
    keeps_marks: bool
    """Whether batches can be found by `Marks`. Otherwise only their answers tell what was in them."""

    @property
    def name(self) -> str:
        """The model's name, for errors."""
        ...

    @property
    def account(self) -> object:
        """What requests of one batch have in common: the server, the key and the model."""
        ...

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """The request as it is sent."""
        ...

    async def prepare(self, requests: Mapping[str, dict[str, Any]]) -> Any:
        """Whatever must be done before `create` and costs nothing, such as uploading a file. Bodies by id."""
        ...

    async def create(self, prepared: Any, marks: Marks) -> BatchState:
        """Make the batch. An error that is none of the provider's answers leaves open whether it was made."""
        ...

    async def cancel(self, batch: str) -> None:
        """End a batch; what it has done by then counts."""
        ...

    async def retrieve(self, batch: str) -> BatchState:
        """How a batch is getting on."""
        ...

    def recent(self) -> AsyncIterator[BatchState]:
        """All batches of the account, the newest first, fetched in pages as they are asked for."""
        ...

    async def requested(self, state: BatchState) -> Sequence[str] | None:
        """The ids of the requests of which a batch was made, in their order; None if only its answers can tell."""
        ...

    def is_answer(self, line: Mapping[str, Any]) -> bool:
        """Whether a line tells what came of its request. False if the batch ended before it was tried."""
        ...

    async def content(self, state: BatchState, file: str) -> bytes:
        """One of its `files`: a line of JSON for each request."""
        ...

    def read(self, line: Mapping[str, Any], request: ChatRequest) -> ChatResponse:
        """The answer to a request, in its line.

        Raises:
            ModelError: by kind; with the usage, if the line says it.
        """
        ...


class _Model(Protocol):
    """What a model says of itself for its batches: a model behind an official client does."""

    client_errors: ClassVar[ClientErrors]

    @property
    def name(self) -> str: ...
    @property
    def account(self) -> object: ...
    async def sdk(self) -> Any: ...
    def body(self, request: ChatRequest, *, stream: bool = False) -> dict[str, Any]: ...
    def read(self, request: ChatRequest, data: Mapping[str, Any]) -> ChatResponse: ...


class ClientBatches(ABC):
    """What the `BatchApi`s of official clients have in common.

    Args:
        model: whose requests are sent.
    """

    after: ClassVar[str]
    """What the list of batches calls the id behind which it goes on."""

    def __init__(self, model: _Model) -> None:
        self.name: str = model.name
        self.account: object = model.account
        self.body: Callable[[ChatRequest], dict[str, Any]] = model.body
        self._sdk: Callable[[], Awaitable[Any]] = model.sdk
        self._read = model.read
        self._errors = model.client_errors

    def _translated(self) -> AbstractContextManager[None]:
        """Errors of the client that are raised in the block, as errors of ours."""
        return self._errors.translated(self.name)

    @abstractmethod
    def _batches(self, sdk: Any) -> Any:
        """What of the client makes and lists batches."""

    @abstractmethod
    def _state(self, batch: Any) -> BatchState:
        """What the client gives, which checks nothing, as a state."""

    async def cancel(self, batch: str) -> None:
        """End a batch."""
        sdk = await self._sdk()
        with self._translated():
            await self._batches(sdk).cancel(batch)

    async def retrieve(self, batch: str) -> BatchState:
        """How a batch is getting on."""
        sdk = await self._sdk()
        with self._translated():
            return self._state(await self._batches(sdk).retrieve(batch))

    async def recent(self) -> AsyncIterator[BatchState]:
        """All batches of the account, the newest first."""
        after: dict[str, str] = {}
        while True:
            sdk = await self._sdk()
            with self._translated():
                page = await self._batches(sdk).list(limit=_PAGE, **after)
            if not isinstance(page.data, list):
                raise IncompleteAnswer(f"{self.name}: the list of batches is none")
            states = [self._state(each) for each in page.data]
            for state in states:
                yield state
            if not (states and getattr(page, "has_more", False)) or after == {self.after: states[-1].id}:
                return
            after = {self.after: states[-1].id}


def count_of(counts: Any, name: str) -> int:
    """A number that the client gives, which checks nothing; 0 for anything else."""
    value = getattr(counts, name, None)
    return value if isinstance(value, int) and value > 0 else 0


@runtime_checkable
class HasBatches(Protocol):
    """A model whose requests can be sent as batches."""

    def batch_api(self) -> BatchApi | None:
        """The batches of its provider; None if it has none."""
        ...
