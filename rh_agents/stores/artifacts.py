"""Large values outside of the journal: files that are named after their content.

An artifact is bytes under the name of their SHA-256 digest, so what is equal is kept once, and what is damaged is seen
when it is read. A row of the journal may name an artifact only after `put` has returned.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from rh_agents.core.errors import StoreError
from rh_agents.stores._files import FILE_MODE, create_file, make_directory

if sys.platform != "win32":
    import fcntl

__all__ = [
    "ArtifactStore",
    "FileArtifacts",
    "StoredArtifact",
    "checked_digest",
    "expect_size",
    "missing",
    "sweep",
    "verified",
]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_REMEDY = "Put it back from a backup, or supersede the outcomes that refer to it, so that their calls are made again."
_HAS_LOCKS: bool = sys.platform != "win32"
"""Whether directories can be locked and synced."""
_READ = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe would wait for somebody to write
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_SECONDS_OF_ONE_PUT = 3600.0
"""No write takes longer. Needed only where directories cannot be locked, to tell what a crash left behind."""


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact that is there: its digest, its size in bytes, and when it was put last (seconds since 1970)."""

    digest: str
    size: int
    put_at: float

    @property
    def age(self) -> float:
        """Seconds since it was put last."""
        return max(0.0, time.time() - self.put_at)


class ArtifactStore(Protocol):
    """Where artifacts are kept. The methods block, and may be called from several threads at once.

    Each raises `StoreError`, naming the place, if it cannot do its work.
    """

    def put(self, data: bytes) -> str:
        """Keep the bytes, and return their SHA-256 digest in hexadecimal when they survive a power cut.

        What is there already counts as put now.
        """
        ...

    def get(self, digest: str, *, size: int | None = None) -> bytes:
        """The bytes with this digest.

        Args:
            digest: their name.
            size: how many there are, if that is known: what is larger is not read.

        Raises:
            StoreError: they are missing, or what is there is something else.
        """
        ...

    def digests(self) -> Iterator[StoredArtifact]:
        """All artifacts, in no particular order. What is put or deleted meanwhile may or may not be among them."""
        ...

    def delete(self, digest: str, *, put_before: float) -> int:
        """Delete an artifact, unless it has been put since `put_before` (seconds since 1970); returns the bytes freed.

        To delete one that is not there is no error.
        """
        ...

    def clean(self, *, put_before: float) -> int:
        """Delete what interrupted writes left before `put_before`; returns the bytes freed."""
        ...


def sweep(artifacts: ArtifactStore, used: Callable[[Collection[str]], Collection[str]], min_age: float) -> int:
    """Delete what no one refers to and what was put at least `min_age` seconds ago; returns the bytes freed.

    Args:
        artifacts: where to sweep.
        used: tells which of the given digests a run refers to. It is asked after the artifacts were listed, and what
            is put from then on is spared: a row that comes to refer to an artifact meanwhile does not lose it.
        min_age: longer than it can take from the end of a `put` until its row can be seen.
    """
    put_before = time.time() - min_age
    candidates = [each.digest for each in artifacts.digests() if each.put_at <= put_before]
    referred = set(used(candidates)) if candidates else set()
    freed = sum(artifacts.delete(digest, put_before=put_before) for digest in candidates if digest not in referred)
    return freed + artifacts.clean(put_before=put_before)


def checked_digest(digest: str) -> str:
    """The digest itself, if it is one: only then it may become a part of a path.

    Raises:
        StoreError: it is not 64 hexadecimal digits in lower case.
    """
    if _DIGEST.fullmatch(digest) is None:
        raise StoreError(f"{digest!r} is not a SHA-256 digest in hexadecimal, so it names no artifact")
    return digest


def verified(data: bytes, digest: str, where: object) -> bytes:
    """The bytes themselves, if they have this digest.

    Raises:
        StoreError: they do not.
    """
    if sha256(data).hexdigest() != digest:
        raise StoreError(
            f"the artifact {where} is damaged: its content does not have the digest in its name. {_REMEDY}"
        )
    return data


