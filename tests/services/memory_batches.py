"""A provider of batches in memory, for tests of what is done with batches whoever runs them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rh_agents import Usage
from rh_agents.core.chat import ChatRequest, ChatResponse
from rh_agents.core.errors import InvalidRequest, ModelTimeout, RateLimited
from rh_agents.llms._batch_api import BatchState, Marks

__all__ = ["Batch", "MemoryApi", "Provider", "gone", "lost", "refuse"]


def lost() -> ModelTimeout:
    """An error that leaves open whether something was done."""
    return ModelTimeout("no answer")


def gone() -> InvalidRequest:
    """What is said about things that are not there, or not yet."""
    return InvalidRequest("no such thing", status=404)


@dataclass
class Batch:
    """A batch as the provider sees it."""

    id: str
    requests: dict[str, dict[str, Any]]
    marks: Marks
    created_at: float
    ends_at: float
    status: str = "running"
    refused: dict[int, str] = field(default_factory=dict)
    content: bytes = b""


class Provider:
    """Everything that the provider knows, and what goes wrong there.

    Attributes:
        batches: by id, the oldest first.
        done: what was asked in requests that were done, and paid.
        operations: what was asked of the provider, in order.
        before, after: called with the number and the name of each operation, before it is done and afterwards; may
            raise.
        takes: seconds from the creation of a batch to its end.
        room: how many requests may wait at a time; a batch that comes when there are more is refused.
        refuses: which requests are refused when they are looked at, and with them the whole batch.
        ends: which status new batches have in the end, and how many of their requests are done by then; None for all.
        spoil: makes of the content of a file what is fetched.
    """

    def __init__(self, *, keeps_marks: bool = True) -> None:
        self.keeps_marks = keeps_marks
        self.batches: dict[str, Batch] = {}
        self.done: list[str] = []
        self.operations: list[str] = []
        self.before: Callable[[int, str], object] = lambda _, __: None
        self.after: Callable[[int, str], object] = lambda _, __: None
        self.takes = 3600.0
        self.room = 1_000_000
        self.refuses: set[str] = set()
        self.ends: tuple[str, int | None] = ("done", None)
        self.spoil: Callable[[bytes], bytes] = lambda content: content
        self.now: Callable[[], float] = lambda: 0.0

    def operation(self, name: str, do: Callable[[], Any]) -> Any:
        """Do something, or fail before or after it."""
        number = len(self.operations)
        self.operations.append(name)
        self.before(number, name)
        self.tick()
        value = do()
        self.after(number, name)
        return value

    def tick(self) -> None:
        """What has come to its end by now."""
        for batch in self.batches.values():
            if batch.status == "running" and self.now() >= batch.ends_at:
                self._finish(batch)

    def _finish(self, batch: Batch) -> None:
        batch.status, most = self.ends
        lines = []
        for number, (each, body) in enumerate(batch.requests.items()):
            if most is None or number < most:
                self.done.append(body["prompt"])
                lines.append(json.dumps({"custom_id": each, "text": body["prompt"].upper()}))
        batch.content = "\n".join(reversed(lines)).encode()

    def create(self, requests: dict[str, dict[str, Any]], marks: Marks) -> Batch:
        """Make a batch, which is looked at at once."""
        name = f"batch_{len(self.batches)}"
        batch = Batch(name, dict(requests), marks, self.now(), self.now() + self.takes)
        waiting = sum(len(each.requests) for each in self.batches.values() if each.status == "running")
        if waiting + len(requests) > self.room:
            batch.status = "crowded"
        batch.refused = {
            number: "not to our taste"
            for number, body in enumerate(requests.values())
            if body["prompt"] in self.refuses
        }
        if batch.refused:
            batch.status = "refused"
        self.batches[name] = batch
        return batch

    def state(self, batch: Batch) -> BatchState:
        """What is told of a batch."""
        has_ended = batch.status != "running"
        has_content = has_ended and batch.status not in ("crowded", "refused")
        return BatchState(
            id=batch.id,
            status=batch.status,
            is_ended=has_ended,
            is_whole=batch.status in ("running", "done"),
            created_at=batch.created_at,
            files={f"{batch.id}.out": 0} if has_content else {},
            source=batch.id,
            total=0 if batch.status == "crowded" else len(batch.requests),
            marks=batch.marks if self.keeps_marks else None,
            refusal=batch.status if has_ended and not has_content else "",
            refused=batch.refused,
            is_crowded=batch.status == "crowded",
        )


class MemoryApi:
    """A `BatchApi`."""

    most = 1000
    most_bytes = 10_000_000
    name = "memory"
    account = "account"

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.keeps_marks = provider.keeps_marks

    def body(self, request: ChatRequest) -> dict[str, Any]:
        return {"prompt": request.messages[-1].text}

    async def prepare(self, requests: Mapping[str, dict[str, Any]]) -> Any:
        return await self._do("prepare", lambda: dict(requests))

    async def create(self, prepared: Any, marks: Marks) -> BatchState:
        return self._provider.state(await self._do("create", lambda: self._provider.create(prepared, marks)))

    async def cancel(self, batch: str) -> None:
        def cancel() -> None:
            self._provider.batches[batch].status = "cancelled"

        await self._do("cancel", cancel)

    async def retrieve(self, batch: str) -> BatchState:
        return self._provider.state(await self._do("retrieve", lambda: self._provider.batches[batch]))

    async def recent(self) -> AsyncIterator[BatchState]:
        found = await self._do("list", lambda: list(reversed(self._provider.batches.values())))
        for each in found:
            yield self._provider.state(each)

    async def requested(self, state: BatchState) -> Sequence[str] | None:
        if not self.keeps_marks:
            return None
        ids: list[str] = await self._do("input", lambda: list(self._provider.batches[state.id].requests))
        return ids

    def is_answer(self, line: Mapping[str, Any]) -> bool:
        return "text" in line

    async def content(self, state: BatchState, file: str) -> bytes:
        content: bytes = await self._do("content", lambda: self._provider.batches[state.id].content)
        return self._provider.spoil(content)

    def read(self, line: Mapping[str, Any], request: ChatRequest) -> ChatResponse:
        return ChatResponse(text=line["text"], usage=Usage(10, 5, requests=1))

    async def _do(self, name: str, do: Callable[[], Any]) -> Any:
        await asyncio.sleep(0.1)
        return self._provider.operation(name, do)


def refuse(seconds: float) -> RateLimited:
    """Too many batches for now."""
    return RateLimited("too many batches", status=429, retry_after=seconds)
