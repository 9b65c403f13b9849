"""Anthropic's Message Batches. How batches are used is described in `rh_agents.llms._batches`.

A batch keeps no marks and what was asked in it cannot be read: only its answers tell, when it has ended. There is no
file to be uploaded.

(https://platform.claude.com/docs/en/build-with-claude/batch-processing)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx2

from rh_agents.core.chat.messages import ChatRequest, ChatResponse
from rh_agents.core.errors import IncompleteAnswer, ModelTimeout, UnreadableAnswer
from rh_agents.llms._batch_api import BatchState, ClientBatches, Marks, count_of
from rh_agents.llms._client_errors import error_of_body

__all__ = ["AnthropicBatchApi"]

_NOT_TRIED = ("canceled", "expired")
_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


class AnthropicBatchApi(ClientBatches):
    """The batches of one model.

    Args:
        model: the model.
    """

    most = 100_000
    most_bytes = 256_000_000
    keeps_marks = False
    after = "after_id"

    def _batches(self, sdk: Any) -> Any:
        return sdk.messages.batches

    async def prepare(self, requests: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Nothing needs to be done."""
        return [{"custom_id": each, "params": body} for each, body in requests.items()]

    async def create(self, prepared: list[dict[str, Any]], marks: Marks) -> BatchState:
        """Make a batch.

        Raises:
            IncompleteAnswer: the provider's answer has no id.
        """
        sdk = await self._sdk()
        with self._translated():
            return self._state(await sdk.messages.batches.create(requests=prepared))

    async def requested(self, state: BatchState) -> Sequence[str] | None:
        """Nothing tells that but the answers."""
        return None

    def is_answer(self, line: Mapping[str, Any]) -> bool:
        """Whether the request was tried."""
        result = line.get("result")
        return not (isinstance(result, dict) and result.get("type") in _NOT_TRIED)

    async def content(self, state: BatchState, file: str) -> bytes:
        """The answers."""
        sdk = await self._sdk()
        with self._translated():
            response: httpx2.Response = await sdk.get(file, cast_to=httpx2.Response)
        return response.content

    def _state(self, batch: Any) -> BatchState:
        if not isinstance(batch.id, str) or not batch.id:
            raise IncompleteAnswer(f"{self.name}: the batch has no id")
        counts = {name: count_of(batch.request_counts, name) for name in _COUNTS}
        total, left = sum(counts.values()), counts["processing"]
        has_ended = batch.processing_status == "ended"
        has_results = has_ended and isinstance(batch.results_url, str) and batch.results_url
        # The URL itself may name the provider where a proxy is asked, which has the key.
        results = f"/v1/messages/batches/{quote(batch.id, safe='')}/results"
        # Each has a line, also those that were not tried: so a batch that was cut off is recognized by its lines.
        return BatchState(
            id=batch.id,
            status=f"{batch.processing_status} ({total - left:,} of {total:,})",
            is_ended=has_ended,
            is_whole=not (counts["canceled"] or counts["expired"] or batch.processing_status == "canceling"),
            created_at=_moment(batch.created_at),
            files={results: total} if has_results else {},
            total=total,
        )

    def read(self, line: Mapping[str, Any], request: ChatRequest) -> ChatResponse:
        """The answer in a line.

        Raises:
            ModelTimeout: the batch has no answer to this request.
            UnreadableAnswer: a line of the batch has no answer in it.
            ModelError: by kind.
        """
        result = line.get("result")
        kind = result.get("type") if isinstance(result, dict) else None
        if isinstance(result, dict) and kind == "succeeded" and isinstance(result.get("message"), dict):
            return self._read(request, result["message"])
        if isinstance(result, dict) and kind == "errored":
            raise error_of_body(result.get("error"), self.name)
        if kind in _NOT_TRIED:
            raise ModelTimeout(f"{self.name}: the batch has no answer to this request: it is {kind}")
        raise UnreadableAnswer(f"{self.name}: a line of the batch has no result")


def _moment(value: Any) -> float:
    """Seconds since 1970. The client reads moments, unless they are none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return 0.0
    return value.timestamp() if isinstance(value, datetime) else 0.0