def expect_size(found: int, size: int | None, where: object) -> None:
    """Refuse to read what has another size than was recorded: it may have any.

    Raises:
        StoreError: it has.
    """
    if size is not None and found != size:
        raise StoreError(f"the artifact {where} is damaged: it has {found} bytes instead of {size}. {_REMEDY}")


def missing(where: object) -> StoreError:
    """The error that says that an artifact is not where it should be."""
    return StoreError(f"the artifact {where} is missing. {_REMEDY}")


class FileArtifacts:
    """Artifacts as files in 256 sub-directories, which are named after the first two digits.

    `put` writes in the order that survives a power cut: a temporary file beside the place, its content to disk, the new
    name, the directory to disk. A writer holds a shared lock on the sub-directory, and one who deletes an
    exclusive one, so that nothing is deleted while someone comes to rely on it; in other processes too.

    Nothing here follows a symbolic link below `directory` (which may be one), and only regular files are read: one who
    can write there leads no one to other files, and a pipe in the place of an artifact keeps no one waiting.

    Args:
        directory: where; it is made when something is put there.
        file_mode: the permissions of files that are made, whatever the umask; directories let enter who may read.
    """

    def __init__(self, directory: Path | str, *, file_mode: int = FILE_MODE) -> None:
        self.directory: Path = Path(directory).absolute()  # also after the program has gone elsewhere
        self._file_mode = file_mode
        self._ready: set[Path] = set()
        self._broken: StoreError | None = None

    def __repr__(self) -> str:
        return f"FileArtifacts({str(self.directory)!r})"

    def put(self, data: bytes) -> str:
        """Keep the bytes, and return their digest when they survive a power cut.

        Raises:
            StoreError: they could not be written, or an earlier `put` could not make a directory durable: whether its
                files survive is unknown, and the system tells of such an error only once.
        """
        if self._broken is not None:
            raise self._broken
        digest = sha256(data).hexdigest()
        path = self._path(digest)
        with _os_errors(f"the artifact {path} could not be written"):
            self._make_ready(path.parent)
            with _locked(path.parent, exclusive=False) as descriptor:
                if _holds(path, data):
                    _renew(path)
                else:
                    _write(path, data, self._file_mode)
                # Also when the file was there: whoever put it may have crashed before this line.
                self._sync_opened(path.parent, descriptor)
        return digest

    def get(self, digest: str, *, size: int | None = None) -> bytes:
        """The bytes with this digest.

        Raises:
            StoreError: they are missing, damaged or not readable, or there are not `size` of them.
        """
        path = self._path(checked_digest(digest))
        with _os_errors(f"the artifact {path} could not be read"):
            try:
                data = _read(path, size)
            except FileNotFoundError as error:
                raise missing(path) from error
        return verified(data, digest, path)

    def digests(self) -> Iterator[StoredArtifact]:
        """All artifacts, in no particular order; files that are none are left out.

        Raises:
            StoreError: they cannot be listed.
        """
        for directory in self._fans():
            for entry in _entries(directory):
                if _DIGEST.fullmatch(entry.name) and entry.name.startswith(directory.name):
                    with suppress(FileNotFoundError):  # deleted since
                        about = entry.stat(follow_symlinks=False)
                        yield StoredArtifact(entry.name, about.st_size, about.st_mtime)

    def delete(self, digest: str, *, put_before: float) -> int:
        """Delete an artifact, unless it has been put since `put_before`; returns the bytes freed.

        Raises:
            StoreError: it cannot be deleted, or the digest is none.
        """
        path = self._path(checked_digest(digest))
        with _os_errors(f"the artifact {path} could not be deleted"):
            try:
                with _locked(path.parent, exclusive=True):
                    return _delete_if_older(path, put_before)
            except FileNotFoundError:
                return 0

    def clean(self, *, put_before: float) -> int:
        """Delete the temporary files of writers that are no more; returns the bytes freed.

        Writers hold the lock, so where there are locks whatever is there without a writer is a left-over.

        Raises:
            StoreError: they cannot be listed or deleted.
        """
        limit = put_before if _HAS_LOCKS else min(put_before, time.time() - _SECONDS_OF_ONE_PUT)
        return sum(_clean(directory, limit) for directory in self._fans())

    def _path(self, digest: str) -> Path:
        return self.directory / digest[:2] / digest

    def _fans(self) -> list[Path]:
        """The sub-directories that exist."""
        return [
            Path(each.path)
            for each in _entries(self.directory)
            if re.fullmatch(r"[0-9a-f]{2}", each.name) and each.is_dir(follow_symlinks=False)
        ]

    def _make_ready(self, directory: Path) -> None:
        """See to it that a sub-directory exists and stays.

        Directories are made from the top, and each is made durable before anything is made in it. So of those that are
        there only the lowest may be one that an earlier writer made and crashed before it was durable.
        """
        if directory in self._ready and directory.is_dir():
            return
        lowest = directory
        while not lowest.is_dir():
            lowest = lowest.parent
        with suppress(PermissionError):  # who may not read it has not made anything in it
            self._sync(lowest.parent)
        make_directory(directory, self._sync, self._file_mode)
        self._ready.add(directory)

    def _sync(self, directory: Path) -> None:
        with _opened(directory) as descriptor:
            self._sync_opened(directory, descriptor)

    def _sync_opened(self, directory: Path, descriptor: int | None) -> None:
        """Make the names in a directory durable.

        Raises:
            StoreError: the system reported an error, and nothing can be put from now on.
        """
        try:
            _fsync_directory(descriptor)
        except OSError as error:
            self._broken = StoreError(f"the directory {directory} could not be synced: {error}")
            raise self._broken from error


