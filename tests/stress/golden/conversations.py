"""The conversations of the golden journals. They never change: every version has to find what was recorded of them.

Each program is executed as a run of its own, named as in `PROGRAMS`, and returns plain data. What is not in a journal
is a request to the server of `answer_as_recorded`, or stands in `made`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel

from rh_agents import (
    Agent,
    Budget,
    ExecutionEvent,
    Message,
    Price,
    Tool,
    Usage,
    agent,
    parallel,
    report_usage,
    storable,
    tool,
)
from rh_agents.core.chat import (
    ChatRequest,
    ChatResponse,
    FinishReason,
    ImagePart,
    TextPart,
    ToolCall,
    ToolSpec,
    call_tools,
)
from rh_agents.core.errors import ModelError, RhAgentsError
from rh_agents.core.results import ExecutionResult
from rh_agents.llms import OpenAIChat
from rh_agents.llms.openai_batch import OpenAIBatches, in_batches
from tests.services.batch_server import BatchServer
from tests.services.model_server import Exchange, Reply, answer, chunks, error, streamed, tool_calls

__all__ = ["PROGRAMS", "QUESTION", "SCHEMA", "URL", "answer_as_recorded", "made"]

SCHEMA = "golden"
"""The schema of the PostgreSQL database."""

URL = "http://127.0.0.1:47113/v1"
"""Where the server is while the journals are made. Nobody is there when they are replayed."""

made: list[str] = []
"""Which functions were called, in this process."""


# -- the models --------------------------------------------------------------------------------------------------------

PRICE = Price(input=1.0, output=2.0, cached_input=0.5)
model = OpenAIChat("golden", api_key="none", price=PRICE, retry=None)
"""The provider's own: its place is what OPENAI_BASE_URL says."""
placed = OpenAIChat("golden-placed", URL, "none", price=PRICE, retry=None, temperature=0.5, seed=7)
"""At a place of its own, with settings of its own."""
streaming = OpenAIChat("golden-streaming", api_key="none", price=PRICE, retry=None, stream=True)
cached = OpenAIChat("golden-cached", api_key="none", price=PRICE, retry=None, cache="store")


def _wanting(*calls: tuple[str, str]) -> Reply:
    """An answer that wants tools to be called, with arguments as they are written."""
    wanted = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": text}}
        for number, (name, text) in enumerate(calls)
    ]
    return answer(None, tool_calls=wanted, finish_reason="tool_calls")


_SCRIPT: Mapping[str, Sequence[Reply]] = {
    "Why is the sky blue?": [answer("Rayleigh – naïve 評価 \U0001f600", model="golden-2026")],
    "Name a colour.": [answer("Blue.")],
    "What is the weather in Oslo and Bergen?": [
        tool_calls(("weather", {"city": "Oslo"}), ("weather", {"city": "Bergen", "days": 2}), ("nonsense", {})),
        answer("Sun in Oslo, rain in Bergen."),
    ],
    "What is in these pictures?": [answer("A dot.")],
    "Judge the first.": [answer('{"mood": "good", "points": 3}')],
    "Judge the second.": [answer("I like it."), answer('```json\n{"mood": "bad", "points": 1}\n```')],
    "Count.": [answer('{"answer": [1, 2, 3]}')],
    "Tell a story.": [answer("Once upon a time.")],
    "Which of these?": [answer("The second.")],
    "Who is in charge?": [tool_calls(("transfer_to_the_expert", {})), answer("I am.")],
    "Shall I take an umbrella?": [tool_calls(("forecaster", {"prompt": "Will it rain?"})), answer("Take it.")],
    "Will it rain?": [tool_calls(("weather", {"city": "Bergen"})), answer("It will.")],
    "Write to them.": [tool_calls(("send", {"text": "thank you"})), answer("It is sent.")],
    "Write to her.": [tool_calls(("send", {"text": "for ever"})), answer("It is sent, too.")],
    "Is it cached?": [answer("It is.")],
    "Spend a little.": [answer("A penny.", usage={"prompt_tokens": 100, "completion_tokens": 1})],
    "Say what you must not.": [answer(None, refusal="I must not.")],
    "Break the rules.": [error(400, "no such rule", "bad_rule", x_request_id="req-1")],
    "Go on for ever.": [answer("La la", finish_reason="length")],
    "Judge nothing.": [answer("no"), answer("no"), answer("no")],
    "Jump.": [tool_calls(("fall", {"depth": 3})), answer("Ouch.")],
    "Use them badly.": [
        tool_calls(
            ("weather", {"city": 3}), ("weather", {"town": "Oslo"}), ("weather", {}), ("fall", {"depth": "deep"})
        ),
        _wanting(("weather", "{no"), ("weather", "[1]"), ("lookup", "{}"), ("plan", '{"stop": {}}')),
        answer("I cannot."),
    ],
    "Use them well.": [
        _wanting(
            (
                "plan",
                '{"stop": {"place": "Oslo", "day": "2026-08-01"}, "more": [{"place": "Bergen", "day": "2026-08-02"}]}',
            ),
            ("raw", '{"b": [1, 2.5, null], "a": {"x": true}}'),
            ("typed", '{"mood": "good", "points": "3"}'),
            ("weather", '{"days": 2, "city": "Bergen"}'),
            ("sizes", ""),
            ("sizes", "{}"),
        ),
        answer("Done."),
    ],
    "Write to all of them.": [
        _wanting(("send", '{"text": "naïve"}'), ("send", '{"text": "thank you"}'), ("pay", '{"amount": 3}')),
        answer("Done."),
    ],
    "batch 1": [answer("BATCH 1")],
    "batch 2": [answer('{"mood": "good", "points": 2}')],
    "batch 3": [answer("BATCH 3", usage={"prompt_tokens": 9, "completion_tokens": 9})],
}


