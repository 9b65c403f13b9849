"""What can be asked for from the page: each as the commands do it, with who asked and why."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from pydantic_core import to_json

from rh_agents.core.errors import UsageError
from rh_agents.core.ports import RunInfo, Store
from rh_agents.core.ports.control import ControlResult, RunControl, control_of
from rh_agents.core.runs import UNCHANGED, affected_by, fork
from rh_agents.web.json_text import shown
from rh_agents.web.reading import NoSuchRun
from rh_agents.web.shapes import command_of, question_data

__all__ = ["Acting", "Resuming"]

Body = Mapping[str, Any]


class Resuming(Protocol):
    """Starts runs again. Each method raises `UsageError` if that cannot or may not be."""

    def words(self, info: RunInfo) -> list[str]:
        """The arguments of the process that would be started."""
        ...

    def about(self, info: RunInfo) -> str:
        """What that does, for people."""
        ...

    async def start(self, info: RunInfo) -> str:
        """Start it; returns a sentence about it."""
        ...


class Acting:
    """Changes runs of a store.

    Args:
        store: where they are, open for writing.
        author: who asks, for the audit trail.
        store_option: what a command needs to find the same store: "" for the usual one.
        resuming: starts runs again; None refuses that.
    """

    def __init__(
        self, store: Store, author: str | None, store_option: str = "", resuming: Resuming | None = None
    ) -> None:
        self._store = store
        self._resuming = resuming
        self._author = author
        self._store_option = store_option
        self._verbs: Mapping[str, Callable[[RunInfo, Body, bool], Awaitable[dict[str, Any]]]] = {
            "stop": self._stop,
            "fork": self._fork,
            "pause": self._pause,
            "unpause": self._unpause,
            "set": self._set,
            "cancel": self._cancel,
            "resume": self._resume,
            "requeue": self._requeue,
        }

    async def answer(self, body: Body) -> dict[str, Any]:
        """Answer a question.

        Raises:
            InputError: the answer does not fit its schema.
            StoreError: there is no such question, or it has been answered.
        """
        run, question = _text(body, "run"), _text(body, "id")
        if "answer" not in body:
            raise UsageError("answer is missing")
        answered = await self._store.answer(run, question, to_json(body["answer"]), self._author)
        return {"answered": question_data(answered), "next": await self._after_answering(run)}

    async def _after_answering(self, run: str) -> str:
        """What is to be done now, in one sentence: an answer starts nothing."""
        left, info = len(await self._store.questions(run)), await self._store.find_run(run)
        if left:
            return f"{run} waits for {left} more {'answer' if left == 1 else 'answers'}."
        if info is None or info.owner is not None:
            return "The run is being executed now; it reads the answer when it is started again."
        if command_of(info) is None:
            return "Start the program again, with the same run id: the run goes on with the answer."
        return f"Resume with: {shlex.join(['rh-agents', 'resume', run])}{self._store_option}"

    async def act(self, body: Body) -> dict[str, Any]:
        """Preview (with `dry_run`) or do something to a run.

        Raises:
            UsageError, ControlRefused: it cannot be done; the message says why.
            NoSuchRun: there is no such run.
        """
        run, verb = _text(body, "run"), _text(body, "verb")
        info = await self._store.find_run(run)
        if info is None:
            raise NoSuchRun(f"there is no run {run!r}")
        if verb not in self._verbs:
            raise UsageError(f"there is no action {verb!r}")
        return await self._verbs[verb](info, body, body.get("dry_run") is True)

    # -- steering ------------------------------------------------------------------------------------------------------

    async def _pause(self, info: RunInfo, body: Body, is_preview: bool) -> dict[str, Any]:
        return await self._steered(info, body, is_preview, ["pause"], lambda control: control.pause)

    async def _unpause(self, info: RunInfo, body: Body, is_preview: bool) -> dict[str, Any]:
        return await self._steered(info, body, is_preview, ["unpause"], lambda control: control.unpause)

    async def _set(self, info: RunInfo, body: Body, is_preview: bool) -> dict[str, Any]:
        settings = body.get("settings")
        if not isinstance(settings, dict) or not settings:
            raise UsageError("settings is missing: names and numbers")

        def setting(control: RunControl) -> Callable[..., Awaitable[ControlResult]]:
            return lambda **options: control.set(settings, **options)

        words = ["set", *(f"{name}={value}" for name, value in settings.items())]
        return await self._steered(info, body, is_preview, words, setting)

    async def _steered(
        self,
        info: RunInfo,
        body: Body,
        is_preview: bool,
        words: list[str],
        method: Callable[[RunControl], Callable[..., Awaitable[ControlResult]]],
    ) -> dict[str, Any]:
        """Ask the owner of the run. `words` are those of the command, the run left out."""
        reason = str(body.get("reason") or "")
        control = control_of(self._store, info.run_id)
        result = await method(control)(reason=reason, author=self._author, dry_run=is_preview)
        verb, *more = words
        line = ["rh-agents", verb, info.run_id, *more, *(["--reason", reason] if reason else [])]
        found = {"command": shlex.join(line) + self._store_option, "calls": result.calls, "price": result.price}
        return found | {"preview" if is_preview else "done": result.text}

    async def _stop(self, info: RunInfo, body: Body, is_preview: bool) -> dict[str, Any]:
        return await self._steered(info, body, is_preview, ["cancel"], lambda control: control.cancel)

    async def _cancel(self, info: RunInfo, body: Body, is_preview: bool) -> dict[str, Any]:
        items = _items(body)
        if not items:
            raise UsageError("items is missing: names of members, addresses, or @ and the beginning of a key")

        def cancelling(control: RunControl) -> Callable[..., Awaitable[ControlResult]]:
            return lambda **options: control.cancel(items, **options)

        return await self._steered(info, body, is_preview, ["cancel", *items], cancelling)

    async def _requeue(self, info: RunInfo, body: Body, is_preview: bool) -> dict[str, Any]:
        items, failed = _items(body), body.get("failed") is True

        def requeuing(control: RunControl) -> Callable[..., Awaitable[ControlResult]]:
            return lambda **options: control.requeue(items, failed=failed, **options)

        words = ["requeue", *(["--failed"] if failed else items)]
        return await self._steered(info, body, is_preview, words, requeuing)

    # -- starting again ------------------------------------------------------------------------------------------------

    async def _resume(self, info: RunInfo, body: Body, is_preview: bool) -> dict[str, Any]:
        if self._resuming is None:
            raise UsageError("this page starts nothing: `rh-agents web --allow-resume` lets it")
        if info.owner is not None:
            raise UsageError(f"run {info.run_id!r} is being executed by {info.owner}")
        # As it is shown, without the password of a store: what comes back can be equal. With the command that is
        # recorded, which may be another one by now.
        seen: dict[str, str] = shown(
            {"preview": self._resuming.about(info), "command": shlex.join(self._resuming.words(info))}
        )
        if is_preview:
            return seen
        if any(body.get(name) != text for name, text in seen.items()):
            raise UsageError("what is to be started is not what was shown: look at it again")
        return {"done": await self._resuming.start(info), "command": seen["command"]}

    # -- copies --------------------------------------------------------------------------------------------------------

    async def _fork(self, info: RunInfo, body: Body, is_preview: bool) -> dict[str, Any]:
        run, new, address = info.run_id, _text(body, "new"), str(body.get("address") or "") or None
        value = body.get("result", UNCHANGED)
        if await self._store.find_run(new) is not None:
            raise UsageError(f"run {new!r} already exists; choose another name")
        command = ["rh-agents", "fork", run, new, *(["--at", address] if address else [])]
        if value is not UNCHANGED:
            command += ["--result", to_json(value).decode()]
        found = {"command": shlex.join(command) + self._store_option}
        if is_preview:
            return found | {"preview": await self._effect(run, address, is_edited=value is not UNCHANGED)}
        await fork(self._store, run, new, address=address, result=value)
        return found | {"done": f"forked to {new}"}

    async def _effect(self, run: str, address: str | None, *, is_edited: bool) -> str:
        if address is None:
            return "a copy of everything"
        calls = len(await affected_by(self._store, run, address)) - is_edited
        return f"a copy in which {calls:,} call{'' if calls == 1 else 's'} would be made again"


def _items(body: Body) -> list[str]:
    items = body.get("items", [])
    if not isinstance(items, list) or not all(isinstance(each, str) for each in items):
        raise UsageError("items is a list of texts")
    return items


def _text(body: Body, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{name} is missing")
    return value
