"""What helps to test programs that use this library, and stores that are written for it."""

import sys

__all__: list[str] = []

# Failed assertions of the suites shall be explained like those of any test; pytest must be told before it is too late.
if "pytest" in sys.modules:
    sys.modules["pytest"].register_assert_rewrite(
        "rh_agents.testing.conformance", "rh_agents.testing._comparison", "rh_agents.testing._records"
    )
