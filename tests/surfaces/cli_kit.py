"""What the tests of the commands share: a program to run, a ledger of what it really did, and the command."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rh_agents.cli import main

QUIET = ("--progress", "none")
ROOT = Path(__file__).resolve().parents[2]

PROGRAM = '''
import asyncio, os, signal
from dataclasses import dataclass
from rh_agents import agent, current, llm, parallel, tool

def note(text):
    """The ledger: independent of any store, and on disk before anything else happens."""
    with open("ledger", "ab", buffering=0) as file:
        file.write((text + "\\n").encode())
        os.fsync(file.fileno())

@dataclass
class Page:
    url: str
    size: int

@llm
async def score(text: str) -> float:
    note("score " + text)
    return len(text) / 10

@tool
async def rate(text: str, bonus: float = 0.0) -> float:
    note("rate " + text)
    if os.path.exists("broken") and text.startswith("bad"):
        raise ValueError("cannot rate \\x1b[31m" + text)
    if text == os.environ.get("DIE_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    value = await score(text) + bonus
    if os.path.exists("wait") and text.endswith("!"):
        note("waiting " + text)
        await asyncio.Event().wait()
    while os.path.exists("patient") and not current().run.is_interrupted:
        note("waiting " + text)
        await asyncio.sleep(0.01)
    if text == os.environ.get("INTERRUPT_AT"):
        signal.raise_signal(signal.SIGINT)
    return value

@tool
async def other(text: str) -> str:
    return text

@tool
async def fetch(url: str) -> Page:
    note("fetch " + url)
    return Page(url, len(url))

@agent
async def survey(count: int = 3) -> int:
    note("survey")
    async with parallel(name="pages", max_workers=2) as p:
        p.map(fetch, [f"http://x/{n}" for n in range(count)])
        sizes = [result.unwrap().size for result in await p.gather()]
    if os.path.exists("broken"):
        raise ValueError("the survey is broken")
    return sum(sizes)

@agent
async def publish(title: str) -> str:
    text = await fetch(title)
    if not await current().run.ask("Publish?", bool):
        return "not published"
    return text.url + " is published"
'''


class Folder:
    """The working directory of a test, with the program in it, and the commands as its user gives them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "program.py").write_text(PROGRAM)

    def write(self, name: str, *texts: str) -> Path:
        """A file of JSON lines, with an item for each text; its id is the text."""
        path = self.path / name
        path.write_text("".join(json.dumps({"id": text, "text": text}) + "\n" for text in texts))
        return path

    def flag(self, name: str, *, is_set: bool = True) -> None:
        """Tell the program something."""
        (self.path / name).touch() if is_set else (self.path / name).unlink()

    def lines(self, name: str = "out.jsonl") -> list[dict[str, Any]]:
        """The lines of an output."""
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]

    @property
    def ledger(self) -> Counter[str]:
        """What the program really did, and how often."""
        try:
            return Counter((self.path / "ledger").read_text().splitlines())
        except FileNotFoundError:
            return Counter()


def command(*words: str) -> int:
    """The command in this process."""
    return main([*words])


def said(capfd: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    """What a command in this process, which ends with this code, writes to standard output and standard error."""
    found = command(*words)
    out, err = capfd.readouterr()
    assert found == code, (out, err)
    return out, err


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **more}


def on_a_terminal(typed: bytes, *words: str) -> tuple[int, str]:
    """The command as a process at a terminal of its own, where somebody types, and which is closed when it has ended.

    Returns its exit code and what it showed.
    """
    pid, ours = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "rh_agents", *words], environment(NO_COLOR="1"))
    try:
        os.write(ours, typed)
        shown = b"".join(iter(lambda: _read_terminal(ours), b""))
    finally:
        os.close(ours)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, shown.decode().replace("\r\n", "\n")


def _read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # on Linux, when the last one at the other end has gone
        return b""


@contextmanager
def started(*words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process, of which nothing is left when its block has ended."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "rh_agents", *words],
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment(**more),
    ) as process:
        try:
            yield process
        finally:
            process.kill()
