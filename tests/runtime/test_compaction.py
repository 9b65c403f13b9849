"""Conversations that grow too long are made shorter by a call of its own: recorded, paid once, and never wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from rh_agents import (
    Agent,
    Budget,
    BudgetExceeded,
    ChatModel,
    ExecutionEvent,
    ExecutionState,
    ExecutionStatus,
    MemoryStore,
    Message,
    Price,
    Usage,
    agent,
    fork,
    run,
    tool,
)
from rh_agents.core.chat import (
    ChatRequest,
    ChatResponse,
    DocumentPart,
    Fallback,
    FinishReason,
    ImagePart,
    TextPart,
    ToolCall,
)
from rh_agents.core.errors import (
    AnswerTruncated,
    ContextTooLong,
    DefinitionError,
    InvalidAnswer,
    ModelOverloaded,
    ModelRefused,
    OutputError,
    RequestTooLarge,
    TooManyTurns,
    UnreadableAnswer,
)
from rh_agents.policies import ClearToolResults, Compaction, DropTurns, Summarize
from rh_agents.testing import ScriptedLLM, assert_no_paid_calls_on_resume, tool_call
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import RUN, Crash, KeepingStore

MARK = "[Summary of the conversation up to here]\n"


@tool
async def look(place: int) -> str:
    """Look at a place."""
    return f"place {place}: " + "nothing " * 100


def is_summary(request: ChatRequest) -> bool:
    return request.messages[0].text.startswith("You shorten conversations")


class Walker:
    """A model that looks at one place after the other; and an agent with it."""

    def __init__(self, places: int = 12, **settings: Any) -> None:
        self.places = places
        self.looks = 0
        self.refuses_above: int | None = None
        """Tokens, a token for every four characters."""
        self.model = ScriptedLLM(self.answer, **settings)

    def agent(self, compact: Any, **options: Any) -> Agent:
        given = {"tools": [look], "instructions": "Look around.", "max_turns": 50, **options}
        return Agent(name="walker", llm=self.model, compact=compact, **given)

    async def answer(self, request: ChatRequest) -> object:
        size = sum(len(message.text) + 20 for message in request.messages) // 4
        if self.refuses_above is not None and size > self.refuses_above:
            raise ContextTooLong(f"{size} tokens are more than {self.refuses_above}", status=400)
        if is_summary(request):
            return f"{request.messages[1].text.count('calls look')} places were empty."
        seen = max((int(m.text.split()[1][:-1]) for m in request.messages if m.text.startswith("place")), default=0)
        return tool_call("look", place=seen + 1) if seen < self.places else "There is nothing."

    @property
    def asked(self) -> list[ChatRequest]:
        return [request for request in self.model.requests if not is_summary(request)]

    @property
    def summaries(self) -> list[ChatRequest]:
        return [request for request in self.model.requests if is_summary(request)]


def walk(walker: Walker, compact: Any, prompt: Any = "What is there?", **options: Any) -> Any:
    settings = {name: options.pop(name) for name in ("budget", "output") if name in options}
    return run_virtually(lambda: run(walker.agent(compact, **settings), prompt, **options))


def roles(request: ChatRequest) -> str:
    return " ".join(message.role[0] for message in request.messages)


def test_older_turns_become_a_summary_and_the_question_and_the_last_turns_stay() -> None:
    walker = Walker(places=9)
    assert walk(walker, Compaction(trigger=1_500, keep=2)) == "There is nothing."
    (summary,) = walker.summaries
    longest = max(len(request.messages) for request in walker.asked)
    first = next(after for before, after in pairwise(walker.asked) if roles(after) < roles(before))
    assert longest > 12
    assert roles(first) == "s u a t a t"
    assert first.messages[0].text == "Look around."
    gone = (longest - 2) // 2 - 1
    assert first.messages[1].text == f"What is there?\n\n{MARK}{gone} places were empty."
    assert [message.text[:8] for message in first.messages if message.role == "tool"] == [
        f"place {number}:"[:8] for number in (gone + 1, gone + 2)
    ]
    assert "<user>\nWhat is there?\n</user>" in summary.messages[1].text
    assert 'calls look with {"place": 1}' in summary.messages[1].text
    assert "<result of look>\nplace 1:" in summary.messages[1].text
    assert all(request.messages[0].text == "Look around." for request in walker.asked)


def test_it_is_a_call_with_an_address_whose_result_is_the_next_history_and_whose_summary_is_paid_and_counted() -> None:
    walker, events = Walker(places=9, price=Price(input=1.0, output=1.0)), list[ExecutionEvent[Any]]()

    async def program() -> ExecutionState:
        async with ExecutionState() as state:
            state.event_bus.subscribe(events.append)
            await walker.agent(Compaction(trigger=1_500, keep=2))("What is there?")
            return state

    state = run_virtually(program)
    ended = [event for event in events if event.execution_status is ExecutionStatus.COMPLETED]
    (compaction,) = [event for event in ended if event.address == "walker::compact"]
    (summary,) = [event for event in ended if event.address == "walker::compact::scripted"]
    assert summary.usage is not None
    assert summary.usage.cost > 0
    assert ended.index(summary) < ended.index(compaction)
    after = next(request for request in walker.asked if MARK in request.messages[1].text)
    assert compaction.result is not None
    assert list(compaction.result) == list(after.messages[1:])
    assert state.spent.usage.requests == len(walker.model.requests)


@pytest.mark.parametrize(("trigger", "refuses_above"), [(500, None), (None, 700)], ids=["by itself", "refused"])
def test_a_crash_at_every_entry_around_a_compaction_pays_for_nothing_twice(
    trigger: int | None, refuses_above: int | None
) -> None:
    store = KeepingStore()

    async def execute(kept: MemoryStore) -> Walker:
        walker = Walker(places=5)
        walker.refuses_above = refuses_above
        program = walker.agent(Compaction(trigger=trigger, keep=1))
        assert await run(program, "What is there?", store=kept, run_id=RUN) == "There is nothing."
        return walker

    whole = run_virtually(lambda: execute(store))
    assert whole.summaries
    entries = [event for event, _ in store.entries]
    around = [number for number, event in enumerate(entries) if "compact" in (event.address or "")]
    for count in range(around[0] - 1, around[-1] + 4):

        async def resume(count: int = count) -> Walker:
            return await execute(await store.after_the_first(count))

        resumed = run_virtually(resume)
        ended = [fact.status for fact in entries[:count] if fact.actor.name == "scripted"]
        paid = ended.count(ExecutionStatus.COMPLETED) + ended.count(ExecutionStatus.FAILED)
        assert len(resumed.model.requests) == len(whole.model.requests) - paid, count
        assert {str(request) for request in resumed.model.requests} <= {
            str(request) for request in whole.model.requests
        }


@pytest.mark.lazy_tasks("a program that never waits is over before it can be cut off")
def test_no_paid_call_is_made_again_wherever_the_run_is_cut_off() -> None:
    for stop_after in (None, 7, 8, 9):
        walker = Walker(places=8)
        answer = run_virtually(
            lambda walker=walker, stop_after=stop_after: assert_no_paid_calls_on_resume(  # type: ignore[misc]
                walker.agent(Compaction(trigger=700, keep=2)), "?", store=MemoryStore(), stop_after=stop_after
            )
        )
        assert answer == "There is nothing."


def test_agents_without_it_and_those_whose_conversations_stay_short_make_the_same_calls() -> None:
    keys: list[list[Any]] = []
    for compact in (None, Compaction(trigger=100_000)):
        events: list[ExecutionEvent[Any]] = []
        walk(Walker(places=3), compact, store=MemoryStore(), run_id=RUN, subscribers=[events.append])
        keys.append([(event.key, event.address) for event in events if event.key])
    assert keys[0] == keys[1]
    assert keys[0]


def test_when_the_provider_says_that_it_is_too_long_it_is_made_shorter_and_asked_once_more() -> None:
    walker = Walker(places=12)
    walker.refuses_above = 900
    assert walk(walker, Compaction(trigger=None, keep=2)) == "There is nothing."
    assert walker.summaries
    tried = Walker(places=12)
    tried.refuses_above = 900
    with pytest.raises(ContextTooLong, match="900"):
        walk(tried, None)


def test_what_cannot_be_made_short_enough_is_told_in_a_sentence_with_the_words_of_the_provider() -> None:
    walker = Walker()
    walker.refuses_above = 100
    with pytest.raises(ContextTooLong) as caught:
        walk(walker, Compaction(trigger=None), "far too long " * 100)
    assert "walker: the conversation cannot be made short enough; what is left of it has about" in str(caught.value)
    assert "tokens are more than 100" in str(caught.value)
    assert caught.value.status == 400
    assert len(walker.model.requests) == 1, "nothing could go, so nobody was asked again"
    walker = Walker()
    walker.refuses_above = 215
    with pytest.raises(ContextTooLong, match="cannot be made short enough"):
        walk(walker, Compaction(DropTurns(), trigger=None))


def test_a_stated_window_that_the_last_turn_does_not_fit_into_is_told_before_anybody_is_asked() -> None:
    walker = Walker(places=5, max_context=240)
    with pytest.raises(ContextTooLong, match="scripted takes 240 tokens"):
        walk(walker, Compaction(DropTurns(), keep=2))
    assert len(walker.model.requests) < 4


def test_what_is_longer_than_a_stated_window_is_made_shorter_though_no_server_refuses_it() -> None:
    walker = Walker(places=9, max_context=1_000)
    assert walk(walker, Compaction(DropTurns(), trigger=None, keep=2)) == "There is nothing."
    assert "s u a t a t" in [roles(request) for request in walker.asked]


def test_a_share_of_a_window_that_nobody_knows_is_refused_where_it_is_written() -> None:
    with pytest.raises(DefinitionError, match="max_context="):
        Walker().agent(Compaction())
    assert Walker(max_context=1_000).agent(Compaction(trigger=0.5)).compact == Compaction(trigger=0.5)
    known, unknown = ScriptedLLM([], max_context=2_000), ScriptedLLM([])
    assert Fallback(known, ScriptedLLM([], max_context=900)).known_context == 900
    assert Fallback(known, unknown).known_context is None
    assert Fallback(known, unknown, max_context=50).known_context == 50


def test_a_share_of_the_window_triggers_as_the_same_number_of_tokens_does() -> None:
    share, number = Walker(places=9, max_context=3_000), Walker(places=9)
    walk(share, Compaction(DropTurns(), trigger=0.5, keep=2))
    walk(number, Compaction(DropTurns(), trigger=1_500, keep=2))
    assert [roles(request) for request in share.asked] == [roles(request) for request in number.asked]


def test_old_results_are_cleared_and_the_calls_stay() -> None:
    walker = Walker(places=9)
    walk(walker, Compaction(ClearToolResults(placeholder="gone"), trigger=1_500, keep=2))
    last = walker.asked[-1]
    results = [message.text for message in last.messages if message.role == "tool"]
    assert "gone" in results
    assert all(text.startswith("place") for text in results[-2:])
    assert len(results) == 9, "no turn is gone"
    assert not walker.summaries


def test_results_of_excluded_tools_stay() -> None:
    walker = Walker(places=9)
    walk(walker, Compaction(ClearToolResults(exclude=["look"]), trigger=1_500, keep=2))
    assert all(m.text.startswith("place") for m in walker.asked[-1].messages if m.role == "tool")


def test_the_next_kind_is_tried_only_if_the_first_one_was_not_enough() -> None:
    enough, too_little = Walker(places=9), Walker(places=40)
    walk(enough, Compaction([ClearToolResults(), Summarize()], trigger=1_500, keep=2))
    assert not enough.summaries
    walk(too_little, Compaction([ClearToolResults(), Summarize()], trigger=800, keep=2))
    assert too_little.summaries


def test_dropped_turns_leave_system_messages_the_question_and_the_last_turns() -> None:
    walker = Walker(places=9)
    talk = [Message.system("A rule."), Message.user("Hi."), Message.assistant("Hello."), Message.user("What is there?")]
    walk(walker, Compaction(DropTurns(), trigger=1_500, keep=2), talk)
    shortened = [request for request in walker.asked if roles(request) == "s s u a t a t"]
    assert shortened
    assert [message.text for message in shortened[0].messages[:3]] == ["Look around.", "A rule.", "What is there?"]


def test_a_long_talk_is_made_shorter_before_its_first_question_and_roles_alternate() -> None:
    heard: list[ChatRequest] = []

    def model(request: ChatRequest) -> str:
        heard.append(request)
        return "They talked." if is_summary(request) else "Fine."

    talk = [each for n in range(40) for each in (Message.user(f"{n} " + "word " * 50), Message.assistant("Yes. " * 20))]
    talker = Agent(name="talker", llm=ScriptedLLM(model), compact=Compaction(trigger=1_000, keep=3))
    assert run_virtually(lambda: run(talker, [*talk, Message.user("And now?")])) == "Fine."
    asked = heard[-1]
    assert roles(asked) == "u a u a u"
    assert asked.messages[0].text == "What has been said and done so far?"
    assert asked.messages[1].text == f"{MARK}They talked."
    assert list(asked.messages[2:]) == [*talk[-2:], Message.user("And now?")]


def test_a_summary_takes_the_place_of_the_one_before_it() -> None:
    walker = Walker(places=30)
    walk(walker, Compaction(trigger=900, keep=2))
    assert len(walker.summaries) > 2
    assert all(request.messages[1].text.count(MARK) <= 1 for request in walker.asked)
    assert all(request.messages[1].text.startswith("What is there?") for request in walker.asked)
    assert MARK in walker.summaries[1].messages[1].text, "it is a part of what is summarized"


def test_what_is_too_long_for_the_model_that_summarizes_is_given_to_it_in_pieces() -> None:
    walker = Walker(places=30)
    told: list[ChatRequest] = []

    def small(request: ChatRequest) -> object:
        told.append(request)
        size = sum(len(message.text) for message in request.messages) // 4
        return ContextTooLong("too long") if size > 800 else f"summary {len(told)}"

    compact = Compaction(Summarize(model=ScriptedLLM(small, name="small", retry=None)), trigger=3_000, keep=1)
    assert walk(walker, compact) == "There is nothing."
    assert any("The summary of what was said before:\n\nsummary" in request.messages[1].text for request in told)


def test_a_model_that_summarizes_nothing_at_all_is_an_error_of_its_own() -> None:
    mute = ScriptedLLM(lambda _: ContextTooLong("no room"), name="mute", retry=None)
    with pytest.raises(ContextTooLong, match="no room"):
        walk(Walker(), Compaction(Summarize(model=mute), trigger=600, keep=1))
    assert len(mute.requests) < 5


def test_a_summary_that_is_longer_than_what_it_stands_for_is_not_used() -> None:
    chatty = ScriptedLLM(lambda _: "blah " * 5_000, name="chatty")
    walker = Walker(places=6)
    walk(walker, Compaction(Summarize(model=chatty), trigger=600, keep=2))
    assert chatty.requests
    assert not any(MARK in request.messages[1].text for request in walker.asked)


def test_the_model_that_summarizes_sees_images_and_documents_or_is_told_of_them() -> None:
    picture, report = ImagePart.from_bytes(b"png"), DocumentPart.from_bytes(b"%PDF", name="r.pdf")

    @tool
    async def draw() -> ImagePart:
        return picture

    drawn: list[int] = []

    def answer(request: ChatRequest) -> object:
        if is_summary(request):
            return "A picture and a report."
        drawn.append(1)
        return tool_call("draw") if len(drawn) % 6 else "Done."

    talk = [Message.user("See.", report), Message.assistant("I see."), Message.user("Draw.", TextPart(text=" Much."))]
    for attachments in (True, False):
        model = ScriptedLLM(answer, usage=Usage(1_000, 5))
        compact = Compaction(Summarize(attachments=attachments), trigger=1_100, keep=1)
        artist = Agent(name="artist", llm=model, tools=[draw], compact=compact, max_turns=20)
        assert run_virtually(lambda artist=artist: run(artist, talk)) == "Done."  # type: ignore[misc]
        seen = [request.messages[1].content for request in model.requests if is_summary(request)]
        parts = [part for content in seen if not isinstance(content, str) for part in content]
        assert (report in parts, picture in parts) == (attachments, attachments)
        mentions = [each for each in ("[the document 'r.pdf']", "[an image]") if any(each in said for said in seen)]
        assert bool(mentions) is not attachments
        assert len(mentions) in (0, 2)
        after = next(r for r in model.requests if not is_summary(r) and MARK in r.messages[0].text)
        assert after.messages[0].content[:2] == talk[2].content
        assert after.messages[0].text == f"Draw. Much.{MARK}A picture and a report."


def test_what_providers_want_back_stays_with_the_turns_that_stay() -> None:
    signed = {"thinking": [{"signature": "abc"}]}

    def answer(request: ChatRequest) -> object:
        if is_summary(request):
            return "Short."
        seen = sum(message.role == "tool" for message in request.messages)
        if seen > 6 or any(MARK in message.text for message in request.messages):
            return "Done."
        call = ToolCall(id=f"c{seen}", name="look", arguments=f'{{"place": {seen}}}', provider={"sign": seen})
        return ChatResponse(tool_calls=(call,), provider=signed)

    model = ScriptedLLM(answer)
    signer = Agent(name="signer", llm=model, tools=[look], compact=Compaction(trigger=900, keep=2), max_turns=20)
    assert run_virtually(lambda: run(signer, "?")) == "Done."
    said = [message for message in model.requests[-1].messages if message.role == "assistant"]
    assert [message.provider for message in said] == [signed, signed]
    assert all("sign" in call.provider for message in said for call in message.tool_calls)


@tool
async def keep_the_last(history: list[Message]) -> list[Message]:
    """A user's own."""
    return [history[0], *history[-2:]]


