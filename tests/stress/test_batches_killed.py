"""Kill -9 of a real process around every request that it makes of a batch API: what was submitted is found again.

The server kills the process that asks it, before it does what is asked, after it has done it and not yet said so, or
right after it has said so. That is done to the first process, and to the next one as well. The last one comes to the
end. Each text is paid for once, so there is one batch at most, whoever made it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")

from tests.services.batch_server import BatchServer
from tests.services.model_server import Exchange, Reply, answer, model_server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COUNT = 7
UPLOAD, CREATE, LOOK, FETCH, LIST = "upload", "create", "look", "fetch", "list"


def _answering(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, answer(body["messages"][-1]["content"].upper()).body


def _kind(exchange: Exchange) -> str:
    """What is asked of the server."""
    if exchange.method == "POST":
        return UPLOAD if exchange.path.endswith("/files") else CREATE
    if "/files/" in exchange.path:
        return FETCH
    return LOOK if "/batches/" in exchange.path else LIST


class _Killer:
    """A batch server that kills whoever asks it for something, at most so often."""

    def __init__(self, what: str, moment: str, times: int) -> None:
        self.server = BatchServer(_answering)
        self._what, self._moment, self._left = what, moment, times
        self.victim: asyncio.subprocess.Process | None = None

    def __call__(self, exchange: Exchange) -> Reply:
        is_meant = self._left > 0 and _kind(exchange) == self._what
        self._left -= is_meant
        if not is_meant:
            return self.server(exchange)
        if self._moment == "before":
            self._kill()
            return Reply(hang="headers")
        reply = self.server(exchange)
        if self._moment == "untold":
            self._kill()
            return Reply(hang="headers")
        asyncio.get_running_loop().call_later(0.0, self._kill)
        return reply

    def _kill(self) -> None:
        assert self.victim is not None
        if self.victim.returncode is None:
            os.kill(self.victim.pid, signal.SIGKILL)


async def _labels(killer: Callable[[Exchange], Reply] | _Killer, folder: Path, times: int) -> tuple[list[str], int]:
    """Start the job until it comes to its end; its labels, and how many processes that took."""
    async with model_server(killer) as server:
        for number in range(times + 2):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.stress.batch_job", server.base_url, str(folder / "runs.db"), str(COUNT),
                cwd=ROOT, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            if isinstance(killer, _Killer):
                killer.victim = process
            try:
                output, _ = await asyncio.wait_for(process.communicate(), 60)
            finally:
                if process.returncode is None:
                    process.kill()
            if process.returncode != -signal.SIGKILL:
                assert process.returncode == 0
                return json.loads(output), number + 1
    raise AssertionError("it was killed more often than was said")


ONCE = [(what, moment, 1) for what in (UPLOAD, CREATE, LOOK, FETCH) for moment in ("before", "untold", "told")]
TWICE = [(CREATE, moment, 2) for moment in ("before", "untold", "told")] + [(LIST, "before", 2)]


@pytest.mark.parametrize(("what", "moment", "times"), ONCE + TWICE)
def test_a_process_that_is_killed_around_a_batch_pays_for_each_text_once(
    what: str, moment: str, times: int, tmp_path: Path
) -> None:
    killer = _Killer(what, moment, times)
    labels, processes = asyncio.run(_labels(killer, tmp_path, times))
    assert labels == [f"TEXT {number}" for number in range(COUNT)]
    assert processes > 1 or moment == "told"
    assert len(killer.server.batches) == 1
    assert sorted(request["body"]["messages"][-1]["content"] for request in killer.server.requests) == sorted(
        f"text {number}" for number in range(COUNT)
    )
