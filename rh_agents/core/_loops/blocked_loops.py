"""Notices a call that blocks its event loop, the commonest mistake in asynchronous programs: nothing else shows it.

While an `async def` computes or waits without `await`, everything else on its event loop stands still: other calls,
their timeouts, the printer. So the one who could say so must be outside, in a thread of its own, which looks at the
stack of the loop's thread from time to time.

*No frames.* `sys._current_frames` would show more, but it cannot be used: Python 3.11 clears a frame while it still is
the current one of its thread. If what is cleared runs a destructor, and the interpreter's lock changes hands in it,
then another thread makes an object of a frame that is about to be freed, and the interpreter crashes. So the stacks
come as text, from `faulthandler`, which reads names and line numbers and makes no objects. It shows the innermost 100
entries of a stack, and 100 threads, the newest first: what lies beyond is not seen.

*The same step.* Text does not tell whether a call that is met twice is still in the same step, or has awaited something
meanwhile. The loop tells, if it is asked: a callback that does nothing but note that it was called. As long as it has
not been, and the same task is under way, its step has lasted since then. Only a loop that twice in a row was met in the
same task, and now in a call, is asked; never one that waits for something to happen. So one with a clock of its own,
which jumps when there is nothing to do, is left alone, and so is the order of all other callbacks. Which task it is,
asyncio tells without a stack. That is read only before a loop is asked, and when there is something to say.

*Who is to blame.* The innermost call that has been under way all the time: a program that awaits thousands of short
calls in a row, none of which has to wait for anything, blocks its loop too, but no single one of these calls does.
The calls that begin on a loop are counted. If none has, then the innermost one of the stack has been there all the
time. If some have, but each was awaited by another call, then the outermost one has. Else nobody is blamed.

Some things look like that and are not. A process that is suspended (a closed laptop, SIGSTOP), or gets no processor
on a busy machine, makes the looks come late: what passes between two of them counts only as far as processor time was
used, as it is by code in C that holds the interpreter's lock and lets nobody look. And a debugger that has stopped
the program has its own entries on the stack.

A loop that is not made of asyncio's handles (uvloop) is not seen into.
"""

from __future__ import annotations

import asyncio
import faulthandler
import functools
import os
import re
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from types import CodeType
from typing import NamedTuple

from rh_agents.core._loops.homes import Home, home
from rh_agents.core.redaction import logger

__all__ = ["Entry", "LagWatch", "Stack", "parse_stacks", "stacks_of", "watched_loops"]

_LONGEST = 1.0
"""Seconds for which a call may block its loop unnoticed."""
_BETWEEN_LOOKS = 0.25
_LINGER = 10.0
"""Seconds for which the thread waits for another loop: programs that make many short runs have one thread."""
_ASK_EVERY = 30.0
"""Seconds between two looks at what runs are doing, which say so if nothing has finished for long."""
_DEBUGGERS = ("bdb.py", "pdb.py", "pydevd.py", "debugpy")

_log = logger("rh_agents.calls")


class Entry(NamedTuple):
    """A line of a stack. The file is spelled in ASCII, as in the text."""

    file: str
    line: str
    function: str


class Stack(NamedTuple):
    """What a thread was doing."""

    entries: list[Entry]
    """The innermost first."""
    is_whole: bool
    """Whether it goes on to the outermost: a text ends after `_MOST_ENTRIES`."""


_THREAD = re.compile(r"(?:Current thread|Thread) 0x([0-9a-fA-F]+)\b.*\(most recent call first\):")
_ENTRY = re.compile(r'  File (?:"(.*)"|\?\?\?), line (\d+|\?\?\?) in (.*)')
_MOST_ENTRIES = 100
"""What is left out has a line of its own, "  ...", but not in Python 3.13.0."""
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")


def stacks_of(threads: Collection[int]) -> dict[int, Stack]:
    """What these threads are doing.

    The text is written while the interpreter's lock is held, a system call for each character: 0.25 ms for two threads
    with few entries, 1.5 ms with 100, 5 ms with 32 threads more. So it is read only where there is suspicion.
    """
    try:
        text = _text_of_stacks()
    except OSError:  # no descriptor or no disk space is left: the program has other worries
        return {}
    return parse_stacks(text, threads)


def _text_of_stacks() -> str:
    # A file for each look: descriptors that are kept are copied by forks, and daemons close what they do not know.
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("stacks"), "rb") as file:
            faulthandler.dump_traceback(file=file.fileno(), all_threads=True)
            return _content(file.fileno())
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file=file.fileno(), all_threads=True)
        return _content(file.fileno())


def _content(file: int) -> str:
    size = os.lseek(file, 0, os.SEEK_CUR)
    os.lseek(file, 0, os.SEEK_SET)
    return os.read(file, size).decode("ascii", "replace")


