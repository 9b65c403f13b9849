"""Makes the golden conversations of this version's schema: `python -m tests.stress.golden.make_conversations`.

The same runs are recorded in a SQLite database and in a PostgreSQL one, of which a dump is kept, with what the programs
returned. They are made once for each version of the schema and then kept: every later version has to replay them.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from rh_agents import Budget, open_store, run
from rh_agents.core.errors import RunAwaiting
from rh_agents.core.ports import Store
from rh_agents.stores._sql import read_migrations
from tests.services.model_server import model_server
from tests.services.postgresql import PostgresqlServer, find_binaries
from tests.stress.golden.conversations import PROGRAMS, SCHEMA, URL, answer_as_recorded
from tests.stress.golden.frameworks import PROGRAMS as FRAMEWORKS

__all__ = ["HERE"]

HERE = Path(__file__).parent


async def record(url: str) -> dict[str, Any]:
    """Execute all programs, and return what they returned."""
    store = open_store(url)
    results: dict[str, Any] = {}
    try:
        async with model_server(answer_as_recorded, int(URL.rpartition(":")[2].partition("/")[0])):
            for name, program in {**PROGRAMS, **FRAMEWORKS}.items():
                results[name] = await _record_one(store, name, program)
    finally:
        await store.aclose()
    return results


async def _record_one(store: Store, name: str, program: Any) -> Any:
    # What models of the frameworks cost is not known, so their budget cannot be one of money.
    budget = Budget(cost=10.0) if name in PROGRAMS else Budget(calls=1000)
    options: dict[str, Any] = {"store": store, "run_id": name, "tags": ["golden"], "budget": budget}
    try:
        return await run(program, **options)
    except RunAwaiting:
        if name == "awaiting":
            return None
        for question in await store.questions(name):
            await store.answer(
                name, question.id, b"false" if "thank" in question.text and name == "refused" else b"true"
            )
        return await run(program, **options)


def dump(server: PostgresqlServer, binaries: Path) -> bytes:
    """The schema as SQL that needs no particular client and no particular role."""
    command = [str(binaries / "pg_dump"), server.url(), "-n", SCHEMA, "--inserts", "--no-owner", "--no-privileges"]
    text = subprocess.run(command, capture_output=True, check=True).stdout
    return b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"\\"))


def main() -> None:
    """Make the file, unless there is one."""
    target = HERE / f"conversations_{read_migrations('sqlite')[-1].number}.tar.gz"
    if target.exists():
        sys.exit(f"{target} is there: golden journals are never made anew")
    binaries = find_binaries()
    if binaries is None:
        sys.exit("golden conversations need a PostgreSQL server")
    os.environ["OPENAI_BASE_URL"] = URL
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cluster:
        results = asyncio.run(record(f"sqlite:///{folder}/runs.db"))
        server = PostgresqlServer(binaries, Path(cluster))
        server.create()
        try:
            assert asyncio.run(record(server.url(schema=SCHEMA))) == results
            parts = {"postgresql.sql": dump(server, binaries)}
        finally:
            server.stop()
        parts["results.json"] = json.dumps(results, indent=1).encode()
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                parts[str(path.relative_to(folder))] = path.read_bytes()
    with gzip.GzipFile(target, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in parts.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    print(target, target.stat().st_size, "bytes:", {name: len(data) for name, data in parts.items()})


if __name__ == "__main__":
    main()
