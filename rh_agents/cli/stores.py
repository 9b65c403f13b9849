"""`--store`: where the commands find and keep runs, and what is said if that does not work."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

from rh_agents.cli.errors import CommandError, close_names
from rh_agents.core.ports import RunInfo, Store
from rh_agents.stores import open_store
from rh_agents.stores._naming import Kind, StoreName, read_name

__all__ = [
    "DEFAULT_STORE",
    "NO_STORE",
    "absolute_url",
    "existing_run",
    "has_runs",
    "kept_store",
    "made_store",
    "path_of_store",
    "shown_url",
    "store_option",
]

DEFAULT_STORE = ".rh_agents/runs.db"
NO_STORE = "none"
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")


@contextlib.asynccontextmanager
async def made_store(url: str) -> AsyncIterator[Store | None]:
    """The store that a command writes to, made if it is not there; None for `none`.

    Raises:
        CommandError: no store has this name.
    """
    if url == NO_STORE:
        yield None
        return
    async with _closing(_open(url)) as store:
        yield store


@contextlib.asynccontextmanager
async def kept_store(url: str, *, read_only: bool) -> AsyncIterator[Store]:
    """The store that must be there already: looking for something in it must not make it.

    Args:
        url: its name.
        read_only: nothing is made or changed.

    Raises:
        CommandError: it is not there, or no store has this name.
    """
    if url == NO_STORE:
        raise CommandError(f"--store {NO_STORE} keeps nothing, so there is nothing to see")
    name = _read(url)
    if name.kind is Kind.MEMORY:
        raise CommandError(f"--store {url} keeps runs until a process ends, so there is nothing to see")
    if name.kind is Kind.FILE:
        _expect_runs(Path(name.path))
    async with _closing(_open(url, read_only=read_only)) as store:
        yield store


def _expect_runs(path: Path) -> None:
    is_there = path.exists()
    if not is_there or (path.is_file() and not path.stat().st_size):
        what = f"{path} is an empty file" if is_there else f"there is no store {path}"
        raise CommandError(f"{what}: `rh-agents map` and `rh-agents run` make one; name another one with --store")


def _read(url: str) -> StoreName:
    try:
        return read_name(url)
    except ValueError as error:
        raise _no_store(url, error) from error


def _open(url: str, *, read_only: bool = False) -> Store:
    try:
        return open_store(url, read_only=read_only)
    except (ValueError, ImportError) as error:
        raise _no_store(url, error) from error


def _no_store(url: str, error: Exception) -> CommandError:
    why = shown_url(str(error)).replace("store=None records", "--store none records")
    return CommandError(f"--store {shown_url(url) or repr(url)}: {why}")


@contextlib.asynccontextmanager
async def _closing(store: Store) -> AsyncIterator[Store]:
    try:
        yield store
    finally:
        await store.aclose()


async def existing_run(store: Store, run_id: str) -> RunInfo:
    """The run of this name.

    Raises:
        CommandError: there is none.
    """
    info = await store.find_run(run_id)
    if info is None:
        names = [run.run_id for run in await store.runs()]
        begun = [name for name in names if run_id and name.startswith(run_id)]
        hint = f"; did you mean {begun[0]!r}?" if len(begun) == 1 else close_names(run_id, names)
        raise CommandError(f"there is no run {run_id!r}{hint or '; `rh-agents runs` lists them'}")
    return info


def shown_url(text: str) -> str:
    """A URL, or a text with URLs in it, without passwords."""
    return _PASSWORD.sub(r"\1:***@", text)


def store_option(url: str) -> str:
    """What has to be added to a command so that it finds the same store: "" for the usual one."""
    return "" if url == DEFAULT_STORE else f" --store {shlex.quote(shown_url(url))}"


def absolute_url(url: str) -> str:
    """The same store seen from any directory."""
    return url if url == NO_STORE else _read(url).absolute


def path_of_store(url: str) -> tuple[str, str | None] | None:
    """The file of a store and the directory of its large results, if it has any; None if it is no file."""
    name = None if url == NO_STORE else _read(url)
    if name is None or name.kind is not Kind.FILE:
        return None
    artifacts = name.artifacts
    artifacts = unquote(artifacts.removeprefix("file://")) if artifacts.startswith("file://") else artifacts
    return name.path, None if "://" in artifacts else artifacts


def has_runs(url: str) -> bool:
    """Whether there may be runs in a store: it is no file, or one that is there and not empty."""
    paths = path_of_store(url)
    return paths is None or (os.path.isfile(paths[0]) and os.path.getsize(paths[0]) > 0)
