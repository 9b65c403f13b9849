"""What earlier versions recorded is found: keys held less then, and models were told of tools in another way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any

import pytest

from rh_agents import Agent, ExecutionEvent, MemoryStore, Tool, parallel, run, tool
from rh_agents.cli.program import Program
from rh_agents.core._base.key_generations import ENDPOINTS, EVERY_ENDPOINT, fact_of_keys, generation_of_keys
from rh_agents.core.chat import ChatModel, ChatRequest, ChatResponse, Fallback, FinishReason, ImagePart, ToolCall
from rh_agents.core.plan import Fate, Plan, PlannedCall, plan_run
from rh_agents.core.ports import RunRequest
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.testing import ScriptedLLM, tool_call
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import Crash

RUN = "r"


def model(server: str | None, **settings: Any) -> ScriptedLLM:
    """A model of the same name everywhere, which says where it is."""
    return ScriptedLLM(lambda request: f"I am at {server}", endpoint=server, **settings)


async def answers(*models: ScriptedLLM) -> list[str]:
    return [await each.ask("Who are you?") for each in models]


async def answers_side_by_side(*models: ScriptedLLM) -> list[str]:
    async with parallel(max_workers=1) as p:
        for each in models:
            p.add(each.ask("Who are you?"))
        return [result.unwrap() for result in await p.gather()]


async def as_of_before(
    store: MemoryStore, status: ExecutionStatus = ExecutionStatus.COMPLETED, generation: int = 0
) -> None:
    """Let the run be one of a version that said something else about its keys, or nothing."""
    facts = {"made by": "an earlier version", **fact_of_keys(generation)}
    journal = await store.open_run(RunRequest(RUN, "before", facts=facts))
    await journal.close(status)


def calls(*models: ScriptedLLM) -> int:
    return sum(len(each.requests) for each in models)


PROGRAMS = pytest.mark.parametrize("program", [answers, answers_side_by_side])


@PROGRAMS
@pytest.mark.parametrize("cache", [None, "run", "store"])
def test_two_servers_with_models_of_one_name_answer_each_for_itself(program: Callable[..., Any], cache: Any) -> None:
    a, b, here = model("a", cache=cache), model("b", cache=cache), model(None, cache=cache)
    store = MemoryStore()

    async def main() -> None:
        said = ["I am at a", "I am at b", "I am at None"]
        assert await run(program, a, b, here, store=store, run_id=RUN) == said
        assert await run(program, a, b, here, store=store, run_id=RUN, reuse=True) == said
        assert await run(program, here, b, a, store=store, run_id=RUN, reuse=True) == said[::-1]
        assert calls(a, b, here) == 3
        assert await run(program, a, b, here, store=store, run_id="other") == said

    run_virtually(main)
    assert calls(a, b, here) == (3 if cache == "store" else 6)


def test_an_outcome_under_a_former_key_is_known_beforehand() -> None:
    store, known = MemoryStore(), list[bool]()

    async def program(a: ScriptedLLM) -> str:
        call = a.ask("Who are you?")
        known.append(await call.has_outcome())
        return await call

    async def main() -> None:
        await as_of_before(store)
        await run(program, model(None), store=store, run_id=RUN, reuse=True)
        await run(program, model("a"), store=store, run_id=RUN, reuse=True)

    run_virtually(main)
    assert known == [False, True]


@PROGRAMS
def test_a_journal_of_before_is_replayed_without_a_call_and_says_so_once(
    program: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    a, b = model("a"), model("b")

    async def main() -> None:
        first = await run(program, model(None), model(None), store=store, run_id=RUN)
        await as_of_before(store)
        for _ in range(2):
            with caplog.at_level(logging.WARNING, logger="rh_agents"):
                assert await run(program, a, b, store=store, run_id=RUN, reuse=True) == first
            said = [record.getMessage() for record in caplog.records]
            assert len(said) == 1
            assert "no part of a model's identity" in said[0]
            caplog.clear()

    run_virtually(main)
    assert calls(a, b) == 0


class LateLLM(ScriptedLLM):
    """A model whose server is a part of its keys since later than that of others."""

    @property
    def keys_since(self) -> int:
        return EVERY_ENDPOINT


late_llm: Any = LateLLM  # for type checkers, a class of fields takes no handler


@PROGRAMS
@pytest.mark.parametrize("generation", [0, ENDPOINTS, EVERY_ENDPOINT])
def test_each_model_is_looked_up_in_the_journals_that_said_less_of_it(
    program: Callable[..., Any], generation: int
) -> None:
    """In others, the key without a server is that of a model that has none."""
    store = MemoryStore()
    early, late = model("a"), late_llm(lambda request: "I am at b", name="late", endpoint="b")

    async def main() -> None:
        before = [model(None), late_llm(lambda request: "I am late", name="late")]
        await run(program, *before, store=store, run_id=RUN)
        await as_of_before(store, generation=generation)
        for _ in range(2):
            said = await run(program, early, late, store=store, run_id=RUN, reuse=True)
            assert said == [
                "I am at None" if generation < ENDPOINTS else "I am at a",
                "I am late" if generation < EVERY_ENDPOINT else "I am at b",
            ]
        info = await store.find_run(RUN)
        assert generation_of_keys(None if info is None else info.facts) == generation

    run_virtually(main)
    assert (calls(early), calls(late)) == (int(generation >= ENDPOINTS), int(generation >= EVERY_ENDPOINT))


def test_a_run_of_a_later_version_has_the_latest_keys_that_are_known() -> None:
    async def main() -> int:
        store = MemoryStore()
        journal = await store.open_run(RunRequest(RUN, "later", facts={"keys": "with everything"}))
        await journal.close(ExecutionStatus.COMPLETED)
        info = await store.find_run(RUN)
        return generation_of_keys(None if info is None else info.facts)

    assert run_virtually(main) == EVERY_ENDPOINT
    assert fact_of_keys(0) == {}


@pytest.mark.parametrize("is_set", [True, False])
def test_a_fallback_is_found_under_what_it_was_called_when_less_was_known_of_its_models(is_set: bool) -> None:
    """What a model of one class adds to requests was no part of what a fallback is, and was not sent then."""

    class OwnLLM(LateLLM):
        @property
        def own_fields(self) -> dict[str, Any]:
            return {"thinking": True} if is_set else {}

    own_llm: Any = OwnLLM
    store = MemoryStore()
    models = [own_llm(lambda request: "Hello.", endpoint="b"), ScriptedLLM(lambda request: "Never.")]
    both = Fallback(*models)
    assert len(both.former_versions) == 1
    before = Fallback(ScriptedLLM(lambda request: "Hello of before."), models[1])
    assert before.recorded_version == both.former_versions[0]

    async def main() -> None:
        assert await run(both.ask, "Hi?", store=MemoryStore()) == "Hello."
        await run(before.ask, "Hi?", store=store, run_id=RUN)
        await as_of_before(store, generation=ENDPOINTS)
        assert await run(both.ask, "Hi?", store=store, run_id=RUN, reuse=True) == "Hello of before."

    run_virtually(main)
    assert [request.extra for request in models[0].requests] == ([{"thinking": True}] if is_set else [{}])


@PROGRAMS
def test_what_such_a_run_adds_has_the_keys_of_today(program: Callable[..., Any]) -> None:
    store = MemoryStore()
    a, b = model("a"), model("b")

    async def main() -> None:
        await run(program, model(None), store=store, run_id=RUN)
        await as_of_before(store)
        assert await run(program, a, b, store=store, run_id=RUN, reuse=True) == ["I am at None", "I am at b"]
        assert await run(program, a, b, store=store, run_id=RUN, reuse=True) == ["I am at None", "I am at b"]

    run_virtually(main)
    assert (calls(a), calls(b)) == (0, 1)


@PROGRAMS
def test_in_a_journal_of_today_another_server_is_asked_anew(program: Callable[..., Any]) -> None:
    store = MemoryStore()
    a = model("a")

    async def main() -> None:
        await run(program, model(None), store=store, run_id=RUN)
        assert await run(program, a, store=store, run_id=RUN, reuse=True) == ["I am at a"]

    run_virtually(main)
    assert calls(a) == 1


def test_a_failed_call_of_before_is_tried_again_at_its_own_place() -> None:
    store = MemoryStore()
    a = model("a")
    fails = ScriptedLLM(lambda request: (_ for _ in ()).throw(ValueError("no")), retry=None)

    async def main() -> None:
        with pytest.raises(ValueError, match="no"):
            await run(answers, fails, store=store, run_id=RUN)
        await as_of_before(store)
        for _ in range(2):
            assert await run(answers, a, store=store, run_id=RUN, reuse=True) == ["I am at a"]

    run_virtually(main)
    assert calls(a) == 1


def test_what_an_earlier_version_had_in_a_cache_is_used_and_what_another_server_said_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main(before: ScriptedLLM) -> list[str]:
        store = MemoryStore()
        await run(answers, before, store=store)
        return await run(answers, model("a", cache="store"), store=store)

    assert run_virtually(lambda: main(model(None, cache="store"))) == ["I am at a"]
    monkeypatch.setattr(ChatModel, "cache_label", property(lambda self: self.name))  # as it was once
    assert run_virtually(lambda: main(model(None, cache="store"))) == ["I am at None"]


def test_a_key_of_the_programs_own_stands_for_the_input_and_not_for_the_server() -> None:
    async def keyed(*models: ScriptedLLM) -> list[Any]:
        return [(await each("Who?").with_options(key="who")).text for each in models]

    async def main() -> list[Any]:
        return await run(keyed, model("a"), model("b"), store=MemoryStore(), run_id=RUN)

    assert run_virtually(main) == ["I am at a", "I am at b"]


def test_events_say_which_server_was_asked() -> None:
    events: list[ExecutionEvent[Any]] = []
    run_virtually(lambda: run(answers, model("a"), model(None), store=MemoryStore(), subscribers=[events.append]))
    versions = {event.model_dump()["actor"]["version"] for event in events if event.name == "scripted"}
    assert versions == {"1 at a", "1"}


@pytest.mark.parametrize(
    ("recorded", "server", "is_former", "says"),
    [
        ("1 at a", "b", False, "endpoint changed; recorded is version 1 at a, now it is 1 at b"),
        ("1 at a", None, False, "endpoint changed; recorded is version 1 at a, now it is 1"),
        ("1", "b", False, "endpoint changed; recorded is version 1, now it is 1 at b"),
        ("1", "b", True, "recorded without its server: its answers are used again"),
        ("1 at b", "b", False, None),
        ("1", None, True, None),
        ("0", None, False, "is recorded with version 0, and has version 1 now"),
    ],
)
def test_a_plan_says_that_an_endpoint_has_changed(
    recorded: str, server: str | None, is_former: bool, says: str | None
) -> None:
    call = PlannedCall(b"k", b"k", "scripted", "scripted", recorded, EventType.LLM_CALL, Fate.REUSED)
    code = Program({"scripted": model(server)}, keys_generation=0 if is_former else EVERY_ENDPOINT)
    found = code.changed(Plan((call,)))
    assert len(found) == (says is not None)
    assert says is None or says in found[0]


def test_a_plan_finds_the_recorded_endpoint_in_the_journal() -> None:
    store = MemoryStore()

    async def main() -> list[str]:
        await run(answers, model("a"), store=store, run_id=RUN)
        info = await store.find_run(RUN)
        assert info is not None
        events = [each async for each in store.events(RUN)]
        outcomes = [each.header async for each in store.unread_outcomes(RUN)]
        plan = plan_run(info, outcomes, events)
        return Program({"scripted": model("b")}, keys_generation=generation_of_keys(info.facts)).changed(plan)

    assert "endpoint changed" in run_virtually(main)[0]


# -- what models were told of tools -----------------------------------------------------------------------------------

LONG = "x" * 30_000 + "y" * 30_000
WRITTEN = {"dump": "", "draw": "{}", "paint": "{}", "odd": "null", "fail": "{}"}
WHOLE = {
    "dump": LONG,
    "draw": '{"type":"image","url":"data:image/png;base64,ZG90","detail":null}',
    "paint": '"ZG90"',
    "odd": "Error: the arguments of odd must be a JSON object with an entry for each parameter",
    "fail": f"Error: ValueError: {LONG}",
}
"""What the version before `max_result` told a model, word for word."""


@tool
async def dump() -> str:
    return LONG


@tool
async def draw() -> ImagePart:
    return ImagePart.from_bytes(b"dot")


@tool
async def paint() -> Annotated[bytes, ImagePart]:
    return b"dot"


@tool
async def odd() -> str:
    return "called"


@tool
async def fail() -> str:
    raise ValueError(LONG)


TOOLS = [dump, draw, paint, odd, fail]


def script() -> ScriptedLLM:
    wanted = [ToolCall(id=name, name=name, arguments=arguments) for name, arguments in WRITTEN.items()]
    return ScriptedLLM([ChatResponse(tool_calls=tuple(wanted), finish_reason=FinishReason.TOOL_CALLS), "done"])


def told(llm: ScriptedLLM) -> dict[str | None, Any]:
    return {each.tool_call_id: each.content for each in llm.requests[-1].messages if each.role == "tool"}


def test_a_run_of_before_goes_on_with_what_its_model_was_told_then() -> None:
    store, llm = MemoryStore(), script()

    async def main() -> None:
        await as_of_before(store, ExecutionStatus.STARTED)
        assert await run(Agent(name="a", llm=llm, tools=TOOLS), "?", store=store, run_id=RUN, reuse=True) == "done"

    run_virtually(main)
    assert told(llm) == WHOLE


@pytest.mark.parametrize("is_of_before", [True, False])
def test_a_result_of_60000_characters_is_not_asked_about_again_if_a_model_was_told_it_whole_then(
    is_of_before: bool,
) -> None:
    store, crashes = MemoryStore(), [Crash()]

    @tool
    async def look() -> str:
        if crashes:
            raise crashes.pop()
        return "fine"

    def answer(request: ChatRequest) -> Any:
        turn = sum(message.role == "assistant" for message in request.messages)
        return [tool_call("dump"), tool_call("look"), "done"][turn]

    before, now = ScriptedLLM(answer), ScriptedLLM(answer)

    async def converse(agent: Agent) -> str:
        return await run(agent, "?", store=store, run_id=RUN)

    async def main() -> None:
        with pytest.raises(Crash):
            await converse(Agent(name="a", llm=before, tools=[dump, look], max_result=1_000_000))
        if is_of_before:
            await as_of_before(store, ExecutionStatus.STARTED)
        assert await converse(Agent(name="a", llm=now, tools=[dump, look])) == "done"

    run_virtually(main)
    assert [message.text for message in before.requests[1].messages if message.role == "tool"] == [LONG]
    assert calls(now) == (1 if is_of_before else 2)


@pytest.mark.parametrize("stated_by", ["agent", "tool"])
def test_what_a_program_states_itself_counts_in_a_run_of_before_as_well(stated_by: str) -> None:
    store, llm = MemoryStore(), ScriptedLLM([[tool_call("long"), tool_call("draw")], "done"])
    long = Tool(name="long", handler=dump.actor.handler, max_result=1000 if stated_by == "tool" else None)
    limit = 1000 if stated_by == "agent" else None

    async def main() -> None:
        await as_of_before(store, ExecutionStatus.STARTED)
        agent = Agent(name="a", llm=llm, tools=[long, draw], max_result=limit)
        assert await run(agent, "?", store=store, run_id=RUN, reuse=True) == "done"

    run_virtually(main)
    text, image = told(llm).values()
    assert len(text) <= 1000
    assert image == (WHOLE["draw"] if limit is None else (ImagePart.from_bytes(b"dot"),))