def _reply(body: Mapping[str, Any]) -> Reply:
    """What comes after a conversation, found by what the user said first and how often the model has spoken."""
    said = next(message["content"] for message in body["messages"] if message["role"] == "user")
    text = said if isinstance(said, str) else said[0]["text"]
    turn = sum(message["role"] == "assistant" for message in body["messages"])
    reply: Reply = _SCRIPT[text][turn]
    if body.get("stream"):
        return streamed(chunks(reply.body["choices"][0]["message"]["content"]))
    return reply


_batches = BatchServer(lambda body: (200, _reply(body).body), looks=1)


def answer_as_recorded(exchange: Exchange) -> Reply:
    """For a `model_server`."""
    return _reply(exchange.body) if exchange.path == "/v1/chat/completions" else _batches(exchange)


# -- what they call ----------------------------------------------------------------------------------------------------


@storable
class Judgement(BaseModel):
    mood: Literal["good", "bad"]
    points: int


@storable
@dataclass(frozen=True)
class Collected:
    """Everything of a conversation that a function may take or return."""

    message: Message
    call: ToolCall
    spec: ToolSpec
    request: ChatRequest
    response: ChatResponse
    usage: Usage
    result: ExecutionResult[Any]
    judgement: Judgement
    reason: FinishReason


@tool
async def weather(city: str, days: int = 1) -> str:
    """Tells the weather.

    Args:
        city: where.
        days: for how long.
    """
    made.append(f"weather {city}")
    if city == "Bergen":
        report_usage(Usage(requests=1, cost=0.001))
    return f"rain for {days} days" if city == "Bergen" else "sun"


@tool(effect="external", on_unknown="fail")
async def send(text: str) -> str:
    """Sends a letter."""
    made.append(f"send {text}")
    return f"sent: {text}"


@tool
async def fall(depth: int) -> int:
    """Falls."""
    made.append(f"fall {depth}")
    raise LookupError(f"no ground at {depth}")


@storable
class Stop(BaseModel):
    place: str
    day: date


@tool
async def plan(stop: Stop, more: list[Stop] | None = None, *, slow: bool = False) -> list[Stop]:
    """Plans a journey.

    :param stop: the first one.
    """
    made.append(f"plan {stop.place}")
    return [stop, *(more or [])]


@tool
async def sizes() -> dict[str, Any]:
    made.append("sizes")
    return {"set": {3}, "bytes": b"\x00\xff", "none": None, "price": Decimal("1.50"), "text": "é", "usage": Usage(1)}


