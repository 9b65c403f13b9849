"""The main job on real input: a language model reads product reviews, many at a time, and a crash costs nothing.

    make demo                                   # the local model, in a server of its own
    make demo ARGS="--limit 400"                # more sentences
    make demo ARGS="--workers 3"                # submitted runs, three workers, of which one is killed
    OPENAI_API_KEY=... make demo ARGS="--model gpt-4.1-mini --max-workers 20"     # a provider's model instead

It draws a sample of the sentences that were not used for finding the prompt and runs `rh-agents map` over it. When half
of them are read, it kills that process without warning, and starts the very same command again, which goes on where
the other one was. Then it holds the labels against the ratings of twenty people.

With `--workers N` the sentences are submitted as runs of ten, and N workers (`rh-agents worker`) execute them. One of
them is killed in the middle of a run, which another one takes over where it was.

Calls that are under way when a process dies are made twice, at most one for each worker. A provider would be paid
twice for those, so with `--model` nothing is killed unless `--crash` asks for it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from examples.sentiment import classify_all
from rh_agents import EventType, ExecutionStatus, Store, open_store, run
from rh_agents.core.ports import RunInfo
from rh_agents.llms.local import MODEL_NAME, LocalModelUnavailable, local_model_server

ROOT = Path(__file__).resolve().parent.parent
REVIEWS = ROOT / "examples" / "data" / "amazon_reviews.jsonl"
FOLDER = ROOT / ".rh_agents" / "demo"
LABELS = ("negative", "neutral", "positive")
LOOK_EVERY = 0.02
"""Seconds between two looks at how many sentences have been read."""
AT_A_TIME = 10
"""Sentences of a submitted run."""
Review = dict[str, Any]


@dataclass(frozen=True)
class ModelCalls:
    """What the store says about the calls of the model.

    Attributes:
        begun: how many were begun, tries of one and the same call included.
        finished: how many have a recorded result.
    """

    begun: int = 0
    finished: int = 0


@dataclass(frozen=True)
class Crash:
    """How the first process ended.

    Attributes:
        calls: the model's calls that it had begun and finished by then.
        read: how many sentences it had read; None if it had come to its end before it could be killed.
    """

    calls: ModelCalls
    read: int | None
    is_known: bool = False
    """Whether it was killed though nobody knows how many sentences it had read."""


def main() -> int:
    """Run the demo. The exit code is that of the job: 0 all sentences were read, 1 some failed, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--limit", type=int, default=120, metavar="N", help="sentences to read (default: 120)")
    parser.add_argument("--max-workers", type=int, default=4, metavar="N", help="sentences at a time (default: 4)")
    parser.add_argument("--model", default=MODEL_NAME, help="a model of the provider in OPENAI_BASE_URL/OPENAI_API_KEY")
    parser.add_argument(
        "--crash",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="kill the job halfway and start it again (default: only with the local model; a provider is paid twice "
        "for the calls that were under way)",
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="let N workers execute submitted runs, and kill one of them"
    )
    options = parser.parse_args()
    is_local = options.model == MODEL_NAME
    if not is_local and not os.environ.get("OPENAI_API_KEY"):
        parser.error(
            f"--model {options.model} needs a provider: set OPENAI_API_KEY (and OPENAI_BASE_URL if it is not OpenAI)"
        )
    crashes = is_local if options.crash is None else options.crash
    try:
        if options.workers:
            return asyncio.run(demo_of_workers(options.limit, options.workers, options.model, crashes=crashes))
        return asyncio.run(demo(options.limit, options.max_workers, options.model, crashes=crashes))
    except LocalModelUnavailable as error:
        print(f"make demo: {error}", file=sys.stderr)
        return 1


