"""The tools of MCP servers (Model Context Protocol), through the official package `mcp`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rh_agents.core.actors import Tool
from rh_agents.core.errors import DefinitionError, ToolError
from rh_agents.core.redaction import is_credential_name, register_found
from rh_agents.core.types import Effect, OnUnknown

try:
    from mcp import Client, MCPError, StdioServerParameters
    from mcp.types import CallToolResult, TextContent
    from mcp.types import Tool as ServedTool
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"the tools of MCP servers need the package {_error.name}: pip install 'rh_agents[mcp]'", name=_error.name
    ) from _error

__all__ = ["mcp_tools"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


@asynccontextmanager
async def mcp_tools(
    server: str | Sequence[str] | Any,
    *,
    only: Collection[str] | None = None,
    prefix: str = "",
    timeout: float | None = 60.0,
    needs_approval: bool | None = None,
    env: dict[str, str] | None = None,
    cwd: str | None = None,
) -> AsyncIterator[list[Tool]]:
    """The tools of a server while the block lasts, as ordinary tools: recorded, replayed, retried and limited.

        async with mcp_tools(["npx", "-y", "@modelcontextprotocol/server-filesystem", "."]) as tools:
            agent = Agent(name="librarian", llm=model, tools=tools)

    What a tool says that it destroys something (`destructiveHint`) has an external effect: a person has to allow each
    call by a model, and after a crash one is asked whether it was done.

    Args:
        server: a command with its arguments, whose standard input and output are talked to; the URL of a server
            (streamable HTTP); or anything else that `mcp.Client` takes.
        only: the names of the tools that are wanted, as the server calls them; None for all.
        prefix: put before each name, so that those of two servers differ.
        timeout: seconds for each call.
        needs_approval: whether a person has to allow each call by a model; None: where the server says that something
            is destroyed.
        env, cwd: the environment and the folder of a command. What its name says is a credential (`API_KEY`, `TOKEN`)
            is kept out of everything that people read, and out of stores.

    Raises:
        ToolError: the server cannot be started or reached, or does not speak the protocol.
        DefinitionError: a tool among `only` is not there.
    """
    for variable, value in (env or {}).items():
        if is_credential_name(variable):
            register_found(variable, value)
    name = server if isinstance(server, str) else " ".join(server) if isinstance(server, list | tuple) else repr(server)
    client = Client(_target(server, env, cwd), read_timeout_seconds=timeout)
    try:
        await client.__aenter__()
    except Exception as error:
        raise ToolError(f"the MCP server {name} cannot be reached: {_cause(error)}") from error
    try:
        served = await _served(client, name)
        missing = sorted(set(only or ()) - {each.name for each in served})
        if missing:
            known = ", ".join(each.name for each in served)
            raise DefinitionError(f"the MCP server {name} has no tool {', '.join(missing)}; it has: {known}")
        yield [
            _tool(client, each, prefix, timeout, needs_approval) for each in served if only is None or each.name in only
        ]
    finally:
        await client.__aexit__(None, None, None)


def _target(server: Any, env: dict[str, str] | None, cwd: str | None) -> Any:
    if not isinstance(server, list | tuple):
        return server
    if not server:
        raise DefinitionError("the command of an MCP server is empty")
    return StdioServerParameters(command=server[0], args=list(server[1:]), env=env, cwd=cwd)


async def _served(client: Client, name: str) -> list[ServedTool]:
    """All tools of a server, page after page.

    Raises:
        ToolError: it does not tell them.
    """
    found: list[ServedTool] = []
    cursor: str | None = None
    seen: set[str] = set()
    while True:
        try:
            page = await client.list_tools(cursor=cursor)
        except (MCPError, OSError, RuntimeError) as error:
            raise ToolError(f"the MCP server {name} does not tell its tools: {_cause(error)}") from error
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return found
        if cursor in seen:
            raise ToolError(f"the list of the tools of the MCP server {name} has no end: page {cursor!r} comes again")
        seen.add(cursor)


def _tool(client: Client, served: ServedTool, prefix: str, timeout: float | None, needs_approval: bool | None) -> Tool:
    hints = served.annotations
    is_external = hints is not None and bool(hints.destructive_hint) and not hints.read_only_hint
    return Tool(
        name=_NOT_IN_NAMES.sub("_", f"{prefix}{served.name}")[:64],
        description=served.description or served.title or "",
        parameters=served.input_schema,
        handler=_caller(client, served.name),
        timeout=timeout,
        effect=Effect.EXTERNAL if is_external else Effect.REPEATABLE,
        on_unknown=OnUnknown.ASK if is_external else None,
        needs_approval=needs_approval,
    )


def _caller(client: Client, name: str) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    async def call(arguments: dict[str, Any]) -> Any:
        try:
            result = await client.call_tool(name, arguments)
        except MCPError as error:
            raise ToolError(f"{name}: {error}") from error
        except (OSError, RuntimeError) as error:
            raise ToolError(f"{name}: its server is gone: {_cause(error)}") from error
        if result.is_error:
            raise ToolError(_text(result) or f"{name} failed, and its server does not say why")
        return _value(result)

    return call


def _value(result: CallToolResult) -> Any:
    """What a tool returned, as data: its structured content, its text, or its parts if not all of them are text."""
    structured = result.structured_content
    if structured is not None:
        # Servers wrap what is no object, because the protocol asks for one.
        return structured["result"] if set(structured) == {"result"} else structured
    if all(isinstance(part, TextContent) for part in result.content):
        return _text(result)
    return [part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in result.content]


def _text(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def _cause(error: BaseException) -> str:
    """The first plain error in what may be a group of groups, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())
