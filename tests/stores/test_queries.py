"""Queries are made of parts, so that what they have in common is written once."""

from __future__ import annotations

import re

import pytest

from rh_agents.stores._postgresql.finding import sorting
from rh_agents.stores._sql import named, read_queries

TEXT = """
-- Braces with anything else in them, such as {} and {"a": 1}, are left as they are.

-- part: is_new
-- What is new.
place > :after AND kind = '{"a":'

-- part: new_ones
SELECT place FROM journal
WHERE {is_new}

-- name: oldest
-- The oldest of them.
{new_ones} ORDER BY place LIMIT '{}'

-- name: newest
{new_ones} ORDER BY place DESC
"""


def test_a_query_has_the_parts_that_it_names_and_parts_have_parts() -> None:
    new_ones = "SELECT place FROM journal\nWHERE place > :after AND kind = '{\"a\":'"
    assert named(TEXT) == {
        "oldest": f"-- The oldest of them.\n{new_ones} ORDER BY place LIMIT '{{}}'",
        "newest": f"{new_ones} ORDER BY place DESC",
    }


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_every_part_that_a_query_names_is_there(backend: str) -> None:
    queries = read_queries(backend)
    if backend == "postgresql":  # what calls are sorted by is put in for each order
        queries = {name: text for name, text in queries.items() if not name.startswith("sort_calls")} | sorting(queries)
    assert {name: re.findall(r"\{\w+\}", text) for name, text in queries.items() if re.search(r"\{\w+\}", text)} == {}


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
@pytest.mark.parametrize("name", ["find_calls", "find_failures", "sort_calls"])
def test_a_query_that_goes_backwards_asks_for_the_same_calls(backend: str, name: str) -> None:
    queries = read_queries(backend)
    one, other = (_conditions(queries[each]) for each in (name, f"{name}_back"))
    assert one == other
    assert len(one) > 200, "they are there"


def _conditions(query: str) -> str:
    """A query without what says in which order calls are wanted."""
    without = re.sub(r"^--.*\n", "", query, flags=re.MULTILINE)
    return re.sub(r"value [<>] |ORDER BY .*", "", without)
