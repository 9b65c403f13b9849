"""Makes the conversation of an agent shorter when it has grown too long, as its policy says (`Compaction`).

It is a call of its own, `compact`, under the call of the agent. Its input is the conversation and the policy, its
result the conversation with which the agent goes on; a summary is asked for by a call of the model within it. So a run
that is started again gets both from its journal, and a crash between them and the next question pays for nothing twice.

*When* it is made shorter follows from estimates, windows in a table that changes with releases, and settings that the
user may change. None of them may decide anew what was decided and paid for. So in a run that is started again, the
journal is asked first: a question whose outcome is recorded is asked as it is, a conversation of which a shorter form
is recorded gets that one, and only what comes after them is decided now.

An estimate never refuses a conversation: only the provider does, or a window that the user has stated (`max_context`).
Then a shorter one is tried, and in the end the shortest that there can be; if that is refused too, it is an error that
says what is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rh_agents.core.actors import BaseActor
from rh_agents.core.calls import ActorCall, Call, FunctionCall
from rh_agents.core.chat._compaction.lengths import Measure, Size
from rh_agents.core.chat._compaction.summaries import summary_of
from rh_agents.core.chat._compaction.turns import Split, Turn, cleared, joined, problem_of, split, transcript
from rh_agents.core.chat.messages import ChatRequest, ChatResponse, Message, messages_of
from rh_agents.core.chat.model import ChatModel, ModelCall
from rh_agents.core.errors import (
    AnswerTruncated,
    ContextTooLong,
    DefinitionError,
    InputError,
    InvalidAnswer,
    ModelError,
    ModelRefused,
    OutputError,
    RequestTooLarge,
    UnreadableAnswer,
)
from rh_agents.core.policies.compaction import ClearToolResults, Compaction, DropTurns, Step, Summarize
from rh_agents.core.redaction import logger

_log = logger("rh_agents.models")

Question = Callable[[Sequence[Message]], ModelCall[ChatResponse]]

_ENOUGH = 0.75
"""The share of the tokens that made a conversation too long with which it is short enough, and stays so for a while."""
_ROUNDS = 5
"""How often a conversation is made shorter for one question because the provider refuses it: by a quarter each time, at
last with nothing but the last turn, and then by all kinds of the policy."""
_WORTH_IT = 0.2
"""The least share of a conversation that has to be able to go before it is made shorter without need, and by which it
has to have grown since that was done last."""
_NO_SUMMARY = (ModelRefused, AnswerTruncated, InvalidAnswer, UnreadableAnswer, RequestTooLarge)
"""Why there is no summary, and will be none. After other failures the run can be started again, and nothing is lost."""


@dataclass(frozen=True, slots=True)
class _Goal:
    """How short a conversation is to be.

    Attributes:
        limit: the tokens above which it is too long.
        staying: those that the turns that stay may have, if these are more than one.
        enough: those with which no further kind of the policy is tried.
    """

    limit: int
    staying: int
    enough: int

    @classmethod
    def below(cls, limit: float, left: int = _ROUNDS) -> _Goal:
        """So short that it stays below the limit for a while; the last tries are with less."""
        enough = int(limit * _ENOUGH)
        return cls(int(limit), enough if left > 2 else 0, enough if left > 1 else 0)


class Compactor:
    """Asks the questions of one conversation, and makes it shorter when it has to be."""

    def __init__(self, name: str, model: ChatModel, policy: Compaction) -> None:
        self._name = name
        self._model = model
        self._policy = policy
        self._limit = _limit(policy, model)
        self._measure = Measure()
        self._shortened = 0
        """The tokens that it had when it was made shorter last."""
        self._follows = True
        """Whether the journal may know how the conversation goes on."""

    async def ask(self, history: Sequence[Message], question: Question) -> tuple[ChatResponse, Sequence[Message]]:
        """Ask with a conversation that is short enough; returns the answer, and that conversation.

        Raises:
            ContextTooLong: it cannot be made so; RequestTooLarge: nor for another limit of the provider.
            OutputError: a function of the user's made no conversation of it.
            ModelError: the model gave no answer, or no summary; by kind.
        """
        size = Size(self._measure, _request(question, history), history)
        asked = await self._in_time(tuple(history), question, size)
        left = _ROUNDS
        while True:
            call = question(asked)
            try:
                await self._expect_room(call, size(asked))
                response = await call
            except RequestTooLarge as error:
                asked = await self._after_refusal(asked, size, error, left)
                left -= 1
            else:
                self._measure.learn(call.request, response.usage)
                return response, asked

    async def _in_time(self, history: Turn, question: Question, size: Size) -> Turn:
        """The conversation as the journal knows that it was asked with, or else one that is short enough."""
        if self._follows:
            if await _is_recorded(question(history)):
                return history
            recorded = self._compaction(history, size, _Goal.below(size(history)))
            if await recorded.has_outcome():
                return await self._result_of(recorded, history, size)
            recorded.discard()
            self._follows = False
        if self._limit is None or size(history) <= self._limit or not self._is_worth_it(history, size):
            return history
        return await self._shorter(history, size, _Goal.below(self._limit))

    async def _expect_room(self, call: ModelCall[ChatResponse], tokens: int) -> None:
        """Refuse in place of a server what the user has said that it does not take: some cut it without a word.

        Raises:
            ContextTooLong: it is too long.
        """
        most = self._model.max_context
        if most is None or not self._measure.is_reported or tokens <= most or await call.has_outcome():
            return
        call.discard()
        raise ContextTooLong(f"{self._model.name} takes {most:,} tokens")

    async def _after_refusal(self, history: Turn, size: Size, error: RequestTooLarge, left: int) -> Turn:
        """Whatever it was estimated at, it is too long."""
        goal = _Goal.below(min(self._limit or math.inf, self._model.known_room or math.inf, size(history)), left)
        can_go = left > 0 and self._can_go(history, size, goal) > 0
        shorter = await self._shorter(history, size, goal) if can_go else history
        if size(shorter) >= size(history):
            raise type(error)(  # what was used is counted already
                f"{self._stays(history, size)}: {error}",
                status=error.status,
                code=error.code,
                request_id=error.request_id,
            ) from error
        return shorter

    def _stays(self, history: Turn, size: Size) -> str:
        return (
            f"{self._name}: the conversation cannot be made short enough; what is left of it has about "
            f"{size(history):,} tokens, with instructions, tools, the last question and the last turn (shorten these, "
            "or state max_result= for tools)"
        )

    # -- how much of it can go ----------------------------------------------------------------------------------------

    def _split(self, history: Turn, size: Size, goal: _Goal) -> Split:
        return split(history, self._policy.keep, lambda staying: size(staying) <= goal.staying)

    def _is_worth_it(self, history: Turn, size: Size) -> bool:
        assert self._limit is not None
        tokens = size(history)
        if tokens < (1 + _WORTH_IT) * self._shortened:
            return False
        return self._can_go(history, size, _Goal.below(self._limit)) >= _WORTH_IT * tokens

    def _can_go(self, history: Turn, size: Size, goal: _Goal) -> int:
        """How many tokens the policy can do away with at most. Of functions nobody knows, so they are asked."""
        parts = self._split(history, size, goal)
        return max(_goes(step, parts, history, size) for step in self._policy.steps)

    # -- making it shorter --------------------------------------------------------------------------------------------

    async def _shorter(self, history: Turn, size: Size, goal: _Goal) -> Turn:
        return await self._result_of(self._compaction(history, size, goal), history, size)

    def _compaction(self, history: Turn, size: Size, goal: _Goal) -> FunctionCall[Turn]:
        """The call that does it; what it returns is recorded."""

        async def compact(history: list[Message], policy: dict[str, Any]) -> tuple[Message, ...]:
            return await self._by_all_steps(tuple(history), size, goal)

        actor = BaseActor(name="compact", description="Makes the conversation shorter.", handler=compact)
        return FunctionCall(actor, (list(history), self._described()), {})

    async def _result_of(self, call: FunctionCall[Turn], history: Turn, size: Size) -> Turn:
        """What it returns, or what somebody has put in the place of that in a copy of the run.

        Raises:
            OutputError: that is no conversation.
        """
        shorter = _conversation(await call, history, f"{self._name}::{call.actor.name}")
        self._shortened = size(shorter)
        return shorter

    async def _by_all_steps(self, history: Turn, size: Size, goal: _Goal) -> Turn:
        """One after the other, as far as needed. A summary that cannot be had is one that was not enough."""
        found = history
        failure: ModelError | None = None
        for step in self._policy.steps:
            try:
                found = await self._apply(step, found, size, goal)
            except _NO_SUMMARY as error:
                if not isinstance(step, Summarize):
                    raise
                failure = failure or error
                continue
            if size(found) <= goal.enough:
                break
        if failure is not None:
            self._go_on_without(failure, found == history)
        return found

    def _go_on_without(self, failure: ModelError, is_all: bool) -> None:
        """Without the summary that failed, if anything else has made the conversation shorter."""
        if not is_all:
            _log.warning("%s has no summary of what was said: %s: %s", self._name, type(failure).__name__, failure)
            return
        failure.add_note(
            f"{self._name} needs a shorter conversation, and has no summary of it. "
            "Compaction([Summarize(...), DropTurns()]) goes on without one."
        )
        raise failure

    def _described(self) -> dict[str, Any]:
        """What of the policy decides the result; what has its default is left out, so that there can be more later."""
        return {"keep": self._policy.keep, "by": [_described(step, self._model) for step in self._policy.steps]}

    async def _apply(self, step: Step, history: Turn, size: Size, goal: _Goal) -> Turn:
        if not isinstance(step, Summarize | ClearToolResults | DropTurns):
            return await _made_by(step, history)
        parts = self._split(history, size, goal)
        if not parts.older:
            return history
        if isinstance(step, ClearToolResults):
            return cleared(parts, step.exclude, step.placeholder)
        if isinstance(step, DropTurns):
            return joined(parts, None)
        model = self._model if step.model is None else step.model
        assert isinstance(model, ChatModel)
        room = goal.limit if model.known_room is None else int(_ENOUGH * model.known_room)
        summary = await summary_of(model, step, transcript(parts, step.attachments), room, size)
        shorter = joined(parts, summary)
        return shorter if size(shorter) < size(history) else history


def check_policy(name: str, policy: Compaction, model: ChatModel) -> None:
    """Refuse what could only fail later.

    Raises:
        DefinitionError: nobody knows the window of which `trigger` is a share, or a function does not take one
            conversation.
    """
    if isinstance(policy.trigger, float) and model.known_context is None:
        raise DefinitionError(
            f"{name}: no one knows how many tokens {model.name} takes, so {policy.trigger:g} of them says nothing: "
            f"state max_context= of the model, or a number of tokens, such as compact=Compaction(trigger=50_000)"
        )
    for step in policy.steps:
        if not isinstance(step, Summarize | ClearToolResults | DropTurns):
            _call_of(step, ()).discard()


def _limit(policy: Compaction, model: ChatModel) -> int | None:
    """The tokens above which a conversation is made shorter; None for never by itself."""
    if isinstance(policy.trigger, float):
        return min(int(policy.trigger * (model.known_context or 0)), model.known_room or 0)
    return policy.trigger


def _goes(step: Step, parts: Split, history: Turn, size: Size) -> int:
    """How many tokens a step can do away with at most."""
    if isinstance(step, ClearToolResults):
        return size(history) - size(cleared(parts, step.exclude, step.placeholder)) if parts.older else 0
    if isinstance(step, Summarize | DropTurns):
        return size(history) - size(parts.staying)
    return size(history)


def _described(step: Step, model: ChatModel) -> dict[str, Any]:
    if isinstance(step, Summarize | ClearToolResults | DropTurns):
        usual = type(step)()
        own = {each.name: getattr(step, each.name) for each in fields(step)}
        said = {name: value for name, value in own.items() if value != getattr(usual, name)}
        if isinstance(step, Summarize):
            asked = step.model if isinstance(step.model, ChatModel) else model
            said["model"] = [asked.name, asked.model, asked.recorded_version]
        return {type(step).__name__: said}
    actor = _actor_of(step)
    return {actor.name: actor.recorded_version}


def _request(question: Question, history: Sequence[Message]) -> ChatRequest:
    call = question(history)
    call.discard()
    return call.request


async def _is_recorded(call: Call[Any]) -> bool:
    found = await call.has_outcome()
    call.discard()
    return found


# -- functions of the user's ------------------------------------------------------------------------------------------


def _actor_of(given: Any) -> BaseActor:
    """The actor that makes it shorter: the given one, or one for a function."""
    actor = getattr(given, "actor", given)
    if isinstance(actor, BaseActor):
        return actor
    name = getattr(given, "__name__", type(given).__name__)
    return BaseActor(name="shorten" if name == "<lambda>" else name, handler=given)


def _call_of(given: Any, history: Sequence[Message]) -> Call[Any]:
    """The call that makes it shorter.

    Raises:
        DefinitionError: it does not take a conversation.
    """
    actor = _actor_of(given)
    if given is actor:
        return ActorCall(actor, list(history), None)
    try:
        return FunctionCall(actor, (list(history),), {})
    except TypeError as error:
        raise DefinitionError(
            f"{actor.name} cannot make conversations shorter: it is called with the list of messages, and {error}"
        ) from error


async def _made_by(given: Any, history: Turn) -> Turn:
    """What a function makes of a conversation, if a model takes that.

    Raises:
        OutputError: it does not.
    """
    call = _call_of(given, history)
    made = (await call.outcome()).unwrap()
    return _conversation(made, history, call.actor.name)


def _conversation(made: Any, history: Turn, name: str) -> Turn:
    """What was made of a conversation, if a model takes that.

    Raises:
        OutputError: it does not.
    """
    if not isinstance(made, list | tuple):
        raise OutputError(f"{name} has to return the messages that are left, as a list; it returned {made!r:.100}")
    try:
        found = messages_of(made)
    except InputError as error:
        raise OutputError(f"{name} returned something else than messages: {error}") from error
    problem = _problem_with(found, history)
    if problem is not None:
        raise OutputError(f"{name} returned a conversation that no model takes: {problem}")
    return found


def _problem_with(made: Turn, history: Turn) -> str | None:
    if all(message.role == "system" for message in made):
        return "there is no message in it that a model could answer"
    if made[-1].role == "assistant" and made[-1] != history[-1]:
        return "it ends with what the model said itself, so there is nothing to answer; keep the last turn"
    return None if problem_of(history) else problem_of(made)