async def demo(limit: int, max_workers: int, model: str, *, crashes: bool) -> int:
    """Serve the model if it is the local one, run the job, and show what came of it."""
    folder = prepared_folder(model)
    sample, labels, store = folder / "sample.jsonl", folder / "labels.jsonl", folder / "runs.db"
    reviews = held_out(limit)
    sample.write_text("".join(json.dumps(review) + "\n" for review in reviews.values()), encoding="utf-8")
    command = ["map", "examples/sentiment.py:classify", _shown(sample), "-o", _shown(labels), "--store", _shown(store)]
    command += ["--max-workers", str(max_workers)]
    if model != MODEL_NAME:
        command += ["--set", f"model={model}"]
    before = await model_calls(store)
    async with endpoint(model) as environment:
        print(f"{len(reviews)} sentences from real product reviews, read by {model}\n")
        start = time.monotonic()
        crash = None
        if crashes:
            crash = await _run_and_kill(command, environment, labels, store, len(reviews) // 2)
        code = await _run(command, environment)
        seconds = time.monotonic() - start
    after = await model_calls(store)
    if labels.exists():
        lines = [json.loads(line) for line in labels.open(encoding="utf-8")]
        report(reviews, lines, seconds, labels, model, list(calls_rows(before, crash, after)))
    return code


async def demo_of_workers(limit: int, count: int, model: str, *, crashes: bool) -> int:
    """Submit runs of some sentences each, let workers execute them, and kill one that has a run under way."""
    folder = prepared_folder(model)
    labels, path = folder / "labels.jsonl", folder / "runs.db"
    reviews = held_out(limit)
    ids = list(reviews)
    shares = [ids[start : start + AT_A_TIME] for start in range(0, len(ids), AT_A_TIME)]
    texts = {f"reviews-{number}": [reviews[name]["text"] for name in share] for number, share in enumerate(shares, 1)}
    before = await model_calls(path)
    store = open_store(str(path))
    async with endpoint(model) as environment:
        print(f"{len(reviews)} sentences from real product reviews in {len(texts)} runs, read by {model}\n")
        for name, share in texts.items():
            await run.submit(classify_all, share, model, store=store, run_id=name)
        start = time.monotonic()
        crash = await _work(store, path, environment, count, set(texts), crashes=crashes)
        seconds = time.monotonic() - start
    after = await model_calls(path)
    found: list[dict[str, Any]] = []
    for share, (name, given) in zip(shares, texts.items(), strict=True):
        results = await run(classify_all, given, model, store=store, run_id=name)  # recorded: nothing is called
        found += [{"id": id_, "ok": True, "result": asdict(each)} for id_, each in zip(share, results, strict=True)]
    await store.aclose()
    labels.write_text("".join(json.dumps(line) + "\n" for line in found), encoding="utf-8")
    report(reviews, found, seconds, labels, model, list(calls_rows(before, crash, after, "the other workers")))
    return 0


async def _work(
    store: Store, path: Path, environment: dict[str, str], count: int, names: set[str], *, crashes: bool
) -> Crash | None:
    """Start workers, kill the first one that has a run under way when half is read, and end the others at the end."""
    command = ["worker", "--store", _shown(path), "--lease", "5"]
    print(f"$ rh-agents {shlex.join(command)}    # {count} times", flush=True)
    workers = [await _started_worker(command, environment) for _ in range(count)]
    tellers = [asyncio.ensure_future(_tell(number, each)) for number, each in enumerate(workers, 1)]
    crash: Crash | None = None
    try:
        while True:
            infos = [info for info in await store.runs() if info.run_id in names]
            ended = sum(info.status is ExecutionStatus.COMPLETED for info in infos)
            if ended == len(names):
                break
            if any(info.status is ExecutionStatus.FAILED for info in infos):
                raise SystemExit("a run has failed: .venv/bin/rh-agents show tells which and why")
            taken = [info for info in infos if info.owner is not None and info.outcomes > AT_A_TIME]
            if crashes and crash is None and ended >= len(names) // 3 and taken:
                crash = await _killed(workers, taken[0], path)
            await asyncio.sleep(5 * LOOK_EVERY)
    finally:
        for each in workers:
            if each.returncode is None:
                each.terminate()
        for each in workers:
            await each.wait()
        await asyncio.gather(*tellers)
    return crash


async def _started_worker(command: list[str], environment: dict[str, str]) -> asyncio.subprocess.Process:
    words = [sys.executable, "-m", "rh_agents", *command]
    return await asyncio.create_subprocess_exec(
        *words, cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )


async def _tell(number: int, worker: asyncio.subprocess.Process) -> None:
    """Show what a worker says."""
    assert worker.stderr is not None
    async for line in worker.stderr:
        print(f"[worker {number}] {line.decode(errors='replace').rstrip()}", flush=True)


async def _killed(workers: list[asyncio.subprocess.Process], taken: RunInfo, path: Path) -> Crash | None:
    """Kill the worker that executes a run. None if it had ended."""
    for number, worker in enumerate(workers, 1):
        if worker.returncode is None and str(worker.pid) in (taken.owner or ""):
            worker.kill()
            await worker.wait()
            print(f"\nworker {number} was killed with SIGKILL while it executed {taken.run_id}:\n", flush=True)
            return Crash(await model_calls(path), None, is_known=True)
    return None


def prepared_folder(model: str) -> Path:
    """Where the demo keeps its files. Of the local model it begins anew; what a provider was paid for is kept."""
    is_local = model == MODEL_NAME
    name = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in model).strip(".")
    folder = FOLDER / ("local" if is_local else f"provider-{name}")
    if is_local:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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


async def _run_and_kill(
    command: list[str], environment: dict[str, str], labels: Path, store: Path, enough: int
) -> Crash:
    """Run `rh-agents` in this terminal, and kill it when so many sentences have been read."""
    process = await _started(command, environment)
    read = 0
    with _deaf_to_interrupts():
        while process.returncode is None and (read := _lines_in(labels)) < enough:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), LOOK_EVERY)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        code = await process.wait()
    was_killed, read = code == -signal.SIGKILL, _lines_in(labels)
    if sys.stderr.isatty():
        print("\033[J", end="", file=sys.stderr, flush=True)  # the bar that nobody could take away
    if was_killed:
        print(f"\nkilled with SIGKILL after {read} sentences. The very same command again:\n")
    else:
        print("\nit had come to its end before it could be killed. The very same command again:\n")
    return Crash(await model_calls(store), read if was_killed else None)


