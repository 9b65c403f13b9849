"""Fixtures for tests of programs that use this library. pytest finds them by itself.

`cassette`: `report = await cassette.play(research, "rivers")` records the workflow the first time, and replays it
ever after. Its files are in the folder `cassettes` beside the test; `pytest --cassettes=record` (or `replay`, or
`validate`) does something else.

`no_real_requests`: a test with it fails when it wants to reach another machine.

`jumping_clock`: a clock for `ExecutionState(clock=...)` that a test sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rh_agents.testing.cassette import Cassette
    from rh_agents.testing.clock import JumpingClock
    from rh_agents.testing.network import no_real_requests as NoRealRequests

__all__ = ["cassette", "jumping_clock", "no_real_requests", "pytest_addoption"]

# pytest loads every plugin in every test run: what is not asked for must cost nothing, so imports are in the fixtures.
# And this package stands beside `rh_agents`, not in it: who imports a part of a package imports all of it, and then its
# lines would not be counted by `pytest --cov`, which begins when all plugins have been loaded.

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--cassettes`."""
    parser.getgroup("rh_agents").addoption(
        "--cassettes",
        choices=["auto", "record", "replay", "validate"],
        default="auto",
        help="what the fixture `cassette` does: record what is missing and replay the rest (auto), record all anew, "
        "only replay, or call everything again and compare",
    )


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> Cassette:
    """The recording of the workflow of this test."""
    from rh_agents.stores import open_store  # noqa: PLC0415
    from rh_agents.testing.cassette import Cassette  # noqa: PLC0415

    place = request.node.nodeid.rpartition("/")[2]  # with its class and its parameters
    name = _NOT_IN_NAMES.sub("_", place.replace(".py::", "-").replace("::", "-"))
    path = request.path.parent / "cassettes" / f"{name}.db"
    mode = str(request.config.getoption("--cassettes", "auto"))
    return Cassette(path, open_store, mode)


@pytest.fixture
def no_real_requests() -> Iterator[NoRealRequests]:
    """Connections to other machines are an error in this test, also where something catches that error.

    The value is the block: a test that expects an attempt looks at its `refused`, and clears it.
    """
    from rh_agents.testing import network  # noqa: PLC0415

    with network.no_real_requests(allow_loopback=True) as guard:
        yield guard
    if guard.refused:
        raise network.RealRequestError(guard.message)


@pytest.fixture
def jumping_clock() -> JumpingClock:
    """A clock that the test sets."""
    from rh_agents.testing.clock import JumpingClock  # noqa: PLC0415

    return JumpingClock()
