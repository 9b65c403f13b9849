"""Tracebacks that show the lines of users: what lies between them in this library is left out, unless it is asked for.

An error that leaves `run`, `run_sync`, a group or a run's block goes through `trimmed` once. So nothing is done while
calls are made, and the error is the same object with the same message: only its `__traceback__`, and those of what
stands behind it, become shorter. Nothing is hidden of an error that this library has raised by mistake.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final

from rh_agents.core._base.errors import RhAgentsError
from rh_agents.core._base.foreign import set_traceback, with_causes

_OURS: Final = str(Path(__file__).parents[2]) + "/"

_BELOW_US: Final = ("/anyio/", "/asyncio/", "/concurrent/")
"""What we call in turn, to have something done in a thread."""


_FRAMES: Final = 200
"""Of a longer traceback what is behind stays as it is. One that is raised again and again has all its earlier frames
behind the new ones, and would be gone through in whole each time.
"""


class Shown:
    """What is shown of errors.

    Attributes:
        everything: whether tracebacks stay as Python makes them.
    """

    everything: bool = False


class UsersLines:
    """A block whose errors are `trimmed` when they leave it, at no cost where there are none.

    Args:
        above: whose frames are left out, too, before the first one of the program: folders.
    """

    def __init__(self, *above: str) -> None:
        self._above = above

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not Shown.everything:
            trimmed(error)
            if self._above:
                set_traceback(error, _without_first(error.__traceback__, (_OURS, *self._above)))


users_lines: Final = UsersLines()


def trimmed(error: BaseException) -> None:
    """Leave our own frames out of the traceback of an error, and of those that it came from."""
    if Shown.everything:
        return
    for each in with_causes(error):
        set_traceback(each, _of_users(each.__traceback__, is_meant=isinstance(each, RhAgentsError)))


def _without_first(trace: TracebackType | None, folders: tuple[str, ...]) -> TracebackType | None:
    """A traceback that begins below the frames of these folders."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(folders):
        trace = trace.tb_next
    return trace


def without_causes(error: BaseException) -> BaseException:
    """The same error, whose traceback and those of what stands behind it are left out: its line says enough."""
    if not Shown.everything:
        for each in with_causes(error):
            set_traceback(each, None)
    return error


def _of_users(trace: TracebackType | None, *, is_meant: bool) -> TracebackType | None:
    """A traceback without our frames.

    Args:
        trace: all of it.
        is_meant: whether the error is one that we raise on purpose; else our frames behind the last one of the program
            say where we are wrong.
    """
    frames: list[tuple[TracebackType, bool]] = []
    is_ours = False
    while trace is not None and len(frames) < _FRAMES:
        file = trace.tb_frame.f_code.co_filename
        is_ours = file.startswith(_OURS) or (is_ours and any(name in file for name in _BELOW_US))
        frames.append((trace, is_ours))
        trace = trace.tb_next
    kept = trace
    is_behind = not is_meant and trace is None
    for each, is_ours in reversed(frames):
        is_behind = is_behind and is_ours
        if (is_behind or not is_ours) and each.tb_next is kept:
            kept = each  # nothing behind it is left out
        elif is_behind or not is_ours:
            kept = TracebackType(kept, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return kept
