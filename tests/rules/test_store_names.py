"""What the name of a store means, or why it means nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from rh_agents import ExecutionState, MemoryStore, open_store
from rh_agents.core.errors import DefinitionError
from rh_agents.stores._naming import Kind, read_name

HOME = "/home/ada"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", HOME)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()


@pytest.mark.parametrize(
    ("name", "path", "options"),
    [
        ("~/x.db", f"{HOME}/x.db", {}),
        ("sqlite:///~/x.db", f"{HOME}/x.db", {}),
        (Path("~/x"), f"{HOME}/x", {}),
        ("c.db?mode=0640", "c.db", {"mode": "0640"}),
        ("C.DB", "C.DB", {}),
        ("c.db?busy_timeout=3&artifacts=~/large", "c.db", {"busy_timeout": "3", "artifacts": f"{HOME}/large"}),
        ("c.db?artifacts=s3://b/~", "c.db", {"artifacts": "s3://b/~"}),
        ("what?.db", "what?.db", {}),
        ("file:///var/x.db", "/var/x.db", {}),
        ("file:///var/a%20b.db?mode=0640", "/var/a b.db", {"mode": "0640"}),
        ("sqlite:///a%23b", "a#b", {}),
    ],
)
def test_the_name_of_a_file(name: Any, path: str, options: dict[str, str]) -> None:
    found = read_name(name)
    assert (found.kind, found.path, found.options) == (Kind.FILE, path, options)
    again = read_name(found.absolute)
    assert (again.path, again.options) == (os.path.abspath(path), options), "the same from any directory"


@pytest.mark.parametrize("name", ["memory:", "memory://", ":memory:", "sqlite:///:memory:"])
def test_the_name_of_a_store_in_memory(name: str) -> None:
    assert isinstance(open_store(name), MemoryStore)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "store=None records nothing"),
        ("none", "store=None records nothing"),
        ("memory", "write memory:"),
        ("d", "it is a directory; name a file in it, such as d/runs.db"),
        ("d/", "it is a directory; name a file in it, such as d/runs.db"),
        ("runs", "a pathlib.Path may have any ending"),
        ("runs.db ", "write 'runs.db', without the space"),
        ("sqlite:x.db", "write sqlite:///x.db"),
        ("file:x.db", "write sqlite:///x.db"),
        ("postgres:secret@x", "no store for postgres:…: write postgresql://host/database"),
        ("sqlite+aiosqlite:///x.db", "write sqlite://…"),
        ("postgresql+psycopg://u:secret@h/d", "no store for 'postgresql+psycopg://…': write postgresql://…"),
        ("mysql://u:secret@h/d", "no store for 'mysql://…': there are"),
        ("sqlite://", "names no file: write sqlite:///runs.db, or memory:"),
        ("sqlite:///a#b.db", "a # in the name of a file is written %23"),
        ("sqlite:///:memory:?mode=0640", "a store in memory has no options"),
        ("c.db?mode=0640&mode=0600", "says mode twice"),
        ("c.db?timeout=3", "has no option 'timeout': there are artifacts, busy_timeout, mode"),
        ("c.db?busy_timeout=nan", "busy_timeout is a number of seconds"),
        ("c.db?busy_timeout=-1", "busy_timeout is a number of seconds"),
        ("~nobody-of-this-name/x.db", "'~nobody-of-this-name' has no home directory; write ./~nobody"),
        ("$HOME/x.db", "variables are replaced by a shell only; write os.path.expandvars('$HOME/x.db')"),
        ("a\0.db", "a path has no NUL character in it"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_one_that_does(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        open_store(name)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("store", [3, True, b"x.db", [], object(), MemoryStore])
def test_what_is_neither_a_store_nor_a_name_is_refused(store: Any) -> None:
    with pytest.raises(DefinitionError, match=r"store= takes a store, a path or a URL, such as 'runs.db', not "):
        ExecutionState(store=store)
