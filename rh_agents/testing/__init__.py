"""What helps to test programs that use this library, and stores that are written for it.

Importing this needs neither pytest nor Hypothesis; only the conformance suite and the pytest plugin do. Each name is
loaded when it is asked for.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rh_agents.testing.scripted import ScriptedLLM, ScriptEnded, tool_call

__all__ = ["ScriptEnded", "ScriptedLLM", "tool_call"]

_HOMES = {
    "ScriptEnded": "scripted",
    "ScriptedLLM": "scripted",
    "tool_call": "scripted",
}

# Failed assertions of the suites shall be explained like those of any test; pytest must be told before it is too late.
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
