"""The main job, in this process: every item has its line, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import io
import itertools
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rh_agents import MemoryStore, tool
from rh_agents.cli.arguments import make_callee
from rh_agents.cli.errors import BadInput, OutputClosed, OutputFailed
from rh_agents.cli.input.items import read_items
from rh_agents.cli.input.lines import Format, Item
from rh_agents.cli.input.source import FileSource, PipeSource, Source
from rh_agents.cli.map_job import Limits, MapJob
from rh_agents.cli.output.results import LineWriter, open_output
from rh_agents.cli.output.summary import Summary, describe
from rh_agents.core.calls import FunctionCall
from rh_agents.core.errors import InputError
from rh_agents.core.execution import ExecutionState
from rh_agents.core.parallel import ErrorStrategy


class Ran:
    """A job that has ended: what it wrote, and what it said."""

    def __init__(self, function: Callable[..., Any], source: Source, path: Path, limits: Limits, **policy: Any) -> None:
        self.said: list[str] = []
        with open_output(str(path), force=True) as writer:
            job = MapJob(make_callee(tool(function), **policy), source, writer, self.said.append, limits)
            self.summary = asyncio.run(job.run())
        self.lines = [json.loads(line) for line in path.read_text().splitlines()]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """ok, failed, cancelled, exit code."""
        return self.summary.ok, self.summary.failed, self.summary.cancelled, self.summary.exit_code


@pytest.fixture
def run_map(tmp_path: Path) -> Callable[..., Ran]:
    def run(function: Callable[..., Any], data: bytes | Source, limit: int | None = None, **options: Any) -> Ran:
        policy = {name: options.pop(name) for name in ("retry", "timeout") if name in options}
        source = data if not isinstance(data, bytes) else FileSource(items_of(data), None, limit)
        return Ran(function, source, tmp_path / "out.jsonl", Limits(**options), **policy)

    return run


def items_of(data: bytes) -> Iterator[Item]:
    return read_items(io.BytesIO(data), "in", Format.JSONL)


def numbers(count: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(count))


async def double(x: int) -> int:
    return 2 * x


# -- lines ------------------------------------------------------------------------------------------------------------


def test_every_item_has_a_line_with_what_became_of_it(run_map: Callable[..., Ran]) -> None:
    async def odd(x: int) -> int:
        if x % 2 == 0:
            raise ValueError("even")
        return x

    ran = run_map(odd, b'{"id": "a", "x": 1}\n{"id": "b", "x": 2}\n')
    assert all(line.pop("seconds") >= 0 for line in ran.lines)
    assert ran.lines == [
        {"id": "a", "index": 0, "ok": True, "result": 1, "attempts": 1},
        {"id": "b", "index": 1, "ok": False, "error": "ValueError: even", "attempts": 1},
    ]
    assert ran.counts == (1, 1, 0, 1)
    assert ran.summary.first_failure == "in:2: ValueError: even"


def test_all_ok_is_exit_code_0_and_so_is_nothing_at_all(run_map: Callable[..., Ran]) -> None:
    assert run_map(double, numbers(3)).counts == (3, 0, 0, 0)
    assert run_map(double, b"\n").counts == (0, 0, 0, 0)


def test_bad_input_is_told_with_its_place_is_a_failed_item_and_does_not_end_the_job(
    run_map: Callable[..., Ran],
) -> None:
    ran = run_map(double, b'1\nnot json\n{"y": 1}\n"\xff"\n2', retry=3)
    assert ran.said == [
        "in:2: not valid JSON: expected ident at column 2",
        "in:3: x: Field required",
        "in:4: not valid UTF-8: byte 0xff at column 2",
    ]
    assert ran.counts == (2, 3, 0, 1)
    failed = [line for line in ran.lines if not line["ok"]]
    assert [(line["id"], line["error"], line["attempts"]) for line in failed][1] == (3, "x: Field required", 0)


def test_an_input_error_of_the_actor_itself_is_no_bad_input(run_map: Callable[..., Ran]) -> None:
    async def picky(x: int) -> int:
        raise InputError("no")

    ran = run_map(picky, b"1")
    assert (ran.said, ran.lines[0]["attempts"]) == ([], 1)


def test_control_characters_of_the_data_do_not_reach_the_terminal(run_map: Callable[..., Ran]) -> None:
    async def raises(x: str) -> None:
        raise ValueError("\x1b[31mred")

    assert run_map(raises, b'"a"').summary.first_failure == "in:1: ValueError: \\x1b[31mred"


def test_what_has_no_form_in_json_is_written_as_its_repr_or_null(run_map: Callable[..., Ran]) -> None:
    async def odd(x: int) -> Any:
        return [range(3), float("nan")][x]

    assert [line["result"] for line in run_map(odd, b"0\n1").lines] == ["range(0, 3)", None]


def test_a_result_that_cannot_be_written_is_a_failed_line(run_map: Callable[..., Ran]) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    circle: list[Any] = []
    circle.append(circle)

    async def unwritable(x: int) -> Any:
        return [b"\xff", "\ud800", circle, Broken(), 1][x]

    ran = run_map(unwritable, numbers(5))
    assert [line["ok"] for line in ran.lines] == [False, False, False, False, True]
    assert all(line["error"].startswith("the result cannot be written as JSON: ") for line in ran.lines[:4])
    assert ran.counts == (1, 4, 0, 1)
    assert len(ran.said) == 4


def test_an_error_text_that_is_no_unicode_is_written_all_the_same(run_map: Callable[..., Ran]) -> None:
    async def raises(x: int) -> None:
        raise ValueError("\ud800")

    assert run_map(raises, b"1").lines[0]["error"] == "ValueError: \\ud800"


def test_retries_are_counted(run_map: Callable[..., Ran]) -> None:
    attempts = itertools.count(1)

    async def second_time(x: int) -> int:
        if next(attempts) == 1:
            error = ConnectionError("once")
            error.retry_after = 0  # type: ignore[attr-defined]
            raise error
        return x

    ran = run_map(second_time, b"1", retry=2)
    assert (ran.lines[0]["attempts"], ran.summary.retries) == (2, 1)


# -- order, limits, memory --------------------------------------------------------------------------------------------


def test_lines_come_as_items_are_completed_or_in_the_order_of_the_input(run_map: Callable[..., Ran]) -> None:
    async def reversed_in_pairs(x: int) -> int:
        if x % 2 == 0:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return x

    assert [line["result"] for line in run_map(reversed_in_pairs, numbers(4), max_workers=2).lines] != [0, 1, 2, 3]
    ordered = run_map(reversed_in_pairs, numbers(4), max_workers=2, ordered=True)
    assert [line["result"] for line in ordered.lines] == [0, 1, 2, 3]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("kind", [FileSource, PipeSource])
def test_items_are_read_only_as_they_are_needed(run_map: Callable[..., Ran], kind: Any, ordered: bool) -> None:
    pulled = done = ahead = 0

    def items() -> Iterator[Item]:
        nonlocal pulled
        for pulled in range(1, 2001):
            yield Item("in", pulled, pulled)

    async def count(x: int) -> None:
        nonlocal done, ahead
        await asyncio.sleep(0)
        done += 1
        ahead = max(ahead, pulled - done)

    run_map(count, kind(items(), None, None), max_workers=10, ordered=ordered)
    assert done == 2000
    assert ahead < 150


def test_a_limit_reads_no_more_items_than_that(run_map: Callable[..., Ran]) -> None:
    stream = io.BytesIO(numbers(9))
    ran = run_map(double, FileSource(read_items(stream, "in", Format.JSONL), 9, 2))
    assert ran.counts == (2, 0, 0, 0)
    assert ran.summary.total == 2
    assert stream.tell() == 4


def test_a_pipe_is_read_while_items_run_and_no_further_than_the_limit(run_map: Callable[..., Ran]) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"0\n1\n")

    async def answer(x: int) -> int:
        if x == 1:  # the writer of the pipe waits for this item: it is running although the pipe gives nothing
            os.write(writer, b"2\n")
        return x

    with open(reader, "rb") as stream:
        ran = run_map(answer, PipeSource(read_items(stream, "in", Format.JSONL), None, 3))
    os.close(writer)
    assert [line["result"] for line in ran.lines] == [0, 1, 2]


def test_a_pipe_that_ends_ends_the_job(run_map: Callable[..., Ran]) -> None:
    ran = run_map(double, PipeSource(items_of(numbers(500)), None, None))
    assert ran.counts == (500, 0, 0, 0)
    assert ran.summary.total == 500


def test_an_input_that_breaks_off_is_told_and_what_was_read_is_done(run_map: Callable[..., Ran]) -> None:
    class Breaking(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(size)
            if line == b"2\n":
                raise OSError(5, "Input/output error")
            return line

    for kind in FileSource, PipeSource:
        ran = run_map(double, kind(read_items(Breaking(numbers(5)), "in", Format.JSONL), None, None))
        assert ran.counts == (2, 0, 0, 1)
        assert str(ran.summary.failure) == "cannot read in: Input/output error"


# -- stopping ---------------------------------------------------------------------------------------------------------


async def fails(x: int) -> int:
    raise ValueError(f"no {x}")


def test_fail_after_stops_the_job_and_says_why(run_map: Callable[..., Ran]) -> None:
    ran = run_map(fails, FileSource(items_of(numbers(100)), 100, None), max_workers=1, fail_after=3)
    assert ran.summary.exit_code == 1
    assert ran.summary.failed == 3
    assert ran.summary.stopped == "stopped after 3 of 3 items had failed (--fail-after)"
    assert f"{ran.summary.stopped}: 3 done, 97 not done" in describe(ran.summary, "out", is_shown=True)


def test_fail_fast_stops_at_the_first_failure_and_writes_it(run_map: Callable[..., Ran]) -> None:
    ran = run_map(fails, numbers(100), max_workers=1, error_strategy=ErrorStrategy.FAIL_FAST)
    assert [line["error"] for line in ran.lines] == ["ValueError: no 0"]
    assert (ran.summary.stopped, ran.summary.exit_code) == (
        "stopped at the first failure (--error-strategy fail_fast)",
        1,
    )


def interrupting(*numbers: signal.Signals) -> Callable[..., Any]:
    """Item 0 gets signals; the others, and item 0 after them, wait for what may never come."""

    async def work(x: int) -> int:
        if x == 0:
            for number in numbers:
                signal.raise_signal(number)
        for _ in range(3):
            await asyncio.sleep(0)
        if len(numbers) > 1 or x > 1:
            await asyncio.Event().wait()
        return x

    return work


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_what_runs_finish_and_starts_nothing_more(
    run_map: Callable[..., Ran], number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    source = FileSource(items_of(numbers(100)), 100, None)
    ran = run_map(interrupting(number), source, max_workers=2)
    assert ran.counts == (2, 0, 0, 130)
    assert [line["result"] for line in ran.lines] == [0, 1]
    assert ran.said == ["interrupted: no more items are started; 2 in flight have 30 s; once more cancels them"]
    assert "interrupted: 2 done, 98 not done" in describe(ran.summary, "out", is_shown=True)
    assert signal.getsignal(number) is before


def test_the_second_signal_cancels_what_runs(run_map: Callable[..., Ran]) -> None:
    ran = run_map(interrupting(signal.SIGINT, signal.SIGINT), numbers(100), max_workers=4)
    assert ran.counts == (0, 0, 4, 130)
    assert ran.lines == []
    assert ran.summary.left_threads


def test_what_runs_is_cancelled_when_the_grace_is_over(run_map: Callable[..., Ran]) -> None:
    ran = run_map(interrupting(signal.SIGINT), numbers(100), max_workers=3, grace=0.02)
    assert ran.counts == (2, 0, 1, 130)


def test_an_interruption_does_not_wait_for_a_pipe_that_gives_nothing(run_map: Callable[..., Ran]) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"0\n")
    stream = open(reader, "rb")  # noqa: SIM115 - closed when its thread has come back
    ran = run_map(interrupting(signal.SIGINT), PipeSource(read_items(stream, "in", Format.JSONL), None, None))
    assert ran.counts == (1, 0, 0, 130)
    assert describe(ran.summary, "out", is_shown=True)[0] == (
        "interrupted: 1 done, 0 cancelled, the rest of the input not read"
    )
    os.close(writer)
    stream.close()


# -- output -----------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_complete_lines_and_ends_the_job_with_a_sentence(run_map: Callable[..., Ran]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        ran = run_map(double, numbers(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 5 < len(ran.lines) < 20
    assert (ran.summary.exit_code, ran.summary.ok) == (1, len(ran.lines))
    assert str(ran.summary.failure).endswith(f"File too large; {len(ran.lines)} lines are complete")


class CountedFile(io.FileIO):
    """Counts how often it is written to."""

    writes = 0

    def write(self, data: Any) -> int:
        self.writes += 1
        return super().write(data)


async def _mapped(path: Path, function: Callable[..., Any], count: int, **options: Any) -> tuple[CountedFile, Summary]:
    raw = CountedFile(path, "w")
    with LineWriter(raw, "out") as lines:
        source = FileSource(items_of(numbers(count)), None, None)
        state = ExecutionState(history_limit=0, **options)
        return raw, await MapJob(make_callee(tool(function)), source, lines, print, state=state).run()


def test_lines_that_are_there_together_are_written_together(tmp_path: Path) -> None:
    store = MemoryStore()
    first, _ = asyncio.run(_mapped(tmp_path / "out", double, 1000, store=store, run_id="r"))
    again, summary = asyncio.run(_mapped(tmp_path / "again", double, 1000, store=store, run_id="r"))
    assert (summary.reused, (tmp_path / "again").read_bytes().count(b"\n")) == (1000, 1000)
    assert first.writes <= 250  # five are made at the same time
    assert again.writes <= 10


def test_a_line_is_written_before_anything_is_waited_for(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def look(x: int) -> int:
        if x == 9:
            for _ in range(5):
                await asyncio.sleep(0)
            seen.append((tmp_path / "out").read_bytes())
        return x

    asyncio.run(_mapped(tmp_path / "out", look, 10))
    assert seen[0].count(b"\n") == 9
    assert (tmp_path / "out").read_bytes().count(b"\n") == 10


def test_what_was_written_of_lines_that_the_disk_did_not_take_is_taken_back(tmp_path: Path) -> None:
    class Full(io.FileIO):
        """Takes seven bytes at a time, and no more than sixteen."""

        def write(self, data: Any) -> int:
            if self.tell() >= 14:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(bytes(data[:7]))

    with LineWriter(Full(tmp_path / "out", "a"), "out") as lines:
        with pytest.raises(OutputFailed, match="2 lines are complete"):
            lines.write_together([b"first\n", b"next\n", b"third\n"])
        assert lines.lines == 2
    assert (tmp_path / "out").read_bytes() == b"first\nnext\n"


def test_a_reader_that_has_gone_ends_the_job(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    said: list[str] = []
    with LineWriter(open(writer, "wb", buffering=0), "out") as lines:
        source = FileSource(items_of(numbers(100)), None, None)
        summary = asyncio.run(MapJob(make_callee(tool(double)), source, lines, said.append).run())
    assert isinstance(summary.failure, OutputClosed)
    assert (said, summary.exit_code) == ([], 1)
    assert describe(summary, "out", is_shown=False)[0] == "rh-agents: out was closed"
    assert source.taken < 100


@pytest.mark.parametrize("length", [100, 1_000_000])
def test_a_reader_that_takes_its_time_does_not_keep_the_event_loop_waiting(length: int) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    raw = open(writer, "wb", buffering=0)  # noqa: SIM115 - closed with the lines

    async def write_and_read() -> int:
        with LineWriter(raw, "out") as lines:
            task = asyncio.create_task(write_all(lines))
            count = 0
            while count < 1_000_000:
                await asyncio.sleep(0)
                with contextlib.suppress(BlockingIOError):
                    count += len(os.read(reader, 65536))
            await task
        return count

    async def write_all(lines: LineWriter) -> None:
        for _ in range(1_000_000 // length):
            await lines.write(b"x" * (length - 1) + b"\n")

    assert asyncio.run(write_and_read()) == 1_000_000
    os.close(reader)


def test_the_summary_says_how_many_how_fast_and_where() -> None:
    summary = Summary(ok=97, failed=3, retries=5, seconds=12.5)
    assert describe(summary, "out.jsonl", is_shown=True) == [
        "100 done (97 ok, 3 failed), 5 retried, 12.5 s, 8.0 items/s, output in out.jsonl"
    ]
    assert describe(summary, "", is_shown=True) == ["100 done (97 ok, 3 failed), 5 retried, 12.5 s, 8.0 items/s"]


async def _of_one(text: str) -> None: ...


async def _of_some(number: int, rate: float = 0.5, is_new: bool = True) -> None: ...


async def _of_any(value: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "value", "arguments"),
    [
        (_of_one, "plain", {"text": "plain"}),
        (_of_one, "schön", {"text": "schön"}),
        (_of_one, {"text": "named", "id": 7}, {"text": "named"}),
        (_of_some, 3, {"number": 3}),
        (_of_some, {"number": 3, "rate": 2.0, "is_new": False}, {"number": 3, "rate": 2.0, "is_new": False}),
        (_of_some, {"number": 3, "rate": 2}, {"number": 3, "rate": 2.0}),
        (_of_any, {"value": 3}, {"value": 3}),
        (_of_any, {"other": 3}, {"value": {"other": 3}}),
    ],
)
def test_an_item_is_the_call_with_these_arguments_whether_or_not_there_is_something_to_validate(
    function: Any, value: Any, arguments: dict[str, Any]
) -> None:
    called = tool(function)
    callee = make_callee(called)
    made = callee.call(value, ExecutionState(history_limit=0).parts)
    given = inspect.signature(function).bind_partial()
    given.arguments.update(arguments)
    expected = called(*given.args, **given.kwargs)
    assert made.identity() == expected.identity()
    assert isinstance(made, FunctionCall)
    assert callee.identity(value) == (expected.identity() if made.args else None), "else it is made to be identified"
    made.discard()
    expected.discard()


@pytest.mark.parametrize("value", [1, True, None, 1.5, ["a"], {"text": 1}, {"other": "a"}])
def test_what_does_not_fit_is_refused_with_or_without_a_short_way(value: Any) -> None:
    with pytest.raises(BadInput):
        make_callee(tool(_of_one)).call(value, ExecutionState(history_limit=0).parts)
