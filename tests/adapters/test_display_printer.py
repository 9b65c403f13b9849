"""A line for each event, the counts and the summary."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from datetime import UTC
from typing import Any

import pytest
from rich.console import Console

from rh_agents import ExecutionEvent, ExecutionState, ExecutionStatus, GroupStatus
from rh_agents.bus_handlers import EventPrinter, create_event_handler
from rh_agents.display.counts import EventCounts
from tests.adapters.display_kit import (
    FETCH,
    ManualClock,
    call,
    group_ended,
    group_started,
    member,
    terminal,
    written,
)

STARTED, COMPLETED, FAILED = ExecutionStatus.STARTED, ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
CANCELLED, RETRYING, RECOVERED = ExecutionStatus.CANCELLED, ExecutionStatus.RETRYING, ExecutionStatus.RECOVERED
HOSTILE = "\x1b[2J\r\n[red]x[/nothing]\u202e"


def printed(*events: ExecutionEvent[Any], width: int | None = None, **options: Any) -> list[str]:
    console = terminal(width) if width else Console(file=io.StringIO())
    printer = EventPrinter(console=console, timezone=UTC, **options)
    for event in events:
        printer(event)
    return written(console).splitlines()


def test_every_kind_of_event_has_a_line() -> None:
    assert printed(
        group_started(name="pages", total=3),
        call(STARTED),
        call(RETRYING, attempt=1, retry_delay=0.4, message="ConnectionError: reset"),
        call(COMPLETED, attempt=2, execution_time=0.31, result={"a": 1}),
        call(FAILED, execution_time=2.0, message="ValueError: no"),
        call(CANCELLED, execution_time=0.002),
        call(RECOVERED, execution_time=0.31, result="kept", is_replayed=True),
        group_ended(name="pages", status=GroupStatus.FAILED),
    ) == [
        "15:06:40.250 ▶ pages  started  3 calls  4 at a time",
        "15:06:40.250 ▶ survey::fetch  started",
        "15:06:40.250 ↻ survey::fetch  retrying  attempt 1, again in 0.40 s  ConnectionError: reset",
        "15:06:40.250 ✓ survey::fetch  completed  0.31 s  2 attempts  {'a': 1}",
        "15:06:40.250 ✗ survey::fetch  failed  2.0 s  ValueError: no",
        "15:06:40.250 ■ survey::fetch  cancelled  2 ms",
        "15:06:40.250 = survey::fetch  reused  0.31 s  'kept'",
        "15:06:40.250 ✗ pages  failed  1.5 s",
    ]


def test_columns_can_be_left_out() -> None:
    done = member(COMPLETED, 3, execution_time=1.0, result="text")
    assert printed(done, show_timestamp=False, show_address=False, show_result=False) == [
        "✓ fetch[3]  completed  1.0 s"
    ]


def test_a_narrow_terminal_gets_fewer_columns_and_never_a_broken_line() -> None:
    done = call(COMPLETED, execution_time=1.0, result="a long text that does not fit")
    assert printed(done, width=60) == ["15:06:40.250 ✓ survey::fetch  completed  1.0 s  'a long tex…"]
    assert printed(done, width=40) == ["✓ survey::fetch  completed  1.0 s  'a l…"]
    assert printed(done, width=20) == ["✓ fetch  completed …"]


def test_what_went_wrong_is_never_cut() -> None:
    assert printed(call(FAILED, message="ValueError: a long story"), width=20)[0].endswith("ValueError: a long story")


def test_hostile_text_is_harmless_wherever_it_stands() -> None:
    events = [
        group_started(name=HOSTILE),
        member(FAILED, name=HOSTILE, message=HOSTILE),
        member(COMPLETED, group=HOSTILE, result=HOSTILE),
    ]
    lines = printed(*events)
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert lines[0].endswith(r"▶ \x1b[2J\r\n[red]x[/nothing]\u202e  started  4 at a time")


def test_output_that_is_no_terminal_has_no_escape_codes_and_no_broken_lines() -> None:
    lines = printed(member(COMPLETED, name="n" * 150, result="r" * 150))
    assert len(lines) == 1
    assert "\x1b" not in lines[0]
    assert len(lines[0]) > 300


def test_a_long_result_is_shown_in_short() -> None:
    assert len(printed(call(COMPLETED, result="r" * 100_000))[0]) < 300


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def colours(**options: Any) -> str:
        console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", **options)
        EventPrinter(console=console)(call(FAILED, message="ValueError: no"))
        return written(console)

    assert "\x1b[31m" in colours()
    assert "\x1b[31m" not in colours(no_color=True)


def test_an_output_that_cannot_encode_everything_gets_what_it_can() -> None:
    raw = io.BytesIO()
    printer = EventPrinter(file=io.TextIOWrapper(raw, encoding="ascii"), show_timestamp=False)
    printer(call(COMPLETED, result="漢"))
    assert raw.getvalue() == b"+ survey::fetch  completed  '\\u6f22'\n"


def test_an_event_that_was_made_by_hand_can_be_printed() -> None:
    assert printed(ExecutionEvent(actor=FETCH), show_timestamp=False) == ["▶ fetch  started"]


def test_counts_are_kept_by_status_and_by_type() -> None:
    printer = EventPrinter(file=io.StringIO())
    printer(group_started())
    for event in (call(STARTED), call(RETRYING), call(COMPLETED, execution_time=2.0)):
        printer(event)
    printer(call(RECOVERED, is_replayed=True, execution_time=5.0))
    printer(call(RECOVERED, is_replayed=True, message="ValueError: old"))
    printer(call(FAILED, message="ValueError: new"))
    printer(call(CANCELLED))
    printer(group_ended())
    assert (printer.total_events, printer.started_events, printer.completed_events) == (9, 1, 1)
    assert (printer.failed_events, printer.recovered_events, printer.counts.groups) == (1, 2, 1)
    calls = printer.counts.all_calls
    assert (calls.succeeded, calls.failed, calls.cancelled, calls.replayed, calls.retries) == (2, 2, 1, 2, 1)
    assert (calls.finished, calls.seconds, calls.success_rate) == (5, 2.0, 0.5)
    assert printer.counts.failures == {"ValueError": 2}


def test_kinds_of_failures_are_bounded() -> None:
    counts = EventCounts()
    for number in range(1000):
        counts.count(call(FAILED, message=f"Error{number}: no"), 1.0)
    assert len(counts.failures) == 21
    assert counts.failures["others"] == 980


def test_the_summary_says_what_was_done() -> None:
    clock = ManualClock()
    printer = EventPrinter(file=io.StringIO(), clock=clock)
    printer(group_started())
    for number in range(1500):
        printer(call(STARTED))
        printer(
            call(FAILED if number == 7 else COMPLETED, execution_time=0.1, message="E: no" if number == 7 else None)
        )
    printer(call(STARTED))
    printer(call(RETRYING))
    printer(call(RECOVERED))
    clock.advance(12.0)
    printer(group_ended())
    printer.console.file = io.StringIO()
    printer.print_summary()
    assert written(printer.console).splitlines() == [
        "Summary",
        "  1,501 calls, 1 group, 99.9% succeeded",
        "  1 failed, 1 reused, 1 retried, 1 unfinished",
        "  took 12 s, all calls together 2:30",
        "  1 × E",
        "                  finished succeeded    failed    reused mean time",
        "  tool_call          1,501     1,500         1         1    0.10 s",
    ]


@pytest.mark.parametrize(("failed", "share"), [(1, "99.9%"), (0, "100%"), (4999, "0.1%"), (5000, "0%")])
def test_all_and_nothing_are_said_only_of_all_and_nothing(failed: int, share: str) -> None:
    printer = EventPrinter(file=io.StringIO())
    for number in range(5000):
        printer.counts.count(call(FAILED if number < failed else COMPLETED), 1.0)
    printer.print_summary()
    assert f"  5,000 calls, {share} succeeded" in written(printer.console).splitlines()


def test_a_summary_without_events_says_so() -> None:
    printer = EventPrinter(file=io.StringIO())
    printer.print_summary()
    assert written(printer.console).splitlines() == ["Summary", "  0 calls", "  took 0 ms"]


def test_the_summary_fits_a_narrow_terminal() -> None:
    console = terminal(20)
    printer = EventPrinter(console=console)
    printer(call(FAILED, message="AnErrorWithAVeryLongName: no"))
    console.file = io.StringIO()
    printer.print_summary()
    lines = written(console).splitlines()
    assert "  0% succeeded" in lines
    assert max(map(len, lines)) <= 20


async def use_the_bus() -> EventPrinter:
    printer = EventPrinter(file=io.StringIO())
    state = ExecutionState()
    state.event_bus.subscribe(printer)
    async with state:
        await ExecutionEvent(actor=FETCH)("url", None, state)
    return printer


def test_a_printer_is_a_subscriber() -> None:
    assert asyncio.run(use_the_bus()).completed_events == 1


def test_a_handler_can_be_made_of_any_printer() -> None:
    with EventPrinter(file=io.StringIO()) as printer:
        create_event_handler(printer)(call(STARTED))
    assert printer.started_events == 1
    assert callable(create_event_handler())


def test_importing_the_library_does_not_import_rich() -> None:
    code = "import rh_agents, sys; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lines_go_to_standard_error_unless_a_file_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    EventPrinter(timezone=UTC)(call(STARTED))
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    EventPrinter(file=sys.stdout, timezone=UTC)(call(STARTED))
    assert capsys.readouterr() == (err, "")
