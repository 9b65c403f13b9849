"""What `rh_agents` itself has, what has moved into its modules, and what it says of names that it has not."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import rh_agents
from rh_agents import _MOVED, EventPrinter, EventStreamer, ParallelEventPrinter, bus_handlers  # type: ignore[attr-defined, unused-ignore]

ROOT = Path(__file__).parents[2]
MOVED = sorted(_MOVED.items())


@pytest.mark.parametrize(("name", "module"), MOVED)
def test_a_name_that_has_moved_works_and_says_where_it_is(name: str, module: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"write `from rh_agents\.{module} import {name}`") as caught:
        found = getattr(rh_agents, name)
    assert found is getattr(importlib.import_module(f"rh_agents.{module}"), name)
    assert [warning.filename for warning in caught] == [__file__]


def test_the_warning_points_at_the_line_of_the_import(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import asyncio\n\nfrom rh_agents import Compaction, run\n\nprint(Compaction.__name__, run)\n")
    done = subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning", str(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "Compaction run\n"
    assert f"{program}:3: DeprecationWarning: Compaction has moved" in done.stderr
    assert "rh_agents/" not in done.stderr


def test_everything_that_is_named_there_is_there_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        space: dict[str, object] = {}
        exec("from rh_agents import *", space)
        assert space.keys() >= set(rh_agents.__all__)
        assert set(dir(rh_agents)) >= set(rh_agents.__all__)
        assert not set(dir(rh_agents)) & _MOVED.keys()


def test_what_shows_events_is_at_top_level() -> None:
    for shown in (EventPrinter, EventStreamer, ParallelEventPrinter):
        assert getattr(bus_handlers, shown.__name__) is shown


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("paralel", "module 'rh_agents' has no attribute 'paralel'; did you mean 'parallel'?"),
        ("Subscription", "write `from rh_agents.events import Subscription`"),
        ("RateLimited", "write `from rh_agents.errors import RateLimited`"),
        ("MapHandle", "write `from rh_agents.groups import MapHandle`"),
    ],
)
def test_a_name_that_it_has_not_is_suggested(name: str, says: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(says)):
        getattr(rh_agents, name)


def test_type_checkers_see_what_has_moved() -> None:
    text = (ROOT / "rh_agents" / "__init__.py").read_text()
    seen = re.findall(r"^    from rh_agents\.(\w+) import (\w+) as \2\b", text, re.MULTILINE)
    assert sorted((name, module) for module, name in seen) == MOVED


def test_the_short_list_in_the_reference_is_at_top_level() -> None:
    page = (ROOT / "docs" / "reference" / "index.md").read_text()
    table = page.partition("| for | names |")[2].partition("\n\n")[0]
    names = re.findall(r"`(\w+)`", table)
    assert 20 <= len(names) <= 32
    assert set(names) <= set(rh_agents.__all__)
