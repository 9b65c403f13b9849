"""The progress of a command, as it is shown on standard error."""

from __future__ import annotations

import asyncio

import detangle
import pytest

from rh_agents import ExecutionState, tool
from rh_agents.cli.output.progress import Progress, shown


@tool
async def nap(number: int) -> int:
    """Takes a second."""
    await asyncio.sleep(1.0)
    if number == 1:
        raise ValueError("woken up")
    return number


def test_counts_come_from_looks_at_the_groups_and_failures_from_their_events(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def main() -> None:
        state = ExecutionState(history_limit=0)
        with shown(Progress.LINES) as display:
            assert display is not None
            display.follow(state)
            async with state, state.parallel(1, name="naps") as p:
                p.map(nap, range(4))
                await p.gather()

    detangle.run(main)
    first, *lines, last = capsys.readouterr().err.splitlines()
    assert first == "▶ naps  started  1 at a time"
    assert [" ".join(line.split()[1:3]) for line in lines] == ["25% 1/4", "naps[1]::nap failed", "50% 2/4", "75% 3/4"]
    assert last.startswith("✗ naps  ")


def test_nothing_looks_any_more_when_it_is_over() -> None:
    async def main() -> int:
        state = ExecutionState(history_limit=0)
        with shown(Progress.LINES) as display:
            assert display is not None
            display.follow(state)
            async with state:
                await nap(0)
        late = _Counted()
        state.parts.open_groups["late"] = late
        await asyncio.sleep(10.0)
        return late.looks

    assert detangle.run(main) == 0


class _Counted:
    """Counts who looks at it."""

    looks = 0

    @property
    def counted(self) -> None:
        self.looks += 1
