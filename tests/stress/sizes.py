"""Every stress test comes in two sizes: a short one for every day, and the full one for `make stress`."""

from __future__ import annotations

import pytest

__all__ = ["ALL", "rounds"]

ALL = 10**9
"""As many as there are."""


def rounds(*, short: int, full: int) -> pytest.MarkDecorator:
    """The parameter `rounds` of a test."""
    return pytest.mark.parametrize(
        "rounds", [pytest.param(short, id="short"), pytest.param(full, id="full", marks=pytest.mark.stress)]
    )
