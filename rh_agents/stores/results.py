"""The results of a run as a sequence, and as a table of pandas or polars."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import os
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, overload

from rh_agents.core._replay.codes import Made, Versions, may_have_past_versions
from rh_agents.core._replay.meant import newest_outcomes
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RunInfo, Store
from rh_agents.core.results import Outcome, UnreadOutcome, describe_error
from rh_agents.core.usage import Usage
from rh_agents.stores import open_store
from rh_agents.stores._plain import is_same, plain_value

__all__ = ["RecordedResult", "Results", "results"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class RecordedResult:
    """What one call came to, as it is recorded.

    Attributes:
        key: the identity of the call in its run, in hexadecimal.
        address: the readable place of the call, such as `reviews[3]::rate`.
        name: the name of what was called; of a member of a group the name of the member.
        group: the address of the group of which it is a member; None outside of groups.
        index: its place in that group, from 0; None outside of groups.
        input: what it was called with, as recorded for people: by default the first 256 bytes of a text like JSON; None
            if it was not recorded.
        value: what was returned, of its own type. An `UnknownValue` if this program does not have its class; None of a
            call that failed.
        error: what was raised; None if the call succeeded.
        seconds: how long it took, with all attempts.
        attempts: how many there were.
        usage: what it used of models; None if it used nothing.
        earlier: it is of a version of its actor that is past, and counts no more. Such results are only there if
            `results` was asked for them.
    """

    key: str
    address: str
    name: str
    group: str | None
    index: int | None
    input: str | None
    value: Any
    error: Exception | None
    seconds: float
    attempts: int
    usage: Usage | None
    earlier: bool = False

    @property
    def ok(self) -> bool:
        """Whether the call succeeded."""
        return self.error is None


class Results(Sequence[RecordedResult]):
    """The results of a run in the order in which they were recorded, each call once, as it stands.

    Attributes:
        run_id: the name of the run.
    """

    def __init__(self, run_id: str, results: Sequence[RecordedResult]) -> None:
        self.run_id: str = run_id
        self._results = tuple(results)

    @overload
    def __getitem__(self, index: int) -> RecordedResult: ...

    @overload
    def __getitem__(self, index: slice) -> Results: ...

    def __getitem__(self, index: int | slice) -> RecordedResult | Results:
        return Results(self.run_id, self._results[index]) if isinstance(index, slice) else self._results[index]

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        return f"<{len(self):,} results of run {self.run_id!r}, {len(self.failed):,} failed>"

    @property
    def failed(self) -> Results:
        """Those of calls that failed."""
        return Results(self.run_id, [each for each in self._results if not each.ok])

    def in_group(self, address: str) -> Results:
        """Those of the members of the group at this address, such as `reviews`, in the order of its members."""
        members = [each for each in self._results if each.group == address]
        return Results(self.run_id, sorted(members, key=lambda each: each.index or 0))

    def columns(self) -> dict[str, list[Any]]:
        """The same as columns, each with one entry for each result: what the tables are made of.

        They are `address`, `name`, `group`, `index`, `ok`, `value`, `error` (a text), `seconds`, `attempts`,
        `input_tokens`, `output_tokens`, `cost` and `input`. If all values are objects (models, dataclasses, mappings),
        there is a column for each of their fields in place of `value`: `value.score`. Objects in fields become
        mappings, tuples and sets lists, members of enumerations their values; all else stays as it is. If there are
        results of versions that are past, `earlier` says which they are.
        """
        plain = [None if not each.ok else plain_value(each.value) for each in self._results]
        used = [each.usage or Usage() for each in self._results]
        earlier = [each.earlier for each in self._results]
        return {
            "address": [each.address for each in self._results],
            "name": [each.name for each in self._results],
            "group": [each.group for each in self._results],
            "index": [each.index for each in self._results],
            "ok": [each.ok for each in self._results],
            **_columns_of(plain, [each.ok for each in self._results]),
            "error": [None if each.error is None else describe_error(each.error) for each in self._results],
            "seconds": [each.seconds for each in self._results],
            "attempts": [each.attempts for each in self._results],
            "input_tokens": [each.input_tokens for each in used],
            "output_tokens": [each.output_tokens for each in used],
            "cost": [each.cost for each in used],
            "input": [each.input for each in self._results],
            **({"earlier": earlier} if any(earlier) else {}),
        }

    def to_pandas(self) -> Any:
        """A `DataFrame` of pandas with the `columns`.

        Integers and truth values of which some are missing are in columns of the types Int64 and boolean, since pandas
        would otherwise make other numbers of them. Of floats, what is missing is NaN. What fits into no type of pandas
        is in a column of objects.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        pandas = _module("pandas", "to_pandas()")
        return pandas.DataFrame({name: _pandas_series(pandas, values) for name, values in self.columns().items()})

    def to_polars(self) -> Any:
        """A `DataFrame` of polars with the `columns`.

        Raises:
            ModuleNotFoundError: polars is not installed.
            ValueError: a column has values that have no type in common, or that polars would change, such as
                integers beyond its largest one; the message names the column.
        """
        polars = _module("polars", "to_polars()")
        return polars.DataFrame([_polars_series(polars, name, values) for name, values in self.columns().items()])


