"""Numbers, ages and sizes in words."""

from __future__ import annotations

__all__ = ["age", "ago", "counted", "size"]

_SHOWN_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0))


def counted(number: int, word: str) -> str:
    """`1 answer`, `2 answers`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def age(seconds: float) -> str:
    """`3 d`, `5 h`, `12 min`, `40 s`: the largest unit of which there is one."""
    for unit, length in _SHOWN_UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def ago(seconds: float) -> str:
    """`5 h ago`."""
    return f"{age(seconds)} ago"


def size(number: int) -> str:
    """`512 bytes`, `1.5 MiB`."""
    value = float(number)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024 or unit == "GiB":
            break
    return counted(number, "byte") if number < 1024 else f"{value:.1f} {unit}"
