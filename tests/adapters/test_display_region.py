"""The live region: what others print, the thread, and the end of the program."""

from __future__ import annotations

import io
import logging
import os
import pty
import subprocess
import sys
import threading

import pytest

from rh_agents.display.region import Frame, LiveRegion
from tests.adapters.display_kit import Terminal, screen


def frame() -> Frame:
    return Frame(["bar"], [3], 80)


def standard_output(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal that is the standard output. (No fixture: pytest replaces the stream between set-up and test.)"""
    tty = Terminal()
    monkeypatch.setattr(sys, "stdout", tty)
    return tty


def region_on(file: io.StringIO) -> LiveRegion:
    region = LiveRegion(file, frame, refresh_per_second=0)
    region.start()
    region.draw()
    return region


def test_whole_lines_appear_above_the_region_exactly_as_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = standard_output(monkeypatch)
    region = region_on(tty)
    print("[red]first[/] " + "w" * 100)
    sys.stdout.writelines(["second\n", "third\n"])
    assert screen(tty.getvalue()) == ["[red]first[/] " + "w" * 100, "second", "third", "bar"]
    region.stop()
    assert screen(tty.getvalue())[-1] == "third"
    assert sys.stdout is tty


def test_the_beginning_of_a_line_can_be_seen_until_its_end_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = standard_output(monkeypatch)
    region = region_on(tty)
    print("Continue? ", end="", flush=True)
    region.draw()
    assert screen(tty.getvalue()) == ["Continue? ", "bar"]
    print("yes")
    assert screen(tty.getvalue()) == ["Continue? yes", "bar"]
    print("unfinished", end="")
    region.stop()
    assert screen(tty.getvalue()) == ["Continue? yes", "unfinished"]


def test_a_stream_that_was_kept_can_be_written_to_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = standard_output(monkeypatch)
    region = region_on(tty)
    kept = sys.stdout
    region.stop()
    print("later", end="", file=kept)
    assert screen(tty.getvalue()) == ["later"]
    assert kept.isatty()


def test_a_standard_output_that_goes_elsewhere_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, tty = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", elsewhere)
    region = region_on(tty)
    assert sys.stdout is elsewhere
    print("result")
    region.stop()
    assert elsewhere.getvalue() == "result\n"


def test_a_stream_that_somebody_replaced_meanwhile_is_not_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    region = region_on(standard_output(monkeypatch))
    other = io.StringIO()
    monkeypatch.setattr(sys, "stdout", other)
    region.stop()
    assert sys.stdout is other


def test_log_lines_appear_above_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = standard_output(monkeypatch)
    logger = logging.getLogger("test_display_region")
    handler = logging.StreamHandler(tty)
    logger.addHandler(handler)
    region = region_on(tty)
    try:
        logger.warning("look")
        assert screen(tty.getvalue()) == ["look", "bar"]
    finally:
        region.stop()
        logger.removeHandler(handler)
    assert handler.stream is tty


def test_the_region_draws_itself_without_events() -> None:
    drawn = threading.Event()

    def signal() -> Frame:
        drawn.set()
        return frame()

    region = LiveRegion(Terminal(), signal, refresh_per_second=1000)
    region.start()
    assert drawn.wait(10)
    region.stop()
    for thread in threading.enumerate():
        if thread.name == "rh_agents display":
            thread.join(10)
            assert not thread.is_alive()


def test_a_terminal_that_goes_away_ends_the_drawing_quietly() -> None:
    tty = Terminal()
    asked = threading.Event()

    def closing() -> Frame:
        tty.close()
        asked.set()
        return frame()

    region = LiveRegion(tty, closing, refresh_per_second=1000)
    region.start()
    assert asked.wait(10)
    for thread in threading.enumerate():
        if thread.name == "rh_agents display":
            thread.join(10)
    region.is_active = False


ENDS = {
    "an exception": "raise RuntimeError",
    "an interrupt": "raise KeyboardInterrupt",
    "an exit": "sys.exit(3)",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_however_the_program_ends_the_region_is_erased(end: str) -> None:
    program = (
        "import sys\n"
        "from rh_agents.display.region import Frame, LiveRegion\n"
        "region = LiveRegion(sys.stdout, lambda: Frame(['bar'], [3], 80), refresh_per_second=0)\n"
        "region.start(); region.draw(); print('line')\n"
        f"{end}\n"
    )
    parent, child = pty.openpty()
    process = subprocess.run([sys.executable, "-c", program], stdout=child, stderr=subprocess.DEVNULL, check=False)
    os.close(child)
    text = os.read(parent, 10_000).decode()
    os.close(parent)
    assert process.returncode != 0
    assert screen(text) == ["line"]
