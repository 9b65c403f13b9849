"""`--detach`: a job in a process of its own, which the end of its terminal does not take along.

The command starts itself once more, as the leader of a session of its own, with standard input closed and its output in
a log file. That process gets the same arguments; a variable of its environment tells it that it is the one to do the
work, and names the pipe through which it says that its run is open in the store. Until then the first process waits.
So whoever has its line of JSON can look at the run and stop it, and if the run cannot be opened, the reason is shown
and the exit code is that of the process that failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Final

import typer

from rh_agents.cli.errors import CommandError
from rh_agents.cli.json_text import json_line
from rh_agents.cli.output.progress import say
from rh_agents.cli.output.protected_files import ProtectedFiles, files_of_store
from rh_agents.cli.recorded_command import Invocation
from rh_agents.cli.stores import NO_STORE, absolute_url, path_of_store, shown_url, store_option
from rh_agents.stores._files import FILE_MODE, create_file
from rh_agents.stores._naming import Kind, read_name

if sys.platform != "win32":
    import fcntl

__all__ = ["Detach", "LogFile", "announce", "detached", "expect_output_file", "is_to_detach"]

Detach = Annotated[
    bool,
    typer.Option(
        "--detach",
        help="Run in the background: print a line of JSON to find the run by as soon as it is open, and leave.",
    ),
]
LogFile = Annotated[
    str | None,
    typer.Option(
        "--log", metavar="FILE", help="With --detach: where messages go; a new file beside the store if left out."
    ),
]

_VARIABLE: Final = "RH_AGENTS_DETACHED"
_LONGEST_NAME: Final = 60
_pipe: int | None = None


# -- in the process that does the work ---------------------------------------------------------------------------------


def is_to_detach(detach: bool, log: str | None) -> bool:
    """Whether the options ask for another process, and this is not that one.

    Raises:
        CommandError: there is a log, and nothing to write to it.
    """
    if log is not None and not detach:
        raise CommandError("--log is for a run in the background: it needs --detach")
    return detach and not _is_detached()


def _is_detached() -> bool:
    """Whether this process was started to do the work. What it starts itself does not learn of that."""
    global _pipe  # noqa: PLW0603 - a fact about the process
    given = os.environ.pop(_VARIABLE, "")
    if given.isdecimal():
        _pipe = int(given)
        os.set_inheritable(_pipe, False)
    return _pipe is not None


def announce(run_id: str, store: str) -> None:
    """Say that the run is open, once, to the process that waits for it; without one, nothing happens."""
    global _pipe
    pipe, _pipe = _pipe, None
    if pipe is None:
        return
    name = shlex.quote(run_id)
    about = {
        "run_id": run_id,
        "store": shown_url(absolute_url(store)),
        "show": f"rh-agents show {name} --follow{store_option(store)}",
        "stop": f"rh-agents cancel {name}{store_option(store)}",
    }
    with contextlib.suppress(BrokenPipeError):  # it was killed; the work is done all the same
        os.write(pipe, json.dumps(about).encode() + b"\n")
    os.close(pipe)


# -- in the process that starts it -------------------------------------------------------------------------------------


def expect_output_file(output: str | None) -> None:
    """See to it that results of a map have somewhere to go.

    Raises:
        CommandError: there is no output file.
    """
    if output in (None, "", "-"):
        raise CommandError("--detach: there will be no standard output to write to; name a file with -o OUT.jsonl")


def detached(
    about: Invocation, store: str, log: str | None, protected: ProtectedFiles, *, as_json: bool = False
) -> int:
    """Start the command in a process of its own, wait until its run is open, and print how to find it.

    Args:
        about: what the process knows of the command.
        store: where the run is to be recorded.
        log: where messages go; None for a new file beside the store.
        protected: files that are no place for messages.
        as_json: say which kind of JSON it is, and say as JSON why there is no run.

    Returns:
        What this process ends with: 0, or that with which the other one ended instead of opening its run.

    Raises:
        CommandError: it cannot be done here, or not so.
    """
    _expect_possible(about, store)
    path = log if log is not None else _new_log(store)
    with _opened(path, protected | files_of_store(store)) as descriptor:
        before = os.fstat(descriptor).st_size
        pid, said = _started(descriptor)
    if said:
        record = json.loads(said)
        if log is None:
            path = _renamed(path, record["run_id"], pid)
        record |= {"pid": pid, "log": os.path.abspath(path)}
        print(json_line("detached", record) if as_json else json.dumps(record) + "\n", end="", flush=True)
        return 0
    return _failed(pid, path, before, is_kept=log is not None, as_json=as_json)


def _expect_possible(about: Invocation, store: str) -> None:
    if not about.owns_process:
        raise CommandError("--detach starts the command once more, so it is for the command rh-agents itself")
    if sys.platform == "win32":
        raise CommandError("--detach needs sessions of processes, which Windows does not have")
    if store == NO_STORE or read_name(absolute_url(store)).kind is Kind.MEMORY:
        raise CommandError(f"--detach --store {store}: a run in the background can only be found in a store that stays")


def _new_log(store: str) -> str:
    paths = path_of_store(store)
    folder = os.path.join(".rh_agents", "logs") if paths is None else f"{paths[0]}-logs"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        what = f"--detach: {folder} for its log cannot be made: {error.strerror}"
        raise CommandError(f"{what}; name a file with --log") from error
    return os.path.join(folder, f"starting-{os.getpid()}-{secrets.token_hex(4)}.log")


@contextlib.contextmanager
def _opened(path: str, protected: ProtectedFiles) -> Iterator[int]:
    """A descriptor of a log, to whose end everything is written; a new one is for its owner alone."""
    protected.refuse_name(path)
    flags = os.O_WRONLY | os.O_APPEND
    try:
        try:
            descriptor = _above(create_file(path, flags))
        except FileExistsError:
            descriptor = _above(os.open(path, flags | os.O_CREAT, FILE_MODE))
    except OSError as error:
        raise CommandError(f"--log {path}: {error.strerror}") from error
    try:
        protected.refuse_open(path, descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _above(descriptor: int) -> int:
    """The same under a number that is no standard stream's: where one was closed, the next file gets its number."""
    if descriptor > 2:
        return descriptor
    other = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return other


