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
from rh_agents.testing._failures import (
    FAILURES,
)

ABOUT = CallContext("run", "here", 1, "key")
"""What functions are told that no call of a run calls."""


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
