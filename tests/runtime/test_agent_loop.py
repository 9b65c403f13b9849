"""Agents whose model decides: turn by turn, every step recorded, and killed at any of them it goes on there."""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel

from rh_agents import (
    Agent,
    Budget,
    BudgetExceeded,
    EventType,
    ExecutionEvent,
    ExecutionState,
    ExecutionStatus,
    MemoryStore,
    RunAwaiting,
    Tool,
    agent,
    run,
    tool,
)
from rh_agents.core.chat import (
    ChatRequest,
    ChatResponse,
    FinishReason,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    call_tools,
)
from rh_agents.core.errors import AnswerTruncated, DefinitionError, InvalidAnswer, ModelRefused, RateLimited
from rh_agents.errors import TooManyTurns
from rh_agents.testing import ScriptedLLM, tool_call
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import Crash


class Verdict(BaseModel):
    city: str
    people: int


@tool
async def population(city: str) -> int:
    """How many people live in a city.

    Args:
        city: its name.
    """
    await asyncio.sleep(1.0)
    return {"Oslo": 717_710, "Bergen": 291_940}[city]


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


def geographer(script: Any, **options: Any) -> Agent[Any]:
    return Agent(name="geographer", llm=ScriptedLLM(script), **{"tools": [population], **options})


def test_the_tools_of_a_turn_are_called_side_by_side_and_the_model_gets_their_results_in_order() -> None:
    asked: list[ChatRequest] = []

    def model(request: ChatRequest) -> object:
        asked.append(request)
        if len(asked) == 1:
            return [tool_call("population", city="Oslo"), tool_call("population", city="Bergen")]
        return "Oslo"

    async def program() -> float:
        began = asyncio.get_running_loop().time()
        assert await run(geographer(model, instructions="Look it up."), "Which is larger?") == "Oslo"
        return asyncio.get_running_loop().time() - began

    assert run_virtually(program) == pytest.approx(1.0, abs=0.1)
    assert [message.role for message in asked[1].messages] == ["system", "user", "assistant", "tool", "tool"]
    assert [message.text for message in asked[1].messages[3:]] == ["717710", "291940"]
    assert asked[0].tools[0].parameters["properties"]["city"]["description"] == "its name."


def test_the_answer_has_the_type_that_was_asked_for_and_the_model_is_told_what_is_wrong() -> None:
    reviewer = geographer(['{"city": "Oslo"}', '{"city": "Oslo", "people": 717710}'], output=Verdict)
    assert run_virtually(lambda: run(reviewer, "Which?")) == Verdict(city="Oslo", people=717_710)
    stubborn = geographer(['{"city": "Oslo"}'] * 3, output=Verdict)
    with pytest.raises(InvalidAnswer, match="people"):
        run_virtually(lambda: run(stubborn, "Which?"))


@pytest.mark.parametrize("crash_at", range(5))
def test_an_agent_that_was_killed_goes_on_at_the_turn_where_it_was(crash_at: int) -> None:
    store, steps = MemoryStore(), list[str]()

    def step(name: str) -> None:
        steps.append(name)
        if len(steps) == crash_at + 1 and steps.count(name) == 1:
            raise Crash

    @tool
    async def look(place: str) -> str:
        step(f"look {place}")
        return place.upper()

    def model(request: ChatRequest) -> object:
        said = sum(message.role == "assistant" for message in request.messages)
        step(f"model {said}")
        return tool_call("look", place=f"p{said}") if said < 2 else "done"

    watcher = Agent(name="watcher", llm=ScriptedLLM(model), tools=[look])

    async def program() -> str:
        return await run(watcher, "Look around.", store=store, run_id="r")

    with pytest.raises(Crash):
        run_virtually(program)
    assert run_virtually(program) == "done"
    wanted = ["model 0", "look p0", "model 1", "look p1", "model 2"]
    assert steps == [*wanted[: crash_at + 1], *wanted[crash_at:]]
    assert run_virtually(program) == "done"
    assert len(steps) == 6