async def _raw(given: dict[str, Any]) -> list[str]:
    made.append(f"raw {sorted(given)}")
    return sorted(given)


async def _typed(given: Judgement) -> Judgement:
    made.append(f"typed {given.mood}")
    return Judgement(mood=given.mood, points=given.points + 1)


raw = Tool(name="raw", handler=_raw, description="Takes what it gets.", parameters={"type": "object", "properties": {}})
typed = Tool(name="typed", handler=_typed, description="Judges.", input_model=Judgement)


@tool(effect="external", on_unknown="fail", version="3")
async def pay(amount: int, currency: str = "EUR") -> str:
    """Pays."""
    made.append(f"pay {amount}")
    return f"paid {amount} {currency}"


@tool(cache="store")
async def look_up(message: Message, usage: Usage) -> Message:
    made.append(f"look_up {message.text}")
    return Message.assistant(f"{message.text} {usage.tokens}")


@tool
async def collect(message: Message, spec: ToolSpec, request: ChatRequest, options: dict[str, Any]) -> Collected:
    made.append(f"collect {message.text}")
    call = ToolCall(id="c", name="weather", arguments='{"city": "Oslo"}')
    response = ChatResponse(text="t", tool_calls=(call,), finish_reason=FinishReason.TOOL_CALLS, usage=Usage(1, 2))
    result: ExecutionResult[Any] = ExecutionResult(result=message, execution_time=0.5, name="n", address="a::n")
    reason = FinishReason.LENGTH
    return Collected(message, call, spec, request, response, Usage(3, 4, 1), result, Judgement(**options), reason)


async def shout(message: Message) -> str:
    """A plain function, for `map`."""
    made.append(f"shout {message.text}")
    return message.text.upper()


forecaster = Agent(name="forecaster", llm=model, tools=[weather], description="Knows the weather.")
planner = Agent(name="planner", llm=model, tools=[forecaster], instructions="Think ahead.")
expert = Agent(name="the expert", llm=placed, instructions="You know.", description="Knows it all.")
desk = Agent(name="desk", llm=model, handoffs=[expert], tools=[weather])
judge = Agent(name="judge", llm=model, output=Judgement)
secretary = Agent(name="secretary", llm=model, tools=[send])
clerk = Agent(name="clerk", llm=model, tools=[send, pay])
user = Agent(name="user", llm=model, tools=[weather, fall, plan, sizes, raw, typed])
jumper = Agent(name="jumper", llm=model, tools=[fall])


@agent(budget=Budget(calls=3, tokens=5_000, cost=1.0))
async def spender(prompt: str) -> str:
    return await model.ask(prompt, max_tokens=10)


# -- the programs ------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """As JSON, without the fields that later versions may have as well."""
    return value.model_dump(mode="json", exclude_defaults=True) if isinstance(value, BaseModel) else value


async def questions() -> Any:
    """A model alone: text, tools, images, types, streams, groups."""
    pictures = Message.user(
        "What is in these pictures?",
        ImagePart.from_bytes(bytes(range(64))),
        ImagePart(url="https://example.org/a.png", detail="low"),
        TextPart(text="Look closely."),
    )
    sky = await model("Why is the sky blue?", system="Be brief.", temperature=0.25, max_tokens=50, stop=("\n",))
    wanted = await model(
        "What is the weather in Oslo and Bergen?", tools=[weather], tool_choice="required", parallel_tool_calls=True
    )
    told = await call_tools(wanted.tool_calls, [weather.actor])
    asked = Message.user("What is the weather in Oslo and Bergen?")
    summary = await model([asked, wanted.message, *told], tools=[weather], extra={"user": "u", "deep": {"a": [1.5]}})
    async with parallel(max_workers=3, name="side by side") as p:
        for question in ("Name a colour.", "Count.", "Name a colour."):
            p.add(model(question), name=question)
        p.add(placed.ask("Tell a story."), name="placed")
        p.add(streaming("Tell a story."), name="streamed")
        p.add(streaming.ask("Which of these?").with_options(key="which"), name="keyed")
        beside = [result.unwrap() for result in await p.gather()]
    return [
        *map(_plain, [sky, wanted, *told, summary, *beside]),
        await model.ask("Name a colour."),
        _plain(await placed(pictures)),
        _plain(await model.ask("Judge the first.", output=Judgement)),
        _plain(await model.ask("Judge the second.", output=Judgement)),
        await model.ask("Count.", output=list[int]),
        _plain((await model("Count.", output=list[int])).output),
        _plain((await ExecutionEvent(actor=model)("Name a colour.")).unwrap()),
    ]


