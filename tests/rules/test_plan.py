"""What would become of the calls of a run: every fate, told from events and outcomes alone."""

from __future__ import annotations

import dataclasses
from hashlib import sha256
from typing import Any

import pytest

from rh_agents.core._replay.codes import Versions
from rh_agents.core._replay.identity import ROOT_KEY, again_key
from rh_agents.core.actors import BaseActor, Tool
from rh_agents.core.events import Fact
from rh_agents.core.groups import GroupStatus, ParallelEventGroup
from rh_agents.core.plan import Fate, Plan, plan_run
from rh_agents.core.ports import Execution, RecordedEvent, RunInfo
from rh_agents.core.ports.control import ControlRequest, Verb
from rh_agents.core.ports.outline import CallsBelow
from rh_agents.core.questions import QUESTION_ACTOR
from rh_agents.core.results import Outcome, describe_error
from rh_agents.core.tracking import group_fact
from rh_agents.core.types import ExecutionStatus, Generation

STARTED, COMPLETED, FAILED = ExecutionStatus.STARTED, ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
RETRYING, AWAITING, CANCELLED = ExecutionStatus.RETRYING, ExecutionStatus.AWAITING, ExecutionStatus.CANCELLED


async def _nothing() -> None: ...


def key(name: str) -> bytes:
    return sha256(name.encode()).digest()


class Run:
    """A journal that is written down by hand."""

    def __init__(self, status: ExecutionStatus = STARTED, epoch: int = 0) -> None:
        self.info = RunInfo("r", status=status, epoch=epoch)
        self.events: list[RecordedEvent] = []
        self.outcomes: list[Outcome] = []

    def tell(
        self,
        status: ExecutionStatus,
        address: str,
        call: bytes,
        *,
        actor: BaseActor | None = None,
        has_outcome: bool = False,
        **facts: Any,
    ) -> Run:
        """An event."""
        name = address.rpartition("::")[2]
        actor = actor or Tool(name=name, handler=_nothing, version="7")
        more = {each: facts.pop(each) for each in list(facts) if each not in Fact._fields}
        fact = Fact("r", 0.0, status, actor.event_type, actor, name, address, call, more=more or None)
        return self._add(fact._replace(**facts), has_outcome)

    def group(self, name: str, *, status: GroupStatus = GroupStatus.RUNNING) -> Run:
        """An event of a group."""
        about = ParallelEventGroup(group_id=name, name=name, address=name, status=status)
        kind: Any = "group_completed" if about.is_complete else "group_started"
        return self._add(group_fact(kind, about, "r", 0.0))

    def _add(self, fact: Fact, has_outcome: bool = False) -> Run:
        self.events.append(RecordedEvent(len(self.events) + 1, fact.event(), has_outcome))
        return self

    def made(
        self,
        address: str,
        call: bytes,
        *,
        error: Exception | None = None,
        parent: bytes = ROOT_KEY,
        base: bytes | None = None,
        made_in: Generation = (0, 0, 0),
    ) -> Run:
        """A call from its start to its outcome."""
        self.tell(STARTED, address, call)
        message = None if error is None else describe_error(error)
        status = COMPLETED if error is None else FAILED
        self.tell(status, address, call, message=message, has_outcome=True)
        name = address.rpartition("::")[2]
        self.outcomes.append(
            Outcome(call, name, address, None, error, 0.1, 1, base=base or call, parent=parent, made_in=made_in)
        )
        return self

    def plan(self, **options: Any) -> Plan:
        """What would become of it."""
        return plan_run(self.info, [outcome.header for outcome in self.outcomes], self.events, **options)

    def fates(self, **options: Any) -> dict[str, str]:
        """The same by address."""
        return {call.address: call.fate.value for call in self.plan(**options).calls}


A, B, C = key("a"), key("b"), key("c")
OOPS = ValueError("oops")


def test_nothing_recorded_is_an_empty_plan() -> None:
    plan = Run().plan()
    assert plan == Plan()
    assert plan.is_idle


def test_a_value_is_reused_whatever_became_of_the_run() -> None:
    for status in (STARTED, AWAITING, COMPLETED, FAILED, CANCELLED):
        plan = Run(status).made("a", A).plan()
        assert [call.fate for call in plan.calls] == [Fate.REUSED]
        assert plan.is_idle


