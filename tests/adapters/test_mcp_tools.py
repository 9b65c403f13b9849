"""Tools of MCP servers: of our own, and of those that others wrote."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rh_agents import Agent, MemoryStore, RunAwaiting, Tool, forget_secret, redact, run
from rh_agents.core.chat import Message, ToolCall, call_tools
from rh_agents.core.errors import DefinitionError, ToolError
from rh_agents.testing import ScriptedLLM, tool_call

pytest.importorskip("mcp", reason="mcp is not installed: pip install 'rh_agents[mcp]'")

from mcp import MCPError
from mcp.server.lowlevel import Server
from mcp.types import ListToolsResult
from mcp.types import Tool as ServedTool

from rh_agents.tools import mcp_tools

SERVER = Path(__file__).parents[1] / "services" / "mcp_server.py"
COMMAND = [sys.executable, str(SERVER)]
T = TypeVar("T")


def with_tools(use: Callable[[dict[str, Tool]], Awaitable[T]], server: Any = COMMAND, **options: Any) -> T:
    """What `use` makes of the tools of a server, by name."""

    async def main() -> T:
        async with mcp_tools(server, **options) as tools:
            return await use({tool.name: tool for tool in tools})

    return asyncio.run(asyncio.wait_for(main(), 60))


async def told(tool: Tool, **arguments: Any) -> str:
    """What a model is told when it calls the tool."""
    wish = tool_call(tool.name, **arguments)
    (message,) = await call_tools([ToolCall(id="1", name=wish.name, arguments=wish.arguments)], [tool])
    return message.text


def test_tools_have_their_names_descriptions_and_schemas_and_give_data() -> None:
    async def use(tools: dict[str, Tool]) -> None:
        assert set(tools) == {"add", "fail", "remove", "draw", "die"}
        assert tools["add"].description == "Add two numbers."
        assert tools["add"].parameters is not None
        assert tools["add"].parameters["required"] == ["a", "b"]
        assert await told(tools["add"], a=1, b=2) == "3"
        assert '"mimeType":"image/png"' in await told(tools["draw"])

    with_tools(use)


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


def test_a_server_that_dies_is_a_failure_of_the_call() -> None:
    async def use(tools: dict[str, Tool]) -> None:
        assert (await told(tools["die"])).startswith("Error: ")
        assert (await told(tools["add"], a=1, b=2)).startswith("Error: ")

    with_tools(use, timeout=5.0)


@pytest.mark.parametrize("server", [["no-such-command"], "http://127.0.0.1:1/mcp"])
def test_a_server_that_is_not_there_is_one_clear_sentence(server: Any) -> None:
    async def use(_: dict[str, Tool]) -> None:
        raise AssertionError("there is none")

    with pytest.raises(ToolError, match="cannot be reached"):
        with_tools(use, server)


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
        (["b", "c", "b", "c"], "has no end: page 'b' comes again"),
        (["b"], "does not tell its tools: .*no such page"),
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
