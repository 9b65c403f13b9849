"""Latency percentiles in constant memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, log2

_PER_DOUBLING = 8
_SMALLEST = 1e-6
_OFFSET = -log2(_SMALLEST) * _PER_DOUBLING
BUCKETS = (_SMALLEST, _PER_DOUBLING, _OFFSET)
"""What a database needs to count in the same buckets: the longest duration of the first one, and of a longer one the
number is the whole part of `log2(seconds) * per_doubling + offset`."""


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Seconds: mean, median, 90th and 99th percentile and maximum of `count` calls. All 0.0 for none."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(slots=True)
class LatencyHistogram:
    """Counts durations in buckets that grow by a factor of 2**(1/8), from a microsecond on.

    A percentile is the geometric middle of its bucket: at most 4.5 % away from the exact one, whatever their number.

    Attributes:
        buckets: how many durations are in each, by its number; empty ones are left out.
        count: how many there are in all.
        total: their sum in seconds.
        largest: the longest one.
    """

    buckets: dict[int, int] = field(default_factory=dict)
    count: int = 0
    total: float = 0.0
    largest: float = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration."""
        bucket = int(log2(seconds) * _PER_DOUBLING + _OFFSET) if seconds > _SMALLEST else 0
        try:
            self.buckets[bucket] += 1
        except KeyError:
            self.buckets[bucket] = 1
        self.count += 1
        self.total += seconds
        if seconds > self.largest:
            self.largest = seconds

    def add(self, bucket: int, count: int, total: float, largest: float) -> None:
        """Count several durations that are in one bucket."""
        self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.count += count
        self.total += total
        self.largest = max(self.largest, largest)

    def plus(self, other: LatencyHistogram) -> LatencyHistogram:
        """The durations of both."""
        buckets = dict(self.buckets)
        for bucket, count in other.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
        largest = max(self.largest, other.largest)
        return LatencyHistogram(buckets, self.count + other.count, self.total + other.total, largest)

    def percentile(self, share: float) -> float:
        """The duration in seconds that a `share` (0 to 1) of all do not exceed; 0.0 if there are none."""
        rank = ceil(share * self.count)
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                return min(self.largest, _SMALLEST * 2 ** ((bucket + 0.5) / _PER_DOUBLING))
        return 0.0

    def summary(self) -> LatencySummary:
        """All figures at once."""
        return LatencySummary(
            count=self.count,
            mean=self.total / self.count if self.count else 0.0,
            p50=self.percentile(0.5),
            p90=self.percentile(0.9),
            p99=self.percentile(0.99),
            max=self.largest,
        )