def _started(log: int) -> tuple[int, bytes]:
    """The id of the process that does the work, and what it says of its run; nothing if it ended before."""
    reader, writer = os.pipe()
    pipe = _above(writer)
    os.set_inheritable(pipe, True)
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            {**os.environ, _VARIABLE: str(pipe)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
        )
    finally:
        os.close(pipe)
    with open(reader, "rb") as said:
        try:
            return pid, said.readline()
        except BaseException:  # Ctrl-C: who does not get to know of it cannot look after it
            os.kill(pid, signal.SIGTERM)
            raise


def _renamed(path: str, run_id: str, pid: int) -> str:
    """The log under the name of its run; its process goes on writing to it."""
    letters = re.sub(r"[^\w.-]+", "-", run_id, flags=re.ASCII)  # of one byte each: names of files have 255
    name = letters[:_LONGEST_NAME]
    found = os.path.join(os.path.dirname(path), f"{name}-{time.strftime('%Y%m%dT%H%M%S')}-{pid}.log")
    os.rename(path, found)
    return found


def _failed(pid: int, path: str, before: int, *, is_kept: bool, as_json: bool) -> int:
    """Show why there is no run, and give the exit code. The process that failed has written it as it was to."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with open(path, "rb") as log:
        log.seek(before)
        text = log.read().decode("utf-8", "replace").rstrip()
    if not is_kept:
        os.unlink(path)
    if as_json and text.startswith("{"):
        print(text, flush=True)
    else:
        say(text or f"rh-agents: the process ended before its run was open, with {code}")
    return 128 - code if code < 0 else code or 1
