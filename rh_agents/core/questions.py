"""Questions that a person has to answer: calls whose outcome comes from somebody who may not be there."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from rh_agents.core._run.frame import Frame, current_frame
from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import BaseActor
from rh_agents.core.calls import Call
from rh_agents.core.errors import DefinitionError, InputError, StopRun, UsageError
from rh_agents.core.events import Fact
from rh_agents.core.ports import Question
from rh_agents.core.redaction import redact
from rh_agents.core.types import Effect, EventType, ExecutionStatus, OnUnknown
from rh_agents.core.values import learn
from rh_agents.core.values.answers import given_answer
from rh_agents.core.values.canonical import CanonicalInput

__all__ = ["Answerer", "Asking", "QuestionCall"]

Answerer = Callable[[Question], Awaitable[object]]
"""Somebody who is there: is awaited with a question and gives the answer, or None to leave it open."""

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
        """Nobody waits for an answer any more."""
        self._open.clear()

    async def answer(self, text: str, adapter: TypeAdapter[Any] | None) -> Any:
        """The answer to the question that the current call stands for.

        Raises:
            StopRun: there is none, and nobody is there to give one.
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


def _with_problem(question: Question, problem: str | None) -> Question:
    if problem is None:
        return question
    return dataclasses.replace(question, answer=None, answered_at=None, answered_by=None, problem=problem)


def _as_json(given: object) -> bytes:
    """What an answerer gave, as JSON.

    Raises:
        InputError: it is no data.
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
        self._adapter: TypeAdapter[Any] | None = None
        if schema is not None:
            learn(schema)
            try:
                self._adapter = TypeAdapter(schema)
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
