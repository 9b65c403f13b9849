"""MCP servers that speak the protocol by hand, on standard input and output: `python raw_mcp_server.py KIND`.

They start at once, and do what those that are written with an SDK cannot be made to do.

mortal: some of its tools end it.
misshapen: some of its tools are not what the protocol asks for, some have similar names.
noisy: writes what is no message to its standard output, before and between its messages.
silent: reads, and answers nothing.
ends: writes why to its standard error, and ends with code 3 without having answered.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

OBJECT = {"type": "object"}
MORTAL: list[Any] = [
    {"name": "add", "inputSchema": OBJECT},
    {"name": "die", "inputSchema": OBJECT},
    {"name": "once", "inputSchema": OBJECT},
    {"name": "once_only", "inputSchema": OBJECT, "annotations": {"destructiveHint": True}},
    {"name": "environment", "inputSchema": OBJECT},
]
NOISE = (b"listening on port 7", b"\xff\xfe is no UTF-8", b"42", b"null", b"[]", b"{", b'{"jsonrpc": "2.0"}')
MISSHAPEN: list[Any] = [
    {"name": "read", "inputSchema": OBJECT},
    {"name": "no_schema"},
    {"name": "list", "inputSchema": {"type": "array"}},
    {"inputSchema": OBJECT},
    {"name": 7, "inputSchema": OBJECT},
    "a text",
    {"name": "read", "inputSchema": OBJECT},
    {"name": "", "inputSchema": OBJECT},
    {"name": "a.b", "inputSchema": OBJECT},
    {"name": "a b", "inputSchema": OBJECT},
    {"name": "a_b", "inputSchema": OBJECT},
    {"name": "x" * 64 + "1", "inputSchema": OBJECT},
    {"name": "x" * 64 + "2", "inputSchema": OBJECT},
    {"name": "y.z", "inputSchema": OBJECT},
]


def call(name: str, arguments: dict[str, Any]) -> str:
    """What comes of a tool."""
    if name == "add":
        return str(arguments["a"] + arguments["b"])
    if name == "environment":
        return json.dumps(sorted(os.environ))
    if name == "die":
        print("out of memory", file=sys.stderr, flush=True)
        os._exit(1)
    if name.startswith("once"):
        calls = Path(arguments["path"])
        known = calls.read_text() if calls.exists() else ""
        calls.write_text(f"{known}called\n")
        if not known:
            os._exit(1)
    return name


def answer(request: dict[str, Any], tools: list[Any]) -> dict[str, Any]:
    """The answer to a request, or the error."""
    method, params = request["method"], request.get("params") or {}
    if method == "initialize":
        about = {"serverInfo": {"name": "raw", "version": "1"}, "capabilities": {"tools": {}}}
        return {"result": {"protocolVersion": params["protocolVersion"], **about}}
    if method == "tools/list":
        return {"result": {"tools": tools}}
    if method == "tools/call":
        return {"result": {"content": [{"type": "text", "text": call(params["name"], params["arguments"])}]}}
    return {"error": {"code": -32601, "message": "no such method"}}


def main(kind: str) -> None:
    """Serve until the input ends."""
    if kind == "ends":
        print("Traceback: no module named 'left_pad'", file=sys.stderr, flush=True)
        sys.exit(3)
    for line in sys.stdin:
        if kind == "noisy":
            for junk in (
                b"listening on port 7",
                b"\xff\xfe is no UTF-8",
                b"42",
                b"null",
                b"[]",
                b"{",
                b'{"jsonrpc": "2.0"}',
            ):
                sys.stdout.buffer.write(junk + b"\n")
        request = json.loads(line)
        if kind != "silent" and "id" in request:
            found = answer(request, MORTAL if kind in ("mortal", "noisy") else MISSHAPEN)
            print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