def keep_some(history: list[Message]) -> list[Any]:
    return [{"role": "user", "content": "What is there?"}, *history[-2:]]


async def also_async(history: list[Message]) -> list[Message]:
    return [history[0], *history[-4:]]


@pytest.mark.parametrize(
    "function", [keep_the_last, keep_some, also_async, lambda history: [history[0], *history[-2:]]]
)
def test_a_function_or_a_tool_of_the_users_is_a_policy(function: Callable[..., Any]) -> None:
    walker = Walker(places=9)
    walking = run(walker.agent(Compaction(function, trigger=1_000)), "What is there?")
    assert asyncio.run(walking) == "There is nothing."  # plain functions have a thread, which no virtual time knows
    assert max(len(request.messages) for request in walker.asked) < 14
    assert not walker.summaries


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (
            lambda history: history[2:],
            "message 1 is the result of the call .* a call and its result stay or go together",
        ),
        (lambda history: [*history[:-1], Message.user("Go on.")], "the call .* of look has no result"),
        (lambda _: [], "no message in it that a model could answer"),
        (lambda history: [history[0], Message.assistant("So be it.")], "nothing to answer"),
        (lambda _: "all was said", "as a list; it returned 'all was said'"),
        (lambda _: [3], "something else than messages"),
    ],
)
def test_what_a_function_returns_is_refused_with_the_reason_if_no_model_takes_it(
    made: Callable[[Sequence[Message]], Any], why: str
) -> None:
    async def shorten(history: list[Message]) -> Any:
        return made(history)

    with pytest.raises(OutputError, match=f"^shorten .*{why}"):
        walk(Walker(), Compaction(shorten, trigger=700))


