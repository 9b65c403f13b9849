"""What holds for every test: `--run-slow`, `--run-stress`, and property tests that do not depend on the speed of the
machine."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings

from tests.loops import LOOPS, use_loops
from tests.services.postgresql import postgresql_server, postgresql_url

__all__ = ["postgresql_server", "postgresql_url"]  # one server for all tests that want one

# No deadline: a busy machine is no counterexample. On CI the same examples every time: a red build can be repeated.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# Also where pytest is started without make: see the Makefile.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Databases hold as well what the owner of a run sees to: that a call has one outcome. See `rh_agents.stores._repeated`.
os.environ.setdefault("RH_AGENTS_CHECK", "keys")
sys.dont_write_bytecode = False

OPT_IN = {
    "slow": ("--run-slow", "takes seconds"),
    "stress": ("--run-stress", "takes minutes; `make stress` runs it"),
}
"""By marker: the option without which such tests are skipped, and why."""


def pytest_addoption(parser: pytest.Parser) -> None:
    for marker, (option, _) in OPT_IN.items():
        parser.addoption(option, action="store_true", help=f"also run the tests marked {marker}")
    parser.addoption("--loops", choices=LOOPS, help="run the tests on event loops of this kind")


def pytest_configure(config: pytest.Config) -> None:
    loops = config.getoption("--loops")
    if loops is not None:
        use_loops(loops)
    config.addinivalue_line("markers", "lazy_tasks(reason): not for tasks that begin before they are known, and why")
    for marker, (option, reason) in OPT_IN.items():
        config.addinivalue_line("markers", f"{marker}: {reason}; runs only with {option}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items if config.getoption("--loops") == "eager" else ():
        if lazy := item.get_closest_marker("lazy_tasks"):
            item.add_marker(pytest.mark.skip(reason=f"eager tasks: {lazy.args[0]}"))
    for marker, (option, reason) in OPT_IN.items():
        if config.getoption(option):
            continue
        skip = pytest.mark.skip(reason=f"{marker}: {reason}; pass {option}")
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(skip)
