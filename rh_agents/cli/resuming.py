"""Starts a recorded command again for somebody who asks for it on the page, if that may be."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from rh_agents.cli.errors import one_line
from rh_agents.cli.recorded_command import RunCommand
from rh_agents.cli.stores import absolute_url, path_of_store
from rh_agents.core.errors import UsageError
from rh_agents.core.ports import RunInfo

__all__ = ["Resuming"]

_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Resuming:
    """Resumes runs of a store in processes of their own, as `rh-agents resume RUN --detach` does.

    Attributes:
        store: the URL of the store.
    """

    store: str

    def words(self, info: RunInfo) -> list[str]:
        """The arguments of the process that would be started; no shell reads them.

        Raises:
            UsageError: no command is recorded, or it would run a file that is not this user's.
        """
        self._command(info)
        return [
            sys.executable,
            "-m",
            "rh_agents",
            "resume",
            "--store",
            absolute_url(self.store),
            "--detach",
            "--",  # a name may begin as an option does
            info.run_id,
        ]

    def about(self, info: RunInfo) -> str:
        """What that does: the recorded command and its folder.

        Raises:
            UsageError: as `words`.
        """
        command = self._command(info)
        return f"starts in {command.folder}: rh-agents {shlex.join(command.words)}"

    async def start(self, info: RunInfo) -> str:
        """Start it; returns a sentence about it.

        Raises:
            UsageError: as `words`, or it did not start.
        """
        process = await asyncio.create_subprocess_exec(
            *self.words(info),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self._command(info).folder,
        )
        async with asyncio.timeout(_PATIENCE):
            said, complained = await process.communicate()
        if process.returncode:
            raise UsageError(
                one_line(complained.decode(errors="replace").strip()) or f"it ended with {process.returncode}"
            )
        try:
            return f"started as process {json.loads(said)['pid']}"
        except (ValueError, KeyError, TypeError):
            return "started"

    def _command(self, info: RunInfo) -> RunCommand:
        command = RunCommand.of(info)
        if command is None and info.flow is not None:
            raise UsageError(
                f"run {info.run_id!r} was submitted: a worker resumes it; `rh-agents requeue` queues it again"
            )
        if command is None:
            raise UsageError(f"run {info.run_id!r} was started from Python code: start that again to resume it")
        paths = path_of_store(self.store)
        for path in (Path(command.folder), _program(command), *([] if paths is None else [Path(paths[0])])):
            _expect_own(path)
        return command


def _program(command: RunCommand) -> Path:
    """The file of what a command runs.

    Raises:
        UsageError: it is not found in the folder of the command.
    """
    target = command.words[1] if len(command.words) > 1 else ""
    named = next((word for word in command.words[1:] if word.endswith(command.target.rpartition(":")[2])), target)
    module = named.rpartition(":")[0]
    folder = Path(command.folder)
    relative = Path(module) if module.endswith(".py") else Path(*module.split("."))
    for path in (folder / relative, folder / relative.with_suffix(".py"), folder / relative / "__init__.py"):
        if path.is_file():
            return path
    raise UsageError(f"the program {module or target!r} is not found in {command.folder}: resume it from a terminal")


def _expect_own(path: Path) -> None:
    """Raise `UsageError` if a file, once its links are followed, is not this user's."""
    try:
        owner = path.stat().st_uid
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if hasattr(os, "getuid") and owner != os.getuid():
        raise UsageError(
            f"{path} belongs to another user, so it is not started from the page: resume it from a terminal"
        )
