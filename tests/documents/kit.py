"""The pages as programs: their Python and their commands, in the order in which a reader comes to them.

    ```python                     is executed, all blocks of a page in one module, with `await` where it may be written
    ```python title="rate.py"     is written to a file, for the commands that follow
    ```text title="items.txt"     so are other blocks with a title
    ```console                    lines with `$ ` are executed in the page's folder; below stands what they print

What a command prints is compared as a reader would: times, dates, random names and lines of progress may be other ones,
after a line `<!-- numbers vary -->` all numbers may, and a line with `…` alone stands for any number of lines.
`python -m tests.documents.fill PAGE` writes what commands print now where the page says something else.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rh_agents.cli import main

__all__ = ["PAGES", "ROOT", "Block", "Shell", "blocks_of", "commands_in", "execute", "matches", "steps"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"^(<!-- numbers vary -->\n)?```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
_PROGRESS = re.compile(r"\s+[\w .]+  \d+%  ")
"""A line that says how far a group is: how many there are depends on how long it takes."""
_NUMBER = re.compile(r"\d[\d.,]*")
_VARIES = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?( UTC|Z|\+00:00)?"), "DATE"),
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s|min|µs)\b"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d\.\d+\b"), "CLOCK"),
    (re.compile(r"\b\d[\d,.]*( items| calls)?/s\b"), "RATE"),
    (re.compile(r'"(seconds|timestamp)": ?\d+(\.\d+)?(e-\d+)?'), "SECONDS"),
    (re.compile(r"\b[0-9a-f]{8,}\b"), "HEX"),
    (re.compile(r" {2,}"), "  "),
)


class Block(NamedTuple):
    """A block of code on a page.

    Attributes:
        kind: its language: "python", "console", ...
        title: the file that it stands for; "" if it is none.
        text: what is in it.
        line: the number of the line before its first one.
        varies: whether numbers that commands print may be other ones.
    """

    kind: str
    title: str
    text: str
    line: int
    varies: bool = False


class Shell(NamedTuple):
    """A command of a page, and what it prints there."""

    command: str
    expected: list[str]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[2], found[3] or "", found[4], text.count("\n", 0, found.start(4)), found[1] is not None)
        for found in _BLOCK.finditer(text)
    ]


def commands_in(block: Block) -> list[Shell]:
    """The commands of a console block."""
    commands: list[Shell] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            commands.append(Shell(line[2:], []))
        elif commands and commands[-1].command.endswith("\\"):
            commands[-1] = Shell(f"{commands[-1].command[:-1]}{line}", [])
        elif commands:
            commands[-1].expected.append(line)
    return commands


def execute(page: Path, module: types.ModuleType) -> None:
    """Do what a page says, in the working directory.

    Raises:
        AssertionError: a command prints something else than the page says.
    """
    for block, shell, printed in steps(page, module):
        assert matches(printed, shell.expected, block.varies), f"{page.name}: $ {shell.command}\n{printed}"


def steps(page: Path, module: types.ModuleType) -> Iterator[tuple[Block, Shell, str]]:
    """Do what a page says: each command with what it has printed."""
    with asyncio.Runner() as runner:
        for block in blocks_of(page):
            if block.title:
                Path(block.title).write_text(block.text, encoding="utf-8")
                sys.modules.pop(block.title.removesuffix(".py"), None)  # a page may write a file anew
                importlib.invalidate_caches()
            elif block.kind == "python":
                _run_python(page, block, module, runner)
            elif block.kind == "console":
                for shell in commands_in(block):
                    yield block, shell, _printed(shell.command)


def _run_python(page: Path, block: Block, module: types.ModuleType, runner: asyncio.Runner) -> None:
    tree = ast.parse(block.text, filename=str(page))
    ast.increment_lineno(tree, block.line)
    program = compile(tree, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if program.co_flags & inspect.CO_COROUTINE:
        runner.run(eval(program, vars(module)))
    else:  # it may start a loop of its own
        exec(program, vars(module))


def _printed(command: str) -> str:
    """What a command prints. Those of `rh-agents` alone are called in this process, which is ten times as fast.

    Not `run`, which keeps standard output for the result and writes that to the file descriptor.
    """
    words = shlex.split(command, comments=True)
    if words[0] == "rh-agents" and words[1] != "run" and not set(words) & {"|", ">", "&", "&&", ";", "<"}:
        return _printed_here(words[1:])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
    )
    return done.stdout


def _printed_here(words: list[str]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        main(words)
    return printed.getvalue()


def matches(printed: str, expected: list[str], varies: bool = False) -> bool:
    """Whether a command has printed what is expected of it."""
    pattern = "".join(r"(?:.*\n)*?" if line.strip() == "…" else _pattern_of(line, varies) for line in expected)
    lines = [f"{_plain(line, varies)}\n" for line in printed.splitlines() if not _is_left_out(line)]
    return re.fullmatch(pattern, "".join(lines)) is not None


def _pattern_of(line: str, varies: bool) -> str:
    """A line, in which `…` stands for anything."""
    return "" if _is_left_out(line) else ".*".join(map(re.escape, _plain(line, varies).split("…"))) + r"\n"


def _is_left_out(line: str) -> bool:
    return not line.strip() or _PROGRESS.match(line) is not None


def _plain(line: str, varies: bool) -> str:
    for pattern, name in (*_VARIES, *[(_NUMBER, "N")] * varies):
        line = pattern.sub(name, line)
    return line.rstrip()
