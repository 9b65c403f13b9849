"""Keys, from which replay works, and addresses, which people read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents.core._replay.identity import (
    ROOT_KEY,
    address_of_member,
    again_key,
    child_address,
    child_key,
    group_key,
    idempotency_key,
    identity,
    identity_of_item,
    identity_of_unseen,
    place_of_members,
)

SAME = identity("fetch", "1", b"'a'", None)
# Text in which one part could pass for the end of another: digits, colons, what the library itself writes before parts.
TRICKY = st.text(alphabet="0123456789:ab\x00é\ud800", max_size=8) | st.sampled_from(["1:", "2:ab", "call", "5:child"])
BYTES = st.binary(max_size=8)


@given(st.tuples(TRICKY, TRICKY, BYTES), st.tuples(TRICKY, TRICKY, BYTES))
def test_two_calls_are_the_same_only_if_actor_version_and_input_are(
    one: tuple[str, str, bytes], other: tuple[str, str, bytes]
) -> None:
    assert (identity(*one, None) == identity(*other, None)) is (one == other)


@given(st.tuples(TRICKY, TRICKY, TRICKY), st.tuples(TRICKY, TRICKY, TRICKY))
def test_with_an_explicit_key_only_actor_version_and_key_count(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    first = identity(one[0], one[1], b"one input", one[2])
    second = identity(other[0], other[1], b"another input", other[2])
    assert (first == second) is (one == other)


PLACE = st.tuples(
    st.sampled_from([ROOT_KEY, SAME, again_key(SAME)]),
    TRICKY,
    st.sampled_from([SAME, again_key(SAME)]),
    st.integers(0, 120),
)


@given(PLACE, PLACE)
def test_a_child_has_its_own_key_for_each_parent_group_identity_and_occurrence(
    one: tuple[bytes, str, bytes, int], other: tuple[bytes, str, bytes, int]
) -> None:
    assert (child_key(*one) == child_key(*other)) is (one == other)


@given(st.tuples(BYTES, TRICKY, st.integers(0, 120)), st.tuples(BYTES, TRICKY, st.integers(0, 120)))
def test_a_group_has_its_own_key_for_each_parent_name_and_occurrence(
    one: tuple[bytes, str, int], other: tuple[bytes, str, int]
) -> None:
    assert (group_key(*one) == group_key(*other)) is (one == other)


@given(st.tuples(TRICKY, TRICKY, BYTES), st.tuples(TRICKY, TRICKY, BYTES))
def test_an_item_of_a_map_is_its_group_its_function_and_its_data(
    one: tuple[str, str, bytes], other: tuple[str, str, bytes]
) -> None:
    assert (identity_of_item(*one) == identity_of_item(*other)) is (one == other)


def test_kinds_of_keys_never_meet_even_if_their_parts_do() -> None:
    keys = [
        identity("a", "1", b"x", None),
        identity("a", "1", b"x", "x"),
        identity_of_unseen("a", "x", None, 0),
        identity_of_unseen("a", None, "x", 0),
        identity_of_unseen("a", "0", None, 0),
        identity_of_unseen("a", None, None, 0),
        identity_of_item("a", "a", b"x"),
        child_key(ROOT_KEY, "a", SAME, 0),
        group_key(ROOT_KEY, "a", 0),
        again_key(SAME),
        SAME,
    ]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (("g", "n", None, 0), ("g", "n", None, 7), True),
        (("g", None, "k", 0), ("g", "n", "k", 7), True),
        (("g", None, None, 0), ("g", None, None, 7), False),
        (("g", "n", None, 0), ("g", "m", None, 0), False),
        (("g", "n", None, 0), ("g", None, "n", 0), False),
        (("g", "n", None, 0), ("h", "n", None, 0), False),
        (("g", None, "k", 0), ("h", None, "k", 0), False),
        (("g", None, None, 0), ("h", None, None, 0), False),
    ],
)
def test_work_whose_input_cannot_be_seen_is_its_group_and_its_key_else_its_name_else_its_index(
    one: tuple[str, str | None, str | None, int], other: tuple[str, str | None, str | None, int], is_same: bool
) -> None:
    assert (identity_of_unseen(*one) == identity_of_unseen(*other)) is is_same


def test_a_call_that_is_made_again_and_again_has_a_new_key_each_time() -> None:
    keys = [SAME]
    for _ in range(5):
        keys.append(again_key(keys[-1]))
    assert len(set(keys)) == 6


def test_an_idempotency_key_is_short_text_of_the_run_and_the_call() -> None:
    keys = {idempotency_key(run_id, key) for run_id in ("a", "b", "é") for key in (ROOT_KEY, SAME, again_key(SAME))}
    assert len(keys) == 9
    assert all(len(key) == 40 and int(key, 16) for key in keys)
    assert idempotency_key("a", SAME) == idempotency_key("a", SAME)


@pytest.mark.parametrize(
    ("parent", "name", "occurrence", "address"),
    [
        ("", "survey", 0, "survey"),
        ("survey", "fetch", 0, "survey::fetch"),
        ("survey", "fetch", 1, "survey::fetch#2"),
        ("survey::pages[3]::fetch", "ask", 9, "survey::pages[3]::fetch::ask#10"),
    ],
)
def test_the_address_of_a_call(parent: str, name: str, occurrence: int, address: str) -> None:
    assert child_address(parent, name, occurrence) == address


@pytest.mark.parametrize(
    ("parent", "index", "name", "address"),
    [
        ("", 0, "fetch", "pages[0]::fetch"),
        ("survey", 3, "fetch", "survey::pages[3]::fetch"),
        ("survey", 3, "", "survey::pages[3]"),
        ("", 12, "", "pages[12]"),
    ],
)
def test_the_address_of_a_member(parent: str, index: int, name: str, address: str) -> None:
    assert address_of_member(place_of_members(parent, "pages"), index, name) == address
