"""Keys that a call had in journals of earlier versions, so that what they recorded is found and not paid for again.

A key holds what makes a call this call. Sometimes that turns out to be too little: models at two servers had the same
keys if they had the same name. What was left out is part of the key from then on, and in a journal that was made
before, the call is looked for under its former key as well. That is all decided here, in one step between the number of
a call and its key:

- A run says in its facts which generation of keys it has; without that fact, it is the first one. An actor says since
  which one its keys are today's (`BaseActor.keys_since`). From then on no former key of it is looked up: there, the
  former key of one call may be today's key of another one.
- In a run of an earlier generation each call is numbered under its former identity, too, as it was numbered then.
- A key of today that the journal knows wins. Else, if it knows the former one, the call takes that as its place: its
  further tries, and the calls below it, continue what is recorded there.

Keys of questions to a model hold what it was told before. Where that is made in another way than it was, such as what
goes back of the results of tools, there is nothing to look up: each further question has it, too. There, a run of the
first generation goes on as it was begun, to its end (see `rh_agents.core.chat.tool_calls`). It is not reported,
since nothing about the reuse is uncertain. What the program states itself is a changed setting and counts.

A cache has no facts. There, an entry says by its label whether it is an earlier version's (`BaseActor.cache_label`).

What was recorded under a former key does not say what was left out of it, so the reuse is reported, once in a run.
"""

from __future__ import annotations

from collections.abc import Mapping

ENDPOINTS = 1
"""From this generation on, keys hold the servers of models as far as they were known then: all but Anthropic's."""
EVERY_ENDPOINT = 2
"""From this generation on, keys hold the servers of all models."""
_FACT = "keys"
_GENERATIONS = {"with endpoints": ENDPOINTS, "with every endpoint": EVERY_ENDPOINT}
"""What a run says about its keys, and which generation that is."""


def generation_of_keys(facts: Mapping[str, str] | None) -> int:
    """The generation of the keys of a run, by its facts; the latest one for a new run (None), or a later version's."""
    said = _FACT if facts is None else facts.get(_FACT)
    return 0 if said is None else _GENERATIONS.get(str(said), EVERY_ENDPOINT)


def fact_of_keys(generation: int) -> dict[str, str]:
    """The fact about a run that says so; the first generation had none."""
    return next(({_FACT: said} for said, each in _GENERATIONS.items() if each == generation), {})