def test_agents_are_tools_of_agents() -> None:
    inner = Agent(name="weather", llm=ScriptedLLM(["Rain."]), description="Knows the weather.")
    outer = Agent(name="planner", llm=ScriptedLLM([tool_call("weather", prompt="Now?"), "Umbrella."]), tools=[inner])

    async def program() -> list[tuple[EventType | None, str]]:
        async with ExecutionState() as state:
            assert await outer("What shall I take?") == "Umbrella."
            ended = [event for event in state.history if event.execution_status is ExecutionStatus.COMPLETED]
            return [(event.actor.event_type, event.actor.name) for event in ended]

    assert (EventType.AGENT_CALL, "weather") in run_virtually(program)


def test_a_conversation_is_handed_over_with_all_that_was_said() -> None:
    heard: list[ChatRequest] = []

    def listen(request: ChatRequest) -> str:
        heard.append(request)
        return "It is 42."

    expert = Agent(name="the expert", llm=ScriptedLLM(listen), instructions="You know.", description="Knows it all.")
    desk = Agent(
        name="desk", llm=ScriptedLLM([[tool_call("transfer_to_the_expert")]]), handoffs=[expert], instructions="Ask."
    )
    assert run_virtually(lambda: run(desk, "What is the answer?")) == "It is 42."
    assert [message.role for message in heard[0].messages] == ["system", "user", "assistant", "tool"]
    assert heard[0].messages[0].text == "You know."


def test_an_agent_without_an_answer_stops_after_its_turns() -> None:
    restless = geographer(lambda _: tool_call("population", city="Oslo"), max_turns=3)
    with pytest.raises(TooManyTurns, match="3 turns"):
        run_virtually(lambda: run(restless, "Well?"))


def test_no_tool_is_called_whose_result_the_model_would_not_see() -> None:
    looked_up: list[str] = []

    @tool
    async def look_up(city: str) -> str:
        looked_up.append(city)
        return city

    restless = Agent(
        name="a", llm=ScriptedLLM(lambda _: tool_call("look_up", city="Oslo")), tools=[look_up], max_turns=3
    )
    with pytest.raises(TooManyTurns):
        run_virtually(lambda: run(restless, "Well?"))
    assert looked_up == ["Oslo"] * 2


def test_a_tool_call_that_was_cut_off_is_not_made() -> None:
    called: list[str] = []

    @tool
    async def delete(path: str = "/") -> None:
        called.append(path)

    cut_off = ChatResponse(tool_calls=(tool_call("delete"),), finish_reason=FinishReason.LENGTH)
    with pytest.raises(AnswerTruncated, match="max_tokens"):
        run_virtually(lambda: run(Agent(name="a", llm=ScriptedLLM([cut_off]), tools=[delete]), "Tidy up."))
    assert called == []


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("\ud800!", "\ufffd!"),
        ({"half": "\udc00"}, '{"half":"\ufffd"}'),
        (b"\xff\x00", '"_wA="'),
        ({1, 2}, "[1,2]"),
        (None, "null"),
        (CIRCLE, "[[...]]"),
    ],
)
def test_whatever_a_tool_returns_the_model_is_told_of_it(value: Any, told: str) -> None:
    @tool
    async def fetch() -> Any:
        return value

    heard: list[str] = []

    def model(request: ChatRequest) -> object:
        if request.messages[-1].role == "user":
            return tool_call("fetch")
        heard.append(request.messages[-1].text)
        return "Thanks."

    assert run_virtually(lambda: run(Agent(name="a", llm=ScriptedLLM(model), tools=[fetch]), "Fetch.")) == "Thanks."
    assert heard == [told]


def test_what_is_no_json_is_no_argument_so_a_person_sees_what_a_tool_gets() -> None:
    heard: list[str] = []

    @tool(effect="external", on_unknown="fail")
    async def pay(amount: float | None) -> None:
        raise AssertionError("nobody allowed that")

    def model(request: ChatRequest) -> object:
        if request.messages[-1].role == "user":
            return ToolCall(id="1", name="pay", arguments='{"amount": NaN}')
        heard.append(request.messages[-1].text)
        return "Sorry."

    assert run_virtually(lambda: run(Agent(name="a", llm=ScriptedLLM(model), tools=[pay]), "Pay.")) == "Sorry."
    assert "no JSON" in heard[0]


