"""What helps to test programs that use this library, and stores that are written for it.

Importing this needs neither pytest nor Hypothesis; only the conformance suite and the pytest plugin do. Each name is
loaded when it is asked for.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rh_agents.testing.cassette import Cassette, CassetteMode, Drift
    from rh_agents.testing.clock import JumpingClock
    from rh_agents.testing.network import RealRequestError, no_real_requests
    from rh_agents.testing.resuming import assert_no_paid_calls_on_resume
    from rh_agents.testing.scripted import ScriptedLLM, ScriptEnded, tool_call

__all__ = [
    "Cassette",
    "CassetteMode",
    "Drift",
    "JumpingClock",
    "RealRequestError",
    "ScriptEnded",
    "ScriptedLLM",
    "assert_no_paid_calls_on_resume",
    "no_real_requests",
    "tool_call",
]

_HOMES = {
    "Cassette": "cassette",
    "CassetteMode": "cassette",
    "Drift": "cassette",
    "JumpingClock": "clock",
    "RealRequestError": "network",
    "ScriptEnded": "scripted",
    "ScriptedLLM": "scripted",
    "assert_no_paid_calls_on_resume": "resuming",
    "no_real_requests": "network",
    "tool_call": "scripted",
}

# Failed assertions of the suites are explained like those of any test if pytest knows them before their import.
if "pytest" in sys.modules:
    sys.modules["pytest"].register_assert_rewrite(
        "rh_agents.testing.conformance", "rh_agents.testing._comparison", "rh_agents.testing._records"
    )


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
