"""One-time codes: how a browser of this user gets in, and no one else.

A code is a file in a folder that only this user can read, named by the hash of the code. Whoever can make such a file
is this user already, so `rh-agents web --new-code` needs no connection to the server, and removing the file is what
makes a code good once: of two that try, one finds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

from rh_agents.core.ports import Clock

__all__ = ["GOOD_FOR", "CodeBox", "NotPrivate", "private_folder", "servers"]

GOOD_FOR = 600.0
"""Seconds."""


class NotPrivate(Exception):
    """The folder for codes can be read or changed by other users."""


def private_folder(name: str) -> Path:
    """A folder of this name that belongs to this user alone; made if it is not there.

    Raises:
        NotPrivate: another user owns it, or others may enter it.
    """
    folder = _base() / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in (folder.parent, folder):
        _expect_private(each)
    return folder


def _base() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK):
        return _made(Path(runtime) / "rh_agents")
    owner = os.getuid() if hasattr(os, "getuid") else "user"
    return _made(Path(tempfile.gettempdir()) / f"rh_agents-{owner}")


def _made(folder: Path) -> Path:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    return folder


def _expect_private(folder: Path) -> None:
    found = folder.lstat()
    is_own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    is_closed = os.name == "nt" or not stat.S_IMODE(found.st_mode) & 0o077
    if not stat.S_ISDIR(found.st_mode) or not is_own or not is_closed:
        raise NotPrivate(f"{folder} must be a folder of this user that no one else may enter: remove it, or chmod 700")


def servers() -> list[int]:
    """The ports of the pages that this user has running, by the folders of their codes."""
    return sorted(int(each.name) for each in _base().iterdir() if each.name.isdigit() and _is_alive(each))


def _is_alive(folder: Path) -> bool:
    try:
        os.kill(int((folder / "process").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


class CodeBox:
    """The codes that are good for one server.

    Args:
        folder: where they are; only this user may enter it.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def issue(self) -> str:
        """Another code: good once, and for `GOOD_FOR` seconds. Those that have expired are removed."""
        for path in self._folder.glob("code-*"):
            if not self._is_fresh(path):
                path.unlink(missing_ok=True)
        code = secrets.token_urlsafe(24)
        path = self._path(code)
        made = path.with_name(f"new-{path.name}")
        made.touch(mode=0o600)
        made.write_text(repr(self._clock()))
        made.rename(path)  # never seen half written
        return code

    def redeem(self, code: str) -> bool:
        """Whether the code is good. It is not any more, afterwards."""
        path = self._path(code)
        is_fresh = self._is_fresh(path)
        try:
            path.unlink()
        except OSError:
            return False
        return is_fresh

    def _path(self, code: str) -> Path:
        return self._folder / f"code-{hashlib.sha256(code.encode('utf-8', 'replace')).hexdigest()}"

    def _is_fresh(self, path: Path) -> bool:
        try:
            return 0 <= self._clock() - float(path.read_text()) < GOOD_FOR
        except (OSError, ValueError):
            return False
