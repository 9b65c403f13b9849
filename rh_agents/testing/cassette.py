"""Record a run once, and let tests replay it: the journal of the run is the cassette."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, cast

from rh_agents.core._replay.recorded import KeyTable
from rh_agents.core._run.validation import Difference, ValidationJournal
from rh_agents.core.errors import StoreError, UsageError
from rh_agents.core.events import Fact
from rh_agents.core.execution import ExecutionState
from rh_agents.core.ports import CacheEntry, Journal, RunRequest, Store
from rh_agents.core.results import Outcome
from rh_agents.core.types import EventType, ExecutionStatus, ReplayMode

__all__ = ["Cassette", "CassetteMode", "Drift"]

R = TypeVar("R")
_SHOWN = 10
_HOW_TO_RECORD = "record it again (pytest --cassettes=record), or delete the file"


class CassetteMode(StrEnum):
    """What becomes of a test that uses a cassette."""

    AUTO = "auto"
    """What is recorded is replayed, failures as well. If nothing is, it is recorded; a recording that was cut off is
    continued."""
    REPLAY = "replay"
    """What is recorded is replayed, and a cassette that does not exist is an error. For CI."""
    RECORD = "record"
    """Everything is called, and the recording replaces what was there, unless the workflow fails."""
    VALIDATE = "validate"
    """Everything is called again and compared with the recording, which stays as it is. For a nightly test with the
    real model. Calls with `effect="external"` are not made: their outcomes are reused."""


class Drift(StoreError, AssertionError):
    """A program did something that its cassette does not have. The message says all that is known.

    Attributes:
        differences: what differs, call by call.
    """

    def __init__(self, message: str, differences: tuple[Difference, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences


class Cassette:
    """A file with the recordings of one test's runs.

        cassette = Cassette("cassettes/survey.db", open_store)
        answer = await cassette.play(survey, "rivers")

    The first time, `survey` really calls its models and tools, and what they said is recorded. From then on their
    outcomes come from the cassette, and nothing is called; the agents and the workflow themselves are executed, since
    it is their code that the test is about. A model or tool that is asked for something that is not recorded is not
    called: that raises `Drift`. So does, at the end, a call that was recorded and is no longer made, or an
    agent that comes to something else.

    The results of a cache (`cache=`) are left out of account: the cassette has the calls themselves.

    Args:
        path: the file. Its directory is made if there is none.
        open_store: opens the store at a path, for instance `rh_agents.open_store`.
        mode: what to do.
    """

    def __init__(
        self, path: str | Path, open_store: Callable[[str], Store], mode: CassetteMode | str = CassetteMode.AUTO
    ) -> None:
        self.path: Path = Path(path)
        self.mode: CassetteMode = CassetteMode(mode)
        self._open_store = open_store
        self._runs = 0
        self._is_erased = False

    def __repr__(self) -> str:
        return f"Cassette({str(self.path)!r}, {self.mode.value})"

    async def play(
        self, workflow: Callable[..., Awaitable[R]], *args: Any, run_id: str | None = None, **kwargs: Any
    ) -> R:
        """The value of `workflow(*args, **kwargs)`, executed as a run that is recorded or replayed.

        Args:
            workflow: an agent or an async function.
            args: its arguments.
            run_id: the name of the recording; by default the runs of a test are numbered.
            kwargs: its keyword arguments.

        Raises:
            Drift: it did something else than what is recorded.
            RunMismatchError: the recording is of another workflow, or other arguments.
            UsageError: nothing is recorded, and in this mode nothing is to be.
            Exception: what the workflow raises, or is recorded to have raised.
        """
        given = {str(index): value for index, value in enumerate(args)} | kwargs
        async with self.open(run_id, workflow=getattr(workflow, "__name__", ""), input=given or None):
            return await workflow(*args, **kwargs)

    @asynccontextmanager
    async def open(self, run_id: str | None = None, **options: Any) -> AsyncIterator[ExecutionState]:
        """The run as a block: `async with cassette.open(budget=...) as state`. The options are those of
        `ExecutionState`.

        Raises:
            Drift, RunMismatchError, UsageError: as `play`.
        """
        self._runs += 1
        run_id = run_id or str(self._runs)
        with self._kept_if_it_fails():
            self._expect_file()
            store = self._open_store(str(self.path.absolute()))
            try:
                async with self._played(store, run_id, options) as state:
                    yield state
            finally:
                await store.aclose()

    @asynccontextmanager
    async def _played(self, store: Store, run_id: str, options: dict[str, Any]) -> AsyncIterator[ExecutionState]:
        deck = _Deck(store)
        is_replayed = await self._is_to_be_replayed(store, run_id)
        validates = is_replayed and self.mode is CassetteMode.VALIDATE
        deck.replays = is_replayed and not validates
        options["replay_mode"] = ReplayMode.VALIDATION if validates else ReplayMode.NORMAL
        state = ExecutionState(store=cast(Store, deck), run_id=run_id, **options)
        try:
            async with state:
                yield state
        except Exception as error:
            if is_replayed and not isinstance(error, Drift):
                changed = [each for each in state.differences if each.found is not None]
                # What was not called any more is no news when something failed.
                error.add_note(self._describe(run_id, changed) if changed else f"This was played from {self.path}.")
                error.add_note(f"If that is not meant, {_HOW_TO_RECORD}.")
            raise
        if state.differences:
            message = f"{self._describe(run_id, state.differences)}\nIf that is meant, {_HOW_TO_RECORD}."
            raise Drift(message, tuple(state.differences))

    @contextmanager
    def _kept_if_it_fails(self) -> Iterator[None]:
        """A new recording that fails does not replace the one that was there."""
        if self.mode is not CassetteMode.RECORD or self._is_erased:
            yield
            return
        self._is_erased = True
        self._move("", ".old")
        try:
            yield
        except BaseException:
            if Path(f"{self.path}.old").exists():
                self._erase("")
                self._move(".old", "")
            raise
        self._erase(".old")

    def _parts(self, ending: str) -> Iterator[Path]:
        """The file and what a store keeps beside it."""
        for part in ("", "-wal", "-shm", "-artifacts"):
            yield Path(f"{self.path}{part}{ending}")

    def _move(self, before: str, after: str) -> None:
        self._erase(after)
        for old, new in zip(self._parts(before), self._parts(after), strict=True):
            if old.exists():
                old.rename(new)

    def _erase(self, ending: str) -> None:
        for path in self._parts(ending):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @property
    def _only_plays(self) -> bool:
        return self.mode in (CassetteMode.REPLAY, CassetteMode.VALIDATE)

    def _expect_file(self) -> None:
        if self._only_plays and not self.path.exists():
            raise UsageError(f"there is no cassette {self.path}: record it (pytest --cassettes=record)")
        self.path.parent.mkdir(parents=True, exist_ok=True)

    async def _is_to_be_replayed(self, store: Store, run_id: str) -> bool:
        info = await store.find_run(run_id)
        if info is not None and info.status in (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED):
            return True
        if self._only_plays:
            what = "no recording" if info is None else "only a recording that was cut off"
            raise UsageError(f"the cassette {self.path} has {what} of run {run_id!r}: {_HOW_TO_RECORD}")
        return False

    def _describe(self, run_id: str, differences: list[Difference]) -> str:
        lines = [f"  {each}" for each in differences[:_SHOWN]]
        if len(differences) > _SHOWN:
            lines.append(f"  ... and {len(differences) - _SHOWN} more")
        number = f"{len(differences)} call{'s' * (len(differences) != 1)}"
        head = f"run {run_id!r} differs from the cassette {self.path} in {number}:"
        return "\n".join([head, *lines])


class _Deck:
    """A store that plays what it has. All that it does not do itself is done by the store behind it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.replays = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def open_run(self, request: RunRequest) -> Journal:
        if self.replays:
            return await _Player.read(self._store, request.run_id)
        return await self._store.open_run(request)

    async def find_cached(self, key: bytes, *, now: float) -> CacheEntry | None:
        return None

    async def put_cached(self, entry: CacheEntry) -> None:
        pass


