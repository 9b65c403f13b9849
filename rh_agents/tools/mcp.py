"""The tools of MCP servers (Model Context Protocol), through the official package `mcp`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from hashlib import sha256
from typing import Any

from rh_agents.core.actors import Tool
from rh_agents.core.chat.messages import DocumentPart, ImagePart, TextPart
from rh_agents.core.errors import DefinitionError, ToolError
from rh_agents.core.redaction import is_credential_name, register_found
from rh_agents.core.types import Effect, OnUnknown

try:
    from mcp import Client, MCPError, StdioServerParameters
    from mcp.types import (
        BlobResourceContents,
        CallToolResult,
        EmbeddedResource,
        ImageContent,
        TextContent,
        TextResourceContents,
    )
    from mcp.types import Tool as ServedTool
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"the tools of MCP servers need the package {_error.name}: pip install 'rh_agents[mcp]'", name=_error.name
    ) from _error

from rh_agents.tools._mcp_connection import Connection, cause, log, problem_of

__all__ = ["mcp_tools"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 64


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
    max_result: int | None = None,
) -> AsyncIterator[list[Tool]]:
    """The tools of a server while the block lasts, as ordinary tools: recorded, replayed, retried and limited.

        async with mcp_tools(["npx", "-y", "@modelcontextprotocol/server-filesystem", "."]) as tools:
            agent = Agent(name="librarian", llm=model, tools=tools)

    What a tool says that it destroys something (`destructiveHint`) has an external effect: a person has to allow each
    call by a model, and after a crash one is asked whether it was done.

    A server that has died is started again by the next call, at most three times a minute; one of HTTP that has
    forgotten the session gets a new one. What was being called then may have been done: `on_unknown` of the tool
    decides, which means asking a person for what destroys something, and another attempt for the rest (three in all).

    A tool of the server that is not what the protocol asks for is left out, and a warning in the log says why.

    Args:
        server: a command with its arguments, whose standard input and output are talked to; the URL of a server
            (streamable HTTP); or anything else that `mcp.Client` takes.
        only: the names of the tools that are wanted, as the server calls them; None for all.
        prefix: put before each name, so that those of two servers differ. Models take names of up to 64 letters,
            digits, `_` and `-`: other signs become `_`. Names that are the same then get a mark made of the whole name.
        timeout: seconds for each call, and for the server to be there; None waits.
        needs_approval: whether a person has to allow each call by a model; None: where the server says that something
            is destroyed.
        cwd: the folder of a command.
        env: further environment variables of a command. Of this program's own environment it gets
            only HOME, LOGNAME, PATH, SHELL, TERM and USER (on Windows APPDATA, HOMEDRIVE, HOMEPATH, LOCALAPPDATA, PATH,
            PATHEXT, PROCESSOR_ARCHITECTURE, SYSTEMDRIVE, SYSTEMROOT, TEMP, USERNAME and USERPROFILE). What the name of
            a variable says is a credential (`API_KEY`, `TOKEN`) is kept out of what people read, and out of stores.
        max_result: how many characters of each result a model gets; None: what its agent says.

    What a command writes to its standard error goes to the log `rh_agents.tools.mcp`, at INFO; its end is reported when
    the server dies.

    Raises:
        ToolError: the server cannot be started or reached, or does not speak the protocol.
        DefinitionError: a tool among `only` is not there, or `server` is a text and no URL.
    """
    for variable, value in (env or {}).items():
        if is_credential_name(variable):
            register_found(variable, value)
    name = server if isinstance(server, str) else " ".join(server) if isinstance(server, list | tuple) else repr(server)
    connection = Connection(_target(server, env, cwd), name, timeout)
    client = await connection.client()
    try:
        served = await _served(client, name, connection.left_out)
        missing = sorted(set(only or ()) - {each.name for each in served})
        if missing:
            known = ", ".join(each.name for each in served)
            why = "".join(f" ({each}: {connection.left_out[each]})" for each in missing if each in connection.left_out)
            raise DefinitionError(f"the MCP server {name} has no tool {', '.join(missing)}{why}; it has: {known}")
        for each, problem in connection.left_out.items():
            log.warning("the tool %r of the MCP server %s is left out: %s", each, name, problem)
        wanted = [each for each in served if only is None or each.name in only]
        names = _names([each.name for each in wanted], prefix)
        options = {"timeout": timeout, "needs_approval": needs_approval, "max_result": max_result}
        yield [_tool(connection, each, names[each.name], options) for each in wanted]
    finally:
        await connection.close()


def _target(server: Any, env: dict[str, str] | None, cwd: str | None) -> Any:
    if isinstance(server, str) and not server.lower().startswith(("http://", "https://")):
        raise DefinitionError(
            f"mcp_tools({server!r}): a text is the URL of a server and begins with http:// or https://; a command is "
            f"a list, such as {server.split() or ['npx', '-y', 'a-server']}"
        )
    if not isinstance(server, list | tuple):
        return server
    if not server:
        raise DefinitionError("the command of an MCP server is empty")
    # What is no UTF-8 is a line of a log, or a part of a text: no reason for the SDK to stop reading.
    return StdioServerParameters(
        command=server[0], args=list(server[1:]), env=env, cwd=cwd, encoding_error_handler="replace"
    )


async def _served(client: Client, name: str, left_out: dict[str, str]) -> list[ServedTool]:
    """All tools of a server that can be called, page after page. Those that cannot go to `left_out`, with the reason.

    Raises:
        ToolError: it does not tell them.
    """
    found: dict[str, ServedTool] = {}
    cursor: str | None = None
    seen: set[str] = set()
    while True:
        try:
            page = await client.list_tools(cursor=cursor)
        except (MCPError, OSError, RuntimeError, ValueError) as error:
            raise ToolError(f"the MCP server {name} does not list its tools: {cause(error)}") from error
        for each in page.tools:
            problem = problem_of(each) if each.name not in found else "there is another one of this name"
            if problem is None:
                found[each.name] = each
            else:
                left_out[each.name] = problem
        cursor = page.next_cursor
        if cursor is None:
            return list(found.values())
        if cursor in seen:
            raise ToolError(f"the list of the tools of the MCP server {name} has no end: page {cursor!r} is repeated")
        seen.add(cursor)


def _names(served: Sequence[str], prefix: str) -> dict[str, str]:
    """The name of each tool for models. Where several would have the same one, a digest of the whole name tells them
    apart, so that it does not depend on their order; the one that is called just so keeps its name.
    """
    short = {each: _NOT_IN_NAMES.sub("_", f"{prefix}{each}")[:_LONGEST_NAME] for each in served}
    shared = Counter(short.values())
    return {
        each: name if shared[name] == 1 or name == f"{prefix}{each}" else _marked(name, f"{prefix}{each}")
        for each, name in short.items()
    }


def _marked(name: str, whole: str) -> str:
    mark = sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - len(mark) - 1]}_{mark}"


class _ServedTool(Tool):
    """A tool whose server is another process, so that it may be lost while it is called."""

    @cached_property
    def may_lose_workers(self) -> bool:
        """Its server may die."""
        return True


def _tool(connection: Connection, served: ServedTool, name: str, options: dict[str, Any]) -> Tool:
    hints = served.annotations
    is_external = hints is not None and bool(hints.destructive_hint) and not hints.read_only_hint
    return _ServedTool(
        name=name,
        description=served.description or served.title or "",
        parameters=served.input_schema,
        handler=_caller(connection, served.name),
        effect=Effect.EXTERNAL if is_external else Effect.REPEATABLE,
        on_unknown=OnUnknown.ASK if is_external else None,
        **options,
    )


def _caller(connection: Connection, name: str) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    async def call(arguments: dict[str, Any]) -> Any:
        result = await connection.call(name, arguments)
        if result.is_error:
            raise ToolError(_text(result) or f"{name} failed, and its server does not say why")
        return _value(result)

    return call


def _value(result: CallToolResult) -> Any:
    """What a tool returned, as data: its parts if there are images among them, its structured content, its text, or
    else what the server sent.
    """
    parts = [_part(each) for each in result.content]
    if any(isinstance(each, ImagePart | DocumentPart) for each in parts):
        return parts
    structured = result.structured_content
    if structured is not None:
        # Servers wrap what is no object, because the protocol asks for one.
        return structured["result"] if set(structured) == {"result"} else structured
    if all(isinstance(part, TextContent) for part in result.content):
        return _text(result)
    return [part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in result.content]


def _part(content: Any) -> Any:
    """A piece of a result as models see it; as data what they have no part for, such as sounds and links."""
    if isinstance(content, TextContent):
        return TextPart(text=content.text)
    if isinstance(content, ImageContent):
        return ImagePart(url=f"data:{content.mime_type};base64,{content.data}")
    if isinstance(content, EmbeddedResource):
        resource = content.resource
        if isinstance(resource, TextResourceContents):
            return TextPart(text=resource.text)
        if isinstance(resource, BlobResourceContents):
            kind = resource.mime_type or ""
            url = f"data:{kind};base64,{resource.blob}"
            if kind.startswith("image/"):
                return ImagePart(url=url)
            if kind == "application/pdf":
                return DocumentPart(url=url, name=str(resource.uri).rpartition("/")[2])
    return content.model_dump(mode="json", by_alias=True, exclude_none=True)


def _text(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))
