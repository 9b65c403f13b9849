"""What a program waits for that may take days: the answer of a person, a time, an event from outside.

Each is a call with a key, an outcome, and a way to leave the process meanwhile: the run is suspended (AWAITING) and
goes on behind it when it is started again, by a worker or by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from rh_agents.core._limits.steering import control_fact
from rh_agents.core._run.frame import Frame, current_frame
from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import BaseActor
from rh_agents.core.calls import Call
from rh_agents.core.errors import CallTimeout, DefinitionError, InputError, StopRun, UsageError
from rh_agents.core.events import Fact
from rh_agents.core.ports import Question
from rh_agents.core.ports.control import ControlRequest, SteeredJournal, Verb
from rh_agents.core.redaction import redact
from rh_agents.core.types import Effect, EventType, ExecutionStatus, OnUnknown
from rh_agents.core.values import learn
from rh_agents.core.values.answers import given_answer
from rh_agents.core.values.inputs import CanonicalInput

__all__ = ["Answerer", "Asking", "EventCall", "QuestionCall", "SleepCall", "Wait", "Waiting"]

Answerer = Callable[[Question], Awaitable[object]]
"""Someone who is there: is awaited with a question and gives the answer, or None to leave it open."""

QUESTION_ACTOR: BaseActor = BaseActor.model_construct(
    name="ask",
    event_type=EventType.QUESTION,
    handler=lambda: None,
    effect=Effect.EXTERNAL,  # nobody is asked twice
    on_unknown=OnUnknown.RETRY,
    description="Stands for the person who answers.",
)
_ID_LENGTH = 12


class Asking:
    """The questions of one execution of a run.

    Args:
        run: the run.
        on_unknown: what to do with calls that may have been done, for actors that do not say.
    """

    def __init__(self, run: RunParts, on_unknown: OnUnknown) -> None:
        self._run = run
        self._on_unknown = on_unknown
        self._open: dict[str, Question] = {}
        self.answerer: Answerer | None = None

    @property
    def open(self) -> list[Question]:
        """Those that have no answer."""
        return list(self._open.values())

    def forget(self) -> None:
        """No one waits for an answer any more."""
        self._open.clear()

    async def answer(self, text: str, adapter: TypeAdapter[Any] | None) -> Any:
        """The answer to the question that the current call stands for.

        Raises:
            StopRun: there is none, and no one is there to give one.
            UsageError: there can be none.
        """
        frame = current_frame.get()
        assert frame is not None
        question = await self._ask(frame, text, adapter)
        problem = question.problem
        if question.answer is not None:
            try:
                return await self._accept(question, frame, given_answer(question.answer), adapter)
            except InputError as error:
                problem = str(error)
                await self._reject(question, problem)
        while self.answerer is not None:
            try:
                with frame.all_standing_still():
                    given = await self.answerer(_with_problem(question, problem))
                if given is None:
                    break
                return await self._accept(question, frame, _as_json(given), adapter)
            except InputError as error:
                problem = str(error)
            await self._run.interruption.sleep(0)  # it may be always wrong, and others want the event loop as well
        if not self._run.records:
            raise UsageError(
                f"there is no one to answer {redact(text)!r}, and a run without a store cannot wait: give it a store, "
                "or state.set_answerer(...)"
            )
        self._open[question.id] = question
        raise StopRun(f"waiting for an answer: {redact(text)}", [question.id])

    async def _ask(self, frame: Frame, text: str, adapter: TypeAdapter[Any] | None) -> Question:
        run = self._run
        schema = None if adapter is None else to_json(adapter.json_schema()).decode()
        again = f"-{frame.tries + 1}" if frame.tries else ""  # somebody wants it to be asked again
        question_id = frame.base.hex()[:_ID_LENGTH] + again
        question = Question(run.run_id, question_id, frame.address, redact(text), schema, run.now())
        journal = run.recording.journal
        if journal is not None:
            question = await journal.ask(question)
        if question.answer is None:
            await self._tell(frame, ExecutionStatus.AWAITING, text)
        return question

    async def _accept(self, question: Question, frame: Frame, answer: bytes, adapter: TypeAdapter[Any] | None) -> Any:
        value = _read(answer, adapter)
        self._open.pop(question.id, None)
        await self._tell(frame, ExecutionStatus.HUMAN_INTERVENTION, question.answered_by)
        return value

    async def _reject(self, question: Question, problem: str) -> None:
        journal = self._run.recording.journal
        if journal is not None:
            await journal.reject_answer(question.id, problem)

    async def _tell(self, frame: Frame, status: ExecutionStatus, message: str | None) -> None:
        run = self._run
        fact = Fact(
            run.run_id,
            run.now(),
            status,
            QUESTION_ACTOR.event_type,
            QUESTION_ACTOR,
            QUESTION_ACTOR.name,
            frame.address,
            frame.base if run.records else None,
            message=None if message is None else redact(message),
        )
        await run.record(fact, is_urgent=True)
        await run.publish(fact)

    async def decide_unknown(self, actor: BaseActor, address: str, since: int) -> OnUnknown:
        """What to do about a call that may have been done: RETRY or FAIL.

        Agents that do not say are entered again: it is what is below them that counts.
        """
        is_agent = actor.event_type is EventType.AGENT_CALL
        decision = actor.on_unknown or (OnUnknown.RETRY if is_agent else self._on_unknown)
        if decision is not OnUnknown.ASK:
            return decision
        if not self._run.records and self.answerer is None:
            return OnUnknown.FAIL  # nobody is there, and without a store nobody can be waited for
        return await self._ask_about_unknown(actor, address, since)

    async def _ask_about_unknown(self, actor: BaseActor, address: str, occasion: int) -> OnUnknown:
        """Ask a person, at every occasion anew."""
        text = (
            f"{address or actor.name} was in flight when its process or its call was stopped; its outcome is unknown. "
            "Call it again (retry), or let it fail (fail)?"
        )
        decision: OnUnknown = await QuestionCall(text, OnUnknown, self._run, self, f"{address}@{occasion}")
        return OnUnknown.FAIL if decision is OnUnknown.ASK else decision


SLEEP_ACTOR: BaseActor = BaseActor.model_construct(
    name="sleep",
    event_type=EventType.WAIT,
    handler=lambda: None,
    effect=Effect.EXTERNAL,  # a validation does not wait
    on_unknown=OnUnknown.RETRY,
    description="Stands for a time that passes.",
)
EVENT_ACTOR: BaseActor = BaseActor.model_construct(
    name="wait_for_event",
    event_type=EventType.WAIT,
    handler=lambda: None,
    effect=Effect.EXTERNAL,
    on_unknown=OnUnknown.RETRY,
    description="Stands for an event from outside.",
)
_BRIEF = 1.0
"""Seconds that are waited for in the process: to suspend a run and to start it again takes longer."""
_NOTHING: Any = object()
"""Stands for: there is no signal yet."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """What a run waits for that is no question.

    Attributes:
        id: what stands for it in the run: of its place in the program, never of the time.
        text: for people.
        due_at: when it is over, in seconds since 1970; None if no time ends it.
        event: the event that ends it; None if only time does.
    """

    id: str
    text: str
    due_at: float | None = None
    event: str | None = None


class Waiting:
    """The waits of one execution of a run.

    What they have to remember is in the journal, in CONTROL entries (see `rh_agents.core._replay.steered`): when a wait
    is over, which is decided when it is first come to, and which signal it was given.

    Args:
        run: the run.
        stays: wait in the process for however long, instead of leaving it.
    """

    def __init__(self, run: RunParts, *, stays: bool) -> None:
        self._run = run
        self._stays = stays
        self._open: dict[str, Wait] = {}
        self._taken: set[str] = set()

    @property
    def open(self) -> list[Wait]:
        """Those that are not over."""
        return list(self._open.values())

    def forget(self) -> None:
        """Nothing is waited for any more."""
        self._open.clear()

    async def sleep(self, due_at: Callable[[float], float], name: str) -> None:
        """Wait until a time, which `due_at` makes of the present when the current call first comes here.

        Raises:
            StopRun: it is not over yet, and the process need not wait for it.
        """
        frame = _frame()
        due = await self._due(frame, due_at(self._run.now()), name)
        wait = Wait(_id_of(frame), f"{name} until {_shown_time(due)}", due)
        while (left := due - self._run.now()) > 0:
            self._leave_unless_brief(wait, left)
            await self._run.interruption.sleep(left)

    async def event(self, name: str, adapter: TypeAdapter[Any] | None, timeout: float | None) -> Any:
        """The value of a signal, as soon as there is one that fits.

        Raises:
            StopRun: there is none yet, and the process need not wait for it.
            CallTimeout: there was none in time.
            UsageError: the run has no store whose runs take signals.
        """
        frame = _frame()
        due = None if timeout is None else await self._due(frame, self._run.now() + timeout, name)
        wait = Wait(_id_of(frame), f"waiting for event {name!r}", due, name)
        while True:
            heard = self._run.steering.next_request()
            found = await self._delivered(frame, name, adapter)
            if found is not _NOTHING:
                return found
            left = None if due is None else due - self._run.now()
            if left is not None and left <= 0:
                raise CallTimeout(f"there was no event {name!r} within {timeout:g} s")
            self._leave_unless_brief(wait, left)
            await self._run.interruption.sleep_until(heard, left)

    def _leave_unless_brief(self, wait: Wait, left: float | None) -> None:
        if self._stays or not self._run.records or (left is not None and left <= _BRIEF):
            return
        self._open[wait.id] = wait
        raise StopRun(wait.text, [wait.id])

    async def _due(self, frame: Frame, wanted: float, name: str) -> float:
        """When a wait is over: what was said when it was first come to."""
        wait = _id_of(frame)
        known = self._run.recording.recorded.steered.due.get(wait)
        if known is None:
            about = {"wait": wait, "due_at": wanted, "name": name, "address": frame.address}
            await self._record(f"wait {wait}", "wait", about, {"text": f"{name} until {_shown_time(wanted)}"})
        return wanted if known is None else known

    async def _delivered(self, frame: Frame, name: str, adapter: TypeAdapter[Any] | None) -> Any:
        """The value of the next signal of this name that fits; those that do not are refused."""
        wait, steered = _id_of(frame), self._run.recording.recorded.steered
        if wait in steered.delivered:  # to an execution that died before it had recorded the outcome
            return _read(given_answer(steered.delivered[wait].encode()), adapter)
        journal: object = self._run.recording.journal
        if not isinstance(journal, SteeredJournal):
            raise UsageError(
                f"there is no one to signal {redact(name)!r}: give the run a store whose runs can be steered"
            )
        for request in await journal.requests():
            if request.verb is not Verb.SIGNAL or request.arguments["event"] != name or request.id in self._taken:
                continue
            self._taken.add(request.id)
            answer, value = self._judged(request, frame, adapter)
            known = self._run.recording.recorded.steered.answers.get(request.id)
            if known is None:
                about = {"author": request.author, "asked_at": request.asked_at, "wait": wait}
                await self._record(request.id, Verb.SIGNAL.value, dict(request.arguments), answer, about)
            await journal.answer_request(request.id, answer if known is None else known)
            if known is None and value is not _NOTHING:
                return value
        return _NOTHING

    def _judged(
        self, request: ControlRequest, frame: Frame, adapter: TypeAdapter[Any] | None
    ) -> tuple[dict[str, str], Any]:
        """What is said of a signal, and its value, if that fits."""
        try:
            value = _read(given_answer(request.arguments["value"].encode()), adapter)
        except InputError as error:
            return {"refused": redact(str(error))}, _NOTHING
        return {"text": f"delivered to {frame.address}"}, value

    async def _record(
        self,
        entry: str,
        verb: str,
        arguments: dict[str, Any],
        answer: dict[str, str],
        about: dict[str, Any] | None = None,
    ) -> None:
        run = self._run
        if not run.records:
            return
        control = {
            "id": entry,
            "verb": verb,
            "author": None,
            "asked_at": run.now(),
            "arguments": arguments,
            "run": run.run_id,
            "epoch": run.recording.epoch,
            "answer": answer,
            **(about or {}),
        }
        fact = control_fact(control, "", run.run_id, run.now())
        await run.record(fact, is_urgent=True)
        await run.publish(fact)


def _frame() -> Frame:
    frame = current_frame.get()
    assert frame is not None
    return frame


def _id_of(frame: Frame) -> str:
    return frame.base.hex() + (f"-{frame.tries + 1}" if frame.tries else "")


def _shown_time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")
    except (OverflowError, OSError, ValueError):  # a time far away
        return f"{seconds:.0f} s since 1970"


class _WaitCall(Call[Any]):
    """A wait as a call: it has a key, is recorded once, and is replayed. Its identity is its name and its place."""

    __slots__ = ("_name", "_waiting")

    def __init__(self, actor: BaseActor, name: str, run: RunParts, waiting: Waiting) -> None:
        super().__init__(actor, run, None)
        self._name = name
        self._waiting = waiting

    def canonical_input(self) -> CanonicalInput:
        """Its name alone: with another time it is the same wait."""
        return CanonicalInput(self._name)

    def given(self) -> str:
        """Its name."""
        return self._name


class SleepCall(_WaitCall):
    """`sleep` and `sleep_until`."""

    __slots__ = ("_due_at",)

    def __init__(self, due_at: Callable[[float], float], name: str, run: RunParts, waiting: Waiting) -> None:
        super().__init__(SLEEP_ACTOR, name, run, waiting)
        self._due_at = due_at

    def begin(self, run: RunParts) -> Awaitable[Any]:
        """Wait."""
        return self._waiting.sleep(self._due_at, self._name)


class EventCall(_WaitCall):
    """`wait_for_event`."""

    __slots__ = ("_adapter", "_timeout")

    def __init__(self, name: str, schema: Any, timeout: float | None, run: RunParts, waiting: Waiting) -> None:
        super().__init__(EVENT_ACTOR, name, run, waiting)
        self._timeout = timeout
        try:
            self._adapter = _adapter_of(schema)
        except PydanticSchemaGenerationError as error:
            self.discard()
            raise DefinitionError(f"wait_for_event({name!r}): nothing can be a {schema!r}: {error}") from error

    def begin(self, run: RunParts) -> Awaitable[Any]:
        """Wait."""
        return self._waiting.event(self._name, self._adapter, self._timeout)


def _adapter_of(schema: Any) -> TypeAdapter[Any] | None:
    """What reads values of a type; None takes any JSON."""
    if schema is None:
        return None
    learn(schema)
    return TypeAdapter(schema)


def _with_problem(question: Question, problem: str | None) -> Question:
    if problem is None:
        return question
    return dataclasses.replace(question, answer=None, answered_at=None, answered_by=None, problem=problem)


def _as_json(given: object) -> bytes:
    """What an answerer gave, as JSON.

    Raises:
        InputError: it is not serializable.
    """
    try:
        return to_json(given)
    except ValueError as error:
        raise InputError(f"the answer is not serializable: {error}") from error


def _read(answer: bytes, adapter: TypeAdapter[Any] | None) -> Any:
    """The answer as the program wants it.

    Raises:
        InputError: it does not fit.
    """
    try:
        return from_json(answer) if adapter is None else adapter.validate_json(answer)
    except ValidationError as error:
        places = (
            ": ".join(filter(None, [".".join(map(str, item["loc"])), item["msg"]]))
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise InputError(f"the answer does not fit: {'; '.join(places)}") from error


class QuestionCall(Call[Any]):
    """A question as a call: it has a key, is recorded once, and is replayed."""

    __slots__ = ("_adapter", "_asking", "_text")

    def __init__(self, text: str, schema: Any, run: RunParts, asking: Asking, key: str | None = None) -> None:
        super().__init__(QUESTION_ACTOR, run, key)
        self._text = text
        self._asking = asking
        try:
            self._adapter = _adapter_of(schema)
        except PydanticSchemaGenerationError as error:
            self.discard()
            raise DefinitionError(f"ask({text!r}): no answer can be a {schema!r}: {error}") from error

    def canonical_input(self) -> CanonicalInput:
        """A question is its text; with another text it is another one."""
        return CanonicalInput(self._text)

    def given(self) -> str:
        """The text of the question."""
        return self._text

    def begin(self, run: RunParts) -> Awaitable[Any]:
        """Ask, or find the answer."""
        return self._asking.answer(self._text, self._adapter)


learn(OnUnknown)  # what a person decides about a call is recorded, and read where nobody has asked yet