def parse_stacks(text: str, threads: Collection[int]) -> dict[int, Stack]:
    """The stacks of these threads in a text that `faulthandler` has written. What is unknown in it is passed over."""
    stacks: dict[int, Stack] = {}
    entries: list[Entry] | None = None
    thread = 0
    for line in text.splitlines():
        head = None if line.startswith("  ") else _THREAD.match(line)
        if head is not None:
            thread = int(head[1], 16)
            entries = [] if thread in threads else None
            if entries is not None:
                stacks[thread] = Stack(entries, is_whole=True)
        elif entries is not None and line == "  ...":
            stacks[thread] = Stack(entries, is_whole=False)
        elif entries is not None and (entry := _ENTRY.match(line)) is not None:
            entries.append(Entry(entry[1] or "???", entry[2], entry[3]))
            if len(entries) == _MOST_ENTRIES:
                stacks[thread] = Stack(entries, is_whole=False)
    return stacks


def _spelled(file: str) -> str:
    """As in the text: in ASCII."""
    return file.encode("ascii", "backslashreplace").decode()


def _read(file: str) -> str:
    """As it is spelled elsewhere. What is ASCII is left: a path of Windows may look like an escape of that."""

    def character(escape: re.Match[str]) -> str:
        code = int(escape[1] or escape[2] or escape[3], 16)
        return chr(code) if 0x7F < code <= 0x10FFFF else escape[0]

    return _ESCAPE.sub(character, file)


def _location(code: CodeType) -> tuple[str, str]:
    return _spelled(code.co_filename), code.co_name


_STEP = _location(asyncio.Handle._run.__code__)
_PACKAGE = _spelled(sys.modules[__name__.partition(".")[0]].__path__[0] + os.sep)
_CALL = (_PACKAGE + _spelled(os.path.join("core", "_run", "runner.py")), "run_frame")
"""What is on the stack of every call: by its name, since it is above this module."""


class _Probe:
    """Notes that the loop has come to it."""

    def __init__(self) -> None:
        self.is_answered = False

    def __call__(self) -> None:
        self.is_answered = True


class _Suspicion(NamedTuple):
    """A task makes a step that may have lasted for long."""

    task: int | None
    calls: int
    outermost: int
    """How many calls, and outermost ones, had begun when it was met."""
    is_met_again: bool = False
    probe: _Probe | None = None
    """None as long as the loop has not been asked."""
    seconds: float = 0.0
    """For how long the step has lasted since the loop was asked."""

    @property
    def needs_stack(self) -> bool:
        """Whether it has to be known what the task does: to ask the loop, or to say so."""
        return self.is_met_again if self.probe is None else self.seconds >= _LONGEST

    def goes_on(self, here: Home) -> bool:
        """Whether it still is that step, and its outermost call."""
        is_answered = self.probe is not None and self.probe.is_answered
        return not is_answered and (here.task, here.begun.outermost) == (self.task, self.outermost)


class LagWatch:
    """What the looks at the stacks of event loops have shown so far."""

    def __init__(self, read: Callable[[Collection[int]], Mapping[int, Stack]] | None = None) -> None:
        self._read = read or stacks_of
        self._suspicions: dict[int, _Suspicion] = {}
        """By thread."""
        self._reported: set[str] = set()
        self._last: tuple[float, float] | None = None

    def look(self, now: float, used: float, homes: Mapping[int, Home]) -> list[str]:
        """Take another look; returns what is to be said about calls that block.

        Args:
            now: seconds on a clock that never goes back.
            used: seconds of processor time that the process has used.
            homes: by thread, its event loop.
        """
        passed = self._passed(now, used)
        suspicions = {thread: _suspicion(self._suspicions.get(thread), here, passed) for thread, here in homes.items()}
        self._suspicions = {thread: each for thread, each in suspicions.items() if each is not None}
        needed = [thread for thread, each in self._suspicions.items() if each.needs_stack]
        stacks = self._read(needed) if needed else {}
        return [sentence for thread, stack in stacks.items() for sentence in self._seen(thread, homes[thread], stack)]

    def _seen(self, thread: int, here: Home, stack: Stack) -> Iterator[str]:
        """What to say about the loop of a thread that is doing this."""
        suspicion = self._suspicions[thread]
        calls, are_all = _calls_in_step(stack)
        if not calls or not suspicion.goes_on(here):
            del self._suspicions[thread]
        elif suspicion.probe is None:
            probe = _Probe()
            if here.call(probe):
                self._suspicions[thread] = suspicion._replace(probe=probe)
        elif here.begun.calls == suspicion.calls:
            yield from self._described(stack.entries[: calls[0]], suspicion.seconds)
        elif are_all:
            yield from self._described(stack.entries[: calls[-1]], suspicion.seconds)

    def _passed(self, now: float, used: float) -> float:
        """For how many seconds since the last look a step that is still the same has really lasted."""
        last, self._last = self._last, (now, used)
        if last is None:
            return 0.0
        gap = now - last[0]
        return gap if gap <= 2 * _BETWEEN_LOOKS else max(_BETWEEN_LOOKS, min(gap, used - last[1]))

    def forget(self) -> None:
        """Nothing is under way."""
        self._suspicions.clear()
        self._last = None

    def _described(self, inside: list[Entry], seconds: float) -> Iterator[str]:
        """What to say about a call inside of which this is under way, once for each name."""
        if any(entry.file.endswith(_DEBUGGERS) for entry in inside):
            return
        handler = next((entry for entry in reversed(inside) if not entry.file.startswith(_PACKAGE)), None)
        if handler is not None and handler.function not in self._reported:
            self._reported.add(handler.function)
            yield _sentence(handler, seconds)


