"""`--store`: where the commands find and keep runs, and what is said if that does not work."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

from rh_agents.cli.errors import NoSuchRun, NoSuchStore, close_names
from rh_agents.core.errors import OptionError, RhAgentsError
from rh_agents.core.ports import RunInfo, Store
from rh_agents.core.ports.windows import RunQuery, list_runs
from rh_agents.stores import open_store
from rh_agents.stores._environment import VARIABLE, named_by_environment
from rh_agents.stores._files import is_store_file
from rh_agents.stores._naming import Kind, StoreName, read_name

__all__ = [
    "DEFAULT_STORE",
    "NO_STORE",
    "absolute_url",
    "existing_run",
    "expect_environment",
    "has_runs",
    "is_own",
    "kept_store",
    "made_store",
    "path_of_store",
    "shown_url",
    "store_option",
]

DEFAULT_STORE = ".rh_agents/runs.db"
NO_STORE = "none"
_COMPARED = 1000
"""Runs, the newest ones, among whose names one that is like a wrong one is looked for."""
_LOOKED_INTO = 20
"""Stores beside the named one that are searched for a run."""
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")


@contextlib.asynccontextmanager
async def made_store(url: str) -> AsyncIterator[Store | None]:
    """The store that a command writes to, made if it is not there; None for `none`.

    Raises:
        NoSuchStore: no store has this name.
    """
    expect_environment(url)
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
        NoSuchStore: it is not there, or no store has this name.
    """
    expect_environment(url)
    if url == NO_STORE:
        raise NoSuchStore(f"--store {NO_STORE} keeps nothing, so there is nothing to see")
    name = _read(url)
    if name.kind is Kind.MEMORY:
        raise NoSuchStore(f"--store {url} keeps runs until a process ends, so there is nothing to see")
    if name.kind is Kind.FILE:
        _expect_runs(Path(name.path))
    async with _closing(_open(url, read_only=read_only)) as store:
        yield store


def _expect_runs(path: Path) -> None:
    is_there = path.exists()
    if not is_there or (path.is_file() and not path.stat().st_size):
        what = f"{path} is an empty file" if is_there else f"there is no store {path}"
        beside = next(_beside(path), None)
        hint = f"there is {beside}: --store {shlex.quote(beside)}" if beside else "name another one with --store"
        raise NoSuchStore(f"{what}: `rh-agents map` and `rh-agents run` make one; {hint}")


def _beside(path: Path) -> Iterator[str]:
    """Other stores that are there: in the same folder, in the usual one of this folder, or in one above."""
    folders = [path.parent, Path(DEFAULT_STORE).parent, Path(), *(each / ".rh_agents" for each in Path.cwd().parents)]
    found = (each for folder in folders if folder.is_dir() for each in sorted(folder.glob("*.db")))
    others = (each for each in found if each.absolute() != path.absolute() and is_store_file(each))
    return iter(dict.fromkeys(map(os.path.relpath, others)))


def is_own(path: str) -> bool:
    """Whether it is there and belongs to this user: what others put into a directory above is not for us."""
    try:
        owner = os.stat(path).st_uid
    except OSError:
        return False
    return not hasattr(os, "geteuid") or owner == os.geteuid()


def expect_environment(url: str) -> None:
    """Refuse what the variable says, unless an option has said something else.

    Raises:
        NoSuchStore: it is empty, names no store, or one that may not be written.
    """
    given = os.environ.get(VARIABLE)
    if given is None or url != (given or DEFAULT_STORE) or url == NO_STORE:
        return
    try:
        named_by_environment()
    except OptionError as error:
        raise NoSuchStore(shown_url(str(error))) from error


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


def _no_store(url: str, error: Exception) -> NoSuchStore:
    why = shown_url(str(error)).replace("store=None records", "--store none records")
    where = f"{VARIABLE}:" if url == os.environ.get(VARIABLE) else f"--store {shown_url(url) or repr(url)}:"
    return NoSuchStore(f"{where} {why}")


@contextlib.asynccontextmanager
async def _closing(store: Store) -> AsyncIterator[Store]:
    try:
        yield store
    finally:
        await store.aclose()


async def existing_run(store: Store, run_id: str) -> RunInfo:
    """The run of this name.

    Raises:
        NoSuchRun: there is none.
    """
    info = await store.find_run(run_id)
    if info is None:
        with_it = await list_runs(store, RunQuery(text=run_id))
        begun = [run.run_id for run in with_it.runs if run_id and run.run_id.startswith(run_id)]
        names = [run.run_id for run in await store.runs(limit=_COMPARED)]
        hint = f"; did you mean {begun[0]!r}?" if len(begun) == 1 else close_names(run_id, names)
        raise NoSuchRun(
            f"there is no run {run_id!r}{hint or await _elsewhere(store, run_id) or '; `rh-agents runs` lists them'}"
        )
    return info


async def _elsewhere(store: Store, run_id: str) -> str:
    """Where else the run is, or else to look for it; "" if there is no other store."""
    where, others = _others(store)
    found = dict[str, float]()
    for path in filter(is_own, others):
        with contextlib.suppress(RhAgentsError):  # one that cannot be read has nothing for us
            async with kept_store(path, read_only=True) as other:
                info = await other.find_run(run_id)
                if info is not None:
                    found[path] = info.updated_at
    if found:
        path = max(found, key=found.__getitem__)  # in a copy, it ended earlier
        return f" in {where}; there is one in {path}: --store {shlex.quote(path)}"
    return f" in {where}; another store is there: --store {shlex.quote(others[0])}" if others else ""


def _others(store: Store) -> tuple[str, list[str]]:
    """The file of a store, and those of stores beside it; none of a store that is no file."""
    url = getattr(store, "url", None)
    name = None if url is None else read_name(url)
    if name is None or name.kind is not Kind.FILE:
        return "", []
    return os.path.relpath(name.path), list(islice(_beside(Path(name.path)), _LOOKED_INTO))


def shown_url(text: str) -> str:
    """A URL, or a text with URLs in it, without passwords."""
    return _PASSWORD.sub(r"\1:***@", text)


def store_option(url: str) -> str:
    """What has to be added to a command so that it finds the same store: "" for the usual one."""
    return "" if url == DEFAULT_STORE and not os.environ.get(VARIABLE) else f" --store {shlex.quote(shown_url(url))}"


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
