"""Tools of MCP servers: of our own, and of those that others wrote."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rh_agents import Agent, MemoryStore, RunAwaiting, Tool, forget_secret, redact, run
from rh_agents.core.chat import ImagePart, Message, TextPart, ToolCall, call_tools
from rh_agents.core.errors import DefinitionError, ToolError
from rh_agents.testing import ScriptedLLM, tool_call

pytest.importorskip("mcp", reason="mcp is not installed: pip install 'rh_agents[mcp]'")

from mcp import MCPError
from mcp.server.lowlevel import Server
from mcp.types import ListToolsResult
from mcp.types import Tool as ServedTool

from rh_agents.tools import mcp_tools

SERVER = Path(__file__).parents[1] / "services" / "mcp_server.py"
RAW = [sys.executable, str(SERVER.with_name("raw_mcp_server.py"))]
COMMAND = [sys.executable, str(SERVER)]
T = TypeVar("T")


def with_tools(use: Callable[[dict[str, Tool]], Awaitable[T]], server: Any = COMMAND, **options: Any) -> T:
    """What `use` makes of the tools of a server, by name."""

    async def main() -> T:
        async with mcp_tools(server, **options) as tools:
            return await use({tool.name: tool for tool in tools})

    return asyncio.run(asyncio.wait_for(main(), 60))


async def nothing(_: dict[str, Tool]) -> None:
    raise AssertionError("there are no tools")


async def told(tool: Tool, **arguments: Any) -> str:
    """What a model is told when it calls the tool."""
    wish = tool_call(tool.name, **arguments)
    (message,) = await call_tools([ToolCall(id="1", name=wish.name, arguments=wish.arguments)], [tool])
    return message.text


def test_tools_have_their_names_descriptions_and_schemas_and_give_data() -> None:
    async def use(tools: dict[str, Tool]) -> None:
        assert {"add", "fail", "remove", "draw", "die"} <= set(tools)
        assert tools["add"].description == "Add two numbers."
        assert tools["add"].parameters is not None
        assert tools["add"].parameters["required"] == ["a", "b"]
        assert await told(tools["add"], a=1, b=2) == "3"

    with_tools(use)


def test_what_a_server_writes_beside_its_messages_is_passed_over() -> None:
    async def use(tools: dict[str, Tool]) -> None:
        assert await told(tools["add"], a=1, b=2) == "3"

    with_tools(use, [*RAW, "noisy"], timeout=20.0)


def test_a_failure_is_told_to_the_model_in_the_words_of_the_server() -> None:
    async def use(tools: dict[str, Tool]) -> None:
        assert "fail" in await told(tools["fail"])
        assert "valid integer" in await told(tools["add"], a="x", b=2)

    with_tools(use)


def test_what_destroys_something_asks_a_person_first() -> None:
    async def use(tools: dict[str, Tool]) -> None:
        agent = Agent(
            name="cleaner",
            llm=ScriptedLLM({"": [tool_call("remove", name="a.txt"), "Done."]}),
            tools=[tools["remove"]],
        )
        store = MemoryStore()
        with pytest.raises(RunAwaiting) as waiting:
            await run(agent, "Clean up.", store=store, run_id="r")
        await store.answer("r", waiting.value.questions[0], b"true")
        assert await run(agent, "Clean up.", store=store, run_id="r") == "Done."

    with_tools(use)


def test_tools_can_be_chosen_and_named_apart() -> None:
    async def use(tools: dict[str, Tool]) -> None:
        assert set(tools) == {"stub_add"}
        assert await told(tools["stub_add"], a=2, b=2) == "4"

    with_tools(use, only=["add"], prefix="stub_")
    with pytest.raises(DefinitionError, match="no tool subtract; it has: add"):
        with_tools(use, only=["subtract"])


def test_images_reach_the_model_as_images() -> None:
    async def use(tools: dict[str, Tool]) -> None:
        model = ScriptedLLM([tool_call("draw"), "A dot."])
        assert await run(Agent(name="a", llm=model, tools=[tools["draw"]]), "?", store=MemoryStore()) == "A dot."
        assert model.requests[-1].messages[-1].content == (
            TextPart(text="a dot"),
            ImagePart(url="data:image/png;base64,AA=="),
        )

    with_tools(use)


def test_a_model_is_told_as_much_of_a_result_as_is_said() -> None:
    async def use(tools: dict[str, Tool]) -> None:
        assert tools["add"].max_result == 1234

    with_tools(use, max_result=1234)


# -- servers that die -------------------------------------------------------------------------------------------------


def test_a_server_that_ends_at_once_is_told_with_what_it_wrote() -> None:
    with pytest.raises(ToolError, match=r"cannot be reached: .*; it wrote: .*no module named 'left_pad'"):
        with_tools(nothing, [*RAW, "ends"])


def test_a_server_that_does_not_answer_is_waited_for_as_long_as_is_said() -> None:
    with pytest.raises(ToolError, match=r"cannot be reached: it did not answer within 0\.1 s"):
        with_tools(nothing, [*RAW, "silent"], timeout=0.1)


@pytest.mark.parametrize("timeout", [60.0, None])
def test_a_server_that_died_is_started_again_and_the_call_in_flight_is_made_again(
    tmp_path: Path, timeout: float | None
) -> None:
    async def use(tools: dict[str, Tool]) -> None:
        assert await told(tools["once"], path=str(tmp_path / "a")) == "once"
        assert await told(tools["add"], a=1, b=2) == "3"

    with_tools(use, [*RAW, "mortal"], timeout=timeout)
    assert (tmp_path / "a").read_text() == "called\ncalled\n"


def test_what_must_not_be_done_twice_is_not_called_again_when_its_server_died(tmp_path: Path) -> None:
    path = str(tmp_path / "a")

    async def use(tools: dict[str, Tool]) -> None:
        model = ScriptedLLM({"": [tool_call("once_only", path=path), tool_call("add", a=1, b=2), "Done."]})
        agent = Agent(name="cleaner", llm=model, tools=[tools["once_only"], tools["add"]])
        store = MemoryStore()
        asked = []
        for answer in (b"true", b'"fail"'):  # may it be called, and then: shall it be called again
            with pytest.raises(RunAwaiting):
                await run(agent, "Clean up.", store=store, run_id="r")
            (question,) = await store.questions("r")
            asked.append(question.text)
            await store.answer("r", question.id, answer)
        assert asked[0].startswith("May once_only be called")
        assert "once_only" in asked[1]
        assert await run(agent, "Clean up.", store=store, run_id="r") == "Done."
        answers = [message.text for message in model.requests[-1].messages if message.role == "tool"]
        assert "its outcome is unknown" in answers[0]
        assert answers[1] == "3"

    with_tools(use, [*RAW, "mortal"])
    assert (tmp_path / "a").read_text() == "called\n"


def test_a_server_that_dies_again_and_again_is_not_started_for_ever() -> None:
    async def use(tools: dict[str, Tool]) -> None:
        first = await told(tools["die"])  # three attempts, for which it is started again twice
        assert "ended while die was called; it wrote: out of memory" in first
        assert "unknown" in first
        assert await told(tools["add"], a=1, b=2) == "3"
        assert "has ended 4 times within 60 s" in await told(tools["die"])
        assert "has ended 4 times within 60 s" in await told(tools["add"], a=1, b=2)

    with_tools(use, [*RAW, "mortal"])


def test_a_server_gets_of_the_environment_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-servers")

    async def use(tools: dict[str, Tool]) -> None:
        names = json.loads(await told(tools["environment"]))
        assert set(names) - {"LC_CTYPE"} <= {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "FOLDER"}
        assert {"PATH", "FOLDER"} <= set(names)

    with_tools(use, [*RAW, "mortal"], env={"FOLDER": "/a"})


# -- tools that are not what they should be ---------------------------------------------------------------------------


def test_one_bad_tool_does_not_hide_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def use(tools: dict[str, Tool]) -> None:
        assert await told(tools["read"], path="a") == "read"
        assert {"no_schema", "list", ""}.isdisjoint(tools)

    with_tools(use, [*RAW, "misshapen"])
    said = [record.getMessage() for record in caplog.records if "is left out" in record.getMessage()]
    assert len(said) >= 6
    assert any("'no_schema'" in each and "inputSchema" in each for each in said)
    with pytest.raises(DefinitionError, match=r"no tool no_schema \(no_schema: inputSchema: .*\); it has: read"):
        with_tools(use, [*RAW, "misshapen"], only=["no_schema"])


def test_names_that_models_would_not_tell_apart_differ_and_stay_the_same() -> None:
    async def names(tools: dict[str, Tool]) -> list[str]:
        for tool in tools.values():
            assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool.name)
        assert await told(tools["a_b"]) == "a_b"
        assert await told(tools["y_z"]) == "y.z"
        assert await told(tools["a_b_2e7336dc"]) == "a.b"
        return list(tools)

    found = with_tools(names, [*RAW, "misshapen"])
    assert len(found) == len(set(found)) == 7


@pytest.mark.parametrize("server", [["no-such-command"], "http://127.0.0.1:1/mcp"])
def test_a_server_that_is_not_there_is_one_clear_sentence(server: Any) -> None:
    async def use(_: dict[str, Tool]) -> None:
        raise AssertionError("there is none")

    with pytest.raises(ToolError, match="cannot be reached"):
        with_tools(use, server)


@pytest.mark.parametrize("server", ["python server.py", "127.0.0.1:8000/mcp", "npx", ""])
def test_a_text_that_is_no_url_is_refused_with_the_form_of_a_command(server: str) -> None:
    async def use(_: dict[str, Tool]) -> None:
        raise AssertionError("there is none")

    with pytest.raises(DefinitionError, match=r"begins with http://.* a command is a list, such as \['") as caught:
        with_tools(use, server)
    assert not server or str(caught.value).endswith(str(server.split()))


def test_tools_are_reached_over_http() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*COMMAND, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:

        async def use(tools: dict[str, Tool]) -> None:
            assert await told(tools["add"], a=20, b=22) == "42"

        for _ in range(100):
            try:
                with_tools(use, f"http://127.0.0.1:{port}/mcp")
                break
            except ToolError:
                asyncio.run(asyncio.sleep(0.1))
        else:
            pytest.fail("the server did not come up")
    finally:
        process.kill()
        process.wait()


# -- servers that others wrote ----------------------------------------------------------------------------------------

PACKAGES = {
    "@modelcontextprotocol/server-everything": "2025.9.25",
    "@modelcontextprotocol/server-filesystem": "2025.8.21",
}


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers are installed, once."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    kept = os.environ.get("RH_AGENTS_NODE_MODULES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("npm")
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm could not install the servers: {done.stderr.strip()[-200:]}")
    return folder / "node_modules"


@pytest.mark.slow
def test_the_server_of_the_protocols_own_examples_works(node_modules: Path) -> None:
    entry = node_modules / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"

    async def use(tools: dict[str, Tool]) -> None:
        assert "hello" in await told(tools["echo"], message="hello")

    with_tools(use, ["node", str(entry)])


@pytest.mark.slow
def test_an_agent_reads_files_through_the_filesystem_server(node_modules: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the answer is 42")
    entry = node_modules / "@modelcontextprotocol" / "server-filesystem" / "dist" / "index.js"
    path = str(tmp_path / "a.txt")

    def model(request: Any) -> object:
        answers = [message for message in request.messages if message.role == "tool"]
        return answers[-1].text if answers else tool_call("read_text_file", path=path)

    async def use(tools: dict[str, Tool]) -> None:
        reader = Agent(name="reader", llm=ScriptedLLM(model), tools=[tools["read_text_file"]])
        assert "42" in await run(reader, [Message.user("What is the answer?")])
        assert "Error" in await told(tools["read_text_file"], path="/etc/passwd")

    with_tools(use, ["node", str(entry), str(tmp_path)])


@pytest.mark.parametrize(
    ("cursors", "problem"),
    [
        (["b", "c", None], None),
        (["b", "c", "b", "c"], "has no end: page 'b' is repeated"),
        (["b"], "does not list its tools: .*no such page"),
    ],
)
def test_a_long_list_of_tools_comes_in_pages_and_has_an_end(cursors: list[str | None], problem: str | None) -> None:
    async def pages(_: Any, asked: Any) -> ListToolsResult:
        if not cursors:
            raise MCPError(-32602, "no such page")
        name = f"tool_{(asked and asked.cursor) or 'a'}"
        return ListToolsResult(
            tools=[ServedTool(name=name, input_schema={"type": "object"})], next_cursor=cursors.pop(0)
        )

    async def names(tools: dict[str, Tool]) -> list[str]:
        return list(tools)

    server: Any = Server("pages", on_list_tools=pages)
    if problem is None:
        assert with_tools(names, server) == ["tool_a", "tool_b", "tool_c"]
    else:
        with pytest.raises(ToolError, match=problem):
            with_tools(names, server)


def test_credentials_in_the_environment_of_a_server_are_registered_as_secrets() -> None:
    async def use(tools: dict[str, Tool]) -> None:
        assert redact("token-0123456789 in /a/long/path/0123456789") == "<secret:X_TOKEN> in /a/long/path/0123456789"

    try:
        with_tools(use, env={"X_TOKEN": "token-0123456789", "FOLDER": "/a/long/path/0123456789"})
    finally:
        forget_secret("X_TOKEN")
