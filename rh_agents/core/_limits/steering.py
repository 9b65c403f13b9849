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
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from rh_agents.core._limits.holding import wake
from rh_agents.core._limits.interruption import Interruption
from rh_agents.core._limits.settings import Settings
from rh_agents.core._loops.homes import Home
from rh_agents.core._replay.identity import again_key
from rh_agents.core._replay.meant import outcomes_around
from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import ControlRefused, StoreError
from rh_agents.core.events import Fact
from rh_agents.core.policies.numbers import read_settings
from rh_agents.core.ports import Clock, Journal, Store
from rh_agents.core.ports.control import (
    ControlRequest,
    SteeredJournal,
    Verb,
    has_ended_text,
)
from rh_agents.core.redaction import logger, redact
from rh_agents.core.types import EventType, ExecutionStatus

__all__ = ["SteeredRun", "Steering", "applied_control", "control_fact"]

_Around = tuple[list[bytes], list[str]]
_Meaning = tuple[dict[str, Any], Callable[[], None], dict[str, Any]]
_ENDED = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
_GRACE = 30.0
"""Seconds that calls in flight have when a run is cancelled."""
_LOOK_AGAIN = (1.0, 60.0)
"""Seconds until requests that could not be read are looked for again; each time twice as long, at most so long."""
_log = logger("rh_agents.control")
_paused_log = logger("rh_agents.control.paused")
"""Who says the same to people in another way can do without it."""


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
        self._listeners: list[asyncio.Future[None]] = []
        self._ended_as: ExecutionStatus | None = None
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
        _paused_log.warning(
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

    async def look(self) -> None:
        """Apply what has been asked by now. What cannot be read now is looked for again later."""
        if self._journal is None:
            return
        self._look()
        while (task := self._task) is not None:
            await asyncio.wait([task])

    def next_request(self) -> asyncio.Future[None]:
        """Is done when there may be another request."""
        woken = asyncio.get_running_loop().create_future()
        self._listeners.append(woken)
        return woken

    def _look(self) -> None:
        self._has_heard = True
        listeners, self._listeners = self._listeners, []
        for woken in listeners:
            wake(woken)
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

    async def close(self, status: ExecutionStatus) -> None:
        """This execution ends: what is being applied is, and nothing after that.

        What was asked too late of a run that has ended is refused, and its journal says so. What comes even later
        finds it ended. What was asked of one that goes on is for its next start.
        """
        journal, self._journal = self._journal, None
        task = self._task
        if task is not None:
            await asyncio.wait([task])
        self._run.settings.restore()
        if journal is not None and status in _ENDED:
            self._ended_as = status
            try:
                await self._apply_all(journal)
            except StoreError as error:
                _log.warning("run %r: what was asked of it last was not answered: %s", self._run.run_id, error)

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _apply_heard(self, journal: SteeredJournal) -> None:
        self._has_heard = False
        await self._apply_all(journal)

    async def _apply_all(self, journal: SteeredJournal) -> None:
        for request in await journal.requests():
            if request.verb is not Verb.SIGNAL:  # which is open until the program waits for it
                await self._apply(journal, request)

    async def _apply(self, journal: SteeredJournal, request: ControlRequest) -> None:
        """Apply a request, unless it was applied by an owner who died before he could say so."""
        run = self._run
        answer = run.recording.recorded.steered.answers.get(request.id)
        if answer is None:
            effect, more = _nothing, dict[str, Any]()
            try:
                around = await self._around(_keys_of(request)) if self._is_at_start else ([], [])
                answer, effect, more = self._meaning(request, around)
                answer = {**answer, "text": redact(answer["text"])}
            except ControlRefused as refused:
                answer = {"refused": redact(str(refused))}
            except (LookupError, TypeError, ValueError):  # it would keep all later ones from being applied
                answer = {"refused": "this version of rh_agents does not understand that request"}
            control = {**applied_control(request, answer, run.recording.epoch), **more}
            fact = self.fact(control, request.reason)
            run.note(fact)
            effect()
            opened = run.recording.journal
            if opened is None:
                raise StoreError(f"run {run.run_id!r} is closed: a request for it stays open")
            await opened.flush()
            await run.publish(fact)
        await journal.answer_request(request.id, answer)

    def _meaning(self, request: ControlRequest, around: _Around) -> _Meaning:
        """What a request comes to: its answer, with a sentence; what it does; and what else its event has to say.

        Args:
            request: the request.
            around: at the start, the outcomes that do not count any more if its calls are made again, and their groups.

        Raises:
            ControlRefused: it cannot be done.
        """
        if request.arguments.get("epoch", self._run.recording.epoch) != self._run.recording.epoch:
            raise ControlRefused(f"run {self._run.run_id!r} had ended before that was applied")
        if self._ended_as is not None and request.verb is not Verb.REQUEUE:
            raise ControlRefused(has_ended_text(self._run.run_id, self._ended_as))
        if request.verb is Verb.REQUEUE:
            return self._requeue(request, around)
        if request.verb is Verb.PAUSE:
            text, effect = self._pause()
        elif request.verb is Verb.UNPAUSE:
            text, effect = self._unpause()
        elif request.verb is Verb.CANCEL:
            text, effect = self._cancel(request)
        else:
            settings, wanted = self._run.settings, read_settings(request.arguments["settings"])
            text = settings.expect_possible(wanted, is_at_start=self._is_at_start)
            effect = functools.partial(settings.change, wanted)
        return {"text": text}, effect, {}

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
        """Failures that the program does not know of are replaced; where a group can give a further result, one follows
        those that it knows of; the others are for the next start.
        """
        wanted = [key for key in _keys_of(request) if self._counts(key)]
        if not wanted:
            raise ControlRefused("nothing is left to be made again: what was named is asked for, or made, already")
        if self._is_at_start:
            outcomes, groups = around
            return _numbers(len(wanted), 0), _nothing, _keys_in_event(now=outcomes, groups=groups)
        open_groups, keys = list(self._run.open_groups.values()), dict.fromkeys(wanted)
        replaced = [(group, member) for group in open_groups for member in group.replaceable(keys)]
        now = dict.fromkeys(member.key for _, member in replaced)
        followed = [(group, key) for group in open_groups for key in group.followable(keys) if key not in now]
        live = dict.fromkeys(key for _, key in followed)
        later = [key for key in keys if key not in now and key not in live]

        def make_again() -> None:
            for group, member in replaced:
                group.make_again(member)
            for group, key in followed:
                group.make_further(key)

        return _numbers(len(now) + len(live), len(later)), make_again, _keys_in_event(now=now, live=live, later=later)

    def _counts(self, key: bytes) -> bool:
        """Whether it is the newest outcome of its call, and nobody has asked yet for the call to be made again."""
        recorded = self._run.recording.recorded
        is_newest = key in recorded.failed and again_key(key) not in recorded.finished
        asked = recorded.is_followed(key) or any(key in keys for keys in recorded.steered.later.values())
        return is_newest and key not in recorded.superseded and not asked

    async def _around(self, keys: Sequence[bytes]) -> _Around:
        """These outcomes, and those of the calls around them, which would hide them; and the groups of all of them."""
        if self._run.store is None:
            return [], []
        found = await outcomes_around(self._run.store, self._run.run_id, keys)
        headers = [each.header for each in found]
        groups = dict.fromkeys(each.group_id for each in headers if each.group_id is not None)
        return [each.key for each in headers], list(groups)

    async def _serve(self, request_id: str, keys: Sequence[bytes]) -> None:
        """What was asked for the next start, which is this one."""
        run, steered = self._run, self._run.recording.recorded.steered
        finished = run.recording.recorded.finished
        outcomes, groups = await self._around([key for key in keys if again_key(key) not in finished])
        control: dict[str, Any] = {
            "id": request_id, "verb": Verb.REQUEUE.value, "author": None, "asked_at": run.now(),
            "arguments": {"items": [], "keys": []}, "run": run.run_id, "epoch": run.recording.epoch,
            "answer": dict(steered.answers[request_id]), **_keys_in_event(now=outcomes, groups=groups),
        }  # fmt: skip
        run.note(self.fact(control, "asked for before this start"))

    def fact(self, control: Mapping[str, Any], reason: str = "") -> Fact:
        """What there is to record of something that was asked of this run, now."""
        return control_fact(control, reason, self._run.run_id, self._run.now())

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


def _numbers(now: int, later: int) -> dict[str, Any]:
    """The answer to who asked for calls to be made again."""
    return {"text": f"{now} now, {later} at the next start", "now": now, "later": later}


def _keys_in_event(
    *, now: Iterable[bytes], live: Collection[bytes] = (), later: Iterable[bytes] = (), groups: Sequence[str] = ()
) -> dict[str, Any]:
    """What an event says of calls that are made again; `live` only where there are some, as it was before."""
    found: dict[str, Any] = {"now": [key.hex() for key in now], "later": [key.hex() for key in later]}
    if live:
        found["live"] = [key.hex() for key in live]
    return {**found, "groups": list(groups)}


def _nothing() -> None:
    """What a request does that was refused."""


def _steered(journal: object) -> SteeredJournal | None:
    """The journal, if its run can be steered."""
    return journal if isinstance(journal, SteeredJournal) else None


def _call(reference: weakref.WeakMethod[Callable[[], None]]) -> None:
    hear = reference()
    if hear is not None:
        hear()


# -- what a journal says of a request ----------------------------------------------------------------------------------

_CONTROL: BaseActor = BaseActor.model_construct(
    name="control", event_type=EventType.CONTROL, handler=lambda: None, description="Stands for who steers the run."
)


def applied_control(request: ControlRequest, answer: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """What the event says that applies a request in an epoch of its run."""
    return {
        "id": request.id,
        "verb": request.verb.value,
        "author": request.author,
        "asked_at": request.asked_at,
        "arguments": dict(request.arguments),
        "run": request.run_id,
        "epoch": epoch,
        "answer": dict(answer),
    }


def control_fact(control: Mapping[str, Any], reason: str, run_id: str, timestamp: float) -> Fact:
    """What there is to record when a request has been applied, or refused."""
    is_refused = "refused" in control["answer"]
    status = ExecutionStatus.FAILED if is_refused else ExecutionStatus.COMPLETED
    kind, name = EventType.CONTROL, str(control["verb"])
    return Fact(run_id, timestamp, status, kind, _CONTROL, name, "", message=reason or None, more={"control": control})
