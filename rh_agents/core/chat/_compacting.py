"""Makes the conversation of an agent shorter when it has grown too long, as its policy says (`Compaction`).

It is a call of its own, `compact`, under the call of the agent. Its input is the conversation and the policy, its
result the conversation with which the agent goes on; a summary is asked for by a call of the model within it. So a run
that is started again gets both from its journal, and a crash between them and the next question pays for nothing twice.
What decides *when* is made of recorded answers alone: the tokens that the last one was sent, and an estimate of what
was added since.

An estimate never refuses a conversation: only the provider does, or a window that the user has stated (`max_context`).
Then a shorter one is tried, and where nobody knows the window, shorter ones still, until nothing more can go; that is
an error that says what is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from rh_agents.core.actors import BaseActor
from rh_agents.core.calls import ActorCall, Call, FunctionCall
from rh_agents.core.chat._lengths import Measure, Size
from rh_agents.core.chat._summaries import summary_of
from rh_agents.core.chat._turns import Split, Turn, cleared, joined, problem_of, split, transcript
from rh_agents.core.chat.messages import ChatRequest, ChatResponse, Message, messages_of
from rh_agents.core.chat.model import ChatModel, ModelCall
from rh_agents.core.errors import ContextTooLong, DefinitionError, InputError, OutputError
from rh_agents.core.policies.compaction import ClearToolResults, Compaction, DropTurns, Step, Summarize

__all__ = ["Compactor", "check_policy"]

Question = Callable[[Sequence[Message]], ModelCall[ChatResponse]]

_ENOUGH = 0.75
"""The share of the tokens that made a conversation too long with which it is short enough, and stays so for a while."""
_ROUNDS = 4
"""How often a conversation is made shorter for one question because the provider refuses it: each time by a quarter."""
_WORTH_IT = 0.2
"""The least share of a conversation that has to be able to go before it is made shorter without need."""


class Compactor:
    """Asks the questions of one conversation, and makes it shorter when it has to be."""

    def __init__(self, name: str, model: ChatModel, policy: Compaction) -> None:
        self._name = name
        self._model = model
        self._policy = policy
        self._limit = _limit(policy, model)
        self._measure = Measure()

    async def ask(self, history: Sequence[Message], question: Question) -> tuple[ChatResponse, Sequence[Message]]:
        """Ask with a conversation that is short enough; returns the answer, and that conversation.

        Raises:
            ContextTooLong: it cannot be made so.
            OutputError: a function of the user's made no conversation of it.
            ModelError: the model gave no answer; by kind.
        """
        request = _request(question, history)
        size = self._size_of(request, history)
        if self._limit is not None and size(history) > self._limit and self._is_worth_it(history, size):
            history = await self._shorter(history, size, self._limit)
        left = _ROUNDS
        while True:
            try:
                self._expect_room(size(history))
                response = await question(history)
            except ContextTooLong as error:
                history = await self._after_refusal(history, size, error, left)
                left -= 1
            else:
                self._measure.learn(_request(question, history), response.usage)
                return response, history

    def _expect_room(self, tokens: int) -> None:
        """Refuse in place of a server what the user has said that it does not take: some cut it without a word.

        Raises:
            ContextTooLong: it is too long.
        """
        most = self._model.max_context
        if most is not None and self._measure.is_told and tokens > most:
            raise ContextTooLong(f"{self._model.name} takes {most:,} tokens")

    async def _after_refusal(
        self, history: Sequence[Message], size: Size, error: ContextTooLong, left: int
    ) -> Sequence[Message]:
        """Whatever it was estimated at, it is too long."""
        most = int(min(self._limit or math.inf, self._model.known_context or math.inf, size(history)))
        can_go = left > 0 and self._can_go(history, size, most) > 0
        shorter = await self._shorter(history, size, most) if can_go else history
        if size(shorter) >= size(history):
            message = f"{self._stays(history, size)}: {error}"
            raise ContextTooLong(  # what was used is counted already
                message, status=error.status, code=error.code, request_id=error.request_id
            ) from error
        return shorter

    def _stays(self, history: Sequence[Message], size: Size) -> str:
        return (
            f"{self._name}: the conversation cannot be made short enough; what is left of it has about "
            f"{size(history):,} tokens, with instructions, tools, the last question and the last turn (shorten these, "
            "or state max_result= for tools)"
        )

    # -- how much of it can go ----------------------------------------------------------------------------------------

    def _size_of(self, request: ChatRequest, history: Sequence[Message]) -> Size:
        return Size(self._measure, request, history)

    def _split(self, history: Sequence[Message], size: Size, limit: int) -> Split:
        return split(history, self._policy.keep, lambda staying: size(staying) <= limit * _ENOUGH)

    def _is_worth_it(self, history: Sequence[Message], size: Size) -> bool:
        assert self._limit is not None
        return self._can_go(history, size, self._limit) >= _WORTH_IT * size(history)

    def _can_go(self, history: Sequence[Message], size: Size, limit: int) -> int:
        """How many tokens the policy can do away with at most. Of functions nobody knows, so they are asked."""
        parts = self._split(history, size, limit)
        return max(_goes(step, parts, history, size) for step in self._policy.steps)

    # -- making it shorter --------------------------------------------------------------------------------------------

    async def _shorter(self, history: Sequence[Message], size: Size, limit: int) -> Turn:
        """The call that does it; what it returns is recorded."""

        async def compact(history: list[Message], policy: dict[str, Any]) -> tuple[Message, ...]:
            found: Turn = tuple(history)
            for step in self._policy.steps:
                found = await self._apply(step, found, size, limit)
                if size(found) <= limit * _ENOUGH:
                    break
            return found

        actor = BaseActor(name="compact", description="Makes the conversation shorter.", handler=compact)
        return await FunctionCall[Turn](actor, (list(history), self._described()), {})

    def _described(self) -> dict[str, Any]:
        """What of the policy decides the result; what has its default is left out, so that there can be more later."""
        return {"keep": self._policy.keep, "by": [_described(step, self._model) for step in self._policy.steps]}

    async def _apply(self, step: Step, history: Turn, size: Size, limit: int) -> Turn:
        if not isinstance(step, Summarize | ClearToolResults | DropTurns):
            return await _made_by(step, history)
        parts = self._split(history, size, limit)
        if not parts.older:
            return history
        if isinstance(step, ClearToolResults):
            return cleared(parts, step.exclude, step.placeholder)
        if isinstance(step, DropTurns):
            return joined(parts, None)
        model = self._model if step.model is None else step.model
        assert isinstance(model, ChatModel)
        room = limit if model.known_context is None else int(_ENOUGH * model.known_context)
        summary = await summary_of(model, step, transcript(parts, step.attachments), room, size)
        shorter = joined(parts, summary)
        return shorter if size(shorter) < size(history) else history


def check_policy(name: str, policy: Compaction, model: ChatModel) -> None:
    """Refuse what could only fail later.

    Raises:
        DefinitionError: nobody knows the window of which `trigger` is a share; `model=` of a summary is none; or a
            function does not take one conversation.
    """
    if isinstance(policy.trigger, float) and model.known_context is None:
        raise DefinitionError(
            f"{name}: nobody knows how many tokens {model.name} takes, so {policy.trigger:g} of them says nothing: "
            f"state max_context= of the model, or a number of tokens, such as compact=Compaction(trigger=50_000)"
        )
    for step in policy.steps:
        if isinstance(step, Summarize):
            if step.model is not None and not isinstance(step.model, ChatModel):
                raise DefinitionError(f"{name}: Summarize(model={step.model!r}): a ChatModel is needed")
        elif not isinstance(step, ClearToolResults | DropTurns):
            _call_of(step, ()).discard()


def _limit(policy: Compaction, model: ChatModel) -> int | None:
    """The tokens above which a conversation is made shorter; None for never by itself."""
    if isinstance(policy.trigger, float):
        return int(policy.trigger * (model.known_context or 0))
    return policy.trigger


def _goes(step: Step, parts: Split, history: Sequence[Message], size: Size) -> int:
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
    name = call.actor.name
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