def _calls_in_step(stack: Stack) -> tuple[list[int], bool]:
    """Where in the stack the calls of the current step are, the innermost first, and whether these are all of them."""
    calls: list[int] = []
    for number, entry in enumerate(stack.entries):
        place = (entry.file, entry.function)
        if place == _STEP:
            return calls, True
        if place == _CALL:
            calls.append(number)
    return ([] if stack.is_whole else calls), False


def _suspicion(before: _Suspicion | None, here: Home, passed: float) -> _Suspicion | None:
    """What to think of a loop after another look, before its stack is read."""
    new = _Suspicion(here.task, here.begun.calls, here.begun.outermost)
    if new.task is None:
        return None
    if before is None or (before.probe is not None and before.probe.is_answered):
        return new
    if before.probe is None:
        return new._replace(is_met_again=new.task == before.task)
    if not before.goes_on(here):
        return new._replace(probe=before.probe)  # no call has been under way since
    return before._replace(seconds=before.seconds + passed)


def _sentence(handler: Entry, seconds: float) -> str:
    name = handler.function
    return (
        f"{name} has blocked the event loop for {seconds:.1f} s, in {_read(handler.file)}, line {handler.line}: "
        f"meanwhile no other call, timeout or display can proceed. Write `def {name}` instead of `async def`, so that "
        'it runs in a thread, or in a process with engine="process"; or await something that does not block'
    )


def _call(look: Callable[[], object]) -> None:
    look()


class _WatchedLoops:
    """The threads whose event loops have runs under way, and the thread that looks at them while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[int, int] = {}
        self._homes: dict[int, Home] = {}
        self._watch = LagWatch()
        self._thread: threading.Thread | None = None
        self._asked: weakref.WeakKeyDictionary[Callable[[], object], Home] = weakref.WeakKeyDictionary()
        self._asks_at = 0.0

    def ask_now_and_then(self, look: Callable[[], object]) -> None:
        """Call `look` on the event loop that runs here, now and then, while somebody has it and a run is watched."""
        here = home()
        with self._lock:
            self._asked[look] = here

    def ask(self) -> None:
        """Call all of them now, each on its event loop."""
        with self._lock:
            asked = list(self._asked.items())
        for look, its in asked:
            its.call(functools.partial(_call, look))

    def add(self) -> int:
        """A run begins in this thread; give the answer to `remove` when it ends."""
        here = home()
        thread = threading.get_ident()
        with self._lock:
            self._homes[thread] = here
            self._runs[thread] = self._runs.get(thread, 0) + 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._look_on, name="rh_agents: event loops", daemon=True)
                self._thread.start()
        return thread

    def remove(self, thread: int) -> None:
        """The run has ended."""
        with self._lock:
            left = self._runs.get(thread, 1) - 1
            if left:
                self._runs[thread] = left
            else:
                self._runs.pop(thread, None)
                self._homes.pop(thread, None)

    @property
    def threads(self) -> frozenset[int]:
        """Whose event loops have runs under way."""
        with self._lock:
            return frozenset(self._runs)

    def _look_on(self) -> None:
        idle_since = time.monotonic()
        while True:
            time.sleep(_BETWEEN_LOOKS)
            now = time.monotonic()
            with self._lock:
                homes = dict(self._homes)
                if homes:
                    idle_since = now
                elif now - idle_since > _LINGER:
                    self._thread = None
                    return
            if not homes:
                self._watch.forget()
                continue
            if now >= self._asks_at:
                self._asks_at = now + _ASK_EVERY
                self.ask()
            for sentence in self._watch.look(now, time.process_time(), homes):
                _log.warning("%s", sentence)

    def forget_after_fork(self) -> None:
        """In a forked child: the thread is the parent's, and so were the loops."""
        self._lock = threading.Lock()
        self._runs.clear()
        self._homes.clear()
        self._asked.clear()
        self._watch = LagWatch()
        self._thread = None


watched_loops = _WatchedLoops()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=watched_loops.forget_after_fork)
