"""The command line: `rh-agents map` and `rh-agents run`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rh_agents.cli.errors import USAGE, CommandError

__all__ = ["main"]

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """The command `rh-agents`. Returns what the process should end with: 0, 1 (something failed), 2 (usage) or 130.

    `argv` is what follows the name of the command; None takes it from the process.
    """
    try:
        from rh_agents.cli.app import app  # noqa: PLC0415 - Typer is an optional package
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        print("rh-agents: the commands need Typer: pip install 'rh_agents[cli]'", file=sys.stderr)
        return USAGE
    try:
        app(args=None if argv is None else list(argv), prog_name="rh-agents", obj=argv is None)
    except CommandError as error:
        print(f"rh-agents: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("rh-agents: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0
