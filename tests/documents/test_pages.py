"""What stands in the pages is true: their programs run, their commands print what is shown, and exist."""

from __future__ import annotations

import ast
import os
import re
import shlex
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import typer

from rh_agents.cli.app import app
from tests.documents.kit import PAGES, ROOT, Block, blocks_of, commands_in, execute, matches

PROGRAMS = [page for page in PAGES if any(block.kind in {"python", "console"} for block in blocks_of(page))]
COMMANDS: Any = typer.main.get_command(app)
HOW_TO = ROOT / "docs" / "how-to"


def _id(page: Path) -> str:
    return page.relative_to(ROOT).with_suffix("").as_posix()


def test_each_how_to_has_a_program() -> None:
    assert [page.name for page in PAGES if page.parent == HOW_TO and page not in PROGRAMS] == []


@pytest.mark.parametrize("page", PROGRAMS, ids=_id)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    for name in [
        name for name in os.environ if name.startswith(("OPENAI_", "RH_AGENTS_")) and name != "RH_AGENTS_CHECK"
    ]:
        monkeypatch.delenv(name)
    module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    imported = set(sys.modules)
    try:
        execute(page, module)
    finally:
        for name in set(sys.modules) - imported:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
                del sys.modules[name]


def test_no_block_of_code_escapes() -> None:
    for page in PAGES:
        opened = re.findall(r"^ *```(\w.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(opened) == len(blocks_of(page)), (
            f"{page.name}: a block is indented, or has options that nobody reads"
        )


def test_only_programs_of_libraries_that_are_not_installed_are_not_executed_and_those_are_python() -> None:
    unexecuted = [(page.name, block) for page in PAGES for block in blocks_of(page) if block.kind == "py"]
    assert {name for name, _ in unexecuted} == {"coming-from.md"}
    for _, block in unexecuted:
        assert "import dbos" in block.text or "from dbos" in block.text or "from prefect" in block.text
        ast.parse(block.text)


# -- commands that are only named --------------------------------------------------------------------------------------


def commands_named_in(page: Path) -> list[str]:
    """Commands of ours in the blocks of a page and between its words."""
    text = page.read_text(encoding="utf-8")
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines()]
    inline = re.findall(r"`(rh-agents [^`]+)`", text.replace("\n", " "))
    return [line for line in [*lines, *inline] if re.match(r"rh-agents [a-z]", line)]


def problem_with(command: str) -> str | None:
    """Why this is no command that could be given; None if it could be."""
    try:
        words = shlex.split(re.split(r" [|&>#] |  +", command)[0].rstrip("\\"), comments=True)[1:]
    except ValueError:  # words with an apostrophe, cut out of a sentence
        return None
    found = COMMANDS.get_command(None, words[0])
    if found is None:
        return f"there is no command {words[0]!r}"
    known = {"-h", "--help"} | {each for option in found.params for each in option.opts + option.secondary_opts}
    unknown = [word for word in words[1:] if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    return f"{words[0]} has no {unknown}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_commands_that_a_page_names_exist_with_their_options(page: Path) -> None:
    problems = {command: problem for command in commands_named_in(page) if (problem := problem_with(command))}
    assert problems == {}


def test_a_command_or_an_option_that_does_not_exist_is_found() -> None:
    assert problem_with("rh-agents mop a.py:f") == "there is no command 'mop'"
    assert problem_with("rh-agents map a.py:f items --retries 3") == "map has no ['--retries']"
    assert problem_with("rh-agents map a.py:f items --retry 3 | head") is None


# -- links -------------------------------------------------------------------------------------------------------------


def anchors_in(text: str) -> set[str]:
    """The addresses of the headings of a page, as GitHub and MkDocs make them."""
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    names = re.findall(r"^::: (\S+)", text, re.MULTILINE)  # of the reference
    return {*names, *(re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles)}


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    lost = []
    for link in re.findall(
        r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    ):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors_in(target.read_text())):
            lost.append(link)
    assert lost == []


# -- how pages are read ------------------------------------------------------------------------------------------------


def test_what_a_command_prints_may_differ_in_times_and_nothing_else() -> None:
    assert matches("done in 1.25 s\n\nrun 3f2a91c0de\n", ["done in 0.9 s", "run 0123456789"])
    assert matches("a\nb\nc\n", ["a", "…"])
    assert matches("took a while\n", ["took …"])
    assert not matches("3 done\n", ["4 done"])
    assert not matches("a\nb\n", ["a"])


def test_a_command_may_stand_on_several_lines() -> None:
    (shell,) = commands_in(Block("console", "", "$ rh-agents map a.py:f \\\n    items\n2 done\n", 0))
    assert shell.command.split() == ["rh-agents", "map", "a.py:f", "items"]
    assert shell.expected == ["2 done"]
