"""A function on a Ray cluster: python examples/similar_reviews.py   (pip install 'rh_agents[ray]')

Which customers say nearly the same? To find that out, 3,708 real sentences are taken in blocks of 400, and in each
block every sentence is compared with every other one: 80,000 pairs, which is one task. RAY_ADDRESS names the cluster;
without it, one is started on this machine. With `--here`, worker processes stand for it.

With `--store runs.db`, kill it and start it again, here or there: finished blocks are not computed again.
"""

import argparse
import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from rh_agents import agent, current, parallel, run_sync, tool
from rh_agents.core.ports import Executor
from rh_agents.executors import ProcessExecutor

BLOCK = 400
REVIEWS = Path(__file__).parent / "data" / "amazon_reviews.jsonl"


@dataclass
class Pair:
    """Two sentences and how alike they are, from 0 to 1."""

    likeness: float
    first: str
    second: str
    idempotency_key: str


def trigrams(text: str) -> frozenset[str]:
    """All that is three letters long in it."""
    return frozenset(text[at : at + 3] for at in range(len(text) - 2))


@tool(engine="ray", resources={"num_cpus": 1}, timeout=300)
def most_alike(sentences: list[str]) -> Pair:
    """The two different sentences that share most of their trigrams."""
    parts = [(trigrams(sentence), sentence) for sentence in dict.fromkeys(sentences) if len(sentence) > 40]
    found = Pair(0.0, "", "", current().idempotency_key)
    for (left, first), (right, second) in combinations(parts, 2):
        likeness = len(left & right) / len(left | right)
        if likeness > found.likeness:
            found = Pair(likeness, first, second, found.idempotency_key)
    return found


@agent
async def compare(limit: int | None) -> list[Pair]:
    """The most alike sentences of each block."""
    with REVIEWS.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines][:limit]
    blocks = [texts[at : at + BLOCK] for at in range(0, len(texts), BLOCK)]
    async with parallel(max_workers=100, name="blocks") as p:
        p.map(most_alike, blocks)
        return [result.unwrap() for result in await p.gather()]


def main() -> None:
    """Compare the reviews, and print what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--here", action="store_true", help="in worker processes of this machine")
    parser.add_argument("--limit", type=int, help="compare only so many sentences")
    parser.add_argument("--store", help="where it is recorded, such as runs.db")
    options = parser.parse_args()
    executor: Executor
    if options.here:
        executor = ProcessExecutor()
    else:
        from rh_agents.executors.ray import RayExecutor  # noqa: PLC0415 - Ray is needed only there

        executor = RayExecutor()
    found = run_sync(compare, options.limit, executors={"ray": executor}, store=options.store, run_id="similar")
    for pair in sorted(found, key=lambda pair: pair.likeness, reverse=True)[:3]:
        print(f"{pair.likeness:.0%} alike:\n   {pair.first}\n   {pair.second}")


if __name__ == "__main__":
    main()
