"""The judge is judged: whatever is made wrong with a good trial on purpose, it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tests.random_programs.evidence import ENDED, KILLED, Execution
from tests.random_programs.ledger import Line
from tests.random_programs.oracle import findings, findings_of_change, kind_of
from tests.random_programs.programs import Chains, Group, Leaf, Program

PAY = Leaf("pay", external="fail")
PROGRAM = Program((Group("g", (Leaf("a"), Leaf("b"))), PAY))
TIMELESS = Program((Group("g", (Leaf("a"), Leaf("b"))), Leaf("pay")))


def begun(label: str, execution: int, *, thread: str = "main", attempt: int = 1, group: str = "") -> Line:
    nonce = f"{execution}.{label}"
    return Line("begun", thread, f"key of {label}", label, attempt, group, nonce)


def over(line: Line, kind: str = "done") -> Line:
    return replace(line, kind=kind, group="")


def seen(text: str, thread: str = "main") -> Line:
    return Line("seen", thread, text=text)


def good() -> list[Execution]:
    """A crash after the first two calls; `b` was in flight."""
    a, b, again, pay = begun("a", 0, group="G"), begun("b", 0, group="G"), begun("b", 1, group="G"), begun("pay", 1)
    told = [seen("#0 leaf gave ~0.a~"), seen("#1 leaf gave ~1.b~"), Line("ended", "main", "G", "g", text="g: 2")]
    paid = [pay, over(pay), seen("pay gave ~1.pay~")]
    last = Execution([told[0], again, over(again), *told[1:], *paid], ENDED, ["g: ~", "~1.pay~"])
    replay = Execution([*told, paid[2]], ENDED, ["g: ~", "~1.pay~"], is_replay=True)
    return [Execution([a, b, over(a), told[0]], KILLED), last, replay]


def changed(executions: Sequence[Execution], number: int, *lines: Line, at: int = 0) -> list[Execution]:
    """The same with more lines in one execution."""
    each = executions[number]
    with_them = replace(each, lines=[*each.lines[:at], *lines, *each.lines[at:]])
    return [*executions[:number], with_them, *executions[number + 1 :]]


def test_nothing_is_wrong_with_a_good_trial() -> None:
    assert findings(PROGRAM, good(), ["g: ~", "~0.pay~"]) == []


PAYING = begun("pay", 1)
WRONG: dict[str, tuple[Callable[[], list[Execution]], str]] = {
    "another story": (lambda: changed(good(), 1, seen("#1 leaf gave ~1.b~")), "story"),
    "a replay that sees less": (lambda: [*good()[:2], replace(good()[2], lines=good()[2].lines[:2])], "story"),
    "a replay that calls": (lambda: changed(good(), 2, begun("z", 2)), "replay"),
    "an acknowledged call is made again": (lambda: changed(good(), 1, begun("a", 1, group="G")), "paid twice"),
    "a recorded call is made again": (lambda: changed(good(), 1, Line("recorded", key="key of b")), "paid twice"),
    "a failure is made again": (
        lambda: changed(changed(good(), 0, over(begun("c", 0), "failing"), seen("~0.c~")), 1, begun("c", 1)),
        "paid twice",
    ),
    "a member begins after the end": (lambda: changed(good(), 1, begun("c", 1, group="G"), at=6), "after the end"),
    "a payment is repeated": (lambda: changed(good(), 0, begun("pay", 0)), "external"),
    "a payment is made again whose worker was lost": (
        lambda: changed(good(), 1, over(PAYING, "lost"), replace(PAYING, attempt=2), at=6),
        "external",
    ),
    "a call loses more workers than it may": (
        lambda: changed(good(), 1, *[over(replace(PAYING, label="c", key="c"), "lost") for _ in range(5)]),
        "lost",
    ),
    "too much is repeated": (
        lambda: changed(
            changed(good(), 0, *(begun(f"c{number}", 0) for number in range(9))),
            1,
            *(begun(f"c{number}", 1) for number in range(9)),
        ),
        "in flight",
    ),
    "it does not end": (lambda: good()[:1], "end"),
    "it ends with an error": (lambda: [replace(good()[0], end="StoreError: no"), *good()[1:]], "end"),
    "it ends too early": (
        lambda: [good()[0], replace(good()[1], lines=[]), replace(good()[2], lines=[])],
        "story",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_found(what: str) -> None:
    make, kind = WRONG[what]
    assert kind in {kind_of(line) for line in findings(PROGRAM, make(), None)}


def test_another_value_than_that_of_the_undisturbed_run_is_found() -> None:
    assert findings(TIMELESS, good(), ["g: ~", "~9.pay~"]) == []
    assert {kind_of(line) for line in findings(TIMELESS, good(), ["g: 2", "~9.pay~"])} == {"value"}


def test_a_changed_program_calls_only_what_is_new_and_gets_the_rest_as_it_was() -> None:
    after = replace(TIMELESS, body=(Leaf("new0"), *TIMELESS.body[::-1]))
    told = good()[-1]
    now = Execution([begun("new0", 2), seen("pay gave ~1.pay~")], ENDED, ["~2.new0~", "~1.pay~", "g: ~"])
    assert findings_of_change(TIMELESS, told, after, now) == []
    for wrong in (
        replace(now, end="StoreError: no"),
        replace(now, lines=[*now.lines, begun("a", 2)]),
        replace(now, value=["~2.new0~", "~2.pay~", "g: ~"]),
    ):
        assert {kind_of(line) for line in findings_of_change(TIMELESS, told, after, wrong)} == {"change"}


def test_identical_calls_in_several_parts_of_a_changed_program_may_swap_their_results() -> None:
    before = Program((Leaf("c"), Chains(((Leaf("c"),),))))
    told = Execution([], ENDED, ["~1.c~", "~2.c~"])
    after = replace(before, body=before.body[::-1])
    assert findings_of_change(before, told, after, Execution([], ENDED, ["~1.c~", "~2.c~"])) == []


def test_where_nothing_is_waited_for_a_call_may_be_made_again_after_a_crash() -> None:
    again = changed(good(), 1, begun("a", 1, group="G"))
    assert findings(replace(PROGRAM, durability="exit"), again, None) == []
