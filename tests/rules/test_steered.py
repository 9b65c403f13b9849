"""What people write when they name a call that is to be cancelled or made again."""

from __future__ import annotations

import pytest

from rh_agents.core._replay.steered import is_named

KEY = bytes(range(32))


@pytest.mark.parametrize(
    "item",
    [
        "letter 3",
        "survey::pages[3]::fetch",
        "pages[3]",
        "pages[3]::fetch",
        "survey::pages[3]",
        "@0001",
        "@00010203AB"[:9],
    ],
)
def test_a_member_is_named_by_its_name_its_address_the_end_of_that_or_its_key(item: str) -> None:
    assert is_named(item, "letter 3", "survey::pages[3]::fetch", KEY)


@pytest.mark.parametrize(
    "item", ["fetch", "survey", "pages", "ages[3]", "[3]", "3", "pages[33]", "pages[3", "", "@", "@01", "]"]
)
def test_no_other_members_are_meant(item: str) -> None:
    assert not is_named(item, "letter 3", "survey::pages[3]::fetch", KEY)


def test_the_first_part_of_an_address_may_be_the_member() -> None:
    assert is_named("pages[3]", "fetch", "pages[3]::fetch", None)
    assert not is_named("pages[3]", "inner", "pages[3]::page::inner[0]::fetch", None), "that is below it"
