"""Tools that others have written: those of MCP servers (`rh_agents.tools.mcp`). Own ones are functions with `@tool`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rh_agents.tools.mcp import mcp_tools

__all__ = ["mcp_tools"]


def __getattr__(name: str) -> Any:
    """Load it when it is asked for: it needs a package of its own."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("rh_agents.tools.mcp"), name)