def test_a_model_that_will_not_answer_is_a_failure_and_one_that_is_busy_is_asked_again() -> None:
    with pytest.raises(ModelRefused, match="will not"):
        run_virtually(lambda: run(geographer([ChatResponse(refusal="No.")]), "Well?"))
    assert run_virtually(lambda: run(geographer([RateLimited("slowly"), "Yes."]), "Well?")) == "Yes."


def test_the_model_is_told_of_wrong_arguments_unknown_tools_and_failures() -> None:
    heard: list[str] = []

    def model(request: ChatRequest) -> object:
        if request.messages[-1].role == "user":
            return [
                tool_call("population", town="Oslo"),
                tool_call("populations", city="Oslo"),
                tool_call("population", city="Atlantis"),
                tool_call("population", city="Oslo", country="Norway"),
            ]
        heard.extend(message.text for message in request.messages if message.role == "tool")
        return "I see."

    assert run_virtually(lambda: run(geographer(model), "Well?")) == "I see."
    assert "city" in heard[0]
    assert "populations" in heard[1]
    assert "Atlantis" in heard[2]
    assert "no parameter country" in heard[3]


def test_a_tool_that_says_so_fails_its_agent() -> None:
    async def fall(depth: int) -> int:
        raise LookupError(f"no ground at {depth}")

    faller = geographer([tool_call("fall", depth=3)], tools=[Tool(name="fall", handler=fall, on_error="raise")])
    with pytest.raises(LookupError, match="no ground"):
        run_virtually(lambda: run(faller, "Jump."))


def test_a_person_allows_an_external_effect_with_just_its_arguments() -> None:
    store, sent = MemoryStore(), list[str]()

    @tool(effect="external", on_unknown="fail")
    async def send(text: str) -> str:
        sent.append(text)
        return "sent"

    def secretary(text: str) -> Agent:
        return Agent(name="secretary", llm=ScriptedLLM({"": [tool_call("send", text=text), "Done."]}), tools=[send])

    async def program() -> Any:
        return await run(secretary("thank you"), "Write.", store=store, run_id="r")

    with pytest.raises(RunAwaiting) as waiting:
        run_virtually(program)
    assert sent == []
    (question,) = waiting.value.questions
    run_virtually(lambda: store.answer("r", question, b"true"))
    assert run_virtually(program) == "Done."
    assert sent == ["thank you"]


def test_what_a_person_does_not_allow_is_not_called_and_the_model_is_told_so() -> None:
    store, heard = MemoryStore(), list[str]()

    @tool(effect="external", on_unknown="fail")
    async def send(text: str) -> str:
        raise AssertionError("nobody allowed that")

    def model(request: ChatRequest) -> object:
        if request.messages[-1].role == "user":
            return tool_call("send", text="thank you")
        heard.append(request.messages[-1].text)
        return "I did not write."

    secretary = Agent(name="secretary", llm=ScriptedLLM(model), tools=[send])
    with pytest.raises(RunAwaiting) as waiting:
        run_virtually(lambda: run(secretary, "Write.", store=store, run_id="r"))
    run_virtually(lambda: store.answer("r", waiting.value.questions[0], b"false"))
    assert run_virtually(lambda: run(secretary, "Write.", store=store, run_id="r")) == "I did not write."
    assert heard == ["Error: A person did not allow this call."]


