"""A user's program over data frames: the rows are what the functions take, and no checker has anything to say."""

from collections.abc import Mapping
from typing import Any, assert_type

import pandas
import polars

from rh_agents import Tool, parallel, tool
from rh_agents.core.parallel import MapHandle


@tool(retry=3)
async def rate(row: dict[str, Any]) -> int:
    return len(row["text"]) * int(row["stars"])


@tool
def count_fields(row: Mapping[str, Any]) -> int:
    return len(row)


async def plain(row: dict[str, Any]) -> str:
    return str(row["text"])


def id_of(row: Mapping[str, Any]) -> str:
    return str(row["id"])


async def main(old: pandas.DataFrame, new: polars.DataFrame, model: Tool) -> None:
    async with parallel(max_workers=20, name="reviews") as p:
        assert_type(p.map(rate, old), MapHandle[int, Any])
        assert_type(p.map(rate, new), MapHandle[int, Any])
        assert_type(p.map(count_fields, new, key=id_of, name=lambda row: row["id"].upper()), MapHandle[int, Any])
        assert_type(p.map(plain, new, shard=500, on="process"), MapHandle[str, Any])
        assert_type(p.map(lambda row: rate(row), old), MapHandle[int, Any])
        assert_type(p.map(model, new), MapHandle[Any, Any])
        async for result in p.map(rate, new).stream():
            assert_type(result.unwrap(), int)
            print(result.item["id"], result.unwrap())
        assert_type(p.map(rate, new.to_dicts()), MapHandle[int, dict[str, Any]])
        assert_type(p.map(len_of, new["text"].to_list()), MapHandle[int, Any])


@tool
def len_of(text: str) -> int:
    return len(text)