async def agents() -> Any:
    """Agents whose model decides: with tools, as tools, handing over, answering with a type, within a budget."""
    async with parallel(name="crew") as p:
        p.add(planner("Shall I take an umbrella?"))
        umbrella = [result.unwrap() for result in await p.gather()]
    return [
        *umbrella,
        await desk("Who is in charge?"),
        await desk("What is the weather in Oslo and Bergen?"),
        _plain(await judge("Judge the second.")),
        await spender("Spend a little."),
        (await ExecutionEvent(actor=judge)("Judge the first.")).unwrap().points,
    ]


async def values() -> Any:
    """Our own classes as arguments and results of functions, and as items of `map`."""
    said = Message.assistant("said", [ToolCall(id="i", name="weather", arguments="{}")])
    spec = ToolSpec(name="s", description="d", strict=True)
    request = ChatRequest(
        model="m", messages=(Message.system("s"), said, Message.tool("i", "sun")), tools=(spec,), output_schema={"a": 1}
    )
    found = await collect(said, spec, request, {"mood": "bad", "points": 0})
    async with parallel(name="loud") as p:
        p.map(shout, [Message.user("one"), Message.user("two")])
        loud = [result.unwrap() for result in await p.gather()]
    assert type(found.reason) is FinishReason
    assert type(found.usage) is Usage
    fields = [found.message, found.call, found.spec, found.request, found.response, found.result, found.judgement]
    return [*map(_plain, fields), found.usage.as_json(), loud]


async def sharing() -> Any:
    """What equal calls share, within a run and between the runs of a store."""
    return [
        _plain(await look_up(Message.user("here"), Usage(1, 2))),
        _plain(await look_up(Message.user("here"), Usage(1, 2))),
        await cached.ask("Is it cached?"),
        _plain(await cached("Is it cached?")),
    ]


async def _failure(call: Awaitable[Any]) -> list[Any]:
    try:
        return ["no failure", _plain(await call)]
    except RhAgentsError as found:
        about = [found.status, found.code, found.request_id] if isinstance(found, ModelError) else []
        return [type(found).__name__, str(found), *about]


async def failures() -> Any:
    """What went wrong, which is recorded as well."""
    return [
        await _failure(model.ask("Say what you must not.")),
        await _failure(model("Break the rules.")),
        await _failure(model.ask("Go on for ever.")),
        await _failure(model.ask("Judge nothing.", output=Judgement)),
        await _failure(judge("Say what you must not.")),
        await jumper("Jump."),
        await user("Use them badly."),
    ]


async def tools() -> Any:
    """Arguments and results of all kinds."""
    return await user("Use them well.")


async def approved() -> Any:
    """A person allows what an agent wants to do."""
    return await secretary("Write to them.")


async def refused() -> Any:
    """A person allows some of it, and some of it not."""
    return await clerk("Write to all of them.")


QUESTION = 'May send be called with {"text":"for ever"}?'
"""What the run "awaiting" waits for."""


async def awaiting() -> Any:
    """A person has not answered yet."""
    return [await model.ask("Name a colour."), await secretary("Write to her.")]


async def batch() -> Any:
    """Requests through the Batch API."""
    with in_batches(OpenAIBatches(linger=0.1, poll_every=0.01)):
        async with parallel(max_workers=10, name="batch") as p:
            p.add(model("batch 1"), key="1")
            p.add(model.ask("batch 2", output=Judgement), key="2")
            p.add(model.ask("batch 3"))
            return [_plain(result.unwrap()) for result in await p.gather()]


PROGRAMS: dict[str, Callable[[], Awaitable[Any]]] = {
    program.__name__: program
    for program in (questions, agents, values, sharing, failures, tools, approved, refused, awaiting, batch)
}
