"""Latency percentiles in constant memory, and how far they may be from the exact ones."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents.core._base.latency import LatencyHistogram

DURATIONS = st.floats(min_value=1e-6, max_value=1e6)


def recorded(durations: list[float]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.record(duration)
    return histogram


@given(st.lists(DURATIONS, min_size=1, max_size=200), st.floats(min_value=0.001, max_value=1.0))
def test_a_percentile_is_at_most_four_and_a_half_percent_away_from_the_exact_one(
    durations: list[float], share: float
) -> None:
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert recorded(durations).percentile(share) == pytest.approx(exact, rel=0.045)


@given(st.lists(DURATIONS, min_size=1, max_size=50))
def test_the_summary_is_ordered_and_its_maximum_and_mean_are_exact(durations: list[float]) -> None:
    summary = recorded(durations).summary()
    assert summary.count == len(durations)
    assert summary.p50 <= summary.p90 <= summary.p99 <= summary.max == max(durations)
    assert summary.mean == pytest.approx(sum(durations) / len(durations))


def test_nothing_recorded_is_all_zeros() -> None:
    summary = LatencyHistogram().summary()
    assert (summary.count, summary.mean, summary.p50, summary.p90, summary.p99, summary.max) == (0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("duration", [0.0, 1e-9, 1e-6])
def test_what_is_shorter_than_a_microsecond_is_shown_as_what_it_is(duration: float) -> None:
    assert recorded([duration]).percentile(0.5) == duration


def test_a_clock_that_went_backwards_harms_nothing() -> None:
    assert recorded([-1.0, 1.0]).percentile(1.0) == pytest.approx(1.0, rel=0.045)
