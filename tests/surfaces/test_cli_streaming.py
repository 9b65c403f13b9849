"""`rh-agents show --follow --text`: text of calls in a terminal while it streams."""

from __future__ import annotations

import asyncio

import pytest

from rh_agents import ExecutionState, open_store, tell_progress, tool
from rh_agents.cli import main
from rh_agents.cli.output.streamed import StreamedLines
from rh_agents.core.chat import ChatDelta
from rh_agents.core.ports.streaming import PieceKind, StreamedPiece
from tests.surfaces.cli_kit import started


def piece(text: str, key: str = "a", kind: str = "text", attempt: int = 1, **more: object) -> StreamedPiece:
    return StreamedPiece(key, f"call {key}", attempt, 0, PieceKind(kind), text, **more)  # type: ignore[arg-type]


def shown(*pieces: StreamedPiece) -> list[str]:
    lines: list[str] = []
    streamed = StreamedLines(lines.append)
    for each in pieces:
        streamed.add(each)
    streamed.end("a")
    streamed.end("b")
    streamed.end(None)
    return lines


def test_lines_of_several_calls_come_when_they_are_whole() -> None:
    assert shown(piece("One "), piece("other\n", "b"), piece("line\nand "), piece("rest")) == [
        "call b │ other",
        "call a │ One line",
        "call a │ and rest",
    ]


def test_a_long_line_is_shown_in_parts_while_it_goes_on() -> None:
    words = [piece(f"word{number} ") for number in range(60)]
    lines = shown(*words)
    assert len(lines) > 3
    assert max(map(len, lines)) < 120
    assert " ".join(line.partition("│ ")[2] for line in lines).split() == [f"word{number}" for number in range(60)]


def test_where_another_text_begins_is_another_line() -> None:
    assert shown(
        piece("Hm", kind="reasoning"),
        piece("It is"),
        piece("", kind="void"),
        piece("It was"),
        piece("{}", kind="tool_call", tool_index=0, tool_name="look"),
        piece("second", attempt=2),
        piece("late", attempt=2, is_gap=True),
    ) == [
        "call a │ Hm",
        "call a │ It is",
        "call a │ … it begins anew …",
        "call a │ It was",
        "call a │ calls look",
        "call a │ {}",
        "call a │ second",
        "call a │ … text is missing here …",
        "call a │ late",
    ]


def test_no_text_reaches_the_terminal_as_it_is() -> None:
    assert shown(piece("\x1b[31mred\u202e\n")) == ["call a │ \\x1b[31mred\\u202e"]


def test_text_is_printed_between_the_events_of_its_call(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(str(tmp_path))
    ended = asyncio.Event()

    @tool
    async def write() -> str:
        while not ended.is_set():  # somebody looks sooner or later
            await tell_progress(ChatDelta(text="Once upon a time\n"))
            await asyncio.sleep(0.05)
        return "done"

    async def go() -> str:
        store = open_store(".rh_agents/runs.db")
        async with ExecutionState(store=store, run_id="r") as state:
            writing = asyncio.ensure_future(write())
            await asyncio.sleep(0)
            assert state.journal is not None
            await state.journal.flush()
            with started("show", "r", "--follow", "--text") as process:
                assert process.stdout is not None
                while "write │ Once upon a time" not in await asyncio.to_thread(process.stdout.readline):
                    pass
                ended.set()
                await writing
                await state.end()
                rest = await asyncio.to_thread(process.stdout.read)
        await store.aclose()
        return rest

    assert asyncio.run(asyncio.wait_for(go(), 60)).splitlines()[-1] == "r: completed"
    assert main(["show", "r", "--text"]) == 2
    assert "add --follow" in capsys.readouterr().err
