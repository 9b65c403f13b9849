"""A program with a run whose functions an executor calls, to be killed: `python -m rh_agents.testing._driver ...`."""

from __future__ import annotations

import asyncio
import importlib
import sys

from rh_agents.core.actors import Tool
from rh_agents.core.calls import FunctionCall
from rh_agents.core.execution import ExecutionState
from rh_agents.testing import _called as far

ENGINE = "tested"
RUN = "driven"


async def drive(factory: str, store: str, folder: str) -> list[str]:
    """Call two functions, the second of which waits."""
    module, _, name = factory.partition(":")
    executor = getattr(importlib.import_module(module), name)()
    async with ExecutionState(store=store, run_id=RUN, executors={ENGINE: executor}):
        first = await FunctionCall[str](Tool(name="note", handler=far.note, engine=ENGINE), (folder, "first"), {})
        second = await FunctionCall[str](Tool(name="wait", handler=far.wait, engine=ENGINE), (folder, "second"), {})
    return [first, second]


if __name__ == "__main__":
    sys.stdout.write(" ".join(asyncio.run(drive(*sys.argv[1:]))))