def test_what_a_person_allowed_holds_for_no_other_arguments() -> None:
    store, sent = MemoryStore(), list[str]()

    @tool(effect="external", on_unknown="fail")
    async def send(text: str) -> str:
        sent.append(text)
        return "sent"

    async def program(text: str, resume_from: str | None = None) -> Any:
        script = {"": [tool_call("send", text=text), "Done."]}
        secretary = Agent(name="secretary", llm=ScriptedLLM(script), tools=[send])
        return await run(secretary, "Write.", store=store, run_id="r", resume_from=resume_from)

    with pytest.raises(RunAwaiting) as waiting:
        run_virtually(lambda: program("thank you"))
    run_virtually(lambda: store.answer("r", waiting.value.questions[0], b"true"))
    with pytest.raises(RunAwaiting) as again:
        run_virtually(lambda: program("all my money", resume_from="secretary::scripted"))
    assert again.value.questions != waiting.value.questions
    assert sent == []


def test_only_the_first_turn_has_to_call_a_tool() -> None:
    asked: list[ChatRequest] = []

    def model(request: ChatRequest) -> object:
        asked.append(request)
        return tool_call("population", city="Oslo") if len(asked) == 1 else '{"city": "Oslo", "people": 717710}'

    obedient = geographer(model, tool_choice="required", output=Verdict)
    assert run_virtually(lambda: run(obedient, "Which?")) == Verdict(city="Oslo", people=717_710)
    assert [request.tool_choice for request in asked] == ["required", None]
    assert [request.output_name for request in asked] == ["", "Verdict"]


def test_of_two_agents_that_shall_take_over_the_first_one_does() -> None:
    heard: list[list[str]] = []

    def target(name: str) -> Agent:
        def model(request: ChatRequest) -> object:
            heard.append([message.text for message in request.messages if message.role == "tool"])
            return name

        return Agent(name=name, llm=ScriptedLLM(model))

    both = [tool_call("transfer_to_first"), tool_call("transfer_to_second")]
    clerk = Agent(name="clerk", llm=ScriptedLLM([both]), handoffs=[target("first"), target("second")])
    assert run_virtually(lambda: run(clerk, "Help.")) == "first"
    assert heard == [["The conversation is handed over.", "Only one agent can take over, and another one does."]]


def test_the_budget_of_an_agent_ends_its_loop() -> None:
    restless = geographer(lambda _: tool_call("population", city="Oslo"), max_turns=1_000, budget=Budget(calls=10))
    with pytest.raises(BudgetExceeded, match="geographer"):
        run_virtually(lambda: run(restless, "Well?"))


def test_a_function_stays_an_agent_and_an_agent_needs_a_model_or_a_function() -> None:
    @agent
    async def double(number: int) -> int:
        return 2 * number

    assert run_virtually(lambda: run(double, 4)) == 8
    with pytest.raises(DefinitionError, match="llm="):
        Agent(name="nobody")


def test_an_agent_can_be_called_through_an_event() -> None:
    async def program() -> Any:
        async with ExecutionState() as state:
            result = await ExecutionEvent(actor=geographer(["Hello."]))("Hi.", None, state)
            return result.unwrap()

    assert run_virtually(program) == "Hello."


def test_a_prompt_may_be_a_conversation() -> None:
    talk = [Message.user("Hi."), Message.assistant("Hello."), Message.user("How are you?")]
    echo = geographer(lambda request: request.messages[-1].text)
    assert run_virtually(lambda: run(echo, talk)) == "How are you?"


def shown(tools: list[Any], **options: Any) -> list[Message]:
    """What the model is told when it calls each of the tools with nothing."""
    model = ScriptedLLM([[tool_call(each.actor.name) for each in tools], "done"])
    assert run_virtually(lambda: run(Agent(name="a", llm=model, tools=tools, **options), "?", store=MemoryStore()))
    return [message for message in model.requests[-1].messages if message.role == "tool"]


def test_the_model_is_told_as_much_of_a_result_as_its_tool_or_else_its_agent_says() -> None:
    @tool
    async def much() -> str:
        return "x" * 100_000

    @tool(max_result=200)
    async def little() -> str:
        return "x" * 100_000

    @tool
    async def broken() -> str:
        raise ValueError("x" * 100_000)

    @tool(max_result=100_000)
    async def all_of_it() -> str:
        return "x" * 100_000

    tools = [much, little, broken, all_of_it]
    for options, limits in (({}, [50_000, 200, 50_000, 100_000]), ({"max_result": 1000}, [1000, 200, 1000, 100_000])):
        told = [message.text for message in shown(tools, **options)]
        assert [limit - 10 < len(text) <= limit for text, limit in zip(told, limits, strict=True)] == [True] * 4
        assert ["are cut out here" in text for text in told] == [True, True, True, False]


