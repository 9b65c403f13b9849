"""`--store`: where the commands find and keep runs, and what is said if that does not work."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from rh_agents.cli.errors import CommandError, close_names
from rh_agents.core.ports import RunInfo, Store
from rh_agents.stores import open_store

__all__ = [
    "DEFAULT_STORE",
    "NO_STORE",
    "absolute_url",
    "existing_run",
    "kept_store",
    "made_store",
    "path_of_store",
    "shown_url",
    "store_option",
]

DEFAULT_STORE = ".rh_agents/runs.db"
NO_STORE = "none"
_SQLITE = "sqlite:///"
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
async def kept_store(url: str) -> AsyncIterator[Store]:
    """The store that a command reads: it must be there, because looking at something must not make it.

    Raises:
        CommandError: it is not there, or no store has this name.
    """
    if url == NO_STORE:
        raise CommandError(f"--store {NO_STORE} keeps nothing, so there is nothing to see")
    path = _path_in(url)
    if path is not None and not path.exists():
        raise CommandError(
            f"there is no store {path}: `rh-agents map` and `rh-agents run` make one; name another one with --store"
        )
    async with _closing(_open(url)) as store:
        yield store


def _open(url: str) -> Store:
    try:
        return open_store(url)
    except (ValueError, ImportError) as error:
        raise CommandError(f"--store {shown_url(url)}: {shown_url(str(error))}") from error


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
    path = _path_in(url)
    if path is None or path.is_absolute():
        return url
    if not url.startswith(_SQLITE):
        return os.fspath(path.absolute())
    _, mark, options = url.partition("?")
    return f"{_SQLITE}{path.absolute()}{mark}{options}"


def path_of_store(url: str) -> tuple[str, str | None] | None:
    """The file of a store and the directory of its large results, if it has any; None if it is no file."""
    path = _path_in(url)
    if path is None:
        return None
    name, options = os.fspath(path), ""
    if url.startswith(_SQLITE):
        name, options = unquote(name), url.partition("?")[2]
    artifacts = dict(parse_qsl(options)).get("artifacts", f"{os.path.abspath(name)}-artifacts")
    artifacts = unquote(artifacts.removeprefix("file://")) if artifacts.startswith("file://") else artifacts
    return name, None if "://" in artifacts else artifacts


def _path_in(url: str) -> Path | None:
    """The file of a store; None if it has none."""
    if url.startswith(_SQLITE):
        return Path(url.removeprefix(_SQLITE).partition("?")[0])
    if "://" in url or url in (NO_STORE, "memory:"):
        return None
    return Path(url)
