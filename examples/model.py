"""The model that the examples ask: the small one on this machine, or a provider's.

python examples/research.py                                          # the local model, in a process of its own
OPENAI_API_KEY=... python examples/research.py --model gpt-4.1-mini  # a provider's; OPENAI_BASE_URL says which
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rh_agents.llms import OpenAIChat
from rh_agents.llms.local import local_model_server


def arguments(description: str) -> argparse.Namespace:
    """What was said on the command line."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--model", help="a provider's model instead of the local one")
    parser.add_argument("--store", default=None, help="where the run is recorded, so that it can be killed and go on")
    parser.add_argument("--run-id", default=None, help="the name of the run; the same one goes on with it")
    return parser.parse_args()


@asynccontextmanager
async def the_model(name: str | None) -> AsyncIterator[OpenAIChat]:
    """The model while the block lasts. At temperature 0 the local one always says the same."""
    if name is not None:
        yield OpenAIChat(name)
        return
    async with local_model_server(slots=4) as server:
        yield OpenAIChat(
            server.model,
            base_url=server.base_url,
            endpoint="local",  # the server has another port each time, and is the same one for all that
            api_key="none",
            temperature=0.0,
            max_tokens=120,
            name="model",
        )
