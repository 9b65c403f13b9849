"""The loop of agents whose model decides: it is asked, its tools are called, it is asked again, until it answers.

Every step is a call of its own, under the call of the agent: each question to the model, and each tool. So a run that
is started again gets the turns that are over from its journal, and goes on with the one where it was.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from rh_agents.core.actors import Agent, Tool
from rh_agents.core.actors.loop import agent_loop
from rh_agents.core.calls import ActorCall
from rh_agents.core.chat._compaction.compacting import Compactor, check_policy
from rh_agents.core.chat.messages import ChatResponse, FinishReason, Message, Said, ToolCall, ToolSpec, messages_of
from rh_agents.core.chat.model import ChatModel, ModelCall
from rh_agents.core.chat.schema import spec_of
from rh_agents.core.chat.tool_calls import call_tools
from rh_agents.core.errors import AnswerTruncated, DefinitionError, IncompleteAnswer, ModelRefused, TooManyTurns

__all__ = ["AgentCall"]

_TRANSFER = "transfer_to_"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_SETTINGS = ("temperature", "reasoning_effort", "parallel_tool_calls")
"""What an agent says in place of its model's own settings."""
_FREE_CHOICES = (None, "auto", "none")
_WHOLE = (FinishReason.STOP, FinishReason.TOOL_CALLS)
"""Why an answer ended whose tool calls are made: those of any other may be cut off."""


class AgentCall(ActorCall[Any]):
    """The call of an agent. `await call` gives its answer, or raises what went wrong."""

    def __init__(self, agent: Agent[Any], prompt: Any) -> None:
        super().__init__(agent, prompt, None)

    gives_value = True


class _Conversation:
    """One call of an agent, turn by turn."""

    def __init__(self, agent: Agent[Any], model: ChatModel, prompt: Said) -> None:
        self._agent = agent
        self._model = model
        self._messages: list[Message] = list(messages_of(prompt))
        self._compactor = None if agent.compact is None else Compactor(agent.name, model, agent.compact)
        self._tools: list[Tool] = agent.tools.get_tool_list()
        self._handoffs = {_transfer_name(target): target for target in agent.handoffs}
        self._specs = [*map(spec_of, self._tools), *map(_transfer_spec, agent.handoffs)]

    async def answer(self) -> Any:
        """Ask the model until it answers.

        Raises:
            TooManyTurns: it does not.
            ModelError: it gave no answer that can be used; by kind.
        """
        agent = self._agent
        for turn in range(agent.max_turns):
            response = await self._ask(agent.tool_choice if turn == 0 else None)
            if not response.tool_calls or response.finish_reason not in _WHOLE:
                return self._read(response)
            if turn + 1 == agent.max_turns and not any(call.name in self._handoffs for call in response.tool_calls):
                break  # nobody would see what came of the tools
            self._messages.append(response.message)
            target = await self._act(response.tool_calls)
            if target is not None:
                return await target(tuple(self._messages))
        raise TooManyTurns(
            f"{agent.name} had no answer after {agent.max_turns} turns; give it more by max_turns, or say in its "
            "instructions when it shall answer"
        )

    async def _ask(self, choice: str | None) -> ChatResponse:
        """One question to the model, with a conversation that is short enough."""
        if self._compactor is None:
            return await self._question(self._messages, choice)
        question = functools.partial(self._question, choice=choice)
        response, messages = await self._compactor.ask(self._messages, question)
        self._messages = list(messages)
        return response

    def _question(self, messages: Sequence[Message], choice: str | None) -> ModelCall[ChatResponse]:
        """The call. When the model has to call a tool, it is not told what type the answer has."""
        agent = self._agent
        return self._model(
            messages,
            system=agent.instructions or None,
            tools=self._specs,
            tool_choice=choice if self._specs else None,
            output=agent.output if choice in _FREE_CHOICES else None,
            **{name: value for name in _SETTINGS if (value := getattr(agent, name)) is not None},
        )

    def _read(self, response: ChatResponse) -> Any:
        agent = self._agent
        if response.refusal is not None or response.finish_reason is FinishReason.CONTENT_FILTER:
            raise ModelRefused(f"{agent.name}: the model will not answer: {response.refusal or 'it was cut off'}")
        if response.finish_reason is FinishReason.LENGTH:
            raise AnswerTruncated(
                f"{agent.name}: the answer ended at the greatest number of tokens; raise max_tokens, or let compact= "
                "shorten the conversation if that is what fills the model's context"
            )
        if response.tool_calls:
            raise IncompleteAnswer(f"{agent.name}: a tool call was cut off ({response.finish_reason})")
        return response.text if agent.output is None else response.output

    async def _act(self, calls: Sequence[ToolCall]) -> Agent[Any] | None:
        """Call the tools that the model wants, and let it know what came of it; returns who takes over, if anybody."""
        wanted = [call for call in calls if call.name not in self._handoffs]
        agent = self._agent
        replies = (
            await call_tools(wanted, self._tools, max_workers=agent.max_workers, max_result=agent.max_result)
            if wanted
            else []
        )
        target: Agent[Any] | None = None
        answers = iter(replies)
        for call in calls:
            if call.name not in self._handoffs:
                self._messages.append(next(answers))
                continue
            reply = (
                "Only one agent can take over, and another one does." if target else "The conversation is handed over."
            )
            target = target or self._handoffs[call.name]
            self._messages.append(Message.tool(call.id, reply))
        return target


def _transfer_name(agent: Agent[Any]) -> str:
    return f"{_TRANSFER}{_NOT_IN_NAMES.sub('_', agent.name)}"[:64]


def _transfer_spec(agent: Agent[Any]) -> ToolSpec:
    about = f" {agent.description}" if agent.description else ""
    return ToolSpec(
        name=_transfer_name(agent), description=f"Hand the conversation over to the agent {agent.name}.{about}"
    )


def _loop_of(agent: Agent[Any]) -> Callable[..., Any]:
    model = agent.llm
    if not isinstance(model, ChatModel):
        raise DefinitionError(
            f"{agent.name}: an agent needs a handler, or a model that decides, such as llm=OpenAIChat(...)"
        )
    names = [*(name for name, _ in agent.tools), *map(_transfer_name, agent.handoffs)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DefinitionError(f"{agent.name}: two of its tools and handoffs have the same name: {', '.join(twice)}")
    if agent.compact is not None:
        check_policy(agent.name, agent.compact, model)

    async def converse(prompt: Any) -> Any:
        return await _Conversation(agent, model, prompt).answer()

    return converse


agent_loop.set(_loop_of, AgentCall)
