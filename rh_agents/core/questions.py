"""Questions that a person has to answer: calls whose outcome comes from somebody who may not be there."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from rh_agents.core._answers import given_answer
from rh_agents.core.actors import BaseActor
from rh_agents.core.calls import Call
from rh_agents.core.codec import CanonicalInput
from rh_agents.core.errors import DefinitionError, InputError, StopRun, UsageError
from rh_agents.core.events import call_event
from rh_agents.core.ports import Question, RunHandle
from rh_agents.core.redaction import redact
from rh_agents.core.scope import Scope, current_scope
from rh_agents.core.types import Effect, EventType, ExecutionStatus, OnUnknown
from rh_agents.core.values import learn

if TYPE_CHECKING:
    from rh_agents.core.execution import ExecutionState

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
    """The questions of one execution of a run."""

    def __init__(self, state: ExecutionState) -> None:
        self._state = state
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
        """The answer to the question that the current scope stands for.

        Raises:
            StopRun: there is none, and nobody is there to give one.
            UsageError: there can be none.
        """
        scope = current_scope.get()
        assert scope is not None
        question = await self._ask(scope, text, adapter)
        problem = question.problem
        if question.answer is not None:
            try:
                return await self._accept(question, scope, given_answer(question.answer), adapter)
            except InputError as error:
                problem = str(error)
                await self._reject(question, problem)
        while self.answerer is not None:
            try:
                given = await self.answerer(_with_problem(question, problem))
                if given is None:
                    break
                return await self._accept(question, scope, _as_json(given), adapter)
            except InputError as error:
                problem = str(error)
            await self._state.sleep(0)  # it may be always wrong, and others want the event loop as well
        if not self._state.records:
            raise UsageError(
                f"nobody is there to answer {redact(text)!r}, and a run without a store cannot wait: give it a store, "
                "or state.set_answerer(...)"
            )
        self._open[question.id] = question
        raise StopRun(f"waiting for an answer: {redact(text)}", [question.id])

    async def _ask(self, scope: Scope, text: str, adapter: TypeAdapter[Any] | None) -> Question:
        state = self._state
        schema = None if adapter is None else to_json(adapter.json_schema()).decode()
        again = f"-{scope.tries + 1}" if scope.tries else ""  # somebody wants it to be asked again
        question_id = scope.key.hex()[:_ID_LENGTH] + again
        question = Question(state.run_id, question_id, scope.address, redact(text), schema, state.now())
        journal = state.journal
        if journal is not None:
            question = await journal.ask(question)
        if question.answer is None:
            await self._tell(scope, ExecutionStatus.AWAITING, text)
        return question

    async def _accept(self, question: Question, scope: Scope, answer: bytes, adapter: TypeAdapter[Any] | None) -> Any:
        value = _read(answer, adapter)
        self._open.pop(question.id, None)
        await self._tell(scope, ExecutionStatus.HUMAN_INTERVENTION, question.answered_by)
        return value

    async def _reject(self, question: Question, problem: str) -> None:
        journal = self._state.journal
        if journal is not None:
            await journal.reject_answer(question.id, problem)

    async def _tell(self, scope: Scope, status: ExecutionStatus, message: str | None) -> None:
        state = self._state
        key = scope.key.hex() if state.records else None
        event = call_event(
            QUESTION_ACTOR,
            QUESTION_ACTOR.name,
            status,
            state.run_id,
            scope.address,
            key,
            state.now(),
            facts={"message": message},
        )
        await state.record(event, is_urgent=True)
        await state.publish(event)

    async def decide_unknown(self, actor: BaseActor, address: str, occasion: int) -> OnUnknown:
        """Ask what is to be done with a call that had begun and was cut off; at every occasion anew."""
        text = (
            f"{address or actor.name} had begun when its process ended or it was cut off, and nothing tells "
            "whether it was done. "
            "Make it again (retry), or let it fail (fail)?"
        )
        decision: OnUnknown = await QuestionCall(text, OnUnknown, self._state, self, f"{address}@{occasion}")
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
        raise InputError(f"the answer is no data: {error}") from error


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

    def __init__(self, text: str, schema: Any, run: RunHandle, asking: Asking, key: str | None = None) -> None:
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

    def begin(self, run: RunHandle) -> Awaitable[Any]:
        """Ask, or find the answer."""
        return self._asking.answer(self._text, self._adapter)