def _lines_in(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


async def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run `rh-agents` in this terminal. Ctrl-C is for it: it finishes what it has begun, and then we go on."""
    process = await _started(command, environment)
    with _deaf_to_interrupts():
        return await process.wait()


async def _started(command: list[str], environment: dict[str, str]) -> asyncio.subprocess.Process:
    print(f"$ rh-agents {shlex.join(command)}", flush=True)
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "rh_agents", *command, cwd=ROOT, env=environment)


async def model_calls(path: Path) -> ModelCalls:
    """How many calls of the model a store knows."""
    store = _store_at(path)
    if store is None:
        return ModelCalls()
    begun = finished = 0
    try:
        for info in await store.runs():
            async for recorded in store.events(info.run_id):
                if recorded.event.event_type is EventType.LLM_CALL:
                    begun += recorded.event.execution_status is ExecutionStatus.STARTED
                    finished += recorded.event.execution_status is ExecutionStatus.COMPLETED
    finally:
        await store.aclose()
    return ModelCalls(begun, finished)


def _store_at(path: Path) -> Store | None:
    """The store, if there is one: opening it would make it."""
    return open_store(str(path)) if path.exists() else None


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


def report(
    reviews: dict[str, Review],
    lines: list[dict[str, Any]],
    seconds: float,
    labels: Path,
    model: str,
    calls: list[tuple[str, str]],
) -> None:
    """Show the labels against the ratings, and what the job took; `calls` are rows about the model's calls."""
    console = Console()
    read = [line for line in lines if line["ok"]]
    if not read:
        console.print("no sentence was read", style="red")
        return
    pairs = Counter((human_label(reviews[line["id"]]["human_score"]), line["result"]["label"]) for line in read)
    console.print(_table(pairs))
    right = sum(count for (human, machine), count in pairs.items() if human == machine)
    majority = max(sum(pairs[human, machine] for machine in LABELS) for human in LABELS)
    total = {name: sum(line["result"][name] for line in read) for name in ("retries", "tokens_in", "tokens_out")}
    rows = [
        ("accuracy", f"{right / len(read):.2f}   (always the commonest label: {majority / len(read):.2f})"),
        *calls,
        ("time", f"{seconds:.1f} s"),
        ("retries", f"{total['retries']}"),
        ("tokens", f"{total['tokens_in']:,} in, {total['tokens_out']:,} out"),
        ("failed", f"{len(lines) - len(read)}"),
        ("output", _shown(labels)),
    ]
    if model == MODEL_NAME:
        rows.insert(1, ("", "on 600 held-out sentences it was 0.70 (95 %: 0.66 to 0.74)"))
    for name, value in rows:
        console.print(f"{name:>12}  {value}", highlight=False)
    console.print(_next_steps(labels.with_name("runs.db")), highlight=False)


def calls_rows(
    before: ModelCalls, crash: Crash | None, after: ModelCalls, others: str = "the second process"
) -> Iterator[tuple[str, str]]:
    """How many calls of the model there were, and how many who went on was spared."""
    made = after.begun - before.begun
    if crash is None:
        yield "model calls", f"{made}"
        if before.finished:
            yield "saved", f"{before.finished} that earlier demos had recorded, as far as they were in this sample"
        return
    first, finished = crash.calls.begun - before.begun, crash.calls.finished - before.finished
    yield "model calls", f"{made}: {first} before the crash, {made - first} after it"
    yield "saved", f"{crash.calls.finished} calls, which {others} found recorded"
    if crash.is_known:
        yield "made twice", f"{made - (after.finished - before.finished)}, which were under way when it was killed"
    if crash.read is not None:
        yield "made twice", f"{first - finished}, which were under way when the first one was killed"


def _table(pairs: Counter[tuple[str, str]]) -> Table:
    table = Table()
    table.add_column("people said")
    for machine in LABELS:
        table.add_column(f"model: {machine}", justify="right")
    for human in LABELS:
        cells = [f"[green]{pairs[human, m]}[/green]" if human == m else str(pairs[human, m]) for m in LABELS]
        table.add_row(human, *cells)
    return table


def _next_steps(store: Path) -> str:
    return f"""
What to type next:
  .venv/bin/rh-agents runs --store {_shown(store)}
  make demo ARGS="--limit 600"                  more sentences, less chance
  make test                                     the tests
  .venv/bin/python examples/parallel_basic.py   groups in a few lines of Python
  .venv/bin/rh-agents map --help                your function over your file"""


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main())
