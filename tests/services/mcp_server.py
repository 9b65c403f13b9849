"""An MCP server of our own, on standard input and output or over HTTP: `python tests/services/mcp_server.py [PORT]`."""

import logging
import os
import sys

from mcp.server import MCPServer
from mcp.types import ImageContent, TextContent, ToolAnnotations

server = MCPServer("stub", log_level="CRITICAL")
logging.disable(logging.CRITICAL)


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ValueError("what nobody is told")


@server.tool(annotations=ToolAnnotations(destructive_hint=True))
def remove(name: str) -> str:
    """Remove something."""
    return f"{name} is gone"


@server.tool(structured_output=False)
def draw() -> list[TextContent | ImageContent]:
    """A picture."""
    return [TextContent(type="text", text="a dot"), ImageContent(type="image", data="AA==", mime_type="image/png")]


@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