_PLAYED = frozenset({EventType.LLM_CALL, EventType.TOOL_CALL, EventType.QUESTION})
"""What reaches out of the program: its outcomes come from the cassette."""


class _Player(ValidationJournal):
    """A journal that has the outcomes of models, tools and people, and compares those of everything else."""

    @classmethod
    async def read(cls, store: Store, run_id: str) -> _Player:
        player = cast(_Player, await super().read(store, run_id))
        played = set()
        async for entry in store.events(run_id, values=False):
            if entry.event.key is not None and entry.event.event_type in _PLAYED:
                played.add(bytes.fromhex(entry.event.key))
        recorded = player.recorded
        recorded.finished = KeyTable({key: number for key, number in recorded.finished.items() if key in played})
        recorded.failed = {key: made_in for key, made_in in recorded.failed.items() if key in played}
        return player

    def note(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        """What is about to be called is not recorded: otherwise no fact would report its start."""
        if fact.kind in _PLAYED and fact.status is ExecutionStatus.STARTED:
            raise Drift(self._not_recorded(fact))
        return super().note(fact, outcome)

    def _not_recorded(self, fact: Fact) -> str:
        address = fact.address or fact.name
        left = [each for key, each in self._outcomes.items() if key in self.recorded.finished and key not in self._seen]
        same = [each for each in left if each.header.address == fact.address]
        if same:
            came_to = _brief(same[0].read(unknown_ok=True))
            why = f"it is recorded with another input there, and came to {came_to}"
        elif left:
            addresses = ", ".join(each.header.address for each in left[:_SHOWN])
            why = f"what is recorded and has not been asked for: {addresses}"
        else:
            why = "all that is recorded has been asked for"
        return (
            f"{address} is not on the cassette of run {self.info.run_id!r}, so it is not called; {why}. "
            f"If that is meant, {_HOW_TO_RECORD}."
        )


def _brief(outcome: Outcome) -> str:
    text = repr(outcome.value) if outcome.error is None else repr(outcome.error)
    return text if len(text) <= 200 else f"{text[:199]}…"
