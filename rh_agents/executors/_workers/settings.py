"""What a parent may change while its workers live, and functions depend on."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_ROOT = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """Taken in the parent before each call, and sent if anything is different from what the worker has.

    Attributes:
        folder: the working directory; None if it has been deleted.
        path: where modules are found.
        arguments: those of the program.
        environment: the environment variables.
        levels: of the loggers that have one of their own; that of the root is there always, under "".
        disabled: up to this level nothing is logged.
    """

    folder: str | None
    path: list[str]
    arguments: list[str]
    environment: dict[str, str]
    levels: dict[str, int]
    disabled: int

    @classmethod
    def now(cls) -> Settings:
        return cls(_folder(), list(sys.path), list(sys.argv), _environment(), _levels(), logging.root.manager.disable)

    def apply(self, before: Settings | None) -> None:
        """Let them be those of this process, which had `before` of the same parent."""
        sys.path[:] = self.path
        sys.argv[:] = self.arguments
        if before is None or before.environment != self.environment:
            for name in set(os.environ) - set(self.environment):
                if before is None or name in before.environment:  # what functions have set themselves stays
                    del os.environ[name]
            os.environ.update(self.environment)
        for name in () if before is None else set(before.levels) - set(self.levels):
            logging.getLogger(name).setLevel(logging.NOTSET)
        for name, level in self.levels.items():
            logging.getLogger(name or None).setLevel(level)
        logging.disable(self.disabled)

    def enter_folder(self) -> None:
        """Go back to the working directory, which the function that was called before may have left."""
        with suppress(OSError):
            if self.folder is not None and _folder() != self.folder:
                os.chdir(self.folder)


def _folder() -> str | None:
    """The working directory; None if it has been deleted."""
    with suppress(OSError):
        return os.getcwd()
    return None


_known: tuple[Any, dict[str, str]] = (None, {})


def _environment() -> dict[str, str]:
    """The environment variables. To decode them all takes longer than all the rest of a small call."""
    global _known  # noqa: PLW0603 - what it was when it was looked at last
    raw = getattr(os.environ, "_data", None)
    if raw is None:
        return dict(os.environ)
    if raw != _known[0]:
        _known = dict(raw), dict(os.environ)
    return _known[1]


def _levels() -> dict[str, int]:
    root = logging.root
    loggers = list(root.manager.loggerDict.items())
    levels = {name: each.level for name, each in loggers if isinstance(each, logging.Logger) and each.level}
    levels[_ROOT] = root.level
    return levels