@pytest.mark.parametrize(
    ("status", "epoch", "failed_in", "retry_failed", "fate"),
    [
        (STARTED, 0, (0, 0, 0), True, Fate.REPEATED),  # a crash: the program may have acted on it
        (AWAITING, 0, (0, 0, 0), True, Fate.REPEATED),
        (COMPLETED, 0, (0, 0, 0), True, Fate.TRIED_AGAIN),  # it had ended: another try
        (FAILED, 0, (0, 0, 0), True, Fate.TRIED_AGAIN),
        (CANCELLED, 0, (0, 0, 0), True, Fate.TRIED_AGAIN),
        (COMPLETED, 0, (0, 0, 0), False, Fate.REPEATED),
        (STARTED, 1, (0, 0, 0), True, Fate.TRIED_AGAIN),  # a crash before it could be tried again
        (STARTED, 1, (1, 0, 0), True, Fate.REPEATED),
        (COMPLETED, 1, (1, 0, 0), True, Fate.TRIED_AGAIN),
        (STARTED, 1, (0, 0, 0), False, Fate.REPEATED),
    ],
)
def test_a_failure_is_repeated_within_an_execution_and_tried_again_after_its_end(
    status: ExecutionStatus, epoch: int, failed_in: Generation, retry_failed: bool, fate: Fate
) -> None:
    run = Run(status, epoch).made("a", A, error=OOPS, made_in=failed_in)
    (call,) = run.plan(retry_failed=retry_failed).calls
    assert (call.fate, call.message, call.version) == (fate, "ValueError: oops", "7")


def test_of_a_call_that_was_made_again_only_the_last_try_counts() -> None:
    run = Run(COMPLETED, 1).made("a", A, error=OOPS).made("a", again_key(A), base=A, made_in=(1, 0, 0))
    (call,) = run.plan().calls
    assert (call.key, call.place, call.fate) == (again_key(A), A, Fate.REUSED)


def test_of_a_call_that_was_made_again_the_newest_outcome_counts_also_without_another_try() -> None:
    run = Run(COMPLETED, 1).made("a", A, error=OOPS).made("a", again_key(A), base=A, made_in=(1, 0, 0))
    (call,) = run.plan(retry_failed=False).calls
    assert (call.key, call.place, call.fate) == (again_key(A), A, Fate.REUSED)
    assert run.plan(retry_failed=False).is_idle


def test_another_try_that_came_to_nothing_is_not_made_if_failures_are_repeated() -> None:
    run = Run(STARTED, 1).made("a", A, error=OOPS).tell(STARTED, "a", again_key(A))
    assert run.fates() == {"a": "unknown"}
    (call,) = run.plan(retry_failed=False).calls
    assert (call.key, call.fate, call.message) == (A, Fate.REPEATED, "ValueError: oops")


def test_what_follows_an_outcome_changes_nothing_also_if_it_is_another_outcome() -> None:
    for error, other in ((None, FAILED), (OOPS, COMPLETED), (OOPS, CANCELLED)):
        run = Run(COMPLETED).made("a", A, error=error).made("b", B)
        before = run.plan()
        run.tell(STARTED, "a", A).tell(RETRYING, "a", A, attempt=4, message="once more")
        run.tell(other, "a", A, attempt=9, message="another end", has_outcome=True)
        assert run.plan() == before


def test_a_call_that_has_lost_its_worker_is_unknown_until_it_has_an_outcome() -> None:
    run = Run().tell(STARTED, "a", A).tell(RETRYING, "a", A, attempt=1, lost=1)
    assert run.fates() == {"a": "unknown"}
    run.tell(CANCELLED, "a", A, attempt=2)  # a shutdown: it has no outcome
    assert run.fates() == {"a": "unknown"}
    assert run.made("a", A).fates() == {"a": "reused"}


def test_a_call_without_an_outcome_is_unknown_unless_it_was_left_in_good_order() -> None:
    run = Run()
    run.tell(STARTED, "a", A)
    run.tell(STARTED, "b", B).tell(RETRYING, "b", B, attempt=2, message="E: b")
    run.tell(STARTED, "c", C).tell(AWAITING, "c", C)
    run.tell(STARTED, "d", key("d")).tell(CANCELLED, "d", key("d"))
    assert run.fates() == {"a": "unknown", "b": "continued", "c": "continued", "d": "unknown"}
    assert [call.attempts for call in run.plan().of(Fate.CONTINUED)] == [2, 1]
    assert not run.plan().is_idle


