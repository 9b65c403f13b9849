"""A planner writes steps that depend on each other, independent ones run side by side, and a reviewer checks each.

    python examples/planner.py
    python examples/planner.py --store runs.db --run-id party      # kill it, and start it again

The local model is far too small to plan anything: the plan has the right form, and that is all. A provider's model
(`--model`) makes sense of it.

It needs a model: the small local one (`make setup` installs it), or a provider's: `pip install 'rh_agents[openai]'`,
OPENAI_API_KEY and `--model`.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, Field

from examples.model import arguments, the_model
from rh_agents import agent, parallel, run
from rh_agents.llms import OpenAIChat

GOAL = "Organise a small party in a library."


class Step(BaseModel):
    """One thing to do, and the numbers of the steps before it that have to be done first."""

    task: str = Field(min_length=3, max_length=80)
    needs: list[int] = Field(default=[], max_length=3)


class Plan(BaseModel):
    """Steps, counted from 0."""

    steps: list[Step] = Field(min_length=3, max_length=5)


class Review(BaseModel):
    """What the reviewer thinks of a result."""

    is_good: bool
    remark: str = Field(max_length=120)


class Done(BaseModel):
    """A step with its result and its review."""

    task: str
    result: str
    review: Review


def possible(plan: Plan) -> list[Step]:
    """The plan without what no plan can ask for: a step that waits for itself, for a later one, or for none at all."""
    return [
        Step(task=step.task, needs=sorted({each for each in step.needs if 0 <= each < number}))
        for number, step in enumerate(plan.steps)
    ]


async def work(model: OpenAIChat, goal: str) -> list[Done]:
    """Plan, then do every step as soon as those are done that it needs."""

    @agent
    async def carry_out(task: str, known: list[str]) -> Done:
        """One step: do it, and let a reviewer check the result."""
        before = "".join(f"\nAlready done: {each}" for each in known)
        answer = await model(f"Goal: {goal}{before}\nDo this in one sentence: {task}", max_tokens=60)
        review = await model.ask(f"Task: {task}\nResult: {answer.text}\nIs that good?", output=Review, max_tokens=200)
        return Done(task=task, result=" ".join(answer.text.split()), review=review)

    plan = await model.ask(f"Write a plan of 3 to 5 steps. Goal: {goal}", output=Plan, max_tokens=400)
    steps = possible(plan)
    done: dict[int, Done] = {}
    while len(done) < len(steps):
        ready = [n for n, step in enumerate(steps) if n not in done and done.keys() >= set(step.needs)]
        print(f"side by side: {', '.join(steps[number].task for number in ready)}")
        async with parallel(max_workers=4, name="steps") as p:
            for number in ready:
                p.add(carry_out(steps[number].task, [done[each].result for each in steps[number].needs]))
            done.update(zip(ready, [result.unwrap() for result in await p.gather()], strict=True))
    return [done[number] for number in range(len(steps))]


async def main() -> None:
    """Run it, and show what came of it."""
    given = arguments(__doc__ or "")
    async with the_model(given.model) as model:

        async def plan_and_work() -> list[Done]:
            return await work(model, GOAL)

        for number, each in enumerate(await run(plan_and_work, store=given.store, run_id=given.run_id)):
            verdict = "good" if each.review.is_good else "to be done again"
            print(f"{number}. {each.task}\n   {each.result}\n   the reviewer: {verdict}: {each.review.remark}")


if __name__ == "__main__":
    asyncio.run(main())
