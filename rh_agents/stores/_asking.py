"""Requests to the owners of runs, as rows of a database and back (see `rh_agents.core.ports.control`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rh_agents.core._limits.steering import applied_control, control_fact
from rh_agents.core.errors import RunIsLive, StoreError, ValuesErased
from rh_agents.core.ports import RunRequest
from rh_agents.core.ports.control import ControlRequest, Verb
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._checksums import applied_checksum, request_checksum

__all__ = ["answer_columns", "cancel_unexecuted", "request_columns", "request_of"]

_VERBS = frozenset(verb.value for verb in Verb)
_NEWER = "this version of rh_agents does not know what that is"


def request_columns(request: ControlRequest) -> dict[str, Any]:
    """The columns of a new request, but for its run."""
    arguments = json.dumps(dict(request.arguments))
    author = None if request.author is None else _kept(request.author)
    asked = (request.id, request.verb.value, arguments, author, _kept(request.reason), request.asked_at)
    return {
        **dict(zip(("id", "verb", "arguments", "author", "reason", "asked_at"), asked, strict=True)),
        "checksum": request_checksum(*asked),
        "answer_checksum": applied_checksum(request.id, None, None),
    }


def answer_columns(request_id: str, answer: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The columns that say what came of a request."""
    text = json.dumps(dict(answer))
    checksum = applied_checksum(request_id, now, text)
    return {"id": request_id, "applied_at": now, "answer": text, "answer_checksum": checksum}


def request_of(row: Sequence[Any], run_id: str, place: str) -> ControlRequest:
    """The request of a row.

    Raises:
        StoreError: it is damaged, or a newer version of this library wrote it.
    """
    try:
        request_id, verb, arguments, author, reason, asked_at, applied_at, answer, *checksums = row
        asked = request_checksum(request_id, verb, arguments, author, reason, asked_at)
        if [asked, applied_checksum(request_id, applied_at, answer)] == checksums:
            if verb not in _VERBS:
                raise StoreError(f"{place}: request {request_id!r} to run {run_id!r} wants {verb!r}: {_NEWER}")
            what = (Verb(verb), json.loads(arguments), author, reason or "", asked_at)
            became = None if answer is None else json.loads(answer)
            return ControlRequest(run_id, request_id, *what, applied_at, became)
    except (AttributeError, TypeError, ValueError) as error:  # a damaged byte may put any value into any column
        raise _damaged(row, run_id, place) from error
    raise _damaged(row, run_id, place)


async def cancel_unexecuted(store: Any, request: ControlRequest, answer: Mapping[str, Any], why: str) -> bool:
    """End the run of a request for good, as its owner for a moment; False if somebody executes it.

    The request was left before. If this process dies before the run has ended, the next start ends it.
    """
    run_id = request.run_id
    try:
        journal: Any = await store.open_run(RunRequest(run_id, owner="whoever cancels it"))
    except RunIsLive:
        return False
    except ValuesErased:  # nothing is written to its journal any more
        return not await store.request_stop(run_id, why)
    stop_children = getattr(store, "stop_children", None)  # not every store has child runs
    if stop_children is not None:
        await stop_children(run_id, None, why)
    control = applied_control(request, answer, journal.info.epoch)
    await journal.append(control_fact(control, request.reason, run_id, request.asked_at))
    await journal.answer_request(request.id, answer)
    await journal.close(ExecutionStatus.CANCELLED, why)
    return True


def _damaged(row: Sequence[Any], run_id: str, place: str) -> StoreError:
    return StoreError(f"{place}: request {row[0]!r} to run {run_id!r} is damaged; `rh-agents check` says what else is")


def _kept(text: str) -> str:
    """A text for people as every database takes it."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")
