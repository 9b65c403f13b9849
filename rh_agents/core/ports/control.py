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
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable

from rh_agents.core._loops.beside import read_beside
from rh_agents.core._replay.ancestry import addresses_around
from rh_agents.core._replay.meant import costs_of_calls, is_meant, newest_outcomes, outcomes_meant
from rh_agents.core._replay.steered import is_named
from rh_agents.core.errors import CallCancelled, ControlRefused, InputError, StoreError, UsageError
from rh_agents.core.policies.numbers import changed_settings, read_settings
from rh_agents.core.ports.present import (
    MOST_LISTED,
    Present,
    Retrying,
    RunningCall,
    WaitingCall,
    present_of_run,
)
from rh_agents.core.redaction import redact, without_secrets
from rh_agents.core.results import OutcomeHeader, UnreadOutcome
from rh_agents.core.types import WITHDRAWN, ExecutionStatus

__all__ = [
    "ControlRequest",
    "ControlResult",
    "Controllable",
    "RunControl",
    "SteeredJournal",
    "Verb",
    "control_of",
    "has_ended_text",
]

_ENDED = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)


class Verb(StrEnum):
    """What can be asked of a run."""

    PAUSE = "pause"
    """Nothing new begins; attempts in flight come to their end."""
    UNPAUSE = "unpause"
    REQUEUE = "requeue"
    """Calls that failed, or were cancelled by name, are made again."""
    CANCEL = "cancel"
    """Members of groups, by name, or the whole run, come to no result."""
    SIGNAL = "signal"
    """A value for the program, which waits for it now or will."""
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
        now, later: how many of those that are to be made again are so at once, and at the next start, as the owner says
            or, in a dry run, is known to do; None where that is not known.
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
    now: int | None = None
    later: int | None = None


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

    async def cancel_unexecuted(self, request: ControlRequest, answer: Mapping[str, Any], why: str) -> bool:
        """End a run for good that no process executes, say so in its journal, and answer the request that asks for it.

        Returns False, with the request still open, if a process executes the run.
        """
        ...

    async def wait_for_control(self, request: ControlRequest, seconds: float) -> ControlRequest:
        """The request when its owner has acted on it; as it is after this many seconds if it has not."""
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
        """Make calls again that failed: at once, as long as the program has not received their failure, or a group with
        `requeue=True` can give a further result; and else at the next start, with the calls around them.

        A submitted run that no one executes is put into its queue again, and begins a new epoch if it had ended; with
        neither items nor `failed`, that is all.

        Args:
            items: which, by name, address, or `@` and the beginning of the key; also those that someone cancelled.
            failed: all that failed.
            reason: why, for the audit trail; `author` says who.
            dry_run: only say how many there are, and what they cost, as far as calls like them tell.

        Raises:
            ControlRefused: no such call has failed.
            StoreError: there is no such run.
        """
        info = await self._info()
        if not items and not failed and info.queue is not None:
            return await self._put_into_queue(info, dry_run)
        wanted, price, dismissed = await self._failed(items, failed)
        calls = f"{len(wanted)} call{'s' * (len(wanted) != 1)}"
        cost = "" if not price else f", about {price:.4g} as calls like them cost"
        if dry_run:
            when, now, later = await self._when(wanted)
            text = f"requeue {self._run_id}: {calls}{cost}; {when} at the next start{_made_anyway(dismissed)}"
            return ControlResult(self._run_id, Verb.REQUEUE, text, len(wanted), price, now=now, later=later)
        arguments = {
            "items": list(map(without_secrets, items)),
            "failed": failed,
            "keys": [header.key.hex() for header in wanted],
            "undone": [header.base.hex() for header in wanted if header.made_in == WITHDRAWN],
        }
        effect = f"{calls} {'is' if len(wanted) == 1 else 'are'} made again"
        result = await self._asked(Verb.REQUEUE, arguments, reason, author, effect)
        answer = (None if result.request is None else result.request.answer) or {"now": 0, "later": len(wanted)}
        if info.queue is not None and not result.is_applied and await self._store.enqueue(self._run_id):
            result = replace(result, text=f"{self._run_id} waits for a worker of queue {info.queue}, by whom {effect}")
        return replace(result, calls=len(wanted), price=price, now=answer.get("now"), later=answer.get("later"))

    async def _when(self, wanted: Sequence[OutcomeHeader]) -> tuple[str, int | None, int | None]:
        """When these calls would be made again, as far as the owner says which groups are open: in words, and how many
        at once, and at the next start. Whether a program has received a failure, only its owner knows.
        """
        if not await self._is_live():
            return "all", 0, len(wanted)
        present = await present_of_run(self._store, self._run_id)
        if present is None or len(present.groups) >= MOST_LISTED:
            return "those whose failure the program has not received now, the others", None, None
        open_groups = {group.group_id: group.requeues for group in present.groups}
        now = sum(open_groups.get(header.group_id or "", False) for header in wanted)
        unsure = sum(not open_groups.get(header.group_id or "", True) for header in wanted)
        later = len(wanted) - now - unsure
        if not unsure:
            return f"{now} now, {later}", now, later
        return f"{now} now, {unsure} now if the program has not received the failure, the others", None, None

    async def _put_into_queue(self, info: Any, dry_run: bool) -> ControlResult:
        """Let a worker take the run again."""
        if await self._is_live():
            raise ControlRefused(f"run {self._run_id!r} is being executed: name calls to be made again, or --failed")
        text = f"{self._run_id} waits for a worker of queue {info.queue}"
        if dry_run:
            return ControlResult(self._run_id, Verb.REQUEUE, f"requeue {self._run_id}: {text}")
        return ControlResult(self._run_id, Verb.REQUEUE, text, is_applied=await self._store.enqueue(self._run_id))

    async def cancel(
        self, items: Sequence[str] = (), *, reason: str = "", author: str | None = None, dry_run: bool = False
    ) -> ControlResult:
        """Cancel members of groups for good, or the whole run. Only `requeue` with its name undoes that of a member.

        Args:
            items: which, by name, address, or `@` and the beginning of the key; also those whose turn has not come.
                None cancels the run: what is in flight comes to its end, and nothing else begins.
            reason: why, for the audit trail; `author` says who.
            dry_run: only say what would be cancelled.

        Raises:
            ControlRefused: the run, or all of the items, have ended.
            StoreError: there is no such run.
        """
        info = await self._info()
        if info.status in _ENDED:
            raise self._has_ended(info)
        why = redact(f"cancelled by {author or 'somebody'}{': ' if reason else ''}{reason}")
        await self._expect_unfinished(items)
        to_come = await self._items_to_come(items)
        count, is_live = len(items), await self._is_live()
        if dry_run:
            what = f"{count} item{'s' * (count != 1)}" if items else "the whole run, for good"
            text = f"cancel {self._run_id}: {what}{_to_come_text(to_come, is_live)}"
            return ControlResult(self._run_id, Verb.CANCEL, text, count)
        arguments = {"items": list(map(without_secrets, items)), "why": why}
        if not items and not is_live:
            return await self._cancel_unexecuted(arguments, reason, author)
        result = await self._asked(Verb.CANCEL, arguments, reason, author, f"{count} cancelled when their turn comes")
        more = "" if result.is_applied else _to_come_text(to_come, is_live)
        return replace(result, calls=count, text=f"{result.text}{more}")

    async def signal(
        self, event: str, value: Any = None, *, reason: str = "", author: str | None = None, dry_run: bool = False
    ) -> ControlResult:
        """Give the program a value that it waits for by `wait_for_event(event)`, now or later.

        It is delivered once, to one wait, in the order in which signals came. One that does not fit the schema of the
        wait is refused there, which the journal says. A run in a queue is taken up by a worker.

        Args:
            event: for what it is.
            value: plain JSON data.
            reason: why, for the audit trail; `author` says who.
            dry_run: only see whether it could be sent.

        Raises:
            ControlRefused: the run has ended.
            StoreError: there is no such run.
            InputError: the value is not serializable.
        """
        info = await self._info()
        if info.status in _ENDED:
            raise self._has_ended(info)
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"the value is not serializable: {error}") from error
        if dry_run:
            return ControlResult(self._run_id, Verb.SIGNAL, f"signal {event!r} to {self._run_id}")
        author = None if author is None else without_secrets(author)
        arguments = {"event": event, "value": text}
        request = await self._store.request_control(
            self._run_id, Verb.SIGNAL, arguments, author=author, reason=redact(reason)
        )
        effect = f"{event!r} is kept for {self._run_id} until it waits for it"
        return ControlResult(self._run_id, Verb.SIGNAL, effect, request=request)

    async def _cancel_unexecuted(self, arguments: Mapping[str, Any], reason: str, author: str | None) -> ControlResult:
        """End a run for good that no process executes, as its owner for a moment, so its journal says by whom and why.

        The request is left first: if this process dies before the run has ended, the next start ends it.
        """
        request = await self._left(Verb.CANCEL, arguments, reason, author)
        answer = {"text": f"{self._run_id} is cancelled"}
        if await self._store.cancel_unexecuted(request, answer, arguments["why"]):
            return ControlResult(self._run_id, Verb.CANCEL, answer["text"], request=request, is_applied=True)
        return await self._result(await self._store.wait_for_control(request, self._patience), "it is cancelled")

    async def set(
        self, settings: Mapping[str, Any], *, reason: str = "", author: str | None = None, dry_run: bool = False
    ) -> ControlResult:
        """Give a run other numbers, at once and until it ends, also after a restart.

        Args:
            settings: by name. `max-workers` (of all groups) or `max-workers.GROUP`; `limit.NAME.requests`, `.tokens`,
                `.input_tokens` and `.output_tokens` of a rate limit, `.limit` of a concurrency limit, `.maximum` of one
                that adapts; `budget.cost`, `.tokens`, `.calls` and `.seconds`; `retry`: the attempts in all of calls
                that are retried.
            reason: why, for the audit trail; `author` says who.
            dry_run: only say what would be asked.

        Raises:
            ControlRefused: there is no such setting, a value is below what is in use, or the run has ended.
            StoreError: there is no such run.
        """
        wanted = read_settings(settings)
        if dry_run:
            return await self._previewed(wanted)
        text = ", ".join(f"{name}={value:g}" for name, value in wanted.items())
        return await self._ask(Verb.SET, {"settings": wanted}, reason, author, dry_run, text)

    async def _previewed(self, wanted: Mapping[str, float]) -> ControlResult:
        """What setting these would mean, as far as the owner has said what there is."""
        info = await self._info()
        if info.status in _ENDED:
            raise self._has_ended(info)
        present = await self._present()
        when = "at once" if await self._is_live() else "from its next start on"
        text = changed_settings(wanted, () if present is None else present.settings, when)
        return ControlResult(self._run_id, Verb.SET, f"set {self._run_id}: {text}")

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

    async def _present(self) -> Present | None:
        """What the owner says that the run is doing; None if no process executes it, or no one knows."""
        if not await self._is_live():
            return None
        try:
            return await present_of_run(self._store, self._run_id)
        except StoreError:  # the row is damaged: what is asked is for the owner, and not for it
            return None

    async def _is_live(self) -> bool:
        return bool(await self._store.is_executed(self._run_id))

    async def _asked(
        self, verb: Verb, arguments: Mapping[str, Any], reason: str, author: str | None, effect: str
    ) -> ControlResult:
        """Leave a request, and wait for the answer if a process executes the run."""
        request = await self._left(verb, arguments, reason, author)
        if await self._is_live():
            request = await self._store.wait_for_control(request, self._patience)
        return await self._result(request, effect)

    async def _left(self, verb: Verb, arguments: Mapping[str, Any], reason: str, author: str | None) -> ControlRequest:
        """Leave a request: what people read of it has no secrets, and what names calls is spelt as their names are."""
        info = await self._info()
        if verb is not Verb.REQUEUE:
            arguments = {**arguments, "epoch": info.epoch}  # it is for the run until its end, and not from then on
        who = {"author": None if author is None else redact(author), "reason": redact(reason)}
        request: ControlRequest = await self._store.request_control(self._run_id, verb, arguments, **who)
        return request

    async def _failed(self, items: Sequence[str], failed: bool) -> _Wanted:
        """The calls whose newest outcome is a failure, and what it costs to make them."""
        if not items and not failed:
            raise ControlRefused("name calls to be made again, or all that failed: requeue --failed")
        meant = await outcomes_meant(self._store, self._run_id, items, unsuccessful=failed)
        bad = [outcome for outcome in meant if not outcome.header.ok]
        named = [each.header for each in bad if any(is_meant(item, each.header) for item in items)]
        failures = [each.header for each in bad if await _has_failed(each)] if failed else []
        found = {header.key: header for header in (*named, *failures)}
        for item in items:
            if not any(is_meant(item, header) for header in named):
                raise ControlRefused(redact(await self._no_failure(item, meant)))
        if not found:
            raise ControlRefused(f"no call of run {self._run_id!r} has failed")
        costs = await costs_of_calls(self._store, self._run_id)
        alike = [header.group_id or header.name for header in found.values()]
        known = [costs[kind] for kind in alike if kind in costs]
        price = sum(known) if len(known) == len(found) else None
        withdrawn = sum(each.header.made_in == WITHDRAWN for each in bad)
        return _Wanted(list(found.values()), price, len(bad) - withdrawn - len(failures) if failed else 0)

    async def _no_failure(self, item: str, meant: Sequence[UnreadOutcome]) -> str:
        if any(is_meant(item, each.header) for each in meant):
            return f"{item!r} has succeeded; `rh-agents resume {self._run_id} --from` makes it again all the same"
        return f"no call {item!r} of run {self._run_id!r} has an outcome{await self._near(item)}"

    async def _near(self, item: str, more: Iterable[str] = ()) -> str:
        """The name of a call that is nearly that; "" if there is none."""
        headers = [outcome.header for outcome in await newest_outcomes(self._store, self._run_id)]
        names = [*(name for each in headers for name in (each.name, each.address)), *more]
        near = difflib.get_close_matches(item, names, 1)
        return f"; did you mean {near[0]!r}?" if near else ""

    async def _expect_unfinished(self, items: Sequence[str]) -> None:
        meant = await outcomes_meant(self._store, self._run_id, items) if items else []
        asked = [each.arguments for each in await self.requests() if each.verb is Verb.REQUEUE] if meant else []
        again = {key for arguments in asked for key in arguments.get("keys", ())}
        headers = [outcome.header for outcome in meant]
        known = [header for header in headers if header.key.hex() not in again]  # the others are made once more
        ended = [item for item in items if any(is_meant(item, header) for header in known)]
        if items and len(ended) == len(items):
            names = redact(", ".join(map(repr, ended[:5])))
            raise ControlRefused(f"{names}: nothing is left to be cancelled, it has ended")

    async def _items_to_come(self, items: Sequence[str]) -> list[str]:
        """The items that name nothing that has begun, as far as the owner of the run names all that is under way; of a
        run that no process executes, nothing that has an outcome.

        Raises:
            ControlRefused: one is nearly the name of another member, and no member of an open group is to come.
        """
        present = await self._present() if items else None
        is_unexecuted = bool(items) and present is None and not await self._is_live()
        if not is_unexecuted and (present is None or not present.names_all):
            return []
        meant = [outcome.header for outcome in await outcomes_meant(self._store, self._run_id, items)]
        known = [(header.name, header.address, header.key) for header in meant]
        known += [(address.rpartition("::")[2], address, key) for address, key in _under_way(present)]
        to_come = [item for item in items if not any(is_named(item, *each) for each in known)]
        groups = () if present is None else present.groups
        is_complete = bool(groups) and all(each.total is not None and each.begun >= each.total for each in groups)
        for item in to_come if is_complete else ():
            near = await self._near(item, [name for each in known for name in each[:2]])
            if near:
                text = f"{item!r} names no call of run {self._run_id!r}, and all members of its groups have begun"
                raise ControlRefused(redact(f"{text}{near}"))
        return to_come

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
        return ControlRefused(has_ended_text(self._run_id, info.status))


