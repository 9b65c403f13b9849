"""Numbers of a run that people set: what becomes of them, in one sentence, and what is refused."""

from __future__ import annotations

import pytest

from rh_agents.core.errors import ControlRefused
from rh_agents.core.policies.numbers import SettingState, changed_settings

KNOWN = [
    SettingState("budget.cost", 5.0, 1.5, 0.25),
    SettingState("limit.open.ai.requests", 60.0),
    SettingState("limit.slots.limit", 4.0, 3),
    SettingState("max-workers.pages", 8, 6),
    SettingState("max-workers.others", 4, 0),
]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("max-workers.pages", 10, "max-workers.pages=10 instead of 8 at once"),
        ("max-workers.pages", 8, "max-workers.pages=8 as before at once"),
        (
            "max-workers.pages",
            5,
            "max-workers.pages=5 instead of 8 at once; 6 of pages run now, and none begins until fewer than 5 do",
        ),
        ("max-workers", 9, "max-workers=9 instead of 8 (pages), 4 (others) at once"),
        ("limit.open.ai.requests", 300, "limit.open.ai.requests=300 instead of 60 at once"),
        (
            "limit.slots.limit",
            2,
            "limit.slots.limit=2 instead of 4 at once; 3 hold slots now, and none begins until fewer than 2 do",
        ),
        ("budget.cost", 2, "budget.cost=2 instead of 5 at once"),
        ("retry", 5, "retry=5 at once"),
    ],
)
def test_the_old_number_is_named_beside_the_new_one(name: str, value: float, text: str) -> None:
    assert changed_settings({name: value}, KNOWN, "at once") == text


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("max-workers.page", "no group 'page' is under way now; did you mean 'pages'?"),
        ("max-workers.zzz", "no group 'zzz' is under way now; name one of 'others', 'pages'"),
        ("limit.open.requests", "no call of the run has waited for a limit 'open'; did you mean 'open.ai'?"),
        ("limit.slots.maximum", "of the limit 'slots' can be set: limit"),
        ("budget.cost", "1.5 is spent already and 0.25 reserved for calls under way; name more"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(name: str, why: str) -> None:
    with pytest.raises(ControlRefused, match="^" + name.replace(".", r"\.")) as caught:
        changed_settings({name: 1}, KNOWN, "at once")
    assert why in str(caught.value)


def test_where_nothing_is_known_nothing_is_refused_and_a_run_without_a_budget_gets_one() -> None:
    assert changed_settings({"limit.x.requests": 5, "budget.cost": 1}, (), "then") == (
        "limit.x.requests=5, budget.cost=1 then"
    )
    assert changed_settings({"limit.x.requests": 5, "max-workers.x": 1}, (), "then", is_at_start=True)
    assert changed_settings({"budget.cost": 1}, (), "then", is_at_start=True) == "budget.cost=1 then"
    assert changed_settings({"budget.tokens": 9}, KNOWN, "then") == "budget.tokens=9 then"
