"""Every stress test comes in two sizes: a short one for every day, and the full one for `make stress`."""

from __future__ import annotations

import pytest

__all__ = ["ALL", "rounds"]

ALL = 10**9
"""As many as there are."""


def rounds(*, short: int = 0, full: int, slow: int = 0) -> pytest.MarkDecorator:
    """The parameter `rounds` of a test; with `slow`, there is a size between the two, for `make test-slow`."""
    found = [pytest.param(short, id="short")] if short else []
    if slow:
        found.append(pytest.param(slow, id="longer", marks=pytest.mark.slow))
    return pytest.mark.parametrize("rounds", [*found, pytest.param(full, id="full", marks=pytest.mark.stress)])