def test_what_can_be_no_policy_is_refused_where_it_is_written() -> None:
    async def nothing() -> None: ...

    with pytest.raises(DefinitionError, match="nothing cannot make conversations shorter"):
        Walker().agent(Compaction(nothing, trigger=100))
    for model in (nothing, "gpt-4.1-mini", ScriptedLLM):
        with pytest.raises(ValueError, match=r"a model is needed, such as OpenAIChat\(...\)"):
            Summarize(model)  # type: ignore[arg-type]
    wrong: Any
    for wrong in ("summarize", [], None, True):
        with pytest.raises(ValueError, match=r"by=.*or a list of these$"):
            Compaction(wrong)
    with pytest.raises(ValueError, match=r"write Summarize\(\), with brackets$"):
        Compaction([Summarize])
    with pytest.raises(ValueError, match=r"for summaries by this model, Summarize\(model\)$"):
        Compaction(ScriptedLLM([]))
    for trigger in (0, 1, -1, 0.0, 1.5, True, "all", float("nan")):
        with pytest.raises(ValueError, match="trigger="):
            Compaction(trigger=trigger)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keep="):
        Compaction(keep=0)
    with pytest.raises(ValueError, match="exclude="):
        ClearToolResults(exclude="look")
    with pytest.raises(ValueError, match="max_tokens="):
        Summarize(max_tokens=0)

    @agent
    async def own(question: str) -> str:
        return question

    with pytest.raises(DefinitionError, match="remove compact="):
        Agent(name="own", handler=own.actor.handler, compact=Summarize())


