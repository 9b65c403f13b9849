"""A process that labels texts by batches, and may be killed at any moment: `python -m tests.stress.batch_job URL DB N`.

It prints the labels as JSON when it is done.
"""

from __future__ import annotations

import asyncio
import json
import sys

from rh_agents import agent, parallel, run
from rh_agents.llms import Batches, OpenAIChat, in_batches

__all__ = ["label_all", "main"]


async def label_all(url: str, store: str, count: int) -> list[str]:
    """The labels of so many texts."""
    model = OpenAIChat("stub", base_url=url, api_key="key", endpoint="the server")

    @agent
    async def labels(texts: list[str]) -> list[str]:
        async with parallel(max_workers=count, name="texts") as group:
            for text in texts:
                group.add(model.ask(text))
            return [result.unwrap() for result in await group.gather()]

    with in_batches(Batches(linger=0.1, poll_every=0.05)):
        found: list[str] = await run(
            labels, [f"text {number}" for number in range(count)], store=store, run_id="labels"
        )
    return found


def main() -> None:
    """See above."""
    url, store, count = sys.argv[1:]
    print(json.dumps(asyncio.run(label_all(url, store, int(count)))))


if __name__ == "__main__":
    main()
