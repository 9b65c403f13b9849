"""The files that a browser gets as they are."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

__all__ = ["KINDS", "static_files"]

KINDS: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""What they are, by the ends of their names."""


def static_files() -> dict[str, bytes]:
    """All of them by name: `index.html`, and what it names."""
    folder = files("rh_agents.web") / "static"
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.name.rpartition(".")[2] in KINDS}