def test_a_question_without_an_answer_waits() -> None:
    run = Run(AWAITING).tell(AWAITING, "ask", A, actor=QUESTION_ACTOR)
    assert run.fates() == {"ask": "question"}


def test_a_superseded_call_is_made_again_and_its_next_try_is_not() -> None:
    run = Run(COMPLETED).made("a", A).tell(ExecutionStatus.SUPERSEDED, "a", A)
    assert run.fates() == {"a": "superseded"}
    run.made("a", again_key(A), base=A)
    assert run.fates() == {"a": "reused"}


def test_what_is_below_a_call_that_is_not_made_again_is_not_asked_for() -> None:
    run = Run(COMPLETED)
    run.tell(STARTED, "flow", A)
    run.made("flow::step", B, parent=A, error=OOPS)
    run.tell(STARTED, "flow::left", C)
    run.made("flow", A)
    assert run.fates() == {"flow": "reused", "flow::step": "not_reached", "flow::left": "not_reached"}
    assert run.plan().is_idle


def test_what_is_below_a_call_that_is_made_again_has_a_fate_of_its_own() -> None:
    run = Run(FAILED)
    run.tell(STARTED, "flow", A)
    run.made("flow::step", B, parent=A)
    run.made("flow::bad", C, parent=A, error=OOPS, made_in=(0, 0, 1))
    run.made("flow", A, error=OOPS)
    assert run.fates() == {"flow": "tried_again", "flow::step": "reused", "flow::bad": "tried_again"}


def test_a_failure_of_an_earlier_attempt_of_its_caller_is_tried_again() -> None:
    run = Run()
    run.tell(STARTED, "flow", A)
    run.made("flow::bad", B, parent=A, error=OOPS, made_in=(0, 0, 1))
    assert run.fates()["flow::bad"] == "repeated"
    run.tell(RETRYING, "flow", A, attempt=1)
    assert run.fates()["flow::bad"] == "tried_again"


def test_a_group_that_was_left_goes_on_and_tells_how_many_had_not_begun() -> None:
    run = Run().group("pages")
    for index in range(2):
        page, address = Tool(name="page", handler=_nothing), f"pages[{index}]"
        call = key(str(index))
        run._add(Fact("r", 0.0, STARTED, page.event_type, page, "page", address, call, "pages", index, 10))
    (group,) = run.plan().groups
    assert (group.name, group.not_begun) == ("pages", 8)
    run.group("pages", status=GroupStatus.CANCELLED)
    assert [group.not_begun for group in run.plan().groups] == [8], "one that is left early forgets the rest"
    run.group("pages", status=GroupStatus.COMPLETED)
    assert run.plan().groups == ()


def test_a_plan_counts_its_calls() -> None:
    run = Run().made("a", A).made("b", B).tell(STARTED, "c", C)
    plan = run.plan()
    assert plan.counts == {Fate.REUSED: 2, Fate.UNKNOWN: 1}
    assert [call.address for call in plan.of(Fate.REUSED, Fate.UNKNOWN)] == ["a", "b", "c"]
    assert dataclasses.is_dataclass(plan)


def test_calls_that_are_left_out_below_members_are_counted_with_what_is_not_reached() -> None:
    below = [CallsBelow("pages", "read", "2", 7, 3), CallsBelow("pages", "look", "1", 5, 2)]
    plan = Run().made("a", A).plan(below=below)
    assert plan.counts == {Fate.REUSED: 1, Fate.NOT_REACHED: 12}
    assert list(plan.names(Fate.NOT_REACHED).items()) == [("look", 5), ("read", 7)]
    assert list(plan.names(Fate.REUSED)) == ["a"]
    assert (plan.versions["read"], plan.versions["look"]) == ({"2"}, {"1"})


def versions(*spans: tuple[str, int, int]) -> Versions:
    found = Versions()
    for version, first, last in spans:
        found.note(("fetch", version), first, last)
        found.note(("other", "1"), first, last)
    return found


