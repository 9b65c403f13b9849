"""Whatever a conversation looks like: what is left of it after it was made shorter is one that models take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import event, given, settings
from hypothesis import strategies as st

from rh_agents import Agent, Message, run
from rh_agents.core.chat import ChatRequest, ImagePart, TextPart, ToolCall
from rh_agents.core.chat._compaction.lengths import Measure, Size
from rh_agents.core.chat._compaction.turns import problem_of, split, turns_of
from rh_agents.core.errors import ContextTooLong
from rh_agents.policies import ClearToolResults, Compaction, DropTurns, Summarize
from rh_agents.testing import ScriptedLLM

TEXTS = st.integers(0, 600).map(lambda size: "word " * (size // 5))
IDS = st.sampled_from(["a", "b", "c", "d"])
"""Few of them, so that an id comes again in later turns, as some providers have it."""


@st.composite
def answers_with_calls(draw: st.DrawFn) -> list[Message]:
    ids = draw(st.lists(IDS, min_size=1, max_size=3, unique=True))
    calls = [ToolCall(id=each, name=draw(st.sampled_from(["look", "read"])), arguments="{}") for each in ids]
    results = [Message.tool(each, draw(TEXTS)) for each in draw(st.permutations(ids))]
    return [Message.assistant(draw(TEXTS), calls, {"signature": draw(IDS)}), *results]


SAID = st.one_of(
    TEXTS.map(lambda text: [Message.user(text or "Hello?")]),
    TEXTS.map(lambda text: [Message.user(f"{text}!", ImagePart(url="https://example.com/a.png"))]),
    TEXTS.map(lambda text: [Message.assistant(text or "Yes.")]),
    st.just([Message.system("A rule in between.")]),
    answers_with_calls(),
)
RULES = st.lists(TEXTS.map(lambda text: Message.system(f"Rule. {text}")), max_size=2)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Any that ends with something to answer."""
    middle = [message for each in draw(st.lists(SAID, max_size=14)) for message in each]
    end = draw(st.one_of(st.just([Message.user("And now?")]), answers_with_calls()))
    first = [Message.user("Begin.")] if not middle or middle[0].role == "assistant" else []
    return [*draw(RULES), *first, *middle, *end]


KINDS = st.sampled_from([DropTurns(), Summarize(), ClearToolResults(), ClearToolResults(exclude=["read"])])
POLICIES = st.builds(
    Compaction,
    st.one_of(KINDS, st.lists(KINDS, min_size=1, max_size=3)),
    trigger=st.one_of(st.none(), st.integers(50, 3_000)),
    keep=st.integers(1, 6),
)


def asked_with(history: Sequence[Message], policy: Compaction, most: int | None) -> ChatRequest | None:
    """What an agent asks its model, which takes no more than so many tokens; None if it says that it cannot be."""

    def answer(request: ChatRequest) -> object:
        if request.messages[0].text.startswith("You shorten"):
            return "In short."
        return "Fine." if most is None or Size(Measure(), request, ())(()) <= most else ContextTooLong("too long")

    model = ScriptedLLM(answer)
    try:
        asyncio.run(run(Agent(name="a", llm=model, compact=policy), history))
    except ContextTooLong as error:
        said = str(error)
    else:
        return model.requests[-1]
    assert "cannot be made short enough" in said
    return None


def tokens(messages: Sequence[Message]) -> int:
    return Size(Measure(), ChatRequest(messages=tuple(messages)), ())(())


@given(history=conversations(), policy=POLICIES, most=st.one_of(st.none(), st.integers(100, 2_000)))
@settings(max_examples=30, deadline=None)
def test_what_is_left_is_whole_and_short_enough_or_there_is_a_clear_error(
    history: list[Message], policy: Compaction, most: int | None
) -> None:
    assert problem_of(history) is None
    asked = asked_with(history, policy, most)
    if asked is None:
        assert most is not None
        assert tokens(split(history, 1, lambda _: False).staying) + 30 > most or DropTurns() not in policy.steps
        event("error")
        return
    left = list(asked.messages)
    event("as it was" if left == history else "shorter")
    assert problem_of(left) is None
    assert [message for message in left if message.role == "system"] == [m for m in history if m.role == "system"]
    _, turns = turns_of(history)
    assert tuple(left[-len(turns[-1]) :]) == turns[-1]
    last = [message for message in history if message.role == "user"]
    assert not last or any(_begins(message, last[-1]) for message in left), "the question is there"
    if most is not None:
        assert tokens(left) <= most
    if policy.trigger is not None and tokens(left) > policy.trigger and DropTurns() in policy.steps:
        spare = tokens(left) - tokens(split(history, 1, lambda _: False).staying)
        assert spare <= 0.2 * tokens(left) + 50, "what could go is gone"
    if left == history:
        return
    assert tokens(left) < tokens(history)
    if not any(isinstance(step, ClearToolResults) for step in policy.steps):
        kept = list(history[-_same_end(history, left) :])
        assert problem_of(kept) is None, "the turns that stay are unchanged"


def _begins(message: Message, question: Message) -> bool:
    if isinstance(question.content, str):
        return message.role == "user" and isinstance(message.content, str) and message.text.startswith(question.content)
    return not isinstance(message.content, str) and message.content[: len(question.content)] == question.content


def _same_end(one: Sequence[Message], other: Sequence[Message]) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count


MESSAGES = st.one_of(
    TEXTS.map(Message.user),
    TEXTS.map(Message.assistant),
    st.lists(IDS, max_size=3).map(
        lambda ids: Message.assistant("", [ToolCall(id=each, name="look", arguments="{}") for each in ids])
    ),
    IDS.map(lambda each: Message.tool(each, "result")),
    st.just(Message.system("Rule.")),
)


@given(history=st.lists(MESSAGES, max_size=20), keep=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_no_cut_of_any_list_of_messages_comes_between_a_call_and_its_result(history: list[Message], keep: int) -> None:
    first, turns = turns_of(history)
    assert [*first, *(message for turn in turns for message in turn)] == history
    parts = split(history, keep, lambda _: True)
    calls = [call.id for turn in parts.older for message in turn for call in message.tool_calls]
    results = [str(message.tool_call_id) for turn in parts.older for message in turn if message.role == "tool"]
    if problem_of(history) is None:
        assert sorted(calls) == sorted(results)
        assert problem_of([message for turn in parts.kept for message in turn]) is None
    for before, after in pairwise(turns):
        wanted = {call.id for message in before for call in message.tool_calls}
        own = {call.id for message in after for call in message.tool_calls}
        assert not any(m.role == "tool" and m.tool_call_id in wanted - own for m in after), (
            "one turn, whatever lies between"
        )


def test_a_result_that_comes_late_belongs_to_the_turn_of_its_call() -> None:
    called = Message.assistant("", [ToolCall(id="a", name="look", arguments="{}")])
    late = [called, Message.user("Wait."), Message.tool("a", "result")]
    _, turns = turns_of([Message.user("Go."), *late, Message.user("And now?")])
    assert [list(turn) for turn in turns] == [[Message.user("Go.")], late, [Message.user("And now?")]]


def test_a_question_of_parts_stays_in_parts() -> None:
    image = ImagePart(url="https://example.com/a.png")
    talk = [Message.user("See", image), Message.assistant("long " * 900), Message.assistant("Hm. " * 10)]
    asked = asked_with(talk, Compaction(Summarize(), trigger=300, keep=1), None)
    assert asked is not None
    assert asked.messages[0].content == (
        TextPart(text="See"), image, TextPart(text="[Summary of the conversation up to here]\nIn short."),
    )  # fmt: skip
