"""Every snippet of the pages in docs/how-to runs, in the order of its page, as a reader would type it."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def snippets(page: Path) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in SNIPPET.finditer(text)]


async def execute(page: Path, module: types.ModuleType) -> None:
    """Run all blocks of a page one after the other, in one module, with `await` where a reader may write it."""
    for line, code in snippets(page):
        tree = ast.parse(code, filename=str(page))
        ast.increment_lineno(tree, line)
        program = compile(tree, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        awaited = eval(program, vars(module))
        if inspect.isawaitable(awaited):
            await awaited


def test_there_are_pages_and_they_have_snippets() -> None:
    assert PAGES
    assert [page.name for page in PAGES if not snippets(page)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_snippets_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("OPENAI_")]:
        monkeypatch.delenv(name)
    module = types.ModuleType(f"how_to_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    asyncio.run(execute(page, module))
