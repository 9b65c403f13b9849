"""Builds the wheel and the source distribution and tries both as a user would: `make dist`.

Each is installed into an environment of its own that has nothing else, with the newest and with the lowest versions of
what it declares, on each Python that is found. There a program is executed twice, and the commands are called. It needs
an index of packages.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
DIST: Final = ROOT / "dist"
PYTHONS: Final = ("3.11", "3.12", "3.13")
LOWEST_ON: Final = "3.11"
"""Versions of years ago have no wheels for Pythons that came after them."""

PROGRAM: Final = """
import asyncio
import sys
from importlib.metadata import version

import rh_agents
from rh_agents import parallel, run, tool

called = []

@tool(retry=2)
async def square(number: int) -> int:
    called.append(number)
    return number * number

async def squares(count: int) -> list[int]:
    async with parallel(max_workers=3) as p:
        p.map(square, range(count))
        return [result.unwrap() for result in await p.gather()]

for _ in range(2):
    assert asyncio.run(run(squares, 5, store="runs.db", run_id="dist")) == [0, 1, 4, 9, 16]
assert called == [0, 1, 2, 3, 4], called
assert rh_agents.__version__ == version("rh_agents")
assert "site-packages" in rh_agents.__file__
"""


def main() -> int:
    """Build, look into both, and try them. Gives the exit code."""
    shutil.rmtree(DIST, ignore_errors=True)
    call(_uv(), "build", "--quiet", "--out-dir", str(DIST), str(ROOT))
    (wheel,), (source,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    expect_contents(wheel, source)
    for python in PYTHONS:
        path = find_python(python)
        if path is None:
            print(f"Python {python}: none found, skipped")
            continue
        try_out(wheel, path, "highest")
        if python == LOWEST_ON:
            try_out(wheel, path, "lowest-direct")
            try_out(source, path, "highest")
    return 0


def find_python(version: str) -> str | None:
    """An interpreter of this version that is on the machine."""
    for command in ([_uv(), "python", "find", "--no-project", version], ["pyenv", "prefix", version]):
        with contextlib.suppress(FileNotFoundError):
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            if not found.returncode:
                return found.stdout.strip() if command[0] != "pyenv" else f"{found.stdout.strip()}/bin/python"
    return None


def expect_contents(wheel: Path, source: Path) -> None:
    """What must be in them, and what must not."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"rh_agents", "pytest_rh_agents"}, tops
    data = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rh_agents").rglob("*") if _is_content(path)}
    assert not data - set(names), f"not in the wheel: {sorted(data - set(names))}"
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"README.md", "LICENSE", "CHANGELOG.md", "AGENTS.md", "docs/index.md", "tests/check_distribution.py"}
    assert wanted <= inside, f"not in the source distribution: {sorted(wanted - inside)}"


def _is_content(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def try_out(artifact: Path, python: str, resolution: str) -> None:
    """Install it alone, and use it."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        call(_uv(), "venv", "--quiet", "--no-project", "--python", python, str(folder / "venv"))
        installed = folder / "venv" / "bin" / "python"
        install = (_uv(), "pip", "install", "--quiet", "--python", str(installed), "--resolution", resolution)
        binary = ("--only-binary", ":all:") if artifact.suffix == ".whl" else ()
        call(*install, *binary, str(artifact))
        (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
        call(str(installed), "-W", "error::DeprecationWarning:rh_agents", "program.py", folder=folder)
        call(*install, *binary, f"{artifact}[cli,web,openai,testing]")
        commands = str(folder / "venv" / "bin" / "rh-agents")
        (folder / "items.txt").write_text("a\nb\n", encoding="utf-8")
        (folder / "job.py").write_text("def length(text: str) -> int:\n    return len(text)\n", encoding="utf-8")
        call(commands, "map", "job.py:length", "items.txt", "-o", "out.jsonl", "--progress", "none", folder=folder)
        call(commands, "runs", folder=folder)
        call(str(installed), "-c", "import rh_agents.web.app, rh_agents.llms, rh_agents.testing", folder=folder)
        version = subprocess.check_output([str(installed), "--version"], text=True).strip()
        print(f"{artifact.name}: works on {version} with the {resolution} versions", flush=True)


def call(*command: str, folder: Path = ROOT) -> None:
    """A command that must succeed; what it prints is shown only if it does not."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}")


def _uv() -> str:
    return shutil.which("uv") or _beside("uv")


def _beside(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


if __name__ == "__main__":
    raise SystemExit(main())
