"""The command line: `rh-agents map` and `rh-agents run`, and the commands about recorded runs."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence

from rh_agents.cli.errors import USAGE, CommandError, one_line
from rh_agents.cli.recorded_command import Invocation
from rh_agents.core.errors import RhAgentsError, RunMismatchError, UsageError
from rh_agents.core.redaction import redact

__all__ = ["main"]

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """The command `rh-agents`. Returns what the process should end with.

    0, 1 (something failed), 2 (usage), 3 (a run waits for answers) or 130 (interrupted).

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
        about = Invocation(owns_process=argv is None)
        # Not standalone: the messages of Typer quote what was typed, which may be a credential.
        code = app(args=None if argv is None else list(argv), prog_name="rh-agents", obj=about, standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # not at the end of the interpreter, where a failure could not be reported
    except CommandError as error:
        return _report(error, error.exit_code)
    except (UsageError, RunMismatchError) as error:
        return _report(error, USAGE)
    except RhAgentsError as error:  # a store that does not work, a run that another process executes
        return _report(error, 1)
    except KeyboardInterrupt:
        return _report("interrupted", _INTERRUPTED)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BrokenPipeError:  # the reader has gone, as with `| head`
        _close_standard_output()
        return 1
    except OSError as error:
        _close_standard_output()
        return _report(f"cannot write {error.filename or 'standard output'}: {error.strerror}", 1)
    except Exception as error:
        show, exit_code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if show is None or exit_code is None:  # not of Typer, which hides the class of its own
            raise
        shown = io.StringIO()
        show(file=shown)
        print(redact(shown.getvalue()), end="", file=sys.stderr)
        return int(exit_code)
    return code if isinstance(code, int) else 0


def _close_standard_output() -> None:
    """What it still buffers cannot be written, and must not be tried again at the end of the interpreter."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _report(what: object, exit_code: int) -> int:
    print(f"rh-agents: {one_line(str(what))}", file=sys.stderr)
    return exit_code
