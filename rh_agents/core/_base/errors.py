"""The errors that are raised below all others; `rh_agents.core.errors` has them among these."""

from __future__ import annotations


class RhAgentsError(Exception):
    """Everything that this library raises of its own accord."""


class UsageError(RhAgentsError, RuntimeError):
    """A method was called at a time when it has no meaning, for instance `add` after the group has ended."""


class RecordedError(RhAgentsError):
    """Stands for a recorded error whose class this program does not have, with the same text.

    `kind` is the name of that class.
    """

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


for _each in (RhAgentsError, UsageError, RecordedError):
    _each.__module__ = "rh_agents.core.errors"  # where people find them, and the name under which they are recorded
