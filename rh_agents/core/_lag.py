"""Notices a call that blocks its event loop, the commonest mistake in asynchronous programs: nothing else shows it.

While an `async def` computes or waits without `await`, everything else on its event loop stands still: other calls,
their timeouts, the printer. So the one who could say so must be outside, in a thread of its own. It does not talk to
the loop (a callback there would change the order of things, and a timer would keep a loop with a clock of its own
from ever being idle). It looks at the stack of the loop's thread from time to time. asyncio runs each step of a task
in a Python frame of its own, `Handle._run`: if it meets the very same frame in each of several looks, then that one
step has lasted as long. The call to blame is the innermost one that was under way in all of them: a program that
awaits thousands of short calls in a row, none of which has to wait for anything, blocks its loop too, but no single one
of these calls does.

Some things look like that and are not. A process that is suspended (a closed laptop, SIGSTOP), or gets no processor
on a busy machine, makes the looks come late: what passes between two of them counts only as far as processor time was
used, as it is by code in C that holds the interpreter's lock and lets nobody look. And a debugger that has stopped
the program has its own frames on the stack.

Python 3.11 collects garbage in the middle of making an object, also of making the objects that stand for frames. What a
collection calls lets other threads go on, and then a look is deadly: `sys._current_frames` holds a lock of the
interpreter meanwhile, and a thread that begins or ends waits for it with the interpreter's other lock in its hand, so
that the process stands still for ever (https://github.com/python/cpython/issues/106883); or the frame is gone that the
new object is to stand for. So nothing is collected during a look. Later versions collect between two instructions only.

A loop that is not made of asyncio's handles (uvloop) is not seen into.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from rh_agents.core._runner import Job, run_job
from rh_agents.core.redaction import logger

__all__ = ["LagWatch", "watched_loops"]

_LONGEST = 1.0
"""Seconds for which a call may block its loop unnoticed."""
_BETWEEN_LOOKS = 0.25
_LINGER = 10.0
"""Seconds for which the thread waits for another loop: programs that make many short runs have one thread."""
_STEP = asyncio.Handle._run.__code__
_CALL = run_job.__code__
_PACKAGE = str(Path(__file__).resolve().parents[1])
_DEBUGGERS = ("bdb.py", "pdb.py", "pydevd.py", "debugpy")

_log = logger("rh_agents.calls")


class _Step(NamedTuple):
    """One step of a task, as seen in several looks."""

    frame: FrameType
    seconds: float
    """For how long it has lasted."""
    calls: list[FrameType]
    """The calls that have been under way in it ever since, the innermost first."""


class LagWatch:
    """What the looks at the stacks of event loops have shown so far."""

    def __init__(self) -> None:
        self._steps: dict[int, _Step] = {}
        """By thread, the step in which it was seen last."""
        self._reported: set[str] = set()
        self._last: tuple[float, float] | None = None

    def look(self, now: float, used: float, stacks: Mapping[int, FrameType]) -> list[str]:
        """Take another look; returns what is to be said about calls that block.

        Args:
            now: seconds on a clock that never goes back.
            used: seconds of processor time that the process has used.
            stacks: by thread, the innermost frame of each event loop's thread.
        """
        passed = self._passed(now, used)
        steps: dict[int, _Step] = {}
        found: list[str] = []
        for thread, innermost in stacks.items():
            step = next((frame for frame in _outwards(innermost) if frame.f_code is _STEP), None)
            if step is None:
                continue
            seconds, calls = 0.0, [frame for frame in _outwards(innermost) if frame.f_code is _CALL]
            before = self._steps.get(thread)
            if before is not None and before.frame is step:
                seconds = before.seconds + passed
                calls = [frame for frame in calls if any(frame is each for each in before.calls)]
            steps[thread] = _Step(step, seconds, calls)
            if seconds >= _LONGEST and calls:
                found.extend(self._described(innermost, calls[0], seconds))
        self._steps = steps
        return found

    def _passed(self, now: float, used: float) -> float:
        """For how many seconds since the last look a step that is still the same has really lasted."""
        last, self._last = self._last, (now, used)
        if last is None:
            return 0.0
        gap = now - last[0]
        return gap if gap <= 2 * _BETWEEN_LOOKS else max(_BETWEEN_LOOKS, min(gap, used - last[1]))

    def forget(self) -> None:
        """Hold on to no frame: what stands in it could not be freed."""
        self._steps.clear()
        self._last = None

    def _described(self, innermost: FrameType, call: FrameType, seconds: float) -> Iterator[str]:
        """What to say about this call, which is under way there, once for each name."""
        inside: list[FrameType] = []
        for frame in _outwards(innermost):
            if frame.f_code.co_filename.endswith(_DEBUGGERS):
                return
            if frame is call:
                job = frame.f_locals.get("job")
                handler = next((each for each in inside[::-1] if not _is_ours(each)), None)
                if isinstance(job, Job) and handler is not None and self._is_new(job):
                    yield _sentence(job, handler, seconds)
                return
            inside.append(frame)

    def _is_new(self, job: Job) -> bool:
        name = job.name or job.actor.name
        if name in self._reported:
            return False
        self._reported.add(name)
        return True


def _sentence(job: Job, frame: FrameType, seconds: float) -> str:
    name = job.name or job.actor.name
    return (
        f"{name} has blocked the event loop for {seconds:.1f} s, in {frame.f_code.co_filename}, line {frame.f_lineno}: "
        f"meanwhile no other call, timeout or display can proceed. Write `def {name}` instead of `async def`, so that "
        'it runs in a thread, or in a process with engine="process"; or await something that does not block'
    )


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_PACKAGE)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


class _NoCollection:
    """While its block lasts, no garbage is collected where that would be in the middle of a look.

    Somebody who switches collections off in the very moment of a look finds them switched on after it.
    """

    def __init__(self) -> None:
        self._is_ours = False

    def __enter__(self) -> None:
        self._is_ours = sys.version_info < (3, 12) and gc.isenabled()
        if self._is_ours:
            gc.disable()

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Switch collections on again, if this has switched them off; also in a child that was forked meanwhile."""
        if self._is_ours:
            gc.enable()
            self._is_ours = False


class _WatchedLoops:
    """The threads whose event loops have runs under way, and the thread that looks at them while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[int, int] = {}
        self._watch = LagWatch()
        self._no_collection = _NoCollection()
        self._thread: threading.Thread | None = None

    def add(self) -> int:
        """A run begins in this thread; give the answer to `remove` when it ends."""
        thread = threading.get_ident()
        with self._lock:
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
                threads = list(self._runs)
                if threads:
                    idle_since = now
                elif now - idle_since > _LINGER:
                    self._thread = None
                    return
            if not threads:
                self._watch.forget()
                continue
            with self._no_collection:
                frames = sys._current_frames()
                stacks = {thread: frames[thread] for thread in threads if thread in frames}
                del frames
                found = self._watch.look(now, time.process_time(), stacks)
                stacks.clear()
            for sentence in found:
                _log.warning("%s", sentence)

    def forget_after_fork(self) -> None:
        """In a forked child: the thread is the parent's, and so were the loops."""
        self._no_collection.end()
        self._lock = threading.Lock()
        self._runs.clear()
        self._watch = LagWatch()
        self._thread = None


watched_loops = _WatchedLoops()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=watched_loops.forget_after_fork)
