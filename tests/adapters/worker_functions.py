"""What the tests of worker processes call there."""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rh_agents import Usage, current, report_usage, tool
from rh_agents.core.ports import CallContext


class Response:
    status_code = 503


class ApiError(Exception):
    """As many clients have it: made of something else than its text."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"HTTP {response.status_code}")


class TwoArguments(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class ByKeyword(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class MadeByNew(Exception):
    def __new__(cls, *, code: int) -> MadeByNew:
        return super().__new__(cls, f"code {code}")

    def __init__(self, *, code: int) -> None:
        self.code = code


class WithALock(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()
        self.number = 7


class Speaking(Exception):
    """Its text needs what stays behind."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.said: Callable[[], str] = lambda: text

    def __str__(self) -> str:
        return self.said()


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class OfThePlatform(OSError):
    """As `MadeByNew`, of a class that keeps more than `Exception` does."""

    def __new__(cls, *, code: int) -> OfThePlatform:
        return super().__new__(cls, code, "away")

    def __init__(self, *, code: int) -> None:
        self.code = code


class Interrupting(Exception):
    """Whoever asks what it is made of does not come back."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit(4)


class Group(ExceptionGroup[Exception]):
    def __new__(cls, exceptions: list[Exception]) -> Group:
        return super().__new__(cls, "mine", exceptions)


def _with_cause() -> Exception:
    try:
        raise TwoArguments(5, "the cause")
    except TwoArguments as cause:
        error = ByKeyword(code=3)
        error.__cause__ = cause
        return error


def _local() -> Exception:
    class Local(ByKeyword):
        pass

    return Local(code=9)


def _noted() -> Exception:
    error = ValueError("noted")
    error.add_note("mine")
    return error


def _deep() -> Exception:
    error: Exception = WithALock("held")
    for level in range(40):
        error = ExceptionGroup(f"level {level}", [error])
    return error


def _with_shared_causes() -> Exception:
    """Described along every path to it, this would be without end."""
    group: Exception | None = None
    for attempt in range(8):
        members = [ValueError(f"{attempt}, {number}") for number in range(60)]
        for each in members:
            each.__cause__ = group
        group = ExceptionGroup(f"attempt {attempt}", members)
    assert group is not None
    return group


FAILURES: dict[str, Callable[[], BaseException]] = {
    "api": lambda: ApiError(Response()),
    "two": lambda: TwoArguments(5, "bad"),
    "keyword": lambda: ByKeyword(code=3),
    "new": lambda: MadeByNew(code=6),
    "lock": lambda: WithALock("held"),
    "speaking": lambda: Speaking("said so"),
    "mute": Mute,
    "exiting": Exiting,
    "platform": lambda: OfThePlatform(code=6),
    "interrupting": lambda: Interrupting("asked"),
    "deep": _deep,
    "shared causes": _with_shared_causes,
    "group": lambda: ExceptionGroup("many", [ApiError(Response()), ValueError("v")]),
    "own group": lambda: Group([ByKeyword(code=4)]),
    "local": _local,
    "cause": _with_cause,
    "noted": _noted,
    "file": lambda: FileNotFoundError(2, "No such file", "a.txt"),
    "key": lambda: KeyError("k"),
    "exit": lambda: SystemExit(0),
    "interrupt": KeyboardInterrupt,
}


def fail(kind: str) -> None:
    raise FAILURES[kind]()


@tool(engine="process")
def pid() -> int:
    return os.getpid()


@tool(engine="process")
def context() -> dict[str, Any]:
    call = current()
    assert isinstance(call, CallContext)
    return {
        "run_id": call.run_id,
        "address": call.address,
        "attempt": call.attempt,
        "key": call.idempotency_key,
        "group_id": call.group_id,
        "has_run": _has_run(),
    }


def _has_run() -> bool:
    try:
        return current().run is not None
    except RuntimeError:
        return False


@tool(engine="process")
def report() -> None:
    report_usage(Usage(requests=2, cost=0.5))


def shouted(function: Callable[[str], str]) -> Callable[[str], str]:
    @functools.wraps(function)
    def shout(text: str) -> str:
        return function(text).upper()

    return shout


@shouted
def doubled(text: str) -> str:
    return text * 2


def generate() -> Any:
    return (number for number in range(3))


class Multiplier:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def times(self, number: int) -> int:
        return number * self.factor


def talk() -> bool:
    """Everything that breaks a wire over stdout."""
    print("print")
    os.write(1, b"write\n")
    subprocess.run(["echo", "child"], check=True)
    print("error", file=sys.stderr)
    log = logging.getLogger("tests.worker")
    log.info("logged %s", 1, extra={"lock": threading.Lock()})
    log.debug("not wanted")
    try:
        raise ValueError("caught")
    except ValueError:
        log.exception("with a traceback")
    return sys.stdin.read() == ""


def die(how: int) -> None:
    os.kill(os.getpid(), how)


def leave(code: int) -> None:
    os._exit(code)


def survive(signals: list[int]) -> str:
    """Get the signals that a supervisor sends to all processes of a service."""
    for number in signals:
        os.kill(os.getpid(), number)
        time.sleep(0)
    program = "import signal; print(signal.getsignal(signal.SIGTERM).name)"
    child = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    return child.stdout.strip()


def processes(count: int) -> list[int]:
    """Start so many that outlive the call."""
    return [subprocess.Popen(["sleep", "60"], process_group=0 if each else None).pid for each in range(count)]


def begin_and_hang(path: str) -> None:
    _begin(path)
    threading.Event().wait(60)


def begin_and_hold_the_lock(path: str) -> None:
    _begin(path)
    re.match(r"(a+)+$", "a" * 60 + "b")  # for ages, within C code that gives the interpreter's lock to nobody


@tool(engine="process")
def finish(path: str) -> str:
    """Wait until the call may go on, and see whether what it has started is still there."""
    child = _begin(path)
    while not Path(path).with_name("go_on").exists():
        time.sleep(0.01)
    try:
        child.wait(0.3)
    except subprocess.TimeoutExpired:
        return "finished"
    return "its child is gone"


def _begin(path: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(["sleep", "60"])
    with open(f"{path}.new", "w") as file:
        print(os.getpid(), child.pid, file=file)
    os.replace(f"{path}.new", path)
    return child


def terminate_a_child() -> int | None:
    """As `multiprocessing.Pool` does with all of its own."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode


def leave_the_wire_open(path: str) -> None:
    """Die, and leave a process that has all descriptors of the worker and is not of its session."""
    for each in range(3, 20):
        with contextlib.suppress(OSError):
            os.dup(each)
    child = os.fork()
    if not child:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    Path(path).write_text(str(child))
    os.kill(os.getpid(), signal.SIGKILL)


def log_later(begun: str, seconds: float, pause: float = 0) -> str:
    """Returns after a pause; a thread that it leaves behind logs so many seconds later."""

    def later() -> None:
        time.sleep(seconds)
        logging.getLogger("tests.worker").warning("said later")

    Path(begun).write_text(str(os.getpid()))
    time.sleep(pause)
    threading.Thread(target=later, daemon=True).start()
    return "returned"
