"""Files that hold results: made for their owner alone, and watched so that nobody swaps them unnoticed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

FILE_MODE = 0o600
"""What the owner alone may read: results hold what users, models and services said to each other."""
APPLICATION_ID = 0x72686167
"""Marks the databases of this library ("rhag"), so that another program's is not taken for one."""
_NEEDED = 0o600
_CREATE = (
    os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)


class Identity(NamedTuple):
    """Which file it is, whatever its name: the device and the inode."""

    device: int
    inode: int


def is_store_file(path: Path) -> bool:
    """Whether a file is a database of runs, as far as its first bytes say."""
    return schema_of_file(path) is not None


def schema_of_file(path: Path) -> int | None:
    """The version of the schema of a database of runs; None if a file is none, as far as its first bytes say."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError:
        return None
    is_ours = head.startswith(b"SQLite format 3\0") and int.from_bytes(head[68:72], "big") == APPLICATION_ID
    return int.from_bytes(head[60:64], "big") if is_ours else None


def identity_of(path: Path | str) -> Identity | None:
    """Which file has this name now; None if there is none."""
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return None
    return Identity(about.st_dev, about.st_ino)


def read_mode(text: str) -> int:
    """The permissions that octal digits stand for, such as `0640`.

    Raises:
        ValueError: they are none, or the owner could not read and write.
    """
    try:
        mode = int(text.removeprefix("0o"), 8)
    except ValueError:
        mode = -1
    return checked_mode(mode, text)


def checked_mode(mode: int, shown: object = None) -> int:
    """The permissions themselves, if files can have them.

    Raises:
        ValueError: they cannot, or the owner could not read and write.
    """
    if not 0 <= mode <= 0o777 or mode & _NEEDED != _NEEDED or mode & 0o111:
        text = oct(mode) if shown is None else repr(shown)
        raise ValueError(
            f"{text} is not a mode of a data file: write for instance 0600 or 0640, the owner reads and writes"
        )
    return mode


def directory_mode(file_mode: int) -> int:
    """The permissions of a directory for such files: who may read them may enter it."""
    return file_mode | (file_mode & 0o444) >> 2


def create_file(path: Path | str, flags: int, mode: int = FILE_MODE) -> int:
    """Make a file with exactly these permissions, whatever the umask, and open it; returns the descriptor.

    Raises:
        FileExistsError: there is one; its permissions are its owner's business.
        OSError: it cannot be made.
    """
    descriptor = os.open(path, flags | _CREATE, mode)
    with suppress(OSError):  # some file systems have no permissions
        if sys.platform != "win32":
            os.fchmod(descriptor, mode)
    return descriptor


def make_directory(directory: Path, sync: Callable[[Path], None], file_mode: int = FILE_MODE) -> None:
    """Make a directory and those above it that are lacking, each durable before the next is made in it.

    Args:
        directory: those that are there keep their permissions.
        sync: makes the names in a directory durable.
        file_mode: of the files that are to be in it.

    Raises:
        OSError: it cannot be made.
    """
    lacking = []
    while not directory.is_dir():
        lacking.append(directory)
        directory = directory.parent
    mode = directory_mode(file_mode)
    for each in reversed(lacking):
        try:
            each.mkdir(mode)
        except FileExistsError:
            if not each.is_dir():  # else another process was quicker
                raise NotADirectoryError(f"{each} is a file") from None
        else:
            with suppress(OSError):
                each.chmod(mode)  # the umask may have taken something away
        sync(each.parent)
