"""What a store must do, as tests: they are the definition of the ports `Store` and `Journal`.

Tests of a store of your own run them so (it needs `pip install 'rh_agents[testing]'`, and no plugin for asyncio):

    from rh_agents.testing.conformance import StoreConformance

    class TestMyStore(StoreConformance):
        async def make_store(self) -> MyStore:
            return MyStore(...)

`StoreConformance` is everything. It is put together from one class for each capability, so a store that lacks some
names the classes of those it has instead; `CoreConformance` is what runs cannot be resumed without:

    class TestMyStore(CoreConformance, QuestionConformance, SequenceConformance):
        ...

- `CoreConformance`: `RunConformance`, `JournalConformance`, `ValueConformance`, `ResumeConformance`,
  `ReadingConformance` and `OwnerConformance`.
- `CrashConformance`: what was acknowledged survives when the process is killed; needs the hook `crash`.
- `FencingConformance`: an owner that was replaced can write no more; needs the hook `silence`.
- `RepeatedConformance`: of two outcomes of a call the first counts for everybody; needs the hook `plant`.
- `EditingConformance`: `supersede` and `fork_run`.
- `StopConformance`: `request_stop`.
- `DeletionConformance`: `delete_run`.
- `ErasingConformance`: contents of a run go, and its counts stay. A store need not be able to.
- `ArtifactConformance`: large values are kept apart from the journal, `collect_garbage` deletes them.
- `CheckConformance`: `check`.
- `QuestionConformance`: `ask`, `questions` and `answer`.
- `CacheConformance`: `put_cached` and `find_cached`.
- `SharingConformance`: `share`, on which limits and budgets of several processes stand.
- `CallWindowConformance`: windows of calls (`rh_agents.core.ports.windows`), with or without help of the store.
- `RunViewConformance`: windows of runs (`rh_agents.core.ports.windows`), with or without help of the store.
- `SummaryConformance`: what a run came to in numbers. A store need not compute it itself.
- `ActivityConformance`: when calls ended and how long they took. A store need not compute it itself.
- `OutlineConformance`: a run without what there is too much of. A store need not make it itself.
- `PresentConformance`: what a run is doing now. A store need not know it.
- `StreamingConformance`: text of calls under way. A store need not have it.

- `ControlConformance`: requests to whoever executes a run. A store need not take any.
- `QueueConformance`: runs that wait for workers. A store need not have queues.
- `SequenceConformance`: all that the other classes ask for, in random order.

A test that needs a hook which the subclass leaves as it is (see `StoreSuite`) is skipped, and says why: above all those
of several processes, which need `second_store`.
"""

from __future__ import annotations

try:
    import hypothesis  # noqa: F401 - for the message below
    import pytest  # noqa: F401
except ModuleNotFoundError as _error:
    _message = f"rh_agents.testing.conformance needs {_error.name}: pip install 'rh_agents[testing]'"
    raise ModuleNotFoundError(_message, name=_error.name) from _error

from rh_agents.testing.conformance.activity import ActivityConformance
from rh_agents.testing.conformance.caching import CacheConformance
from rh_agents.testing.conformance.call_windows import CallWindowConformance
from rh_agents.testing.conformance.checking import CheckConformance
from rh_agents.testing.conformance.control import ControlConformance
from rh_agents.testing.conformance.crashes import CrashConformance
from rh_agents.testing.conformance.deleting import ArtifactConformance, DeletionConformance
from rh_agents.testing.conformance.editing import EditingConformance
from rh_agents.testing.conformance.erasing import ErasingConformance
from rh_agents.testing.conformance.journal import JournalConformance
from rh_agents.testing.conformance.outlines import OutlineConformance
from rh_agents.testing.conformance.owners import FencingConformance, OwnerConformance
from rh_agents.testing.conformance.present import PresentConformance
from rh_agents.testing.conformance.questions import QuestionConformance
from rh_agents.testing.conformance.queueing import QueueConformance
from rh_agents.testing.conformance.reading import ReadingConformance
from rh_agents.testing.conformance.repeated import RepeatedConformance
from rh_agents.testing.conformance.resuming import ResumeConformance
from rh_agents.testing.conformance.run_views import RunViewConformance
from rh_agents.testing.conformance.runs import RunConformance
from rh_agents.testing.conformance.sequences import SequenceConformance
from rh_agents.testing.conformance.sharing import SharingConformance
from rh_agents.testing.conformance.stopping import StopConformance
from rh_agents.testing.conformance.streaming import StreamingConformance
from rh_agents.testing.conformance.suite import StoreSuite
from rh_agents.testing.conformance.summaries import SummaryConformance
from rh_agents.testing.conformance.values import ValueConformance

__all__ = [
    "ActivityConformance",
    "ArtifactConformance",
    "CacheConformance",
    "CallWindowConformance",
    "CheckConformance",
    "ControlConformance",
    "CoreConformance",
    "CrashConformance",
    "DeletionConformance",
    "EditingConformance",
    "ErasingConformance",
    "FencingConformance",
    "JournalConformance",
    "OutlineConformance",
    "OwnerConformance",
    "PresentConformance",
    "QuestionConformance",
    "QueueConformance",
    "ReadingConformance",
    "RepeatedConformance",
    "ResumeConformance",
    "RunConformance",
    "RunViewConformance",
    "SequenceConformance",
    "SharingConformance",
    "StopConformance",
    "StoreConformance",
    "StoreSuite",
    "StreamingConformance",
    "SummaryConformance",
    "ValueConformance",
]


class CoreConformance(
    RunConformance, JournalConformance, ValueConformance, ResumeConformance, ReadingConformance, OwnerConformance
):
    """What no run can be recorded and resumed without."""


class StoreConformance(
    CoreConformance,
    CrashConformance,
    FencingConformance,
    RepeatedConformance,
    EditingConformance,
    StopConformance,
    DeletionConformance,
    ErasingConformance,
    ArtifactConformance,
    CheckConformance,
    QuestionConformance,
    CacheConformance,
    SharingConformance,
    SummaryConformance,
    OutlineConformance,
    ActivityConformance,
    PresentConformance,
    CallWindowConformance,
    RunViewConformance,
    StreamingConformance,
    ControlConformance,
    QueueConformance,
    SequenceConformance,
):
    """All of it."""
