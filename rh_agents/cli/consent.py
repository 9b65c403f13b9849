"""Asking before something is done that cannot be undone."""

from __future__ import annotations

import sys

from rh_agents.cli.errors import CommandError
from rh_agents.cli.output.progress import say

__all__ = ["expect_consent"]


def expect_consent(what: str, *, is_given: bool) -> None:
    """Ask the person at the terminal whether to do it; the question and the answer are no part of the output.

    Args:
        what: a question without its question mark, such as `delete 3 runs for good`.
        is_given: `--yes` has answered it.

    Raises:
        CommandError: the answer is no, or there is no terminal to ask at.
    """
    if is_given:
        return
    if sys.stdin is None or not sys.stdin.isatty() or sys.stderr is None or not sys.stderr.isatty():
        raise CommandError(f"to {what} needs --yes where there is no terminal to ask at; --dry-run shows what it does")
    say(f"{what}? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was done", exit_code=1)
