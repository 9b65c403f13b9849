"""Notebooks: a live bar in the output of a cell, and a table for a run."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.text import Text

from rh_agents import ExecutionState, MemoryStore, ParallelEventPrinter, Secret, open_store, parallel, tool
from rh_agents.core.redaction import forget_secret
from rh_agents.display.notebook import NotebookRegion, html_of, is_in_notebook


class Outputs:
    """The output of a cell, as a notebook keeps it: what was displayed, each in its newest form."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []
        self.updates = 0

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool) -> Outputs:
        assert raw
        assert display_id
        self.shown.append(data)
        return self

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.updates += 1
        self.shown[-1] = data


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Outputs:
    """A stand-in for IPython, in a program that a notebook executes."""
    outputs = Outputs()
    package, display = ModuleType("IPython"), ModuleType("IPython.display")
    package.get_ipython = lambda: type("Shell", (), {"kernel": object()})()  # type: ignore[attr-defined]
    display.display = outputs.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return outputs


@tool
async def work(number: int) -> int:
    await asyncio.sleep(0)
    return number


async def watched(printer: ParallelEventPrinter, look: Callable[[], None]) -> None:
    async with ExecutionState() as state:
        state.event_bus.subscribe(printer)
        async with parallel(2, name="<pages>") as p:
            p.map(work, range(10))
            async for _ in p.stream():
                look()


def test_a_group_is_one_bar_that_is_updated_in_place(cell: Outputs, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []
    clock = itertools.count(0.0, 0.1)
    printer = ParallelEventPrinter(clock=lambda: next(clock))
    asyncio.run(watched(printer, lambda: seen.extend(each["text/html"] for each in cell.shown)))
    assert len(cell.shown) == 1
    assert any("&lt;pages&gt;" in html and "/10" in html for html in seen), seen
    assert not any("<pages>" in html for html in seen)
    assert cell.shown[0]["text/plain"] == "", "it is taken away at the end"
    printed = capsys.readouterr().out
    assert "<pages>" in printed, "a line stays"
    assert printed.count("\n") == 1


def test_it_is_drawn_at_most_four_times_a_second_and_the_last_state_is_not_lost(cell: Outputs) -> None:
    now, rows = [0.0], [Text("0")]
    region = NotebookRegion(io.StringIO(), lambda: rows, clock=lambda: now[0])
    region.draw()
    assert cell.shown == [], "it is not in use"
    region.start()
    region.draw()
    assert cell.shown == [], "it may soon be over"
    now[0] = 0.25

    async def main() -> None:
        for number in range(1, 11):
            rows[0] = Text(str(number))
            region.draw()
            now[0] += 0.02
        assert (cell.shown[0]["text/plain"], cell.updates) == ("1", 0)
        await asyncio.sleep(0.3)
        assert (cell.shown[0]["text/plain"], cell.updates) == ("10", 1)

    asyncio.run(main())
    region.stop()
    region.stop()
    assert (cell.shown[0]["text/plain"], cell.updates) == ("", 2)


def test_text_is_escaped_and_keeps_its_colours() -> None:
    html = html_of([Text.assemble(("<b>", "red"), " & ", ("x" * 200, "bold")), Text("second")])
    assert "&lt;b&gt;</span>" in html
    assert "color" in html
    assert "&amp;" in html
    assert html.count("\n") == 1


def test_what_goes_elsewhere_is_as_elsewhere(cell: Outputs) -> None:
    printer = ParallelEventPrinter(file=io.StringIO())
    asyncio.run(watched(printer, lambda: None))
    assert cell.shown == []


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not is_in_notebook()
    package = ModuleType("IPython")
    package.get_ipython = lambda: object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    assert not is_in_notebook()


# -- the object of a run ----------------------------------------------------------------------------------------------


def html_of_a_run(state: ExecutionState) -> str:
    html: str = state._repr_html_()
    return html


def test_a_run_is_a_small_table_with_the_command_that_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "my runs.db"

    async def main() -> ExecutionState:
        store = open_store(path)
        async with ExecutionState(store=store, run_id="<i>monday") as state:
            before = html_of_a_run(state)
            assert "started" in before
            await work(1)

            @tool
            async def fail() -> None:
                raise ValueError

            await fail().outcome()
        await store.aclose()
        return state

    html = html_of_a_run(asyncio.run(main()))
    for text in ("completed", "2 calls", "&lt;i&gt;monday", f"--store &#x27;{path}&#x27;", " s</td>"):
        assert text in html
    assert '<th style="text-align:left">failed</th><td style="text-align:left">1</td>' in html
    assert "<i>" not in html


def test_a_run_that_no_command_finds_names_none_and_shows_no_secret() -> None:
    secret = Secret("password", "correct horse")
    try:
        html = html_of_a_run(ExecutionState(store=MemoryStore(), run_id="r"))
        assert "pending" in html
        assert "rh-agents" not in html
        named = html_of_a_run(ExecutionState(run_id="correct horse"))
    finally:
        forget_secret(secret.name)
    assert "correct horse" not in named


# -- a real one -------------------------------------------------------------------------------------------------------

CELLS = [
    """
import asyncio
from rh_agents import ExecutionState, ParallelEventPrinter, parallel, tool

@tool
async def work(number: int) -> int:
    await asyncio.sleep(0.05)
    return number
""",
    """
async with ExecutionState(run_id="monday") as state:
    state.event_bus.subscribe(ParallelEventPrinter())
    async with parallel(2, name="pages") as p:
        p.map(work, range(20))
        await p.gather()
state
""",
]


@pytest.mark.skipif(
    importlib.util.find_spec("nbclient") is None or importlib.util.find_spec("ipykernel") is None,
    reason="nbclient and ipykernel are not installed",
)
@pytest.mark.filterwarnings("ignore")  # those of Jupyter
def test_a_real_notebook_shows_a_bar_and_the_table(tmp_path: Path) -> None:
    nbclient, nbformat = map(importlib.import_module, ("nbclient", "nbformat"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    displayed: list[dict[str, Any]] = []

    class Watching(nbclient.NotebookClient):  # type: ignore[name-defined,misc]
        def process_message(self, message: Any, cell: Any, cell_index: int) -> Any:
            if message["msg_type"] in ("display_data", "update_display_data"):
                displayed.append(message["content"]["data"])
            return super().process_message(message, cell, cell_index)

    Watching(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = notebook.cells[1].outputs
    assert any("pages" in data["text/plain"] and "/20" in data["text/plain"] for data in displayed)
    assert displayed[-1]["text/plain"] == ""
    table = next(output["data"]["text/html"] for output in outputs if output["output_type"] == "execute_result")
    assert "monday" in table
    assert "20 calls" in table
