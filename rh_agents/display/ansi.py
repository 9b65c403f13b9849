"""Styled text as a string with escape codes."""

from __future__ import annotations

from rich.color import ColorSystem
from rich.console import Console
from rich.text import Text

__all__ = ["ansi"]

_SYSTEMS = {
    "standard": ColorSystem.STANDARD,
    "256": ColorSystem.EIGHT_BIT,
    "truecolor": ColorSystem.TRUECOLOR,
    "windows": ColorSystem.WINDOWS,
}


def ansi(line: Text, console: Console) -> str:
    """The text with the escape codes that this console understands: none, if it is no terminal.

    It does what capturing `console.print` does, but that measures, wraps and highlights too, and takes ten times as
    long.
    """
    system = _SYSTEMS.get(console.color_system or "")
    if system is None:
        return line.plain
    pieces = []
    for text, style, _ in line.render(console):
        if style is not None and console.no_color:
            style = style.without_color
        pieces.append(style.render(text, color_system=system) if style else text)
    return "".join(pieces)
