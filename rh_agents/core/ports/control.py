"""Steering a run while another process executes it: pausing it, changing its limits, making what failed again.

    await store.control("monday").pause(reason="the server is down", author="ann")
    await store.control("monday").set({"limit.openai.requests": 300, "budget.cost": 20}, dry_run=True)

Whoever asks leaves a *request* in the store, with an id, a name and a reason. Only the owner of the run acts on it: it
looks for requests where it looks whether it still owns the run, appends what it makes of each to the journal (a CONTROL
event, which is the audit trail; see `rh_agents.core._replay.steered`), and then answers the request. A request that no
owner has seen is applied at the next start.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from rh_agents.core._replay.steered import is_named
from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import ControlRefused, StoreError, UsageError
from rh_agents.core.events import Fact
from rh_agents.core.redaction import redact, without_secrets
from rh_agents.core.results import OutcomeHeader
from rh_agents.core.types import WITHDRAWN, EventType, ExecutionStatus

__all__ = [
    "ControlRequest",
    "ControlResult",
    "Controllable",
    "RunControl",
    "SteeredJournal",
    "Verb",
    "control_fact",
    "control_of",
    "read_settings",
]

_ENDED = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
_OF_LIMITS = ("requests", "tokens", "input_tokens", "output_tokens", "limit", "maximum")
_OF_BUDGETS = ("cost", "tokens", "calls", "seconds")
_WHOLE = ("limit", "maximum", "tokens", "calls")


class Verb(StrEnum):
    """What can be asked of a run."""

    PAUSE = "pause"
    """Nothing new begins; attempts in flight come to their end."""
    UNPAUSE = "unpause"
    REQUEUE = "requeue"
    """Calls that failed, or were cancelled by name, are made again."""
    CANCEL = "cancel"
    """Members of groups, by name, or the whole run, come to no result."""
    SET = "set"
    """Other numbers for its workers, limits, budget and retries, until it ends."""


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """A request to the owner of a run.

    Attributes:
        id: a different one for each request.
        arguments: what exactly is asked, as plain JSON data; for SET `{"settings": {name: number}}`.
        author, reason: who asks, and why, for people.
        asked_at: seconds since 1970.
        applied_at: when the owner acted on it; None while it is open.
        answer: what came of it: `text` is a sentence about it. If it was `refused`, that is the sentence.
    """

    run_id: str
    id: str
    verb: Verb
    arguments: Mapping[str, Any] = field(default_factory=dict)
    author: str | None = None
    reason: str = ""
    asked_at: float = 0.0
    applied_at: float | None = None
    answer: Mapping[str, Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether no owner has acted on it."""
        return self.applied_at is None


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What was asked of a run, or (of a dry run) would be.

    Attributes:
        text: one sentence about it.
        calls: how many calls it concerns.
        price: what making them costs, as far as earlier ones tell; None if that is not known.
        request: what was asked; None for a dry run.
        is_applied: whether the owner has acted on it; else the next start does.
    """

    run_id: str
    verb: Verb
    text: str
    calls: int = 0
    price: float | None = None
    request: ControlRequest | None = None
    is_applied: bool = False


@runtime_checkable
class SteeredJournal(Protocol):
    """A journal whose run can be steered. (`Journal` need not be one.)"""

    async def requests(self) -> list[ControlRequest]:
        """The requests that are open, oldest first."""
        ...

    async def answer_request(self, request_id: str, answer: Mapping[str, Any]) -> None:
        """The event that applies a request is on disk: it is not open any more."""
        ...

    def when_asked(self, tell: Callable[[], None]) -> None:
        """Call `tell` on the event loop when there may be further requests."""
        ...


@runtime_checkable
class Controllable(Protocol):
    """A store whose runs can be steered."""

    async def is_executed(self, run_id: str) -> bool:
        """Whether a process executes the run, as far as is known."""
        ...

    async def request_control(
        self, run_id: str, verb: Verb, arguments: Mapping[str, Any], *, author: str | None = None, reason: str = ""
    ) -> ControlRequest:
        """Leave a request for the owner of a run.

        Raises:
            StoreError: there is no such run.
        """
        ...

    async def control_requests(self, run_id: str, *, is_open: bool | None = None) -> list[ControlRequest]:
        """The requests for a run, oldest first; only those that are open, or are not, if that is given."""
        ...

    async def wait_for_control(self, request: ControlRequest, seconds: float) -> ControlRequest:
        """The request when its owner has acted on it; as it is after so many seconds if it has not."""
        ...


def control_of(store: object, run_id: str) -> RunControl:
    """What steers a run of any store that can.

    Raises:
        UsageError: this store cannot.
    """
    if not isinstance(store, Controllable):
        raise UsageError(
            f"a {type(store).__name__} has no requests, so its runs cannot be steered: keep them in a file or in "
            "PostgreSQL, or let it have the methods of rh_agents.core.ports.control.Controllable"
        )
    return RunControl(store, run_id)


class RunControl:
    """Steers one run; `store.control(run_id)` gives it. Every method can be tried with `dry_run=True`.

    Args:
        store: where the run is.
        run_id: the run, which need not be executed now.
        patience: the seconds for which the answer of its owner is waited for.
    """

    def __init__(self, store: Any, run_id: str, *, patience: float = 10.0) -> None:
        self._store = store
        self._run_id = run_id
        self._patience = patience

    async def pause(self, *, reason: str = "", author: str | None = None, dry_run: bool = False) -> ControlResult:
        """Begin nothing new, and let attempts in flight end, until `unpause`, also after a restart.

        Meanwhile timeouts of groups and of the run, and `Budget(seconds)`, stand still.

        Raises:
            ControlRefused: the run has ended, or is paused.
            StoreError: there is no such run.
        """
        return await self._ask(Verb.PAUSE, {}, reason, author, dry_run, "nothing new begins")

    async def unpause(self, *, reason: str = "", author: str | None = None, dry_run: bool = False) -> ControlResult:
        """Let a paused run go on.

        Raises:
            ControlRefused: the run has ended, or is not paused.
            StoreError: there is no such run.
        """
        return await self._ask(Verb.UNPAUSE, {}, reason, author, dry_run, "calls begin again")

    async def requeue(
        self,
        items: Sequence[str] = (),
        *,
        failed: bool = False,
        reason: str = "",
        author: str | None = None,
        dry_run: bool = False,
    ) -> ControlResult:
        """Make calls again that failed: at once, as long as the program has not received their failure, and else at the
        next start, with the calls around them.

        Args:
            items: which, by name, address, or `@` and the beginning of the key; also those that somebody cancelled.
            failed: all that failed.
            reason, author: for the audit trail.
            dry_run: only say how many there are, and what they cost, as far as calls like them tell.

        Raises:
            ControlRefused: no such call has failed.
            StoreError: there is no such run.
        """
        await self._info()
        wanted, price = await self._failed(items, failed)
        calls = f"{len(wanted)} call{'s' * (len(wanted) != 1)}"
        cost = "" if not price else f", about {price:.4g} as calls like them cost"
        if dry_run:
            live = "those whose failure the program has not received now, the others"
            when = live if await self._is_live() else "all"
            text = f"requeue {self._run_id}: {calls}{cost}; {when} at the next start"
            return ControlResult(self._run_id, Verb.REQUEUE, text, len(wanted), price)
        arguments = {
            "items": list(items),
            "failed": failed,
            "keys": [header.key.hex() for header in wanted],
            "undone": [header.base.hex() for header in wanted if header.made_in == WITHDRAWN],
        }
        effect = f"{calls} {'is' if len(wanted) == 1 else 'are'} made again"
        result = await self._asked(Verb.REQUEUE, arguments, reason, author, effect)
        return replace(result, calls=len(wanted), price=price)

    async def cancel(
        self, items: Sequence[str] = (), *, reason: str = "", author: str | None = None, dry_run: bool = False
    ) -> ControlResult:
        """Cancel members of groups for good, or the whole run. Only `requeue` with its name undoes that of a member.

        Args:
            items: which, by name, address, or `@` and the beginning of the key; also those whose turn has not come.
                None cancels the run: what is in flight comes to its end, and nothing else begins.
            reason, author: for the audit trail.
            dry_run: only say what would be cancelled.

        Raises:
            ControlRefused: the run, or all of the items, have ended.
            StoreError: there is no such run.
        """
        info = await self._info()
        if info.status in _ENDED:
            raise self._has_ended(info)
        by = without_secrets(author) if author else "somebody"
        why = f"cancelled by {by}{': ' if reason else ''}{redact(reason)}"
        await self._expect_unfinished(items)
        count, is_live = len(items), await self._is_live()
        if dry_run:
            what = f"{count} item{'s' * (count != 1)}" if items else "the whole run, for good"
            return ControlResult(self._run_id, Verb.CANCEL, f"cancel {self._run_id}: {what}", count)
        if not items and not is_live:
            await self._store.request_stop(self._run_id, why)
            return ControlResult(self._run_id, Verb.CANCEL, f"{self._run_id} is cancelled", is_applied=True)
        arguments = {"items": list(items), "why": why}
        result = await self._asked(Verb.CANCEL, arguments, reason, author, f"{count} cancelled when their turn comes")
        return replace(result, calls=count)

    async def set(
        self, settings: Mapping[str, Any], *, reason: str = "", author: str | None = None, dry_run: bool = False
    ) -> ControlResult:
        """Give a run other numbers, at once and until it ends, also after a restart.

        Args:
            settings: by name. `max-workers` (of all groups) or `max-workers.GROUP`; `limit.NAME.requests`, `.tokens`,
                `.input_tokens` and `.output_tokens` of a rate limit, `.limit` of a concurrency limit, `.maximum` of one
                that adapts; `budget.cost`, `.tokens`, `.calls` and `.seconds`; `retry`: the attempts in all of calls
                that are retried.
            reason, author: for the audit trail.
            dry_run: only say what would be asked.

        Raises:
            ControlRefused: there is no such setting, a value is below what is in use, or the run has ended.
            StoreError: there is no such run.
        """
        wanted = read_settings(settings)
        text = ", ".join(f"{name}={value:g}" for name, value in wanted.items())
        return await self._ask(Verb.SET, {"settings": wanted}, reason, author, dry_run, text)

    async def requests(self, *, is_open: bool | None = None) -> list[ControlRequest]:
        """What was asked of the run, oldest first."""
        found: list[ControlRequest] = await self._store.control_requests(self._run_id, is_open=is_open)
        return found

    # -- asking -------------------------------------------------------------------------------------------------------

    async def _ask(
        self, verb: Verb, arguments: Mapping[str, Any], reason: str, author: str | None, dry_run: bool, effect: str
    ) -> ControlResult:
        info = await self._info()
        if info.status in _ENDED:
            raise self._has_ended(info)
        is_executed = await self._store.is_executed(self._run_id)
        if dry_run:
            when = "now" if is_executed else "from its next start on"
            return ControlResult(self._run_id, verb, f"{verb.value} {self._run_id}: {when} {effect}")
        return await self._asked(verb, arguments, reason, author, effect)

    async def _is_live(self) -> bool:
        return bool(await self._store.is_executed(self._run_id))

    async def _asked(
        self, verb: Verb, arguments: Mapping[str, Any], reason: str, author: str | None, effect: str
    ) -> ControlResult:
        """Leave a request, and wait for the answer if somebody executes the run."""
        info = await self._info()
        if verb is not Verb.REQUEUE:
            arguments = {**arguments, "epoch": info.epoch}  # it is for the run until its end, and not from then on
        request = await self._store.request_control(
            self._run_id,
            verb,
            arguments,
            author=None if author is None else without_secrets(author),
            reason=redact(reason),
        )
        if await self._is_live():
            request = await self._store.wait_for_control(request, self._patience)
        return await self._result(request, effect)

    async def _failed(self, items: Sequence[str], failed: bool) -> tuple[list[OutcomeHeader], float | None]:
        """The calls whose newest outcome is a failure, and what it costs to make them."""
        if not items and not failed:
            raise ControlRefused("name calls to be made again, or all that failed: requeue --failed")
        newest, costs = await self._newest()
        bad = [header for header in newest.values() if not header.ok]
        named = [header for header in bad if any(_is_meant(item, header) for item in items)]
        found = {header.key: header for header in (*named, *(each for each in bad if failed))}
        if failed:
            found = {key: each for key, each in found.items() if each.made_in != WITHDRAWN or each in named}
        for item in items:
            if not any(_is_meant(item, header) for header in named):
                raise ControlRefused(self._no_failure(item, newest.values()))
        if not found:
            raise ControlRefused(f"no call of run {self._run_id!r} has failed")
        alike = [header.group_id or header.name for header in found.values()]
        known = [costs[kind] for kind in alike if kind in costs]
        price = sum(known) if len(known) == len(found) else None
        return list(found.values()), price

    async def _newest(self) -> tuple[dict[bytes, OutcomeHeader], dict[str, float]]:
        """The newest outcome of each call, and what calls of each group, or name, cost that succeeded."""
        newest, paid = dict[bytes, OutcomeHeader](), dict[str, list[float]]()
        async for outcome in self._store.unread_outcomes(self._run_id):
            header = outcome.header
            newest[header.base] = header
            if header.ok:
                paid.setdefault(header.group_id or header.name, []).append(
                    0.0 if header.usage is None else header.usage.cost
                )
        return newest, {name: sum(costs) / len(costs) for name, costs in paid.items()}

    def _no_failure(self, item: str, known: Iterable[OutcomeHeader]) -> str:
        for header in known:
            if _is_meant(item, header):
                return f"{item!r} has succeeded; `rh-agents resume {self._run_id} --from` makes it again all the same"
        near = difflib.get_close_matches(item, [name for each in known for name in (each.name, each.address)], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"no call {item!r} of run {self._run_id!r} has an outcome{hint}"

    async def _expect_unfinished(self, items: Sequence[str]) -> None:
        newest, _ = await self._newest() if items else ({}, {})
        asked = [each.arguments for each in await self.requests() if each.verb is Verb.REQUEUE] if newest else []
        again = {key for arguments in asked for key in arguments.get("keys", ())}
        known = [header for header in newest.values() if header.key.hex() not in again]  # the others are made once more
        ended = [item for item in items if any(_is_meant(item, header) for header in known)]
        if items and len(ended) == len(items):
            raise ControlRefused(f"{', '.join(map(repr, ended[:5]))}: nothing is left to be cancelled, it has ended")

    async def _result(self, request: ControlRequest, effect: str) -> ControlResult:
        answer = request.answer
        if answer is not None and "refused" in answer:
            raise ControlRefused(answer["refused"])
        if answer is None:
            info = await self._info()
            if info.status in _ENDED and request.verb is not Verb.REQUEUE:
                raise self._has_ended(info)
            text = f"{request.run_id} is not executed now: from its next start on {effect}"
        else:
            text = answer["text"]
        return ControlResult(request.run_id, request.verb, text, request=request, is_applied=answer is not None)

    async def _info(self) -> Any:
        info = await self._store.find_run(self._run_id)
        if info is None:
            raise StoreError(f"there is no run {self._run_id!r}")
        return info

    def _has_ended(self, info: Any) -> ControlRefused:
        return ControlRefused(
            f"run {self._run_id!r} has ended: it is {info.status.value}; start it again to make what failed again"
        )


def _is_meant(item: str, header: OutcomeHeader) -> bool:
    return is_named(item, header.name, header.address, header.key)


def read_settings(settings: Mapping[str, Any]) -> dict[str, float]:
    """Settings as numbers; texts are read.

    Raises:
        ControlRefused: there is no setting of a name, or its value is none.
    """
    if not settings:
        raise ControlRefused("nothing is to be set: name a setting, such as max-workers=4")
    return {name: _read_setting(name, value) for name, value in settings.items()}


def _read_setting(name: str, value: Any) -> float:
    kind, _, rest = name.partition(".")
    field_name = rest.rpartition(".")[2]
    if kind == "limit" and rest.rpartition(".")[0]:
        return _number(name, value, _known(name, field_name, _OF_LIMITS) in _WHOLE[:2], zero=False)
    if kind == "budget":
        return _number(name, value, _known(name, rest, _OF_BUDGETS) in _WHOLE, zero=True)
    if kind == "max-workers" or name == "retry":
        return _number(name, value, True, zero=False)
    near = difflib.get_close_matches(name, ["max-workers", "retry", "budget.cost", "limit.NAME.requests"], 1, 0.5)
    hint = f"did you mean {near[0]}" if near else "there are max-workers, limit.NAME.requests, budget.cost and retry"
    raise ControlRefused(f"there is no setting {name!r}: {hint}")


def _known(name: str, field_name: str, known: Sequence[str]) -> str:
    if field_name not in known:
        raise ControlRefused(f"there is no setting {name!r}: the last word can be {', '.join(known)}")
    return field_name


def _number(name: str, value: Any, is_whole: bool, *, zero: bool) -> float:
    try:
        found = float(value)
    except (OverflowError, TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found) or isinstance(value, bool) or found < 0 or (not found and not zero):
        least = "from 0 on" if zero else "above 0"
        pause = "; to begin nothing new, pause the run" if name.startswith("max-workers") else ""
        raise ControlRefused(f"{name}={value}: a number {least} is needed{pause}")
    if is_whole and found != int(found):
        raise ControlRefused(f"{name}={value}: a whole number is needed")
    return int(found) if is_whole else found


_CONTROL: BaseActor = BaseActor.model_construct(
    name="control", event_type=EventType.CONTROL, handler=lambda: None, description="Stands for who steers the run."
)


def control_fact(control: Mapping[str, Any], reason: str, run_id: str, timestamp: float) -> Fact:
    """What there is to record when a request has been applied, or refused."""
    is_refused = "refused" in control["answer"]
    status = ExecutionStatus.FAILED if is_refused else ExecutionStatus.COMPLETED
    kind, name = EventType.CONTROL, str(control["verb"])
    return Fact(run_id, timestamp, status, kind, _CONTROL, name, "", message=reason or None, more={"control": control})
