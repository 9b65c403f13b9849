"""Means of scores, and how far they may be from what would be found with other items of the same kind.

Items are a sample. The standard error of their mean is that of the clustered central limit theorem: items of one
cluster (questions about one text, answers of one user) may depend on each other, clusters do not. With the deviations
d of the n scores from their mean, summed up in each of the C clusters,

    SE = sqrt(C / (C - 1) * sum over clusters of (sum of d)²) / n

Where every item is a cluster of its own, that is the usual standard error, with n - 1 below the variance.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

__all__ = ["Estimate", "estimate"]

_TWO_SIDED_95 = 1.959963984540054
"""Standard errors on either side of a mean between which 95 % of a normal distribution are."""


class Estimate(NamedTuple):
    """The mean of some numbers.

    Attributes:
        numbers: how many there are.
        mean: None of no numbers.
        stderr: the standard error of the mean; None where one cluster, or one number, says nothing of it.
        clusters: how many clusters they are in; None if each is taken for itself.
    """

    numbers: int
    mean: float | None
    stderr: float | None
    clusters: int | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The mean plus and minus 1.96 standard errors; None where there is no standard error."""
        if self.mean is None or self.stderr is None:
            return None
        return self.mean - _TWO_SIDED_95 * self.stderr, self.mean + _TWO_SIDED_95 * self.stderr


def estimate(numbers: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """The mean of numbers with its standard error.

    Args:
        numbers: finite ones.
        clusters: for each number, what it has in common with others of its cluster; None: they are independent.
    """
    count = len(numbers)
    distinct = None if clusters is None else len(set(clusters))
    if not count:
        return Estimate(0, None, None, distinct)
    mean = math.fsum(numbers) / count
    sums: dict[Hashable, list[float]] = {}
    for number, cluster in zip(numbers, range(count) if clusters is None else clusters, strict=True):
        sums.setdefault(cluster, []).append(number - mean)
    if len(sums) < 2:
        return Estimate(count, mean, None, distinct)
    squares = math.fsum(math.fsum(deviations) ** 2 for deviations in sums.values())
    stderr = math.sqrt(squares * len(sums) / (len(sums) - 1)) / count
    return Estimate(count, mean, stderr, distinct)
