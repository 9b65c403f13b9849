"""The main job on real input: a language model reads product reviews, many at a time, while you watch.

    make demo                                   # the local model, in a server of its own
    make demo ARGS="--limit 400"                # more sentences
    OPENAI_API_KEY=... make demo ARGS="--model gpt-4.1-mini --max-workers 20"     # a provider's model instead

It draws a sample of the sentences that were not used for finding the prompt, runs `rh-agents map` over it, and holds
the labels against the ratings of twenty people.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rh_agents.llms.local import MODEL_NAME, LocalModelUnavailable, local_model_server

ROOT = Path(__file__).resolve().parent.parent
REVIEWS = ROOT / "examples" / "data" / "amazon_reviews.jsonl"
FOLDER = ROOT / ".rh_agents" / "demo"
LABELS = ("negative", "neutral", "positive")
Review = dict[str, Any]


def main() -> int:
    """Run the demo. The exit code is that of the job: 0 all sentences were read, 1 some failed, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--limit", type=int, default=120, metavar="N", help="sentences to read (default: 120)")
    parser.add_argument("--max-workers", type=int, default=4, metavar="N", help="sentences at a time (default: 4)")
    parser.add_argument("--model", default=MODEL_NAME, help="a model of the provider in OPENAI_BASE_URL/OPENAI_API_KEY")
    options = parser.parse_args()
    if options.model != MODEL_NAME and not os.environ.get("OPENAI_API_KEY"):
        parser.error(
            f"--model {options.model} needs a provider: set OPENAI_API_KEY (and OPENAI_BASE_URL if it is not OpenAI)"
        )
    try:
        return asyncio.run(demo(options.limit, options.max_workers, options.model))
    except LocalModelUnavailable as error:
        print(f"make demo: {error}", file=sys.stderr)
        return 1


async def demo(limit: int, max_workers: int, model: str) -> int:
    """Serve the model if it is the local one, run the job, and show what came of it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    sample, labels = FOLDER / "sample.jsonl", FOLDER / "labels.jsonl"
    reviews = held_out(limit)
    sample.write_text("".join(json.dumps(review) + "\n" for review in reviews.values()), encoding="utf-8")
    command = ["map", "examples/sentiment.py:classify", _shown(sample), "-o", _shown(labels), "--force"]
    command += ["--max-workers", str(max_workers)]
    if model != MODEL_NAME:
        command += ["--set", f"model={model}"]
    async with endpoint(model) as environment:
        print(
            f"{len(reviews)} sentences from real product reviews, read by {model}\n\n$ rh-agents {shlex.join(command)}"
        )
        start = time.monotonic()
        code = await _run(command, environment)
        seconds = time.monotonic() - start
    if labels.exists():
        report(reviews, [json.loads(line) for line in labels.open(encoding="utf-8")], seconds, labels, model)
    return code


def held_out(limit: int) -> dict[str, Review]:
    """Sentences by id, in an arbitrary fixed order, of the reviews that no prompt or cut point was fitted on."""
    reviews = [json.loads(line) for line in REVIEWS.open(encoding="utf-8")]
    unseen = [review for review in reviews if _digest(review["id"].partition("_")[0])[0] >= 128]
    unseen.sort(key=lambda review: _digest("order" + review["id"]))
    return {review["id"]: review for review in unseen[:limit]}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@contextlib.asynccontextmanager
async def endpoint(model: str) -> AsyncIterator[dict[str, str]]:
    """The environment in which the official client finds the model."""
    if model != MODEL_NAME:
        yield dict(os.environ)
        return
    async with local_model_server() as server:
        yield os.environ | {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "none"}


async def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run `rh-agents` in this terminal. Ctrl-C is for it: it finishes what it has begun, and then we go on."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rh_agents", *command, cwd=ROOT, env=environment
    )
    with _deaf_to_interrupts():
        return await process.wait()


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def human_label(score: float) -> str:
    """The label of a mean rating from -4 to +4: what rounds to 0 on the raters' own scale is neutral."""
    if score <= -0.5:
        return "negative"
    return "positive" if score >= 0.5 else "neutral"


def report(reviews: dict[str, Review], lines: list[dict[str, Any]], seconds: float, labels: Path, model: str) -> None:
    """Show the labels against the ratings, and what the job took."""
    console = Console()
    read = [line for line in lines if line["ok"]]
    if not read:
        console.print("no sentence was read", style="red")
        return
    pairs = Counter((human_label(reviews[line["id"]]["human_score"]), line["result"]["label"]) for line in read)
    console.print(_table(pairs))
    right = sum(count for (human, machine), count in pairs.items() if human == machine)
    majority = max(sum(pairs[human, machine] for machine in LABELS) for human in LABELS)
    calls = sum(line["result"]["calls"] for line in read)
    total = {name: sum(line["result"][name] for line in read) for name in ("retries", "tokens_in", "tokens_out")}
    rows = [
        ("accuracy", f"{right / len(read):.2f}   (always the commonest label: {majority / len(read):.2f})"),
        ("model calls", f"{calls} in {seconds:.1f} s, {calls / seconds:.1f} a second"),
        ("retries", f"{total['retries']}"),
        ("tokens", f"{total['tokens_in']:,} in, {total['tokens_out']:,} out"),
        ("failed", f"{len(lines) - len(read)}"),
        ("output", _shown(labels)),
    ]
    if model == MODEL_NAME:
        rows.insert(1, ("", "on 600 held-out sentences it was 0.70 (95 %: 0.66 to 0.74)"))
    for name, value in rows:
        console.print(f"{name:>12}  {value}", highlight=False)
    console.print(_next_steps(), highlight=False)


def _table(pairs: Counter[tuple[str, str]]) -> Table:
    table = Table()
    table.add_column("people said")
    for machine in LABELS:
        table.add_column(f"model: {machine}", justify="right")
    for human in LABELS:
        cells = [f"[green]{pairs[human, m]}[/green]" if human == m else str(pairs[human, m]) for m in LABELS]
        table.add_row(human, *cells)
    return table


def _next_steps() -> str:
    return """
What to type next:
  make demo ARGS="--limit 600"                  more sentences, less chance
  make test                                     the tests
  .venv/bin/python examples/parallel_basic.py   groups in a few lines of Python
  .venv/bin/rh-agents map --help                your function over your file"""


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main())
