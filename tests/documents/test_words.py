"""Texts for users are in plain English: words of ours that the field does not use are refused, each with one to use."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from rh_agents.cli.app import app
from tests.documents.kit import PAGES, ROOT
from tests.documents.test_docstrings import public_definitions

REFUSED = {
    r"whoever|nobody|somebody": "the caller, another process, no one, anyone: say which",
    r"heed(s|ed)?": "honour",
    r"(is|are|was|were) told": "is published, gets, becomes known",
    r"so (many|long) (calls|runs|items|workers|attempts|seconds|failures|members)": "N calls, this many, this long",
    r"no data": "not serializable",
    r"deeds?": "effect, action",
    r"mends?|mended": "correct, fix",
    r"settle[sd]?": "record, release, wake: say which",
    r"anew": "again, from the beginning",
    r"lies in": "is in",
    r"(go|goes|going) on( from)? where": "resume, continue",
    r"hinder(s|ed)?": "prevent",
}
"""Regular expressions over whole words, and what to write instead."""
CODE = re.compile(r"`[^`]*`|^```.*?^```", re.DOTALL | re.MULTILINE)


def odd_words_in(text: str) -> list[str]:
    """What is refused in a text, where it stands, and what to write."""
    plain = CODE.sub("", text)
    return [
        f"…{plain[max(0, found.start() - 30) : found.end() + 20]!r}: write {instead}"
        for word, instead in REFUSED.items()
        for found in re.finditer(rf"\b({word})\b", plain, re.IGNORECASE)
    ]


def test_the_words_are_found_but_not_in_code() -> None:
    assert len(odd_words_in("Nobody is told of it.")) == 2
    assert odd_words_in("`nobody` is a user of the system") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_in_plain_words(page: Path) -> None:
    assert odd_words_in(page.read_text(encoding="utf-8")) == []


# -- help -------------------------------------------------------------------------------------------------------------

COMMANDS: Any = typer.main.get_command(app)


@pytest.mark.parametrize("name", COMMANDS.list_commands(None))
def test_the_help_of_a_command_is_in_plain_words_and_about_all_options(name: str) -> None:
    command = COMMANDS.get_command(None, name)
    texts = [command.help, *[each.help for each in command.params]]
    assert all(texts)
    assert [found for text in texts for found in odd_words_in(text)] == []


def test_the_list_of_commands_cuts_no_sentence() -> None:
    listed = subprocess.run([sys.executable, "-m", "rh_agents", "--help"], capture_output=True, text=True, check=True)
    assert "..." not in listed.stdout.partition("Commands:")[2]


# -- errors -----------------------------------------------------------------------------------------------------------


def messages_in(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of the errors that a module raises."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for part in ast.walk(node.exc):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


def test_errors_are_in_plain_words() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {odd}"
        for path in sorted((ROOT / "rh_agents").rglob("*.py"))
        for line, text in messages_in(path)
        for odd in odd_words_in(text)
    ]
    assert found == []


# -- docstrings -------------------------------------------------------------------------------------------------------


def test_docstrings_of_public_functions_and_classes_are_in_plain_words() -> None:
    found = [
        f"{each.path.relative_to(ROOT)}:{each.node.lineno} {odd}"
        for each in public_definitions()
        for odd in odd_words_in(ast.get_docstring(each.node) or "")
    ]
    assert found == []