class _Wanted(NamedTuple):
    """Calls to be made again.

    Attributes:
        calls: their newest outcomes.
        price: what making them costs; None if that is not known.
        dismissed: how many there are beside them that a failure kept from being made.
    """

    calls: list[OutcomeHeader]
    price: float | None
    dismissed: int


async def _has_failed(outcome: UnreadOutcome) -> bool:
    """Whether a call that did not succeed has failed: it was not cancelled by name, nor because its group had ended."""
    if outcome.header.made_in == WITHDRAWN:
        return False
    return not isinstance((await read_beside(outcome, unknown_ok=True)).error, CallCancelled)


def _made_anyway(count: int) -> str:
    """What there is to say of members that a failure kept from being made."""
    if not count:
        return ""
    calls, are = ("call", "is") if count == 1 else ("calls", "are")
    return f"; {count} {calls} that a failure kept from being made {are} made then anyway"


def has_ended_text(run_id: str, status: ExecutionStatus) -> str:
    """Why a run that has ended cannot be steered."""
    return f"run {run_id!r} has ended: it is {status.value}; start it again to make what failed again"


def _to_come_text(items: Sequence[str], is_live: bool) -> str:
    """What there is to say of items that name nothing so far: it may be a slip."""
    if not items:
        return ""
    named, nothing = redact(", ".join(map(repr, items[:5]))), "nothing" if is_live else "nothing with an outcome"
    return f"; {nothing} is called {named} so far: what begins under such a name is cancelled then"


def _under_way(present: Present | None) -> Iterable[tuple[str, bytes]]:
    """Addresses and keys of calls under way, and the addresses of those that wait for them."""
    calls: list[RunningCall | WaitingCall | Retrying] = []
    if present is not None:
        calls = [*present.running, *present.held, *present.retrying]
    for call in calls:
        yield call.address, b"" if call.key is None else bytes.fromhex(call.key)
        yield from ((around, b"") for around in addresses_around(call.address))
