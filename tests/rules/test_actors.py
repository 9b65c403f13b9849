"""What an actor takes, what it refuses, and how it says so."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError

from rh_agents import LLM, Agent, BaseActor, EventType, Injected, RetryPolicy, Tool, ToolSet, agent, llm, tool
from rh_agents.core.calls import Call
from rh_agents.core.errors import DefinitionError, InputError, OptionError, OutputError
from rh_agents.core.types import Engine


class Query(BaseModel):
    text: str
    limit: int = 10


def identity(call: Call[Any]) -> bytes:
    """Of a call that is not to be made."""
    call.discard()
    return call.identity()


def test_arguments_have_the_same_identity_however_they_are_given() -> None:
    @tool
    async def find(text: str, limit: int = 10, *, exact: bool = False) -> None: ...
    @tool
    async def add(first: int, second: int) -> None: ...
    @agent
    async def by_place(first: int, /, second: int) -> None: ...

    assert identity(add(1, 2)) == identity(add(second=2, first=1)) == identity(add(1, second=2))
    assert identity(add(1, 2)) != identity(add(first=2, second=1))
    assert identity(find("a")) == identity(find(text="a")) == identity(find(exact=False, limit=10, text="a"))
    assert identity(by_place(1, 2)) == identity(by_place(1, second=2))
    for wrong in ({"first": 1}, {"first": 1, "third": 2}, {"first": 1, "second": 2, "third": 3}):
        with pytest.raises(TypeError):
            add(**wrong)
    with pytest.raises(TypeError):
        by_place(first=1, second=2)  # type: ignore[call-arg]


class Client:
    """No data."""


async def noop(data: Any) -> Any:
    return data


def plain(data: Any) -> Any:
    return data


async def input_only(data: Any) -> None: ...
async def input_and_context(data: Any, extra: Any) -> None: ...
async def all_three(data: Any, extra: Any, run: Any) -> None: ...
async def state_second(data: Any, state: Any) -> None: ...
async def execution_state_second(data: Any, execution_state: Any) -> None: ...
async def state_then_context(data: Any, state: Any, context: Any) -> None: ...
async def context_by_name(data: Any, extra_context: Any) -> None: ...
async def nothing() -> None: ...


class Callable_:
    async def __call__(self, data: Any, state: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "arguments"),
    [
        (nothing, ()),
        (input_only, ("input",)),
        (input_and_context, ("input", "context")),
        (all_three, ("input", "context", "run")),
        (state_second, ("input", "run")),
        (execution_state_second, ("input", "run")),
        (state_then_context, ("input", "run", "context")),
        (context_by_name, ("input", "context")),
        (Callable_(), ("input", "run")),
        (functools.partial(all_three, "bound"), ("input", "context")),
    ],
)
def test_a_handler_gets_input_context_and_run_as_far_as_it_has_parameters(
    handler: Callable[..., Any], arguments: tuple[str, ...]
) -> None:
    actor = Tool(name="t", handler=handler)
    assert actor.signature.fill("input", "context", "run") == (arguments, {})


def test_a_callable_that_tells_no_parameters_gets_the_input() -> None:
    class Unknown:
        __signature__ = "not a signature"

        def __call__(self, *args: Any) -> Any:
            return args

    with pytest.raises((TypeError, ValueError)):
        inspect.signature(Unknown())
    assert Tool(name="t", handler=Unknown()).signature.fill(1, 2, 3) == ((1,), {})


@pytest.mark.parametrize(
    ("kind", "event_type"),
    [
        (BaseActor, EventType.FUNCTION_CALL),
        (Tool, EventType.TOOL_CALL),
        (LLM, EventType.LLM_CALL),
        (Agent, EventType.AGENT_CALL),
    ],
)
def test_each_kind_of_actor_makes_its_own_kind_of_event(kind: type[BaseActor], event_type: EventType) -> None:
    assert kind(name="a", handler=noop).event_type is event_type


@pytest.mark.parametrize(
    ("decorator", "kind"), [(tool, Tool), (agent, Agent), (llm, LLM)], ids=["tool", "agent", "llm"]
)
def test_each_decorator_makes_its_kind_of_actor_named_after_the_function(decorator: Any, kind: type[BaseActor]) -> None:
    async def function(url: str) -> str:
        """Get a page.

        From the net.
        """
        return url

    fetch = decorator(retry=3, timeout=30, version="2")(function)
    actor = fetch.actor
    assert type(actor) is kind
    assert (actor.name, actor.version, actor.timeout) == ("function", "2", 30)
    assert actor.description == "Get a page.\n\nFrom the net."
    assert actor.retry == RetryPolicy(max_attempts=3)
    assert fetch.__name__ == "function"
    assert repr(fetch) == f"<{kind.__name__} function>"


def test_options_of_a_decorator_add_up() -> None:
    patient = tool(retry=5)
    named = patient(name="ask", timeout=3)(noop)
    assert (named.actor.name, named.actor.retry, named.actor.timeout) == ("ask", RetryPolicy(max_attempts=5), 3)
    assert patient(noop).actor.timeout is None, "the first one is not changed"


def test_a_copy_of_an_actor_goes_by_its_own_fields_whatever_was_asked_of_the_first_one() -> None:
    first = tool(noop).actor
    asked = (first.recorded_version, first.has_policy, first.is_external)
    other = first.model_copy(update={"version": "2", "retry": RetryPolicy(max_attempts=3)})
    assert (asked, other.recorded_version, other.has_policy) == (("1", False, False), "2", True)
    assert other.model_copy() == other


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": math.nan},
        {"engine": "ray", "resources": {"num_gpus": -1}},
        {"handler": 3},
    ],
)
def test_options_that_make_no_sense_are_refused_where_the_actor_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="|".join(options)):
        Tool(**{"name": "t", "handler": noop, **options})


def test_a_number_of_attempts_that_makes_no_sense_is_refused_where_the_actor_is_made() -> None:
    with pytest.raises(ValueError, match="a whole number is needed, at least 1"):
        tool(retry=0)(noop)


@pytest.mark.parametrize("engine", [Engine.THREAD, Engine.PROCESS])
def test_a_coroutine_function_runs_nowhere_but_on_the_event_loop(engine: Engine) -> None:
    with pytest.raises(DefinitionError, match=f"t: engine='{engine}' is for plain functions, and t is an `async def`"):
        Tool(name="t", handler=noop, engine=engine)


def test_a_plain_function_never_runs_on_the_event_loop() -> None:
    with pytest.raises(DefinitionError, match="a plain function would block the event loop"):
        Tool(name="t", handler=plain, engine=Engine.ASYNC)


def test_an_actor_knows_whether_its_handler_runs_on_the_event_loop() -> None:
    assert Tool(name="t", handler=noop).is_async
    assert Tool(name="t", handler=Callable_()).is_async
    assert Tool(name="t", handler=functools.partial(noop, 1)).is_async
    assert not Tool(name="t", handler=plain).is_async


def test_an_actor_is_a_value_that_does_not_change() -> None:
    actor = Tool(name="t", handler=noop)
    with pytest.raises(ValidationError, match="frozen"):
        actor.name = "other"


# -- inputs and results -----------------------------------------------------------------------------------------------


def test_an_input_that_fits_is_given_as_the_model_has_it() -> None:
    actor = Tool(name="search", handler=noop, input_model=Query)
    query = Query(text="a")
    assert actor.validate_input(query) is query
    assert actor.validate_input({"text": "a", "limit": "3"}) == Query(text="a", limit=3)
    assert Tool(name="t", handler=noop, input_model=list[int]).validate_input(["1", 2]) == [1, 2]
    assert Tool(name="t", handler=noop).validate_input({"anything": object}) == {"anything": object}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "search: input text: Field required"),
        (
            {"text": 3, "limit": "x"},
            "search: input text: Input should be a valid string; "
            "limit: Input should be a valid integer, unable to parse string as an integer",
        ),
        ("a", "search: input Input should be a valid dictionary or instance of Query"),
    ],
)
def test_an_input_that_does_not_fit_is_told_in_one_line_with_every_place(data: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Tool(name="search", handler=noop, input_model=Query).validate_input(data)
    assert str(caught.value) == message
    assert isinstance(caught.value.__cause__, ValidationError)


def test_nested_places_are_told_with_their_path() -> None:
    actor = Tool(name="search", handler=noop, input_model=list[Query])
    with pytest.raises(InputError, match=r"^search: input 1\.text: Field required$"):
        actor.validate_input([{"text": "a"}, {}])


def test_a_result_that_does_not_fit_is_told_in_the_same_way() -> None:
    actor = Tool(name="count", handler=noop, output_model=int)
    assert actor.validate_output("3") == 3
    with pytest.raises(OutputError, match=r"^count: result Input should be a valid integer"):
        actor.validate_output("many")
    assert Tool(name="t", handler=noop).validate_output("many") == "many"


# -- decorated functions ----------------------------------------------------------------------------------------------


@agent
async def fetch(
    url: str,
    client: Annotated[Client, Injected],
    depth: int = 1,
    *rest: str,
    headers: dict[str, str] | None = None,
    session: Annotated[Client | None, Injected] = None,
    **options: int,
) -> str:
    return url


def test_the_input_model_has_a_field_for_each_parameter_that_is_data() -> None:
    fields = fetch.input_model.model_fields
    assert list(fields) == ["url", "depth", "headers"]
    assert fields["url"].is_required()
    assert (fields["depth"].annotation, fields["depth"].default) == (int, 1)
    assert fetch.input_model.__name__ == "fetch_input"
    with pytest.raises(ValidationError):
        fetch.input_model(url="a", depth="deep")


def test_arguments_are_bound_by_name_with_defaults_and_without_what_is_injected() -> None:
    bind = fetch.actor.signature.bind
    bound = bind(("a", Client(), 2, "x", "y"), {"headers": {"h": "1"}, "session": Client(), "extra": 3})
    assert bound == {"url": "a", "depth": 2, "rest": ("x", "y"), "headers": {"h": "1"}, "options": {"extra": 3}}
    short = bind(("a",), {"client": Client()})
    assert short == {"url": "a", "depth": 1, "rest": (), "headers": None, "options": {}}


def test_however_the_same_arguments_are_written_they_are_the_same() -> None:
    @tool
    async def search(text: str, limit: int = 10) -> None: ...

    forms = [search("a"), search("a", 10), search(text="a"), search(limit=10, text="a"), search("a", limit=10)]
    assert len({identity(call) for call in forms}) == 1
    assert identity(search("a", 11)) != identity(forms[0])


def test_what_is_injected_does_not_count() -> None:
    assert identity(fetch("a", Client())) == identity(fetch("a", client=Client(), session=Client()))


def test_arguments_that_do_not_fit_are_refused_at_once_as_by_the_function_itself() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'url'"):
        fetch(client=Client())  # type: ignore[call-arg]


def test_a_parameter_that_is_named_state_gets_the_run_also_by_keyword() -> None:
    async def handler(text: str, *, state: Any) -> Any:
        return state

    assert Tool(name="t", handler=handler).signature.fill("input", "context", "run") == (("input",), {"state": "run"})


@pytest.mark.parametrize("mark", [Annotated[Client, Injected()], Annotated[Client, Injected] | None])
def test_an_instance_of_the_mark_or_an_optional_one_marks_as_well(mark: Any) -> None:
    async def handler(text: str, client: Any = None) -> None: ...

    handler.__annotations__["client"] = mark
    assert Tool(name="t", handler=handler).signature.injected == {"client"}


def test_a_function_that_yields_is_refused() -> None:
    async def handler(text: str) -> Any:
        yield text

    with pytest.raises(DefinitionError, match="t yields: a call has one result"):
        Tool(name="t", handler=handler)


def test_a_method_is_refused_with_the_way_out() -> None:
    class Client:
        @tool
        async def fetch(self, url: str) -> str:
            return url

    with pytest.raises(DefinitionError, match=r"fetch is a method, .* Annotated\[..., Injected\]"):
        Client().fetch  # noqa: B018


def test_what_is_injected_is_recognised_even_if_another_annotation_cannot_be_resolved() -> None:
    namespace: dict[str, Any] = {"Annotated": Annotated, "Injected": Injected}
    source = "async def f(a: 'Missing', client: 'Annotated[Missing, Injected]'): ..."
    exec(source, namespace)
    actor = Tool(name="f", handler=namespace["f"])
    assert actor.signature.injected == {"client"}
    assert list(actor.signature.input_model("f").model_fields) == ["a"]


def test_an_explicit_key_stands_for_the_input() -> None:
    call = fetch("a", Client())
    named = call.with_options(key="first")
    assert identity(named) == identity(fetch("b", Client()).with_options(key="first"))
    assert identity(named) != identity(call)
    assert call.key is None, "the call itself is not changed"


# -- sets of tools ----------------------------------------------------------------------------------------------------

SEARCH, COUNT = Tool(name="search", handler=noop), Tool(name="count", handler=noop)


def test_a_set_of_tools_is_found_by_name_and_keeps_its_order() -> None:
    tools = ToolSet([SEARCH, COUNT])
    assert tools.get_tool_list() == [SEARCH, COUNT]
    assert [name for name, _ in tools] == ["search", "count"]
    assert dict(tools) == {"search": SEARCH, "count": COUNT}
    assert tools["count"] is COUNT
    assert (len(tools), "search" in tools, "other" in tools, SEARCH in tools) == (2, True, False, False)
    with pytest.raises(KeyError, match="other"):
        tools["other"]
    assert len(ToolSet()) == 0
    assert ToolSet(tools=[SEARCH]) == ToolSet([SEARCH])


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two tools of one set have the same name: search"):
        ToolSet([SEARCH, COUNT, SEARCH])


def test_an_agent_carries_its_tools_and_its_model() -> None:
    model = LLM(name="small", handler=noop)
    survey = Agent(name="survey", handler=noop, tools=ToolSet([SEARCH]), llm=model)
    assert survey.tools["search"] is SEARCH
    assert survey.llm is model
    assert len(Agent(name="empty", handler=noop).tools) == 0


def test_options_may_be_given_together_with_the_function() -> None:
    async def fetch(url: str) -> str:
        return url

    made = tool(fetch, name="get", retry=3, timeout=2.0)
    assert made.actor.name == "get"
    assert made.actor.retry is not None
    assert (made.actor.retry.max_attempts, made.actor.timeout) == (3, 2.0)
    assert tool(timeout=1.0)(fetch, name="get").actor.timeout == 1.0
