"""Why a group ended early, told with what it had and with what else went wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rh_agents.core._base.foreign import noted
from rh_agents.core.errors import GroupTimeout, TooManyFailures
from rh_agents.core.results import ExecutionResult, describe_error

__all__ = ["Reason", "add_failures"]

_NOTES = 10
"""How many other failures are named in an error that is raised."""


class Reason:
    """The first thing that ended a group early, if anything did."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._is_explained = False
        self._cleanups: list[str] = []
        self.error: BaseException | None = None
        self.was_raised: bool = False
        """Whether the block has been told; a member that was told does not count."""

    def note(self, error: BaseException | None) -> None:
        """Something ended the group. Only the first reason counts."""
        if self.error is None:
            self.error = error

    def note_cleanup(self, address: str, problem: str) -> None:
        """A member raised in its cleanup when the group was cancelled from outside: no result says so."""
        self._cleanups.append(f"the cleanup of {address} failed: {problem}")

    def add_unseen(self, error: BaseException) -> None:
        """Say in what ends the block what nobody has been told: why it ended early, and which cleanups failed."""
        if self.error is not None and not self.was_raised and self.error is not error:
            self.was_raised = True
            noted(error, f"group {self._group!r}: {describe_error(self.error)}")
        cleanups, self._cleanups = self._cleanups, []
        for text in cleanups[:_NOTES]:
            noted(error, f"group {self._group!r}: {text}")
        if len(cleanups) > _NOTES:
            noted(error, f"group {self._group!r}: {len(cleanups) - _NOTES} more cleanups failed")

    def explained(self, error: BaseException, results: list[ExecutionResult[Any]]) -> BaseException:
        """The reason, once given what had finished by then, or notes of what else had failed."""
        if not self._is_explained:
            self._is_explained = True
            if isinstance(error, GroupTimeout | TooManyFailures):
                error.results = tuple(results)
            else:
                add_failures(error, self._group, results)
        return error


def add_failures(error: BaseException, group: str, results: Iterable[ExecutionResult[Any]]) -> None:
    """Say in an error what else failed in its group; all of it is in the group's `results`."""
    failures = [result for result in results if result.error is not None and result.error is not error]
    for result in failures[:_NOTES]:
        noted(error, f"group {group!r}: {result.address} failed too: {result.error_message}")
    if len(failures) > _NOTES:
        noted(error, f"group {group!r}: {len(failures) - _NOTES} more failed too")
