"""Files that an output must not be written to, however it is named: what matters is the file and not its name.

The same file has many names: relative and absolute ones, symbolic and hard links, `/dev/stdin`, `/dev/fd/0`, and what
a shell redirects. So descriptors and inodes are compared. What is not there yet (the write-ahead log of a database,
for instance) has no inode and is compared by its real path.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rh_agents.cli.errors import CommandError
from rh_agents.cli.stores import path_of_store

__all__ = ["ProtectedFiles", "files_of_store"]

_BESIDE_A_DATABASE = ("", "-wal", "-shm", "-journal")
_DATABASES = (b"SQLite format 3\0", b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""How a database of SQLite and its write-ahead log begin."""


@dataclass(frozen=True, slots=True)
class ProtectedFiles:
    """Files that a command uses, and what each is to its user.

    Attributes:
        files: what the file is ("the input"), by its path or its open descriptor.
        folders: the same for directories, in which nothing may be written either.
    """

    files: Mapping[str | int, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, other: ProtectedFiles) -> ProtectedFiles:
        """What is kept by either."""
        return ProtectedFiles({**self.files, **other.files}, {**self.folders, **other.folders})

    def refuse_name(self, name: str) -> None:
        """Refuse the name of an output before it is opened, which might make the file.

        Raises:
            CommandError: it is one of these.
        """
        real = os.path.realpath(name)
        for file, what in self.files.items():
            if isinstance(file, str) and os.path.realpath(file) == real and not _is_device(real):
                raise _refusal(name, what)
        for folder, what in self.folders.items():
            if os.path.realpath(folder) in (real, *map(str, Path(real).parents)):
                raise CommandError(f"{name} is in {what}: write to another file")

    def refuse_open(self, name: str, descriptor: int) -> None:
        """Refuse an output that is open; nothing has been written to it yet.

        Raises:
            CommandError: it is one of these, or a database.
        """
        about = os.fstat(descriptor)
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISFIFO(about.st_mode)):
            return  # a terminal, the null device or a socket may well be both ends
        for file, what in self.files.items():
            if _is_same(file, about):
                raise _refusal(name, what)
        if stat.S_ISREG(about.st_mode) and about.st_size and _begins_as_a_database(name, descriptor):
            raise CommandError(f"{name} is a database of SQLite, and results are not written over one: {_ANOTHER}")


_ANOTHER = "write to another file"


def _refusal(name: str, what: str) -> CommandError:
    return CommandError(f"{name} is {what} as well as the output: {_ANOTHER}")


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False


def _is_same(file: str | int, about: os.stat_result) -> bool:
    try:
        other = os.stat(file)
    except OSError:
        return False
    return os.path.samestat(other, about)


def _begins_as_a_database(name: str, descriptor: int) -> bool:
    for path in (f"/dev/fd/{descriptor}", name):  # opened anew: the descriptor of an output can only be written
        with contextlib.suppress(OSError), open(path, "rb") as file:
            return file.read(16).startswith(_DATABASES)
    return False


def files_of_store(url: str) -> ProtectedFiles:
    """What belongs to a store: its database with what SQLite keeps beside it, and the directory of large results."""
    paths = path_of_store(url)
    if paths is None:
        return ProtectedFiles()
    path, artifacts = paths
    # SQLite keeps its log beside the real file, whatever links lead to it.
    files: dict[str | int, str] = dict.fromkeys((path, *_beside(os.path.realpath(path))), "the store")
    return ProtectedFiles(files, {} if artifacts is None else {artifacts: "the store"})


def _beside(path: str) -> Iterator[str]:
    return (f"{path}{ending}" for ending in _BESIDE_A_DATABASE)