def test_the_short_form_is_a_policy_with_the_usual_numbers() -> None:
    assert Walker(max_context=10_000).agent(Summarize()).compact == Compaction(Summarize())
    assert Walker(max_context=10_000).agent(DropTurns()).compact == Compaction(DropTurns())
    given = Walker(max_context=10_000).agent(also_async).compact
    assert given is not None
    assert given.by is also_async


def test_a_failed_summary_is_tried_again_as_its_model_says_and_then_fails_the_agent() -> None:
    calls: list[int] = []

    def shaky(_: ChatRequest) -> object:
        calls.append(1)
        return ModelOverloaded("busy") if len(calls) < 3 else "Fine."

    assert walk(Walker(places=6), Compaction(Summarize(model=ScriptedLLM(shaky)), trigger=700)) == "There is nothing."
    down = ScriptedLLM(lambda _: ModelOverloaded("down"), name="down")
    kinds: tuple[list[Summarize | DropTurns], ...] = ([Summarize(down)], [Summarize(down), DropTurns()])
    for steps in kinds:  # later there may be one, so nothing is dropped
        with pytest.raises(ModelOverloaded, match="down"):
            walk(Walker(), Compaction(steps, trigger=700))


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        ("", InvalidAnswer, "writer: '' is no summary"),
        (" \n", InvalidAnswer, "is no summary; a text is needed"),
        (ChatResponse(refusal="Never."), ModelRefused, "writer will not answer: Never."),
        (ChatResponse(text="Half a", finish_reason=FinishReason.LENGTH), AnswerTruncated, "Summarize.max_tokens="),
        (tool_call("look", place=1), UnreadableAnswer, "wants tools to be called"),
        (ContextTooLong("no room"), ContextTooLong, "no room"),
    ],
    ids=["empty", "blank", "refused", "cut off", "a tool call", "no room"],
)
def test_a_summary_that_cannot_be_had_is_an_error_or_the_next_kind_is_tried(
    answer: object, error: type[Exception], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    writer = ScriptedLLM(lambda _: answer, name="writer", retry=None)
    with pytest.raises(error, match=why) as caught:
        walk(Walker(places=9), Compaction(Summarize(writer), trigger=1_500, keep=2))
    assert caught.value.__notes__ == [
        "walker needs a shorter conversation, and has no summary of it. "
        "Compaction([Summarize(...), DropTurns()]) goes on without one."
    ]
    assert {record.name for record in caplog.records} <= {"rh_agents.run.calls"}, "the call fails, and no more is said"
    walker = Walker(places=9)
    assert walk(walker, Compaction([Summarize(writer), DropTurns()], trigger=1_500, keep=2)) == "There is nothing."
    assert "s u a t a t" in [roles(request) for request in walker.asked]
    said = [record.getMessage() for record in caplog.records if record.name == "rh_agents.models"]
    assert [f"walker has no summary of what was said: {error.__name__}" in each for each in said] == [True]


def test_summaries_count_for_budgets() -> None:
    dear = ScriptedLLM(lambda _: "Short.", name="dear", price=Price(input=1e6, output=1e6))
    walker = Walker(price=Price(input=0.0, output=0.0))
    with pytest.raises(BudgetExceeded):
        walk(walker, Compaction(Summarize(model=dear), trigger=700), budget=Budget(cost=100.0))
    assert not dear.requests


def test_the_settings_of_a_summary_are_those_that_are_stated() -> None:
    walker = Walker(places=9)
    walk(
        walker, Compaction(Summarize(instructions="You shorten conversations to a word.", max_tokens=9), trigger=1_200)
    )
    assert {request.max_tokens for request in walker.summaries} == {9}
    assert {request.messages[0].text for request in walker.summaries} == {"You shorten conversations to a word."}


def test_a_conversation_of_which_little_can_go_is_not_made_shorter_at_every_turn() -> None:
    walker = Walker(places=9)
    walk(walker, Compaction(trigger=1_500, keep=1), "What is there? " + "Look well. " * 500)
    assert len(walker.summaries) <= 4


def test_a_conversation_that_is_handed_over_is_the_shorter_one() -> None:
    heard: list[ChatRequest] = []

    def heir_model(request: ChatRequest) -> str:
        heard.append(request)
        return "It is empty."

    heir = Agent(name="heir", llm=ScriptedLLM(heir_model))

    def answer(request: ChatRequest) -> object:
        if is_summary(request):
            return "Short."
        seen = sum(message.role == "tool" for message in request.messages)
        has_summary = any(MARK in message.text for message in request.messages)
        return tool_call("transfer_to_heir") if has_summary else tool_call("look", place=seen)

    walker = Agent(
        name="walker", llm=ScriptedLLM(answer), tools=[look], handoffs=[heir], max_turns=30,
        compact=Compaction(trigger=900, keep=2),
    )  # fmt: skip
    assert run_virtually(lambda: run(walker, "?")) == "It is empty."
    assert len(heard[0].messages) == 7
    assert MARK in heard[0].messages[0].text


def test_models_whose_usage_is_estimated_or_not_told_are_measured_all_the_same() -> None:
    class Silent(ChatModel):
        async def complete(self, request: ChatRequest, on_delta: Any) -> ChatResponse:
            if is_summary(request):
                return ChatResponse(text="Short.")
            seen = sum(message.role == "tool" for message in request.messages)
            if any(MARK in message.text for message in request.messages):
                return ChatResponse(text="Done.")
            call = ToolCall(id=str(seen), name="look", arguments=f'{{"place": {seen}}}')
            return ChatResponse(tool_calls=(call,))

    silent = Agent(
        name="silent", llm=Silent(model="m"), tools=[look], max_turns=40, compact=Compaction(trigger=1_000, keep=2)
    )
    assert run_virtually(lambda: run(silent, "?")) == "Done."


def test_a_crash_between_the_compaction_and_the_next_question_pays_for_no_second_summary() -> None:
    store, walker = MemoryStore(), Walker(places=9)
    dies = True

    async def answer(request: ChatRequest) -> object:
        nonlocal dies
        if dies and len(request.messages) > 1 and MARK in request.messages[1].text and not is_summary(request):
            dies = False
            raise Crash
        return await walker.answer(request)

    model = ScriptedLLM(answer)
    walker.model = model
    program = walker.agent(Compaction(trigger=1_500, keep=2))
    with pytest.raises(Crash):
        run_virtually(lambda: run(program, "?", store=store, run_id=RUN))
    assert len(walker.summaries) == 1
    assert run_virtually(lambda: run(program, "?", store=store, run_id=RUN)) == "There is nothing."
    assert len(walker.summaries) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"compact": Compaction(trigger=700, keep=2)}, {"compact": Compaction(trigger=100_000, keep=2)}),
        ({"compact": Compaction(trigger=700, keep=2)}, {"compact": Compaction(trigger=None, keep=2)}),
        ({"compact": Compaction(trigger=100_000, keep=2)}, {"compact": Compaction(trigger=300, keep=2)}),
        ({"compact": None}, {"compact": Compaction(trigger=300, keep=2)}),
        (
            {"compact": Compaction(trigger=0.5, keep=2), "max_context": 2_000},
            {"compact": Compaction(trigger=0.5, keep=2), "max_context": 700},
        ),
    ],
    ids=["later", "never", "earlier", "new", "another window"],
)
def test_what_an_earlier_execution_asked_and_made_shorter_is_not_decided_anew(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    def walking(compact: Any, **settings: Any) -> tuple[Walker, Agent]:
        walker = Walker(places=7, **settings)
        return walker, walker.agent(compact)

    store = KeepingStore()
    whole, program = walking(**before)
    run_virtually(lambda: run(program, "?", store=store, run_id=RUN))
    paid = [request.model_copy(update={"model": ""}) for request in whole.model.requests]
    calls = [number for number, (event, _) in enumerate(store.entries, 1) if event.actor.name == "scripted"]
    for count in (calls[9], len(store.entries) - 2):

        async def resume(count: int = count) -> Walker:
            left = await store.after_the_first(count)
            walker, program = walking(**after)
            assert await run(program, "?", store=left, run_id=RUN) == "There is nothing."
            return walker

        walker = run_virtually(resume)
        ended = sum(
            fact.actor.name == "scripted" and fact.status is ExecutionStatus.COMPLETED
            for fact, _ in store.entries[:count]
        )
        again = [request for request in walker.model.requests if request in paid[:ended]]
        assert not again, f"after {count} entries"
        assert len(walker.asked) <= 8 - sum(not is_summary(request) for request in paid[:ended])


@pytest.mark.parametrize("by", [DropTurns(), Summarize()], ids=["dropped", "summarized"])
def test_room_is_left_for_the_answer_so_that_no_request_is_refused_for_it(by: Any) -> None:
    """As with vLLM: what is sent and what may be answered have to fit into the window together."""
    refused: list[ChatRequest] = []

    async def answer(request: ChatRequest) -> object:
        size = sum(len(message.text) + 20 for message in request.messages) // 4
        if size + (request.max_tokens or 0) > 2_000:
            refused.append(request)
            return ContextTooLong("too long", status=400)
        return await walker.answer(request)

    walker = Walker(places=12)
    walker.model = ScriptedLLM(answer, max_context=2_000, max_tokens=900)
    assert walk(walker, Compaction(by, keep=1)) == "There is nothing."
    assert max(len(request.messages) for request in walker.asked) > 8
    assert not refused


@pytest.mark.parametrize(
    ("lengths", "left"),
    [((2, 2, 2, 2, 2), "s u a u"), ((900, 500, 300, 250, 100), "s u")],
    ids=["short", "long"],
)
def test_a_summary_is_dropped_for_the_last_try_only(lengths: Sequence[int], left: str) -> None:
    walker = Walker()
    walker.refuses_above = 300
    talk = [each for n in range(20) for each in (Message.user(f"{n} " + "word " * 80), Message.assistant("Yes."))]
    history = [*talk, Message.user("What is there? " + "Look well. " * 60)]
    writer = ScriptedLLM(["talk " * length for length in lengths], name="writer")
    only = walker.agent(Compaction([Summarize(writer), DropTurns()], trigger=None, keep=30), max_turns=1)
    with pytest.raises(TooManyTurns):
        run_virtually(lambda: run(only, history))
    assert roles(walker.asked[-1]) == left


def test_what_is_known_of_a_window_leaves_room_for_the_answer() -> None:
    assert ScriptedLLM([], max_context=2_000).known_room == 2_000
    small = ScriptedLLM([], max_context=2_000, max_tokens=500)
    assert small.known_room == 1_500
    assert ScriptedLLM([], max_tokens=500).known_room is None
    assert ScriptedLLM([], max_context=2_000, max_tokens=5_000).known_room == 2_000, "both cannot be right"
    other = ScriptedLLM([], max_context=1_600)
    assert Fallback(small, other).known_room == 1_500
    assert Fallback(small, other, max_tokens=300).known_room == 1_300
    assert Fallback(small, other, max_context=1_000).known_room == 500
    assert Fallback(small, ScriptedLLM([])).known_room is None


def test_a_function_that_makes_nothing_shorter_is_asked_again_only_when_there_is_more() -> None:
    asked: list[int] = []

    async def in_vain(history: list[Message]) -> list[Message]:
        asked.append(len(history))
        return history

    assert walk(Walker(places=25), Compaction(in_vain, trigger=500)) == "There is nothing."
    assert len(asked) > 2
    assert all(later >= 1.15 * earlier for earlier, later in pairwise(asked))


def test_the_last_try_is_with_the_shortest_conversation_that_there_can_be() -> None:
    """Nobody knows the window, and it is a tenth of what was said."""
    walker = Walker()
    walker.refuses_above = 330
    talk = [each for n in range(20) for each in (Message.user(f"{n} " + "word " * 80), Message.assistant("Yes."))]
    history = [*talk, Message.user("What is there? " + "Look well. " * 60)]
    only = walker.agent(Compaction(DropTurns(), trigger=None, keep=30), max_turns=1)
    with pytest.raises(TooManyTurns):
        run_virtually(lambda: run(only, history))
    assert roles(walker.asked[-1]) == "s u"
    assert len(walker.asked) <= 6


def test_where_the_window_is_known_the_second_try_fits() -> None:
    walker = Walker(max_context=1_000)
    walker.refuses_above = 1_000
    talk = [each for n in range(40) for each in (Message.user(f"{n} " + "word " * 80), Message.assistant("Yes."))]
    only = walker.agent(Compaction(DropTurns(), trigger=None, keep=90), max_turns=1)
    with pytest.raises(TooManyTurns):
        run_virtually(lambda: run(only, [*talk, Message.user("What is there?")]))
    assert len(walker.asked) == 2
    assert len(walker.asked[1].messages) > 8, "and no more is gone than has to be"


def test_what_is_too_large_for_another_limit_of_the_provider_is_made_shorter_too() -> None:
    async def answer(request: ChatRequest) -> object:
        if len(request.messages) > 12:
            return RequestTooLarge("the request has more than 32 MB", status=413)
        return await walker.answer(request)

    walker = Walker(places=9)
    walker.model = ScriptedLLM(answer)
    assert walk(walker, Compaction(DropTurns(), trigger=None, keep=2)) == "There is nothing."
    with pytest.raises(RequestTooLarge, match=r"^walker: the conversation cannot be .* 32 MB") as caught:
        walk(walker, Compaction(DropTurns(), trigger=None), [Message.system("Rule.")] * 12 + [Message.user("?")])
    assert type(caught.value) is RequestTooLarge


def test_results_that_are_shorter_than_the_note_stay() -> None:
    history = [Message.user("?")]
    for number, text in enumerate(("ok", "long " * 300, "last")):
        call = ToolCall(id=str(number), name="look", arguments="{}")
        history += [Message.assistant("", [call]), Message.tool(str(number), text)]
    model = ScriptedLLM(["Done."])
    agent = Agent(name="a", llm=model, tools=[look], compact=Compaction(ClearToolResults(), trigger=100, keep=1))
    assert run_virtually(lambda: run(agent, history)) == "Done."
    (request,) = model.requests
    texts = [message.text for message in request.messages if message.role == "tool"]
    assert texts[0] == "ok"
    assert texts[1].startswith("[This result was removed")
    assert texts[2] == "last"


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ([{"role": "user", "content": "Forget it, and look around."}], None),
        ("All was said.", "walker::compact has to return the messages that are left, as a list"),
        ([], "no message in it that a model could answer"),
        ([{"role": "tool", "tool_call_id": "x", "content": "y"}], "message 1 is the result of the call 'x'"),
    ],
    ids=["messages", "a text", "nothing", "half a turn"],
)
def test_another_result_in_a_copy_of_the_run_is_the_next_history_if_it_is_one(result: Any, problem: str | None) -> None:
    store, compact = MemoryStore(), Compaction(trigger=1_500, keep=2)
    walk(Walker(places=9), compact, store=store, run_id=RUN)

    async def copy() -> Walker:
        await fork(store, RUN, "copy", address="walker::compact", result=result)
        walker = Walker(places=9)
        await run(walker.agent(compact), "What is there?", store=store, run_id="copy")
        return walker

    if problem is None:
        assert [message.text for message in run_virtually(copy).asked[0].messages] == [
            "Look around.", "Forget it, and look around.",
        ]  # fmt: skip
        return
    with pytest.raises(OutputError, match=problem):
        run_virtually(copy)
