"""When failed members end their group."""

from typing import Any

import pytest

from rh_agents import ErrorStrategy, TooManyFailures
from rh_agents.core._group.ending import FailurePolicy
from rh_agents.core.results import ExecutionResult, failure

SLOW, FAST = ErrorStrategy.FAIL_SLOW, ErrorStrategy.FAIL_FAST
ERROR = ValueError("bad")
FAILED: ExecutionResult[Any] = failure(ERROR, 1.0, 1, "fetch", 3, "pages[3]::fetch")


def test_fail_fast_ends_the_group_with_the_members_own_exception() -> None:
    assert FailurePolicy(FAST, None).verdict(FAILED, failed=1, finished=1, group="pages") is ERROR


def test_fail_slow_goes_on_whatever_fails() -> None:
    assert FailurePolicy(SLOW, None).verdict(FAILED, failed=99, finished=99, group="pages") is None


@pytest.mark.parametrize(
    ("limit", "failed", "finished", "ends"),
    [
        (3, 2, 100, False),
        (3, 3, 3, True),
        (3, 4, 9, True),
        (1, 1, 1, True),
        (0.5, 9, 9, False),
        (0.5, 4, 10, False),
        (0.5, 5, 10, True),
        (0.1, 1, 10, True),
        (0.1, 1, 11, False),
        (1.0, 10, 10, True),
        (1.0, 10, 11, False),
    ],
)
def test_a_limit_is_a_number_or_a_share_of_ten_or_more(
    limit: int | float, failed: int, finished: int, ends: bool
) -> None:
    verdict = FailurePolicy(SLOW, limit).verdict(FAILED, failed, finished, "pages")
    assert (verdict is not None) is ends


def test_reaching_the_limit_is_told_with_the_counts_and_the_last_failure() -> None:
    verdict = FailurePolicy(SLOW, 2).verdict(FAILED, 2, 7, "pages")
    assert isinstance(verdict, TooManyFailures)
    assert str(verdict) == (
        "group 'pages' stopped after 2 of 7 finished members had failed (fail_after=2); the last one: ValueError: bad"
    )
    assert verdict.__cause__ is ERROR
    assert verdict.group == "pages"


@pytest.mark.parametrize("limit", [0, -1, 0.0, -0.5, float("nan"), True, False])
def test_a_limit_out_of_range_is_refused(limit: int | float) -> None:
    with pytest.raises(ValueError, match="a number of failures from 1 on, or a share between"):
        FailurePolicy(SLOW, limit)


def test_a_share_above_one_is_refused_with_the_other_meaning() -> None:
    with pytest.raises(ValueError, match=r"a share is at most 1\.0; a number of failures is an int"):
        FailurePolicy(SLOW, 5.0)


def test_fail_fast_and_a_limit_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="leave one out"):
        FailurePolicy(FAST, 2)
