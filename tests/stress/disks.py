"""File systems of a test's own: one whose power can be cut, and one that is soon full. Both need root."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

__all__ = ["PowerDisk", "SmallDisk", "hide_mounts"]

# linux/fs/ext4: EXT4_IOC_SHUTDOWN is _IOR('X', 125, __u32). With NOLOGFLUSH even the file system's own journal is not
# written any more: only what was synced before is there when it is mounted again.
_SHUTDOWN = 0x8004587D
_NOLOGFLUSH = 2

# linux/sched.h and linux/mount.h
_CLONE_NEWNS = 0x00020000
_MS_REC_AND_PRIVATE = 0x4000 | 0x40000


def hide_mounts() -> None:
    """What this process and its children mount from now on is seen by nobody else, and goes when they have gone.

    Else somebody who clones our mounts meanwhile, as containers do, keeps a disk alive that has been unmounted. Whoever
    may not do this may not mount anything either.
    """
    if sys.platform == "linux":
        c = ctypes.CDLL(None)
        if c.unshare(_CLONE_NEWNS) == 0:
            c.mount(None, b"/", None, ctypes.c_ulong(_MS_REC_AND_PRIVATE), None)


class _Disk:
    """Something mounted on a folder, and never left behind."""

    def __init__(self, folder: Path) -> None:
        self.folder: Path = folder
        folder.mkdir(parents=True)

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            pytest.skip("mounting a file system needs root")
        self._mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.path.ismount(self.folder):  # lazily: a process that outlived a failure may still use it
            subprocess.run(["umount", "--lazy", self.folder], check=True)

    def _mount(self) -> None:
        raise NotImplementedError

    def _command(self, *words: str | Path) -> None:
        """Run a command that this machine may not be able to execute at all."""
        try:
            subprocess.run(words, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip(f"{words[0]} is not installed")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"{' '.join(map(str, words))}: {error.stderr.strip().splitlines()[0]}")


class PowerDisk(_Disk):
    """An ext4 file system in a file, mounted through a loop device."""

    def __init__(self, folder: Path, megabytes: int = 64) -> None:
        super().__init__(folder)
        self._image = folder.with_suffix(".image")
        self._megabytes = megabytes

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, and whatever was not synced is lost."""
        directory = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(directory)

    def restore_power(self) -> None:
        """Mount it again; the file system repairs itself from its journal. Nobody may use it any more."""
        subprocess.run(["umount", self.folder], check=True)
        subprocess.run(["mount", "-o", "loop", self._image, self.folder], check=True)

    def _mount(self) -> None:
        with self._image.open("wb") as image:
            image.truncate(self._megabytes << 20)
        self._command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self._image)
        self._command("mount", "-o", "loop", self._image, self.folder)  # its loop device goes when it is unmounted


class SmallDisk(_Disk):
    """A file system in memory with room for so many KiB."""

    def __init__(self, folder: Path, kilobytes: int) -> None:
        super().__init__(folder)
        self._kilobytes = kilobytes

    def make_room(self, kilobytes: int) -> None:
        """Let it hold so much from now on."""
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", self.folder], check=True)

    def _mount(self) -> None:
        self._command("mount", "-t", "tmpfs", "-o", f"size={self._kilobytes}k", "rh_agents-test", self.folder)