@pytest.mark.parametrize(
    ("spans", "begins", "now", "past"),
    [
        ([("1", 1, 9), ("2", 11, 19)], [0, 10], None, {"1"}),
        ([("1", 1, 9), ("2", 11, 19)], [0, 10], "2", {"1"}),
        ([("1", 1, 9), ("2", 11, 19)], [0, 10], "1", {"2"}),
        ([("1", 1, 9), ("2", 11, 19)], [0, 10], "3", {"1", "2"}),
        ([("1", 1, 9), ("2", 11, 19), ("3", 25, 29)], [0, 10, 20], None, {"1", "2"}),
        ([("1", 1, 9), ("2", 11, 19)], [0], None, set()),  # in one execution: two actors of one name
        ([("1", 1, 9), ("2", 5, 19)], [0, 10], None, set()),  # so are these, the first of which is not asked again
        ([("1", 1, 29), ("2", 11, 19)], [0, 10, 20], None, set()),  # back to the first version
        ([("1", 1, 9), ("1", 11, 19)], [0, 10], None, set()),
        # Of two actors of one name, one has a new version; what is recorded of the other one may be reused.
        ([("1", 1, 8), ("other", 2, 9), ("2", 11, 19)], [0, 10], None, set()),
        ([("1", 1, 8), ("other", 2, 9), ("2", 11, 19)], [0, 10], "2", {"1", "other"}),
        ([("0", 1, 4), ("1", 6, 29), ("2", 11, 19)], [0, 5, 10, 20], None, {"0"}),
    ],
)
def test_a_version_is_past_when_an_execution_began_between_its_calls_and_those_that_count(
    spans: list[tuple[str, int, int]], begins: list[int], now: str | None, past: set[str]
) -> None:
    found = versions(*spans).past(begins, {} if now is None else {"fetch": {now}})
    assert found == {("fetch", version) for version in past}


def test_calls_of_a_version_that_is_past_are_not_asked_for_whatever_became_of_them() -> None:
    run = Run().group("pages")
    for version, names in {"1": ("a", "b", "c"), "2": ("a", "b")}.items():
        actor = Tool(name="fetch", handler=_nothing, version=version)
        for index, name in enumerate(names):
            facts: dict[str, Any] = {"actor": actor, "group_id": "pages", "parallel_index": index, "group_total": 3}
            run.tell(STARTED, f"pages[{index}]::fetch", key(f"{name}{version}"), **facts)
    run.info = dataclasses.replace(run.info, executions=(Execution(0.0), Execution(1.0, after=4)))
    plan = run.plan()
    assert plan.counts == {Fate.EARLIER: 3, Fate.UNKNOWN: 2}
    assert [group.not_begun for group in plan.groups] == [1]


# -- what was asked and no owner has seen ------------------------------------------------------------------------------


def asked(verb: Verb, epoch: int = 0, **arguments: Any) -> ControlRequest:
    return ControlRequest("r", f"{verb} {arguments}", verb, {"epoch": epoch, **arguments})


def members() -> Run:
    """A group with members that were under way when its process died."""
    run = Run().group("pages")
    for name in ("a", "b", "c", "d"):
        run.tell(STARTED, f"pages[{name}]::{name}", key(name), group_id="pages")
    return run


def fates(run: Run, *requests: ControlRequest) -> dict[str, Fate]:
    return {call.name: call.fate for call in run.plan(requests=requests).calls}


def test_a_call_that_somebody_asked_for_while_no_process_executed_the_run_is_made_again() -> None:
    run = Run()
    run.made("fetch", key("fetch"), error=OOPS)
    assert fates(run) == {"fetch": Fate.REPEATED}
    again = asked(Verb.REQUEUE, items=[], failed=True, keys=[key("fetch").hex()])
    assert fates(run, again) == {"fetch": Fate.SUPERSEDED}


def test_a_member_that_somebody_cancelled_meanwhile_is_not_made_unless_it_was_asked_for_since() -> None:
    cancel = asked(Verb.CANCEL, items=["c", "a"])
    assert fates(members())["c"] is Fate.UNKNOWN
    found = fates(members(), cancel)
    assert (found["c"], found["d"]) == (Fate.WITHDRAWN, Fate.UNKNOWN)
    assert fates(members(), cancel, asked(Verb.REQUEUE, items=["c"], keys=[]))["c"] is Fate.UNKNOWN
    assert fates(members(), asked(Verb.CANCEL, 7, items=["c"]))["c"] is Fate.UNKNOWN, "it was for an earlier epoch"
