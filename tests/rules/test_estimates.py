"""Means and their standard errors, against other ways of computing them."""

from __future__ import annotations

import math
import statistics

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents.cli.estimates import Estimate, estimate

SCORES = st.lists(st.tuples(st.floats(-100, 100, width=32), st.integers(0, 4)), min_size=2, max_size=40)


def sandwich(numbers: list[float], clusters: list[int]) -> float:
    """The standard error of the constant of a regression, robust to clusters, with matrices as textbooks write it."""
    y, ones = numpy.array(numbers), numpy.ones((len(numbers), 1))
    bread = numpy.linalg.inv(ones.T @ ones)
    left = y - (ones @ (bread @ ones.T @ y))
    groups = sorted(set(clusters))
    members = [numpy.array(clusters) == each for each in groups]
    meat = sum(ones[its].T @ numpy.outer(left[its], left[its]) @ ones[its] for its in members)
    return float(math.sqrt((bread @ meat @ bread)[0, 0] * len(groups) / (len(groups) - 1)))


@given(SCORES)
def test_a_clustered_standard_error_is_that_of_a_regression_robust_to_clusters(scores: list[tuple[float, int]]) -> None:
    numbers, clusters = [each[0] for each in scores], [each[1] for each in scores]
    found = estimate(numbers, clusters)
    assert found.clusters == len(set(clusters))
    assert found.mean == pytest.approx(numpy.mean(numbers), abs=1e-9)
    if found.clusters == 1:
        assert found.stderr is None
    else:
        assert found.stderr == pytest.approx(sandwich(numbers, clusters), abs=1e-6)


@given(SCORES)
def test_without_clusters_it_is_the_usual_standard_error(scores: list[tuple[float, int]]) -> None:
    numbers = [each[0] for each in scores]
    usual = statistics.stdev(numbers) / math.sqrt(len(numbers))
    assert estimate(numbers).stderr == pytest.approx(usual, abs=1e-6)
    assert estimate(numbers, range(len(numbers))).stderr == pytest.approx(usual, abs=1e-6)


def test_a_figure_that_was_computed_by_hand() -> None:
    """Deviations from 0.5: +0.5, +0.5 in one cluster, -0.5, -0.5 in the other: sqrt(2 * (1 + 1)) / 4."""
    found = estimate([1, 1, 0, 0], ["a", "a", "b", "b"])
    assert found == Estimate(4, 0.5, 0.5, 2)
    assert found.interval == pytest.approx((0.5 - 0.98, 0.5 + 0.98), abs=1e-3)


def test_what_says_nothing_of_the_error_has_none() -> None:
    assert estimate([]) == Estimate(0, None, None)
    assert estimate([3.0]) == Estimate(1, 3.0, None)
    assert estimate([3.0]).interval is None
