"""Makes the golden journal of this version's schema: `python -m tests.stress.golden.make`.

It has three runs: one that has ended, one whose process was killed, and one that waits for an answer. It is made once
for each version of the schema and then kept: every later version has to go on with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import apsw

from rh_agents import run
from rh_agents.core.errors import RunAwaiting
from tests.stress.golden.workflow import EXPECTED, approve, survey, when_finishing

__all__ = ["HERE", "ROOT"]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


async def _be_killed() -> None:
    """Die without a word, as soon as what was noted before is surely on disk."""
    await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _record(name: str) -> None:
    """Execute one of the runs."""
    if name == "killed":
        when_finishing[:] = [_be_killed]
    if name == "asks":
        try:
            asyncio.run(run(approve, store="runs.db", run_id=name))
        except RunAwaiting:
            return
        raise AssertionError("it should wait for an answer")
    # A short lease: on other machines nobody can see that the process is gone, and they would wait for that.
    result = asyncio.run(run(survey, [1, 2, 3], store="runs.db", run_id=name, tags=["golden"], lease=0.1))
    assert result == EXPECTED


def _version(path: Path) -> int:
    """The version of the schema. All of the journal is in the one file after this."""
    connection = apsw.Connection(str(path))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    version = connection.pragma("user_version")
    connection.close()
    assert isinstance(version, int)
    return version


def main() -> None:
    """Make the file, unless there is one."""
    with tempfile.TemporaryDirectory() as folder:
        for name, status in (("ended", 0), ("killed", -signal.SIGKILL), ("asks", 0)):
            command = [sys.executable, "-m", "tests.stress.golden.make", name]
            done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
            assert done.returncode == status, (name, done.returncode)
        target = HERE / f"schema_{_version(Path(folder) / 'runs.db')}.tar.gz"
        if target.exists():
            sys.exit(f"{target} is there: golden journals are never made anew")
        with tarfile.open(target, "w:gz") as tar:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    tar.add(path, path.relative_to(folder))
        print(target, target.stat().st_size, "bytes")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _record(sys.argv[1])
    else:
        main()
