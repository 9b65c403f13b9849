"""Inputs that are compressed with gzip or zstd, read as they are unpacked: never more of them than is asked for.

An archive may be cut, as by a download that broke off, or be made to fill disks and memory. All that can be unpacked of
a cut one is read, and then there is an error, whose line the reader of lines knows. One that expands beyond all that
texts do is read no further.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from typing import Final

from rh_agents.cli.arrow import arrow_module, first_line

__all__ = ["MOST_TIMES", "Unpacked", "UnreadableArchive", "is_archive"]

MOST_TIMES: Final = 200
"""How many times its size an archive may have when it is unpacked. JSON lines have 5 to 20 times, one line again and
again has up to 1,000."""
_NEVER_TOO_MUCH: Final = 64 * 1024 * 1024
"""Bytes up to which nothing is said about that: they do no harm."""
_GZIP: Final = b"\x1f\x8b\x08"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


class UnreadableArchive(OSError):
    """An archive that cannot be read any further; the message says why, and what can be done."""


def is_archive(stream: io.BufferedReader) -> bool:
    """Whether what comes next in a file is compressed with gzip or zstd."""
    return stream.peek(len(_ZSTD)).startswith((_GZIP, _ZSTD))


class Unpacked(io.RawIOBase):
    """What is in an archive.

    Args:
        stream: the archive, which is closed with this.
        name: of the archive, for people.
        most_times: how many times its size it may have when it is unpacked.
        never_too_much: up to this many bytes it may have in any case.
    """

    def __init__(
        self,
        stream: io.BufferedReader,
        name: str = "the input",
        *,
        most_times: int = MOST_TIMES,
        never_too_much: int = _NEVER_TOO_MUCH,
    ) -> None:
        self._stream = stream
        self._begin = stream.tell()
        self._unpack = _by_zstd(stream, name) if stream.peek(4).startswith(_ZSTD) else _by_gzip(stream)
        self._most_times = most_times
        self._never_too_much = never_too_much
        self._given = 0
        self._problem: UnreadableArchive | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """That of the archive."""
        return self._stream.fileno()

    def close(self) -> None:
        """Close the archive as well."""
        self._stream.close()
        super().close()

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Unpack as much as fits.

        Raises:
            UnreadableArchive: it is cut or damaged, or expands too much; from then on always.
        """
        if self._problem is None:
            try:
                data = self._next(len(buffer))
            except UnreadableArchive as error:
                self._problem = error
            else:
                buffer[: len(data)] = data
                return len(data)
        raise self._problem

    def _next(self, size: int) -> bytes:
        data = self._unpack(size)
        self._given += len(data)
        if self._given > max(self._never_too_much, self._most_times * (self._stream.tell() - self._begin)):
            raise UnreadableArchive(
                f"the archive expands to more than {self._most_times} times its size, so it is read no further: if it "
                "is what it should be, unpack it first"
            )
        return data


def _by_gzip(stream: io.BufferedReader) -> Callable[[int], bytes]:
    """What gives at most so many bytes of what is in the archive."""
    file = gzip.GzipFile(fileobj=stream, mode="rb")

    def unpack(size: int) -> bytes:
        try:
            return file.read1(size)
        except EOFError as error:
            raise UnreadableArchive(_CUT) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise UnreadableArchive(_damaged(error)) from error

    return unpack


def _by_zstd(stream: io.BufferedReader, name: str) -> Callable[[int], bytes]:
    arrow = arrow_module(f"{name} is compressed with zstd")
    file = arrow.CompressedInputStream(arrow.PythonFile(stream, mode="r"), "zstd")

    def unpack(size: int) -> bytes:
        try:
            data: bytes = file.read(size)
        except OSError as error:
            if error.errno is not None:  # of the system, and not of the codec
                raise
            raise UnreadableArchive(_CUT if "Truncated" in str(error) else _damaged(error)) from error
        return data

    return unpack


_CUT: Final = "the archive is cut here: get it again"


def _damaged(error: Exception) -> str:
    return f"the archive is damaged here ({first_line(error)}): get it again"