def test_images_reach_the_model_as_images_and_a_run_that_goes_on_shows_them_again() -> None:
    done: list[str] = []

    @tool
    async def photo() -> Annotated[bytes, ImagePart]:
        done.append("photo")
        return b"\xff\xd8\xff"

    @tool
    async def chart() -> dict[str, Any]:
        done.append("chart")
        return {"title": "sales", "chart": ImagePart.from_bytes(b"c")}

    store, told = MemoryStore(), []

    def think(request: ChatRequest) -> object:
        results = [message.content for message in request.messages if message.role == "tool"]
        if not results:
            return [tool_call("photo"), tool_call("chart")]
        told.append(results)
        if len(told) == 1:
            raise Crash
        return "seen"

    looker = Agent(name="looker", llm=ScriptedLLM(think), tools=[photo, chart])
    with pytest.raises(Crash):
        run_virtually(lambda: run(looker, "?", store=store, run_id="r"))
    assert run_virtually(lambda: run(looker, "?", store=store, run_id="r")) == "seen"
    assert done == ["photo", "chart"]
    assert told[0] == told[1]
    assert told[0] == [
        (ImagePart.from_bytes(b"\xff\xd8\xff", "image/jpeg"),),
        (TextPart(text='{"title":"sales","chart":"[image 1]"}'), ImagePart.from_bytes(b"c")),
    ]


@pytest.mark.parametrize("nothing", ["", "  ", "null", "[]", "{}", '"{}"', '""'])
def test_nothing_however_it_is_written_is_no_arguments(nothing: str) -> None:
    @tool
    async def now() -> str:
        return "noon"

    @tool
    async def at(city: str = "Oslo") -> str:
        return city

    for each, told in ((now, "noon"), (at, "Oslo")):
        wanted = [ToolCall(id="1", name=each.actor.name, arguments=nothing)]
        (message,) = run_virtually(functools.partial(call_tools, wanted, [each.actor]))
        assert message.text == told


def _refuse(value: str) -> str:
    raise SystemExit(2) if value == "exit" else KeyError(value)


def test_a_validator_that_fails_in_its_own_way_is_told_to_the_model() -> None:
    @tool
    async def look(city: Annotated[str, AfterValidator(_refuse)]) -> str:
        return city

    for city, told in (("exit", "called sys.exit"), ("Oslo", "KeyError: 'Oslo'")):
        wanted = [ToolCall(id="1", name="look", arguments=f'{{"city": "{city}"}}')]
        (message,) = run_virtually(functools.partial(call_tools, wanted, [look.actor]))
        assert message.text.startswith("Error: the arguments of look do not fit")
        assert told in message.text


def test_a_tool_that_exits_is_a_failure_that_the_model_is_told() -> None:
    @tool
    async def leave() -> str:
        raise SystemExit(3)

    @tool
    def leave_in_a_thread() -> str:
        sys.exit("done")

    async def yes(_: Any) -> bool:
        return True

    for each in (leave.actor, Tool(name="asked", handler=leave.__wrapped__, needs_approval=True)):
        options: Any = {"answerer": yes} if each.name == "asked" else {}
        model = ScriptedLLM([tool_call(each.name), "done"])
        assert asyncio.run(run(Agent(name="a", llm=model, tools=[each]), "?", **options)) == "done"
        assert model.requests[-1].messages[-1].text == "Error: CalledExit: called sys.exit(3)"
    model = ScriptedLLM([tool_call("leave_in_a_thread"), "done"])
    assert asyncio.run(run(Agent(name="a", llm=model, tools=[leave_in_a_thread]), "?")) == "done"
    assert "called sys.exit('done')" in model.requests[-1].messages[-1].text
