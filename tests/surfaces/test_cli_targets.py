"""MODULE:NAME: which actor is meant, and how the value of an item becomes its arguments."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from rh_agents import ExecutionState, Injected, Tool, tool
from rh_agents.cli.arguments import make_callee
from rh_agents.cli.errors import BadInput, CommandError
from rh_agents.cli.targets import load_actor
from rh_agents.core.calls import ActorCall, FunctionCall
from rh_agents.decorators import ActorFunction

CODE = """
from rh_agents import Tool, tool
@tool
async def classify(text: str) -> str: return text
async def plain(text: str) -> str: return text
def sync(text: str) -> str: return text
async def several(text: str):
    yield text
def first(text: str, /, stars: int = 3) -> str: return text
measure = Tool(name="measure", handler=len)
class Holder:
    inner = staticmethod(plain)
NUMBER = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (tmp_path / "flows_of_a_test.py").write_text(CODE)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("module", ["flows_of_a_test", "flows_of_a_test.py", "./flows_of_a_test.py"])
@pytest.mark.parametrize("name", ["classify", "plain", "sync", "Holder.inner"])
def test_a_function_is_found_by_module_or_path(folder: Path, module: str, name: str) -> None:
    assert isinstance(load_actor(f"{module}:{name}", tool), ActorFunction)


def test_an_actor_is_taken_as_it_is(folder: Path) -> None:
    assert isinstance(load_actor("flows_of_a_test:measure", tool), Tool)


def test_a_file_in_a_package_may_import_its_neighbours(folder: Path) -> None:
    package = folder / "package_of_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "neighbour.py").write_text("async def f(x): return x")
    (package / "flow.py").write_text("from .neighbour import f")
    load_actor("package_of_a_test/flow.py:f", tool)


def test_a_file_may_have_the_name_of_a_module_that_is_loaded(folder: Path) -> None:
    (folder / "json.py").write_text("async def f(x): return x")
    found = load_actor("json.py:f", tool)
    assert isinstance(found, ActorFunction)
    assert sys.modules["json"].dumps({}) == "{}"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("flows_of_a_test", "'flows_of_a_test' does not name an actor: write MODULE:NAME"),
        (":f", "does not name an actor"),
        ("flows_of_a_tset:classify", "there is no module 'flows_of_a_tset'; did you mean 'flows_of_a_test'?"),
        ("flows_of_a_test.x:classify", "there is no module 'flows_of_a_test.x'"),
        ("flows_of_a_tset.py:classify", "there is no file flows_of_a_tset.py; did you mean 'flows_of_a_test.py'?"),
        ("flows_of_a_test:clasify", "flows_of_a_test has no 'clasify'; did you mean 'classify'?"),
        ("flows_of_a_test:zzz", "flows_of_a_test has no 'zzz'; it has classify, plain, sync, several, first, measure"),
        ("flows_of_a_test:NUMBER", "is a int, which cannot be called"),
        ("flows_of_a_test:Holder", "is a class"),
        ("flows_of_a_test:several", "is a generator function"),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(folder: Path, spec: str, told: str) -> None:
    with pytest.raises(CommandError) as caught:
        load_actor(spec, tool)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("x = 1\nimport nosuch", "ModuleNotFoundError: No module named 'nosuch' ("),
        ("def f(:", "SyntaxError: "),
        ("\n\n1 / 0", "ZeroDivisionError: division by zero ("),
        ("raise SystemExit(3)", "SystemExit: 3 ("),
    ],
)
@pytest.mark.parametrize("spec", ["broken_of_a_test:f", "broken_of_a_test.py:f"])
def test_a_module_that_cannot_be_imported_is_told_with_the_line(folder: Path, code: str, told: str, spec: str) -> None:
    (folder / "broken_of_a_test.py").write_text(code)
    with pytest.raises(CommandError) as caught:
        load_actor(spec, tool)
    assert "failed: " + told in str(caught.value)
    assert f"line {code.count(chr(10)) + 1})" in str(caught.value)


# -- arguments --------------------------------------------------------------------------------------------------------


class Review(BaseModel):
    text: str
    stars: int = 3


class Text(BaseModel):
    text: str


class Row(TypedDict):
    text: str


@dataclass
class Point:
    x: int


def arguments(function: Any, value: Any, **options: Any) -> dict[str, Any]:
    """What the function gets, by name: whether it is called by name is no matter."""
    call = make_callee(tool(function), **options).call(value, ExecutionState().parts)
    assert isinstance(call, FunctionCall)
    call.discard()  # it is only looked at
    return inspect.signature(function).bind(*call.args, **call.kwargs).arguments


