"""Write what the commands of pages print now, where the page says something else.

python -m tests.documents.fill docs/first-steps.md
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import types
from pathlib import Path

from tests.documents.kit import matches, steps


def fill(page: Path) -> None:
    """Execute a page in a folder of its own, and put what its commands print into it."""
    before, rest = "", page.read_text(encoding="utf-8")
    module = sys.modules["page"] = types.ModuleType("page")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        sys.path.insert(0, folder)
        for block, shell, printed in steps(page, module):
            head, command, rest = rest.partition(f"$ {shell.command}\n")
            before += head + command
            old = "".join(f"{line}\n" for line in shell.expected)
            if not matches(printed, shell.expected, block.varies):
                rest = _shown(printed) + rest.removeprefix(old)
    page.write_text(before + rest, encoding="utf-8")


def _shown(printed: str) -> str:
    """What a command has printed, as a page shows it: a line that looks like a command would be taken for one."""
    lines = [line.rstrip() for line in printed.splitlines() if line.strip()]
    return "".join(f"{'…' if line.startswith('$ ') else line}\n" for line in lines)


if __name__ == "__main__":
    os.environ["COLUMNS"] = "100"
    for name in sys.argv[1:]:
        fill(Path(name).resolve())
