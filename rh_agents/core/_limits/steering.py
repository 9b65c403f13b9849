"""The owner's side of steering a run: it applies what was asked of it, once, and says so in the journal.

*Once.* The event in the journal is what applies a request (`rh_agents.core._replay.steered`). It is noted and the
change made without an await in between, so that everything which the change brings about stands behind it. Only when
the event is on disk is the request answered, in the store. If the process dies between the two, the next owner finds
the request open and its id in the journal, and answers it again with what is recorded.

*When.* A journal says that there may be requests; one task reads and applies them, in the order in which they were
made. At the start that is done before anything of the program begins.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rh_agents.core._limits.interruption import Interruption
from rh_agents.core._limits.settings import Settings
from rh_agents.core._loops.homes import Home
from rh_agents.core._replay.keys import again_key
from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.errors import ControlRefused, StoreError
from rh_agents.core.events import Fact
from rh_agents.core.ports import Clock, Journal, Store
from rh_agents.core.ports.control import ControlRequest, SteeredJournal, Verb, control_fact, read_settings
from rh_agents.core.redaction import logger
from rh_agents.core.results import OutcomeHeader

__all__ = ["SteeredRun", "Steering"]

_Around = tuple[list[bytes], list[str]]
_Meaning = tuple[str, Callable[[], None], dict[str, Any]]
_GRACE = 30.0
"""Seconds that calls in flight have when a run is cancelled."""
_LOOK_AGAIN = (1.0, 60.0)
"""Seconds until requests that could not be read are looked for again; each time twice as long, at most so long."""
_log = logger("rh_agents.control")


class SteeredRecording(Protocol):
    """What is recorded of a run that is steered."""

    epoch: int
    recorded: RecordedCalls

    @property
    def journal(self) -> Journal | None:
        """Its journal, while it is open."""
        ...


class SteeredRun(Protocol):
    """The run that is steered."""

    run_id: str
    now: Clock
    interruption: Interruption
    home: Home | None
    settings: Settings
    paused_at: float | None
    open_groups: dict[str, Any]
    store: Store | None

    @property
    def recording(self) -> SteeredRecording:
        """What is recorded of it."""
        ...

    def note(self, fact: Fact) -> None:
        """Record a fact without waiting for it."""
        ...

    async def publish(self, fact: Fact) -> None:
        """Let the subscribers have it."""
        ...


class Steering:
    """Applies the requests for one run.

    Args:
        run: the run.
    """

    def __init__(self, run: SteeredRun) -> None:
        self._run = run
        self._journal: SteeredJournal | None = None
        self._task: asyncio.Task[None] | None = None
        self._has_heard = False
        self._is_at_start = False
        self._failed = 0
        """How often in a row requests could not be applied."""

    # -- its life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """The run is ours: begin with what holds of it, and apply what was asked while nobody executed it.

        Raises:
            StoreError: the requests cannot be read.
        """
        journal = _steered(self._run.recording.journal)
        if journal is None:
            return
        self._journal = journal
        run, steered = self._run, self._run.recording.recorded.steered
        run.settings.change(steered.settings_of(run.run_id, run.recording.epoch))
        if steered.pause_of(run.run_id, run.recording.epoch) is not None:
            self._hold()
        if (why := steered.why_stopped(run.run_id, run.recording.epoch)) is not None:
            self._stop(why)
        self._is_at_start = True
        for request_id, keys in list(steered.later.items()):
            await self._serve(request_id, keys)
        await self._apply_all(journal)
        self._is_at_start = False
        if run.interruption.hold.is_held:
            self._say_paused()
        hear = weakref.WeakMethod(self.hear)  # a run that nobody holds any more is not kept by its journal
        journal.when_asked(functools.partial(_call, hear))

    def _say_paused(self) -> None:
        pause = self._run.recording.recorded.steered.paused or {}
        by = f" by {pause['author']}" if pause.get("author") else ""
        _log.warning(
            "run %r begins paused: it was paused%s, and nothing new begins until `rh-agents unpause %s`",
            self._run.run_id,
            by,
            self._run.run_id,
        )

    def hear(self) -> None:
        """There may be requests."""
        home = self._run.home
        if home is not None:
            home.call(self._look)

    def _look(self) -> None:
        self._has_heard = True
        if self._task is None and self._journal is not None:
            self._task = asyncio.get_running_loop().create_task(
                self._apply_heard(self._journal), name="rh_agents: requests"
            )
            self._task.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled() or (error := task.exception()) is None:
            self._failed = 0
        else:
            self._look_again(error)
        if self._has_heard and self._journal is not None:
            self._look()

    def _look_again(self, error: BaseException) -> None:
        """Requests could not be read or answered. The store says that there are some only once."""
        _log.warning("run %r: a request could not be applied: %s", self._run.run_id, error)
        least, most = _LOOK_AGAIN
        asyncio.get_running_loop().call_later(min(most, least * 2**self._failed), _call, weakref.WeakMethod(self.hear))
        self._failed += 1

    async def close(self) -> None:
        """The run ends: what is being applied is, and nothing after that."""
        self._journal = None
        task = self._task
        if task is not None:
            await asyncio.wait([task])
        self._run.settings.restore()

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _apply_heard(self, journal: SteeredJournal) -> None:
        self._has_heard = False
        await self._apply_all(journal)

    async def _apply_all(self, journal: SteeredJournal) -> None:
        for request in await journal.requests():
            await self._apply(journal, request)

    async def _apply(self, journal: SteeredJournal, request: ControlRequest) -> None:
        """Apply a request, unless it was applied by an owner who died before he could say so."""
        run = self._run
        answer = run.recording.recorded.steered.answers.get(request.id)
        if answer is None:
            effect, more = _nothing, dict[str, Any]()
            try:
                around = await self._around(_keys_of(request)) if self._is_at_start else ([], [])
                text, effect, more = self._meaning(request, around)
                answer = {"text": text}
            except ControlRefused as refused:
                answer = {"refused": str(refused)}
            except (LookupError, TypeError, ValueError):  # it would keep all later ones from being applied
                answer = {"refused": "this version of rh_agents does not understand that request"}
            control = {**self._control(request, answer), **more}
            fact = control_fact(control, request.reason, run.run_id, run.now())
            run.note(fact)
            effect()
            opened = run.recording.journal
            if opened is None:
                raise StoreError(f"run {run.run_id!r} is closed: a request for it stays open")
            await opened.flush()
            await run.publish(fact)
        await journal.answer_request(request.id, answer)

    def _control(self, request: ControlRequest, answer: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": request.id,
            "verb": request.verb.value,
            "author": request.author,
            "asked_at": request.asked_at,
            "arguments": dict(request.arguments),
            "run": self._run.run_id,
            "epoch": self._run.recording.epoch,
            "answer": dict(answer),
        }

    def _meaning(self, request: ControlRequest, around: _Around) -> _Meaning:
        """What a request comes to: a sentence about it, what it does, and what else its event has to say.

        Args:
            request: the request.
            around: at the start, the outcomes that do not count any more if its calls are made again, and their groups.

        Raises:
            ControlRefused: it cannot be done.
        """
        if request.arguments.get("epoch", self._run.recording.epoch) != self._run.recording.epoch:
            raise ControlRefused(f"run {self._run.run_id!r} had ended before that was applied")
        if request.verb is Verb.PAUSE:
            return (*self._pause(), {})
        if request.verb is Verb.UNPAUSE:
            return (*self._unpause(), {})
        if request.verb is Verb.CANCEL:
            return (*self._cancel(request), {})
        if request.verb is Verb.REQUEUE:
            return self._requeue(request, around)
        settings, wanted = self._run.settings, read_settings(request.arguments["settings"])
        text = settings.expect_possible(wanted, is_at_start=self._is_at_start)
        return text, functools.partial(settings.change, wanted), {}

    # -- cancelling ---------------------------------------------------------------------------------------------------

    def _cancel(self, request: ControlRequest) -> tuple[str, Callable[[], None]]:
        items, why = request.arguments["items"], request.arguments["why"]
        if not items:
            text = f"{self._run.run_id} is being stopped for good: what is in flight has {_GRACE:g} s"
            return text, functools.partial(self._stop, why)
        groups = list(self._run.open_groups.values())
        running = sum(group.count_named(items) for group in groups)

        def cancel() -> None:
            for group in groups:
                group.cancel_members(items, why)

        if not running:
            return "none of these names runs now; what begins under one of them is cancelled", cancel
        rest = "the others when their turn comes" if running < len(items) else "no later start makes them again"
        return f"{running} cancelled now, {rest}", cancel

    def _stop(self, why: str) -> None:
        self._run.interruption.request(why, _GRACE, is_final=True)

    # -- making calls again -------------------------------------------------------------------------------------------

    def _requeue(self, request: ControlRequest, around: _Around) -> _Meaning:
        """Failures that the program does not know of are replaced; the others are for the next start."""
        wanted = [key for key in _keys_of(request) if self._counts(key)]
        if not wanted:
            raise ControlRefused("nothing is left to be made again: what was named is asked for, or made, already")
        if self._is_at_start:
            outcomes, groups = around
            more = {"now": [key.hex() for key in outcomes], "later": [], "groups": groups}
            return f"{len(wanted)} now, 0 at the next start", _nothing, more
        found = [(group, member) for group in self._run.open_groups.values() for member in group.replaceable(wanted)]
        now = {member.key for _, member in found}
        later = [key.hex() for key in wanted if key not in now]

        def make_again() -> None:
            for group, member in found:
                group.make_again(member)

        text = f"{len(now)} now, {len(later)} at the next start"
        return text, make_again, {"now": [key.hex() for key in now], "later": later, "groups": []}

    def _counts(self, key: bytes) -> bool:
        """Whether it is the newest outcome of its call, and nobody has asked yet for the call to be made again."""
        recorded = self._run.recording.recorded
        is_newest = key in recorded.failed and again_key(key) not in recorded.finished
        asked = any(key in keys for keys in recorded.steered.later.values())
        return is_newest and key not in recorded.superseded and not asked

    async def _around(self, keys: Sequence[bytes]) -> _Around:
        """These outcomes, and those of the calls around them, which would hide them; and the groups of all of them."""
        store, run_id = self._run.store, self._run.run_id
        if not keys or store is None:
            return [], []
        by_key, newest = dict[bytes, OutcomeHeader](), dict[bytes, OutcomeHeader]()
        async for outcome in store.unread_outcomes(run_id):
            header = outcome.header
            by_key[header.key] = newest[header.base] = header
        found = dict[bytes, OutcomeHeader]()
        for header in filter(None, map(by_key.get, keys)):
            found[header.key] = header
            parent = header.parent
            while (caller := newest.get(parent)) is not None:
                found[caller.key] = caller
                parent = caller.parent
        return list(found), list(dict.fromkeys(each.group_id for each in found.values() if each.group_id is not None))

    async def _serve(self, request_id: str, keys: Sequence[bytes]) -> None:
        """What was asked for the next start, which is this one."""
        run, steered = self._run, self._run.recording.recorded.steered
        finished = run.recording.recorded.finished
        outcomes, groups = await self._around([key for key in keys if again_key(key) not in finished])
        control: dict[str, Any] = {
            "id": request_id, "verb": Verb.REQUEUE.value, "author": None, "asked_at": run.now(),
            "arguments": {"items": [], "keys": []}, "run": run.run_id, "epoch": run.recording.epoch,
            "answer": dict(steered.answers[request_id]), "now": [key.hex() for key in outcomes], "later": [],
            "groups": groups,
        }  # fmt: skip
        run.note(control_fact(control, "asked for before this start", run.run_id, run.now()))

    def _pause(self) -> tuple[str, Callable[[], None]]:
        hold, run_id = self._run.interruption.hold, self._run.run_id
        if hold.is_held:
            raise ControlRefused(f"run {run_id!r} is paused already; rh-agents unpause {run_id} lets it go on")
        return f"{run_id} is paused: nothing new begins, and attempts in flight come to their end", self._hold

    def _unpause(self) -> tuple[str, Callable[[], None]]:
        hold, run_id = self._run.interruption.hold, self._run.run_id
        if not hold.is_held:
            raise ControlRefused(f"run {run_id!r} is not paused")
        return f"{run_id} goes on", self._release

    def _hold(self) -> None:
        self._run.paused_at = self._run.now()
        self._run.interruption.hold.hold()

    def _release(self) -> None:
        self._run.paused_at = None
        self._run.interruption.hold.release()


def _keys_of(request: ControlRequest) -> list[bytes]:
    return list(map(bytes.fromhex, request.arguments.get("keys", ())))


def _nothing() -> None:
    """What a request does that was refused."""


def _steered(journal: object) -> SteeredJournal | None:
    """The journal, if its run can be steered."""
    return journal if isinstance(journal, SteeredJournal) else None


def _call(reference: weakref.WeakMethod[Callable[[], None]]) -> None:
    hear = reference()
    if hear is not None:
        hear()