async def one(text: str) -> None: ...
async def two(text: str, stars: int = 3) -> None: ...
async def three(text: str, stars: int) -> None: ...
async def whole(review: Review) -> None: ...
async def same_name(text: Text) -> None: ...
async def row(row: Row) -> None: ...
async def point(point: Point | None) -> None: ...
async def anything(value): ...  # type: ignore[no-untyped-def]
async def nothing() -> None: ...


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (one, "hello", {"text": "hello"}),
        (one, {"id": 1, "text": "hello", "more": 2}, {"text": "hello"}),
        (two, "hello", {"text": "hello"}),
        (two, {"text": "hello", "stars": "5"}, {"text": "hello", "stars": 5}),
        (whole, {"text": "a", "id": 3}, {"review": Review(text="a")}),
        (whole, {"review": {"text": "a"}}, {"review": Review(text="a")}),
        (same_name, {"text": "a"}, {"text": Text(text="a")}),
        (row, {"text": "a", "id": 3}, {"row": {"text": "a"}}),
        (point, {"x": 1}, {"point": Point(1)}),
        (point, None, {"point": None}),
        (anything, {"a": 1}, {"value": {"a": 1}}),
        (anything, {"value": 1, "id": 2}, {"value": 1}),
        (anything, [1, 2], {"value": [1, 2]}),
        (nothing, {"id": 2}, {}),
    ],
)
def test_a_value_becomes_arguments(function: Any, value: Any, expected: dict[str, Any]) -> None:
    assert arguments(function, value) == expected


def test_positional_only_parameters_of_a_plain_function_are_filled(folder: Path) -> None:
    call = make_callee(load_actor("flows_of_a_test:first", tool)).call(
        {"text": "a", "stars": 1}, ExecutionState().parts
    )
    assert isinstance(call, FunctionCall)
    call.discard()
    assert (call.actor.name, call.args, dict(call.kwargs)) == ("first", ("a",), {"stars": 1})


@pytest.mark.parametrize(
    ("function", "value", "told"),
    [
        (one, {"txt": "a"}, "text: Field required"),
        (one, 5, "text: Input should be a valid string"),
        (three, "hello", "three takes text, stars: a JSON object with these names is needed, not a text"),
        (three, {}, "text: Field required; stars: Field required"),
        (whole, {"stars": "x"}, "text: Field required; stars: Input should be a valid integer, unable to parse"),
        (nothing, "a", "nothing takes no input"),
    ],
)
def test_a_value_that_does_not_fit_is_bad_input(function: Any, value: Any, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        arguments(function, value)
    assert str(caught.value).startswith(told)


def test_fixed_arguments_replace_those_of_an_item_and_leave_the_rest_to_it() -> None:
    assert arguments(three, "hello", fixed={"stars": 1}) == {"text": "hello", "stars": 1}
    assert arguments(two, {"text": "a", "stars": 2}, fixed={"stars": 1}) == {"text": "a", "stars": 1}
    with pytest.raises(CommandError, match=r"two takes no 'star'; did you mean 'stars'\?"):
        arguments(two, "a", fixed={"star": 1})


def test_a_name_that_a_flow_does_not_know_is_told_if_that_is_asked_for() -> None:
    with pytest.raises(BadInput, match=r"two takes no 'txt'; did you mean 'text'\?"):
        arguments(two, {"txt": "a"}, knows_all_names=True)


def test_a_parameter_that_is_no_data_needs_a_default() -> None:
    async def fetch(url: str, client: Annotated[object, Injected]) -> None: ...
    async def mild(url: str, client: Annotated[object, Injected] = None) -> None: ...

    with pytest.raises(CommandError, match="fetch needs 'client', which is not serializable"):
        make_callee(tool(fetch))
    assert arguments(mild, "a") == {"url": "a"}


def test_an_actor_gets_the_whole_value_as_its_input_model_has_it() -> None:
    callee = make_callee(Tool(name="measure", handler=len, input_model=Review), fixed={"stars": 1})
    call = callee.call({"text": "a", "id": 1}, ExecutionState().parts)
    assert isinstance(call, ActorCall)
    call.discard()
    assert call.input_data == Review(text="a", stars=1)
    with pytest.raises(BadInput, match=r"^text: Field required$"):
        callee.call({}, ExecutionState().parts)
    with pytest.raises(BadInput, match="a JSON object is needed to add stars to, not a text"):
        callee.call("a", ExecutionState().parts)


def test_the_command_line_overrides_the_policy_of_the_actor_but_does_not_change_the_actor() -> None:
    function = tool(retry=2, timeout=3.0)(one)
    call = make_callee(function, retry=7, timeout=0.5).call("a", ExecutionState().parts)
    call.discard()
    assert call.actor.retry is not None
    assert (call.actor.retry.max_attempts, call.actor.timeout) == (7, 0.5)
    assert function.actor.timeout == 3.0
    again = make_callee(function).call("a", ExecutionState().parts)
    again.discard()
    assert again.actor.timeout == 3.0
