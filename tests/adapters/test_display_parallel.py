"""Groups in progress: bars on a terminal, few lines elsewhere, a line for each event in real time."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from rich.console import Console

from rh_agents import ExecutionStatus, GroupStatus, ParallelDisplayMode
from rh_agents.bus_handlers import ParallelEventPrinter
from rh_agents.core.tracking import ParallelGroupTracker
from rh_agents.display.progress import can_be_live
from tests.adapters.display_kit import (
    ManualClock,
    Terminal,
    call,
    group_ended,
    group_started,
    member,
    screen,
    terminal,
    written,
)

STARTED, COMPLETED, FAILED = ExecutionStatus.STARTED, ExecutionStatus.COMPLETED, ExecutionStatus.FAILED


def bars(width: int = 80, height: int = 24) -> tuple[ParallelEventPrinter, ManualClock]:
    """A printer that draws bars, but only when it is told to."""
    clock = ManualClock()
    printer = ParallelEventPrinter(
        console=terminal(width, height), live=True, refresh_per_second=0, clock=clock, show_timestamp=False
    )
    return printer, clock


def lines(mode: str | None = None, **options: Any) -> tuple[ParallelEventPrinter, ManualClock]:
    """A printer whose output is no terminal."""
    clock = ManualClock()
    return ParallelEventPrinter(mode, file=io.StringIO(), clock=clock, show_timestamp=False, **options), clock


def output(printer: ParallelEventPrinter) -> list[str]:
    return written(printer.console).splitlines()


def run_members(printer: ParallelEventPrinter, indices: range, total: int | None, *, group: str = "g") -> None:
    for index in indices:
        printer(member(STARTED, index, group=group, total=total))
        printer(member(COMPLETED, index, group=group, total=total, execution_time=0.1))


def test_a_bar_stands_at_the_bottom_until_its_group_ends() -> None:
    printer, clock = bars()
    printer(group_started(name="pages", total=4))
    run_members(printer, range(2), 4)
    printer(member(STARTED, 2, total=4))
    clock.advance(2.0)
    printer.refresh()
    assert screen(written(printer.console)) == [
        "pages  █████▒▒▒▒▒ 50%   2/4  1 running  1.0/s  ETA 2 s",
        "  slowest fetch[2] 2.0 s",
    ]
    printer(member(COMPLETED, 2, total=4))
    printer(group_ended(name="pages", total=4, completed=3))
    assert screen(written(printer.console)) == ["✓ pages  3/4 done  in 2.0 s  1.5/s"]


def test_lines_appear_above_the_bars_and_nothing_is_left_behind() -> None:
    printer, clock = bars()
    printer(group_started("outer", total=2))
    printer(group_started("inner", parent="outer", total=2))
    printer(group_started("other", total=2))
    clock.advance(1.0)
    printer.refresh()
    printer(member(STARTED, 0, group="inner", total=2))
    printer(member(FAILED, 0, group="inner", total=2, message="ValueError: no"))
    printer(group_ended("other", total=2))
    assert screen(written(printer.console)) == [
        "✗ inner[0]::fetch  failed  ValueError: no",
        "✓ other  nothing to do  in 1.0 s",
        "outer    ▒▒▒▒▒▒▒▒▒▒ 0%    0/2  1 s",
        "  inner  █████▒▒▒▒▒ 50%   1/2  1 failed  1.0/s  ETA 1 s",
    ]
    printer(group_ended("inner", parent="outer", total=2))
    printer.refresh()
    assert screen(written(printer.console))[2:] == ["outer  ▒▒▒▒▒▒▒▒▒▒ 0%    0/2  1 s"]


def test_after_the_last_group_the_standard_output_is_the_terminal_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = Terminal()
    monkeypatch.setattr(sys, "stdout", tty)
    printer, _ = bars()
    printer(group_started("outer"))
    printer(group_started("inner", parent="outer"))
    printer(group_ended("inner", parent="outer"))
    assert sys.stdout is not tty
    printer(group_ended("outer"))
    assert sys.stdout is tty


def test_nothing_is_drawn_for_an_event_alone() -> None:
    printer, _ = bars()
    printer(group_started(total=10_000))
    run_members(printer, range(5_000), 10_000)
    assert written(printer.console) == ""


def test_the_bars_fit_a_window_of_any_size() -> None:
    for width, height in ((20, 10), (200, 24), (80, 2), (5, 3)):
        printer, _ = bars(width, height)
        for number in range(30):
            printer(group_started(f"group {number}", total=2))
        printer.refresh()
        shown = screen(written(printer.console))
        assert len(shown) < height
        assert max(map(len, shown)) < width


def test_a_window_that_was_made_narrower_is_cleaned_up() -> None:
    printer, _ = bars(80)
    printer(group_started(name="pages", total=4))
    printer.refresh()
    drawn = len(screen(written(printer.console))[0])
    printer.console.width = 20
    printer.console.file.truncate(0)
    printer.refresh()
    rows = -(-drawn // 20)
    assert rows == 2
    assert f"\033[{rows}A" in written(printer.console)


def test_the_cursor_is_never_hidden_and_ends_below_the_bars() -> None:
    printer, _ = bars()
    printer(group_started(total=4))
    printer.refresh()
    text = written(printer.console)
    assert "\033[?25l" not in text
    assert text.endswith("\n\033[?7h\033[J")


def test_closing_gives_the_terminal_back_in_the_middle_of_a_group() -> None:
    with bars()[0] as printer:
        printer(group_started(total=4))
        printer.refresh()
    assert screen(written(printer.console)) == []
    printer.refresh()
    printer.close()
    assert screen(written(printer.console)) == []
    printer(member(FAILED, total=4, message="ValueError: late"))
    assert screen(written(printer.console)) == ["✗ g[0]::fetch  failed  ValueError: late"]


def test_a_group_that_follows_another_gets_a_bar_again() -> None:
    printer, _ = bars()
    for name in ("first", "second"):
        printer(group_started(name, total=1))
        printer.refresh()
        printer(group_ended(name, total=1))
    assert screen(written(printer.console)) == ["✓ first  nothing to do  in 0 ms", "✓ second  nothing to do  in 0 ms"]


def test_calls_outside_groups_have_lines_while_no_group_runs() -> None:
    printer, _ = bars()
    printer(call(STARTED))
    printer(group_started(total=1))
    printer(call(STARTED))
    printer(group_ended(total=1))
    printer(call(COMPLETED))
    assert screen(written(printer.console)) == [
        "▶ survey::fetch  started",
        "✓ g  nothing to do  in 0 ms",
        "✓ survey::fetch  completed",
    ]
    assert printer.started_events == 2


def test_output_that_is_no_terminal_gets_a_line_at_every_tenth() -> None:
    printer, clock = lines()
    printer(group_started(name="pages", total=1000))
    for tenth in range(10):
        clock.advance(1.0)
        run_members(printer, range(tenth * 100, tenth * 100 + 100), 1000)
    printer(group_ended(name="pages", total=1000, completed=1000))
    shown = output(printer)
    assert shown[0] == "▶ pages  started  1000 calls  4 at a time"
    assert shown[1] == "  pages  10%  100/1000  100/s  ETA 9 s"
    assert shown[-1] == "✓ pages  1000 done  in 10 s  100/s"
    assert len(shown) == 11
    assert "\x1b" not in written(printer.console)
    assert "█" not in written(printer.console)


def test_a_silence_of_a_minute_is_broken() -> None:
    printer, clock = lines()
    printer(group_started(total=1000))
    run_members(printer, range(1), 1000)
    assert len(output(printer)) == 1
    clock.advance(61.0)
    run_members(printer, range(1, 3), 1000)
    assert len(output(printer)) == 2


def test_an_unknown_total_gets_lines_at_round_numbers() -> None:
    printer, clock = lines()
    printer(group_started())
    clock.advance(1.0)
    run_members(printer, range(5000), None)
    assert [line.split()[1] for line in output(printer)[1:]] == (
        ["1", "2", "5", "10", "20", "50", "100", "200", "500", "1000", "2000", "5000"]
    )


def test_nested_groups_are_told_when_they_end_and_no_more_than_twenty_of_them() -> None:
    printer, _ = lines()
    printer(group_started("outer", total=1000))
    for number in range(100):
        printer(group_started(f"inner {number}", parent="outer", total=1))
        run_members(printer, range(1), 1, group=f"inner {number}")
        printer(group_ended(f"inner {number}", parent="outer", total=1, completed=1))
    shown = output(printer)
    assert shown[1] == "✓ inner 0  1 done  in 0 ms"
    assert shown[21] == "  further groups in outer are not listed"
    assert len(shown) == 22


@pytest.mark.parametrize("make", [bars, lines])
def test_the_first_failures_have_lines_and_the_others_are_counted(make: Any) -> None:
    printer, _ = make()
    printer(group_started(total=100))
    for index in range(100):
        printer(member(FAILED, index, total=100, message=f"ValueError: {index}"))
    printer(group_ended(total=100, failed=100))
    shown = [line for line in screen(written(printer.console)) if "%" not in line and "started" not in line]
    assert shown[4] == "✗ g[4]::fetch  failed  ValueError: 4"
    assert shown[5:] == ["  further failures are counted", "✗ g  100 done  100 failed  in 0 ms"]


def test_without_progress_there_is_only_the_start_and_the_end() -> None:
    printer, _ = lines(show_progress=False)
    printer(group_started(total=100))
    run_members(printer, range(100), 100)
    printer(group_ended(total=100))
    assert len(output(printer)) == 2


def test_real_time_has_a_line_for_every_event_with_how_far_the_group_is() -> None:
    printer, _ = lines("realtime", show_address=False)
    printer(group_started(name="pages", total=10))
    printer(member(STARTED, 0, total=10))
    printer(member(STARTED, 1, total=10))
    printer(call(STARTED))
    printer(member(COMPLETED, 1, total=10, execution_time=1.0))
    printer(member(FAILED, 0, total=10, message="ValueError: no"))
    printer(group_ended(name="pages", total=10, status=GroupStatus.CANCELLED))
    assert output(printer) == [
        "▶ pages  started  10 calls  4 at a time",
        "▶ fetch[0]  started",
        "▶ fetch[1]  started",
        "▶ fetch  started",
        "✓ [ 1/10] fetch[1]  completed  1.0 s",
        "✗ [ 2/10] fetch[0]  failed  ValueError: no",
        "■ pages  cancelled  1.5 s",
    ]


def test_the_mode_may_be_given_as_a_word_and_nonsense_is_refused() -> None:
    assert lines("progress")[0].parallel_mode is ParallelDisplayMode.PROGRESS
    assert not ParallelEventPrinter("realtime", console=terminal(), live=True).is_live
    with pytest.raises(ValueError, match="nonsense"):
        lines("nonsense")


@pytest.mark.parametrize(
    ("file", "terminal_type", "environ", "is_live"),
    [
        (Terminal(), "xterm", {}, True),
        (Terminal(), "xterm", {"CI": "false"}, True),
        (Terminal(), "xterm", {"CI": "true"}, False),
        (Terminal(), "dumb", {}, False),
        (io.StringIO(), "xterm", {}, False),
        (io.StringIO(), "xterm", {"FORCE_COLOR": "1"}, False),
        (Terminal(), "xterm", {"NO_COLOR": "1"}, True),
    ],
)
def test_only_a_real_terminal_outside_a_build_is_drawn_over(
    file: io.StringIO, terminal_type: str, environ: dict[str, str], is_live: bool
) -> None:
    variables = {"TERM": terminal_type, **environ}
    assert can_be_live(Console(file=file, _environ=variables, legacy_windows=False), variables) is is_live


def test_the_groups_can_be_looked_at() -> None:
    printer, _ = lines()
    printer(group_started(total=10))
    run_members(printer, range(8), 10)
    tracker = printer.parallel_groups["g"]
    assert printer._render_progress_bar(tracker.finished, tracker.total) == "████████▒▒ 80%"
    printer._update_progress_bar("g")
    assert not tracker.is_complete


def test_memory_does_not_grow_with_the_members() -> None:
    printer, _ = lines()
    printer(group_started(total=10_000))
    run_members(printer, range(10_000), 10_000)
    tracker = printer.parallel_groups["g"]
    assert tracker.finished == 10_000
    assert not tracker.running


def test_counts_of_a_running_group_can_be_given_instead_of_events() -> None:
    printer, clock = bars()
    printer(group_started(name="pages", total=4))
    counts = ParallelGroupTracker(group_id="g", name="", total=4, started=3, completed=2, running={2: ("fetch", 101.0)})
    clock.advance(2.0)
    printer.sample([counts, ParallelGroupTracker(group_id="of another run")])
    printer.refresh()
    assert screen(written(printer.console)) == [
        "pages  █████▒▒▒▒▒ 50%   2/4  1 running  1.0/s  ETA 2 s",
        "  slowest fetch[2] 1.0 s",
    ]
    printer(group_ended(name="pages", total=4, completed=4))
    printer.sample([counts])
    assert screen(written(printer.console)) == ["✓ pages  4 done  in 2.0 s  2.0/s"]


def test_where_lines_stay_given_counts_make_lines_as_events_do() -> None:
    printer, clock = lines()
    printer(group_started(name="pages", total=10))
    for completed in 1, 1, 4:
        clock.advance(1.0)
        printer.sample([ParallelGroupTracker(group_id="g", total=10, completed=completed)])
    assert [line.split()[1:3] for line in output(printer)[1:]] == [["10%", "1/10"], ["40%", "4/10"]]