@contextmanager
def _os_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {error}") from error


@contextmanager
def _opened(directory: Path, *, follow: bool = True) -> Iterator[int | None]:
    """A descriptor of a directory; None where there is no such thing."""
    if sys.platform == "win32":
        yield None
    else:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        descriptor = os.open(directory, flags if follow else flags | os.O_NOFOLLOW)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _locked(directory: Path, *, exclusive: bool) -> Iterator[int | None]:
    """Hold a lock on a directory, and get its descriptor. Closing that lets go of the lock."""
    with _opened(directory, follow=False) as descriptor:
        if sys.platform != "win32" and descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield descriptor


def _fsync_directory(descriptor: int | None) -> None:
    if descriptor is None:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot, and need not
            raise


def _holds(path: Path, data: bytes) -> bool:
    """Whether the file is there with this content. A damaged one is not, so it is written again."""
    try:
        about = os.stat(path, follow_symlinks=False)
        return stat.S_ISREG(about.st_mode) and about.st_size == len(data) and _read(path) == data
    except FileNotFoundError:
        return False


def _read(path: Path, size: int | None = None) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: it is something else, or it cannot be read.
        StoreError: it has not the size that was recorded.
    """
    with _opened(path.parent, follow=False) as parent:
        where = path if parent is None else path.name
        descriptor = os.open(where, _READ, dir_fd=parent)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        expect_size(about.st_size, size, path)
        return _bytes_of(descriptor, about.st_size)
    finally:
        os.close(descriptor)


def _bytes_of(descriptor: int, size: int) -> bytes:
    """So many bytes, or what there is if that is less; never more, writers there meanwhile."""
    parts = []
    while size > 0 and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _renew(path: Path) -> None:
    """Let the file count as put now. (By the clock that the garbage collection uses: the system's own is coarser.)"""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(create_file(temporary, os.O_WRONLY, mode), "wb") as file:
            file.write(data)
            file.flush()
            _renew(temporary)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    with _os_errors(f"the directory {directory} could not be listed"):
        try:
            with os.scandir(directory) as entries:
                return list(entries)
        except FileNotFoundError:
            return []


def _delete_if_older(path: Path, put_before: float) -> int:
    about = path.lstat()
    if about.st_mtime > put_before:
        return 0
    path.unlink()
    return about.st_size


def _clean(directory: Path, put_before: float) -> int:
    left = [Path(entry.path) for entry in _entries(directory) if entry.name.endswith(".tmp")]
    if not left:
        return 0
    freed = 0
    with _os_errors(f"{directory} could not be cleaned"), _locked(directory, exclusive=True):
        for path in left:
            with suppress(FileNotFoundError):  # its writer has just finished
                freed += _delete_if_older(path, put_before)
    return freed
