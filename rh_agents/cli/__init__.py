"""The command line: `rh-agents map` and `rh-agents run`, and the commands about recorded runs."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from rh_agents.cli.errors import INTERRUPTED, USAGE, CommandError, Interrupted, error_record, one_line
from rh_agents.cli.json_text import json_line
from rh_agents.cli.process import begin_sparely
from rh_agents.cli.recorded_command import Invocation
from rh_agents.core.errors import CodeChangedWarning, RhAgentsError, RunMismatchError, UsageError
from rh_agents.core.redaction import redact

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command `rh-agents`. Returns what the process should end with.

    0, 1 (something failed), 2 (usage), 3 (a run waits for answers) or 130 (interrupted). What went wrong stands on
    standard error, in one sentence; with `--json`, on standard output instead, as one JSON object for programs.

    `argv` is what follows the name of the command; None takes it from the process.
    """
    report = _report_json if _is_json(sys.argv[1:] if argv is None else argv) else _report
    if argv is None:
        begin_sparely()
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
        with _changes_in_words():
            code = app(
                args=None if argv is None else list(argv), prog_name="rh-agents", obj=about, standalone_mode=False
            )
        if sys.stdout is not None:
            sys.stdout.flush()  # not at the end of the interpreter, where a failure could not be reported
    except CommandError as error:
        return report(error, error.exit_code)
    except (UsageError, RunMismatchError) as error:
        return report(error, USAGE)
    except RhAgentsError as error:  # a store that does not work, a run that another process executes
        return report(error, 1)
    except KeyboardInterrupt:
        return report(Interrupted(), INTERRUPTED)
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
        if report is _report_json:
            return _report_json(CommandError(_message_of(error)), int(exit_code), _help_for(error))
        shown = io.StringIO()
        show(file=shown)
        print(redact(shown.getvalue()), end="", file=sys.stderr)
        return int(exit_code)
    return code if isinstance(code, int) else 0


@contextlib.contextmanager
def _changes_in_words() -> Iterator[None]:
    """That code has changed is a line for people, and not a warning with the line of this library that gives it."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CodeChangedWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if category is CodeChangedWarning:
                print(one_line(str(message)).replace("accept_changes=True", "--accept-changes"), file=sys.stderr)
            else:
                others(message, category, *where, **more)

        warnings.showwarning = show
        yield


def _close_standard_output() -> None:
    """What it still buffers cannot be written, and must not be tried again at the end of the interpreter."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _is_json(argv: Sequence[str]) -> bool:
    """Whether the output is for a program, also if the rest of the command line is wrong."""
    words = list(itertools.takewhile(lambda word: word != "--", argv))
    is_summary = "--summary-json=-" in words or ("--summary-json", "-") in itertools.pairwise(words)
    return "--json" in words or is_summary


def _report(what: object, exit_code: int) -> int:
    print(f"rh-agents: {one_line(str(what))}", file=sys.stderr)
    return exit_code


def _report_json(error: BaseException, exit_code: int, remedy: str | None = None) -> int:
    try:
        print(json_line("error", error_record(error, exit_code, remedy)), end="", flush=True)
    except (AttributeError, OSError):  # there is no standard output, or no one reads it
        _close_standard_output()
        return _report(error, exit_code)
    return exit_code


def _message_of(error: Any) -> str:
    """What Typer says is wrong with a command line."""
    return str(error.format_message()) if hasattr(error, "format_message") else str(error)


def _help_for(error: Any) -> str | None:
    context = getattr(error, "ctx", None)
    return None if context is None else f"{context.command_path} --help"
