"""The Batch API of OpenAI, and of servers that have it. How batches are used is described in `rh_agents.llms._batches`.

(https://platform.openai.com/docs/guides/batch)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from rh_agents.core.chat.messages import ChatRequest, ChatResponse
from rh_agents.core.errors import IncompleteAnswer, ModelTimeout, PermanentModelError, UnreadableAnswer
from rh_agents.llms._batch_api import BatchState, ClientBatches, Marks, count_of
from rh_agents.llms._batch_results import read_lines
from rh_agents.llms._batches import Batches, in_batches
from rh_agents.llms._client_errors import error_of_status

__all__ = ["OpenAIBatchApi", "OpenAIBatches", "in_batches"]

OpenAIBatches = Batches
"""The name of `Batches` when OpenAI's were the only ones."""

_ENDED = ("completed", "expired", "cancelled", "failed")
_CUT_OFF = ("expired", "cancelled", "failed", "cancelling")
_URL = "/v1/chat/completions"
_MARK, _RUN = "rh_agents", "rh_agents_run"
_CROWDED = ("token_limit_exceeded", "enqueued_token_limit_exceeded")
_CROWDED_TEXT = "enqueued token limit"
_NOT_TRIED = ("batch_expired", "batch_cancelled")


class OpenAIBatchApi(ClientBatches):
    """The batches of one model.

    Args:
        model: the model.
    """

    most = 50_000
    most_bytes = 200_000_000
    keeps_marks = True
    after = "after"

    def _batches(self, sdk: Any) -> Any:
        return sdk.batches

    async def prepare(self, requests: Mapping[str, dict[str, Any]]) -> str:
        """Upload the requests; the id of the file.

        Raises:
            IncompleteAnswer: the provider's answer has no id.
        """
        lines = [
            json.dumps({"custom_id": each, "method": "POST", "url": _URL, "body": body})
            for each, body in requests.items()
        ]
        sdk = await self._sdk()
        with self._translated():
            file = await sdk.files.create(file=("requests.jsonl", "\n".join(lines).encode()), purpose="batch")
        return self._checked(file.id, "the file")

    async def create(self, prepared: str, marks: Marks) -> BatchState:
        """Make a batch of an uploaded file.

        Raises:
            IncompleteAnswer: the provider's answer has no id.
        """
        metadata = {_MARK: marks.requests, **({_RUN: marks.run} if marks.run else {})}
        sdk = await self._sdk()
        with self._translated():
            made = await sdk.batches.create(
                input_file_id=prepared, endpoint=_URL, completion_window="24h", metadata=metadata
            )
        return self._state(made)

    async def requested(self, state: BatchState) -> Sequence[str] | None:
        """The ids in the file that was uploaded for a batch; None if that cannot be had any more."""
        try:
            content = await self.content(state, state.source)
        except PermanentModelError:
            return None
        return list(read_lines(content).good)

    def is_answer(self, line: Mapping[str, Any]) -> bool:
        """Whether the request was tried."""
        error = line.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        return isinstance(line.get("response"), dict) or code not in _NOT_TRIED

    async def content(self, state: BatchState, file: str) -> bytes:
        """A file of answers."""
        sdk = await self._sdk()
        with self._translated():
            found = await sdk.files.content(file)
            content: bytes = found.content
        return content

    def _checked(self, name: Any, what: str) -> str:
        if not isinstance(name, str) or not name:
            raise IncompleteAnswer(f"{self.name}: {what} has no id")
        return name

    def _state(self, batch: Any) -> BatchState:
        status = str(batch.status)
        counts = batch.request_counts
        total, completed, failed = (count_of(counts, name) for name in ("total", "completed", "failed"))
        metadata = batch.metadata if isinstance(batch.metadata, dict) else {}
        errors = _errors(batch.errors)
        expected = ((batch.output_file_id, completed), (batch.error_file_id, failed))
        refusal = "; ".join(str(each.message or each.code) for each in errors)
        return BatchState(
            id=self._checked(batch.id, "the batch"),
            status=f"{status} ({completed:,} of {total:,})" if counts is not None else status,
            is_ended=status in _ENDED,
            is_whole=status not in _CUT_OFF,
            created_at=_seconds(batch.created_at),
            files={file: count for file, count in expected if isinstance(file, str) and file},
            source=str(batch.input_file_id or ""),
            total=total,
            marks=Marks(metadata.get(_RUN, ""), metadata[_MARK]) if _MARK in metadata else None,
            refusal=(refusal or "it does not say why") if status == "failed" else "",
            refused={each.line - 1: str(each.message or each.code) for each in errors if isinstance(each.line, int)}
            if status == "failed"
            else {},
            is_crowded=status == "failed" and any(map(_is_crowded, errors)),
        )

    def read(self, line: Mapping[str, Any], request: ChatRequest) -> ChatResponse:
        """The answer in a line.

        Raises:
            ModelTimeout: the batch has no answer to this request.
            UnreadableAnswer: a line of the batch has no answer in it.
            ModelError: by kind.
        """
        response = line.get("response")
        if not isinstance(response, dict):
            error = line.get("error")
            said = error.get("message") if isinstance(error, dict) else None
            raise ModelTimeout(f"{self.name}: the batch has no answer to this request: {said or 'it does not say why'}")
        status, body = _status(response.get("status_code")), _body(response.get("body"))
        if status >= 400:
            raise error_of_status(status, body.get("error") if isinstance(body, dict) else body, self.name)
        if not isinstance(body, dict):
            raise UnreadableAnswer(f"{self.name}: a line of the batch has no answer in it")
        return self._read(request, body)


def _status(value: Any) -> int:
    """An HTTP status as servers write it. Where there is none, the body says by itself what it is: it was paid for."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 200


def _body(value: Any) -> Any:
    """A body; some servers put it in as the text that they got."""
    if not isinstance(value, str):
        return value
    try:
        return from_json(value)
    except ValueError:
        return value


def _errors(reported: Any) -> list[Any]:
    """What the server says is wrong with a batch, as far as it says it in the form that is documented."""
    found = getattr(reported, "data", None)
    return [each for each in found if hasattr(each, "message")] if isinstance(found, list) else []


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _is_crowded(error: Any) -> bool:
    return error.code in _CROWDED or _CROWDED_TEXT in str(error.message).lower()
