"""One `map` in several processes: python examples/sharded_map.py

How well is a sentence rated by what people thought of sentences like it? To find out, each one of a sample is compared
with all those about other products, some 3,000, and gets the mean rating of the ten most alike. That is 10 ms or so
of pure computing, so the `map` is cut into shards, and each shard is made by one of several processes.

Then it is started again with other shards, and computes nothing: what is recorded does not depend on them. With
`--store runs.db` the same holds for the next command: kill it and start it again, with a larger `--sample` if you like.
"""

import argparse
import asyncio
import functools
import heapq
import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from rh_agents import ExecutionState, parallel, tool

NEIGHBOURS = 10
REVIEWS = Path(__file__).parent / "data" / "amazon_reviews.jsonl"


@dataclass(frozen=True)
class Sentence:
    """Of a review, with the mean rating of 20 people: from -4, very negative, to 4."""

    product: str
    text: str
    rating: float


@dataclass(frozen=True)
class Estimate:
    """What the rating may be, and the process that computed it."""

    rating: float
    process: int


@functools.cache
def sentences() -> list[Sentence]:
    """All of the data: read once in each process, rather than sent with each item."""
    with REVIEWS.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Sentence(row["id"].partition("_")[0], row["text"], row["human_score"]) for row in rows]


@functools.cache
def trigrams(text: str) -> frozenset[str]:
    """All that is three letters long in it."""
    return frozenset(text[at : at + 3] for at in range(len(text) - 2))


@tool
def estimate(sentence: Sentence) -> Estimate:
    """The mean rating of the most alike sentences about other products."""
    parts = trigrams(sentence.text)

    def likeness(other: Sentence) -> float:
        theirs = trigrams(other.text)
        shared = len(parts & theirs)
        return shared / (len(parts) + len(theirs) - shared or 1)

    others = (other for other in sentences() if other.product != sentence.product)
    nearest = heapq.nlargest(NEIGHBOURS, others, key=likeness)
    return Estimate(sum(other.rating for other in nearest) / NEIGHBOURS, os.getpid())


async def estimate_all(sample: list[Sentence], *, shard: int, store: str) -> str:
    """Estimate the ratings of a sample; what had to be computed for it, and what it came to."""
    begun = perf_counter()
    right, processes = 0, set()
    # Each process makes one item at a time, since threads of one process gain nothing where Python computes.
    async with ExecutionState(store=store, run_id="ratings"), parallel(max_workers=1, name="ratings") as p:
        async for result in p.map(estimate, sample, shard=shard, on="process", workers=2).stream():
            estimated = result.unwrap()
            right += (estimated.rating > 0) == (result.item.rating > 0)
            if not result.is_replayed:
                processes.add(estimated.process)
    computed = p.group.completed - p.group.recovered
    return (
        f"shards of {shard}: {computed} computed by {len(processes)} processes, {p.group.recovered} recorded before\n"
        f"   {right} of {len(sample)} are rated favourable or not as people did; {perf_counter() - begun:.1f} s"
    )


def main() -> None:
    """Start twice, and print what happened."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=500, help="how many sentences, 500 by default")
    parser.add_argument("--store", help="where it is recorded, such as runs.db")
    options = parser.parse_args()
    sample = random.Random(0).sample(sentences(), len(sentences()))[: options.sample]
    with TemporaryDirectory() as folder:
        store = options.store or str(Path(folder) / "runs.db")
        for shard in (20, 50):
            print(asyncio.run(estimate_all(sample, shard=shard, store=store)))


if __name__ == "__main__":
    main()
