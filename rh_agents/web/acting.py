"""What can be asked for from the page: each as the commands do it, with who asked and why."""

from __future__ import annotations

import shlex
from typing import Any

from pydantic_core import to_json

from rh_agents.core.errors import UsageError
from rh_agents.core.ports import Store
from rh_agents.core.ports.run_status import status_of
from rh_agents.core.rewind import UNCHANGED, affected_by, fork
from rh_agents.web.reading import NoSuchRun
from rh_agents.web.shapes import question_data

__all__ = ["Acting"]


class Acting:
    """Changes runs of a store.

    Args:
        store: where they are, open for writing.
        author: who asks, for the audit trail.
        store_option: what a command needs to find the same store: "" for the usual one.
    """

    def __init__(self, store: Store, author: str | None, store_option: str = "") -> None:
        self._store = store
        self._author = author
        self._store_option = store_option

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer a question.

        Raises:
            InputError: the answer does not fit its schema.
            StoreError: there is no such question, or it has been answered.
        """
        run, question = _text(body, "run"), _text(body, "id")
        if "answer" not in body:
            raise UsageError("answer is missing")
        answered = await self._store.answer(run, question, to_json(body["answer"]), self._author)
        return {"answered": question_data(answered)}

    async def act(self, body: dict[str, Any]) -> dict[str, Any]:
        """Preview (with `dry_run`) or do something to a run.

        Raises:
            UsageError: it cannot be done; the message says why.
            NoSuchRun: there is no such run.
        """
        run, verb = _text(body, "run"), _text(body, "verb")
        info = await self._store.find_run(run)
        if info is None:
            raise NoSuchRun(f"there is no run {run!r}")
        is_preview = body.get("dry_run") is True
        if verb == "stop":
            if status_of(info).has_ended:
                raise UsageError(f"run {run!r} has ended already: it is {status_of(info).value}")
            return await self._stop(run, str(body.get("reason") or ""), info.owner is not None, is_preview)
        if verb == "fork":
            return await self._fork(run, body, is_preview)
        raise UsageError(f"there is no action {verb!r}")

    async def _stop(self, run: str, reason: str, is_running: bool, is_preview: bool) -> dict[str, Any]:
        found = {
            "preview": "calls in flight finish, and no more are made"
            if is_running
            else "the run is ended as cancelled",
            "command": f"rh-agents cancel {shlex.quote(run)}{self._store_option}",
        }
        if not is_preview:
            why = f"cancelled by {self._author or 'an unknown user'} from the page{f': {reason}' if reason else ''}"
            found["done"] = "asked to stop" if await self._store.request_stop(run, why) else "cancelled"
        return found

    async def _fork(self, run: str, body: dict[str, Any], is_preview: bool) -> dict[str, Any]:
        new, address = _text(body, "new"), str(body.get("address") or "") or None
        value = body.get("result", UNCHANGED)
        command = ["rh-agents", "fork", run, new, *(["--at", address] if address else [])]
        if value is not UNCHANGED:
            command += ["--result", to_json(value).decode()]
        found: dict[str, Any] = {"command": shlex.join(command) + self._store_option}
        if await self._store.find_run(new) is not None:
            raise UsageError(f"run {new!r} already exists; choose another name")
        if address is not None:
            calls = len(await affected_by(self._store, run, address)) - (value is not UNCHANGED)
            found["preview"] = f"a copy in which {calls:,} call{'' if calls == 1 else 's'} would be made again"
        else:
            found["preview"] = "a copy of everything"
        if not is_preview:
            await fork(self._store, run, new, address=address, result=value)
            found["done"] = f"forked to {new}"
        return found


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{name} is missing")
    return value
