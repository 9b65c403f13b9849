"""`rh-agents doctor`: what is used, and what is missing."""

from __future__ import annotations

import asyncio
import difflib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from rh_agents import __version__
from rh_agents.cli.commands.common import AsJson, StoreOfRuns
from rh_agents.cli.errors import CommandError, one_line
from rh_agents.cli.json_text import json_line
from rh_agents.cli.output.page import Page, Part
from rh_agents.cli.output.results import expect_standard_output
from rh_agents.cli.output.wording import counted, size
from rh_agents.cli.recorded_command import Invocation
from rh_agents.cli.stores import DEFAULT_STORE, NO_STORE, expect_environment, kept_store, path_of_store, shown_url
from rh_agents.core.errors import RhAgentsError
from rh_agents.core.ports.keeping import limitations_of
from rh_agents.stores._environment import VARIABLE
from rh_agents.stores._files import schema_of_file
from rh_agents.stores._sql import read_migrations

__all__ = ["doctor_command"]

_VARIABLES = (VARIABLE, "RH_AGENTS_TRACING", "RH_AGENTS_DEBUG", "RH_AGENTS_CHECK")
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")
_NAME = re.compile(r"[\w.-]+")
_NOT_FOR_USERS = ("dev",)
_LITTLE = 1 << 30
"""Bytes of free space below which it is worth a word."""


@dataclass(frozen=True, slots=True)
class _Finding:
    """A line of the report.

    Attributes:
        about: what it is about.
        text: what was found.
        state: "ok", "missing" for what is not there and need not be, "warning", or "wrong".
        remedy: what can be done about it; "" for nothing.
    """

    about: str
    text: str
    state: str = "ok"
    remedy: str = ""


_STYLES = {"ok": ("✓", "green"), "missing": ("·", "dim"), "warning": ("!", "yellow"), "wrong": ("✗", "red")}


def doctor_command(ctx: typer.Context, store: StoreOfRuns = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Show what is used and what is missing: Python, packages, extras, variables, and whether the store can be used.

    Changes nothing. Exit code 1 if something is wrong.
    """
    expect_standard_output()
    findings = [*_python(), *_extras(), *_variables(), *asyncio.run(_store(store, _why(ctx)))]
    page = Page()
    for each in findings:
        if as_json:
            record = {"about": each.about, "text": each.text, "state": each.state, "remedy": each.remedy}
            sys.stdout.write(json_line("doctor", record))
            continue
        mark, style = _STYLES[each.state]
        remedy = f": {each.remedy}" if each.remedy else ""
        page.line(Part(mark, style), Part(f"{each.about:15}", "bold"), one_line(each.text + remedy))
    if any(each.state == "wrong" for each in findings):
        raise typer.Exit(1)


def _why(ctx: Any) -> str:
    """Who says which store it is."""
    if not Invocation.of(ctx).asks_for(ctx, "store"):
        return "the usual one"
    return f"by {VARIABLE}" if ctx.get_parameter_source("store").name == "ENVIRONMENT" else "by --store"


def _python() -> Iterator[_Finding]:
    yield _Finding("Python", f"{platform.python_version()} on {platform.system()}, {sys.executable}")
    yield _Finding("rh_agents", f"{__version__}, {Path(__file__).parents[2]}")
    for name in ("pydantic", "apsw"):
        yield _Finding(name, importlib.metadata.version(name))


def _extras() -> Iterator[_Finding]:
    """Each extra with its packages."""
    packages: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("rh_agents") or ():
        extra, name = _EXTRA.search(requirement), _NAME.match(requirement)
        if extra is not None and name is not None and extra[1] not in _NOT_FOR_USERS:
            packages.setdefault(extra[1], []).append(name[0])
    for named, names in sorted(packages.items()):
        versions = {name: _version(name) for name in names}
        missing = [name for name, version in versions.items() if version is None]
        if missing:
            remedy = f"pip install 'rh_agents[{named}]'"
            yield _Finding(f"[{named}]", f"{', '.join(missing)} not installed", "missing", remedy)
        else:
            yield _Finding(f"[{named}]", ", ".join(f"{name} {version}" for name, version in versions.items()))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _variables() -> Iterator[_Finding]:
    """The variables of ours that are set, and those that look like it."""
    for name in sorted(name for name in os.environ if name.startswith("RH_AGENTS_")):
        near = difflib.get_close_matches(name, _VARIABLES, n=1)
        if name in _VARIABLES:
            yield _Finding(name, shown_url(os.environ[name]) or "empty")
        else:
            remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(_VARIABLES)}"
            yield _Finding(name, "there is no such variable", "warning", remedy)


async def _store(url: str, why: str) -> list[_Finding]:
    """Whether the store can be used, and what is to be known of it."""
    shown = f"{shown_url(url)} ({why})"
    if url == NO_STORE:
        return [_Finding("store", f"{shown} records nothing")]
    try:
        expect_environment(url)
        paths = path_of_store(url)
        if paths is not None and not _is_there(paths[0]):
            return [_Finding("store", f"{shown} is not there yet", "missing", "map and run make it"), *_room(paths[0])]
        async with kept_store(url, read_only=True) as store:
            runs, limitations = len(await store.runs()), await limitations_of(store)
    except (CommandError, RhAgentsError) as error:
        return [_Finding("store", f"{shown} cannot be used", "wrong", str(error))]
    found = [_Finding("store", f"{shown}, {counted(runs, 'run')}")]
    found += [_Finding("store", line, "warning") for line in limitations]
    return [*found, *([] if paths is None else [*_schema(Path(paths[0])), *_results(paths[1]), *_room(paths[0])])]


def _is_there(path: str) -> bool:
    return os.path.exists(path)


def _schema(path: Path) -> Iterator[_Finding]:
    version, newest = schema_of_file(path), read_migrations("sqlite")[-1].number
    if version == newest or version is None:
        yield _Finding("schema", f"{newest}, the newest")
    else:
        yield _Finding(
            "schema", f"{version} of {newest}", "warning", "the next command that writes brings it up to date"
        )


def _results(folder: str | None) -> Sequence[_Finding]:
    return [_Finding("results", "large ones are at a URL" if folder is None else f"large ones are in {folder}")]


def _room(path: str) -> Iterator[_Finding]:
    folder = next(each for each in Path(path).absolute().parents if each.is_dir())
    free = shutil.disk_usage(folder).free
    state = "warning" if free < _LITTLE else "ok"
    yield _Finding("disk", f"{size(free)} free in {folder}", state, "make room" if state == "warning" else "")