def results(store: str | os.PathLike[str], run_id: str, *, earlier: bool = False) -> Results:
    """All results of a run, read now: from a notebook or a script, while the run goes on or afterwards.

        rh_agents.results("runs.db", "monday").to_pandas()

    All of it is in memory, values included; for more than fits, see `Store.outcomes`. It blocks until all is read: in
    async code, call it with `asyncio.to_thread`.

    Args:
        store: the path or the URL of the store, as in `open_store`. No file is made or changed.
        run_id: the name of the run.
        earlier: with what is recorded of versions of actors that are past, marked as `earlier`. It is left out unless
            you say so: after `@tool(version="2")` each item would be there twice.

    Raises:
        StoreError: there is no such run or no such store, or something in it is damaged.
        ValueError: the URL names no store.
    """

    async def read() -> Results:
        opened = open_store(store, read_only=True)
        try:
            info = await opened.find_run(run_id)
            if info is None:
                raise StoreError(f"there is no run {run_id!r} in {os.fspath(store)}; `rh-agents runs` lists them")
            outcomes = await newest_outcomes(opened, run_id)
            past = await _keys_of_past_versions(opened, info)
            kept = [each for each in outcomes if earlier or each.header.key.hex() not in past]
            return Results(run_id, [_result_of(each, past) for each in kept])
        finally:
            await opened.aclose()

    return _elsewhere(read)


def _elsewhere(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What a coroutine returns, in a loop of a thread of its own: this one may have a loop already, as in notebooks."""
    with ThreadPoolExecutor(1, "read results") as threads:
        return threads.submit(lambda: asyncio.run(work())).result()


async def _keys_of_past_versions(store: Store, info: RunInfo) -> set[str]:
    """The keys of the calls of versions that are past. Outcomes do not say their version; the events of calls do."""
    if not may_have_past_versions(info.facts, len(info.executions)):
        return set()
    versions, calls = Versions(), dict[str, Made]()
    async for recorded in store.events(info.run_id):
        event = recorded.event
        if event.key is not None:
            made = calls[event.key] = (event.actor.name, event.actor.recorded_version)
            versions.note(made, recorded.sequence, recorded.sequence)
    past = versions.past(each.after for each in info.executions)
    return {key for key, made in calls.items() if made in past}


def _result_of(unread: UnreadOutcome, past: Collection[str]) -> RecordedResult:
    outcome: Outcome = unread.read(unknown_ok=True)
    group, index = (None, None) if outcome.group_id is None else _place_of(outcome.address)
    return RecordedResult(
        outcome.key.hex(),
        outcome.address,
        outcome.name,
        group,
        index,
        unread.input,
        outcome.value,
        outcome.error,
        outcome.seconds,
        outcome.attempts,
        outcome.usage,
        outcome.key.hex() in past,
    )


def _place_of(address: str) -> tuple[str | None, int | None]:
    """The group of a member and its index there: its address is `place[index]::name`, or `place[index]`."""
    head = address
    while head:
        place, bracket, number = head.rpartition("[")
        digits, closing, rest = number.partition("]")
        if bracket and closing and digits.isdecimal() and (not rest or rest.startswith("::")):
            return place, int(digits)
        head = place
    return None, None


# -- tables -----------------------------------------------------------------------------------------------------------


def _columns_of(values: list[Any], ok: list[bool]) -> dict[str, list[Any]]:
    """The column of values, or those of their fields if all values that there are have some."""
    given = [value for value, is_ok in zip(values, ok, strict=True) if is_ok and value is not None]
    if not given or not all(
        isinstance(each, dict) and each and all(isinstance(n, str) for n in each) for each in given
    ):
        return {"value": values}
    names = dict.fromkeys(name for each in given for name in each)
    return {f"value.{name}": [None if each is None else each.get(name) for each in values] for name in names}


def _module(name: str, wanted_by: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(
            f"{wanted_by} needs {name}, which is not installed: pip install 'rh_agents[{name}]'", name=name
        ) from error


def _pandas_series(pandas: Any, values: list[Any]) -> Any:
    given = [each for each in values if each is not None]
    kinds = set(map(type, given))
    if len(given) < len(values):
        if kinds == {bool}:
            return pandas.Series(values, dtype="boolean")
        if kinds == {int}:
            is_small = all(-(1 << 63) <= each < 1 << 63 for each in given)
            return pandas.Series(values, dtype="Int64" if is_small else "object")
    if len(kinds) > 1 or kinds & {list, dict}:
        return pandas.Series(values, dtype="object")
    return pandas.Series(values) if given else pandas.Series(values, dtype="object")


def _polars_series(polars: Any, name: str, values: list[Any]) -> Any:
    remedy = "use to_pandas(), or make them values of one type in what `columns()` gives"
    try:
        series = polars.Series(name, values, strict=True)
        is_kept = series.dtype != polars.Object and is_same(series.to_list(), values)
    except (ArithmeticError, TypeError, ValueError, RuntimeError, polars.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"column {name!r} cannot be a column of polars ({reason}): {remedy}") from error
    if not is_kept:
        raise ValueError(f"column {name!r} has values that polars would change: {remedy}")
    return series
