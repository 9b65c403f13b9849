"""The same program as a careful user has it: no checker has anything to say."""

from collections.abc import Sequence

from pydantic import BaseModel

from rh_agents import (
    Agent,
    ExecutionResult,
    ExecutionState,
    MemberResult,
    ParallelEventPrinter,
    RateLimit,
    RetryPolicy,
    Run,
    agent,
    current,
    parallel,
    run,
    run_sync,
    tool,
)
from rh_agents.decorators import RunOptions
from rh_agents.errors import UnreadFailures
from rh_agents.llms import OpenAIChat
from rh_agents.policies import Summarize


class Page(BaseModel):
    url: str
    text: str


class Verdict(BaseModel):
    is_good: bool


@tool(retry=RetryPolicy(max_attempts=3), timeout=30, limits=RateLimit(requests=500))
async def fetch(url: str) -> Page:
    return Page(url=url, text="...")


@tool
def count_words(text: str) -> int:
    return len(text.split())


model = OpenAIChat("gpt-5-mini")
reviewer = Agent(name="reviewer", llm=model, output=Verdict, tools=[fetch], compact=Summarize())
talker = Agent(name="talker", llm=model)


@agent
async def survey(urls: list[str], limit: int = 10) -> dict[str, int]:
    async with parallel(max_workers=20, name="pages") as p:
        pages = p.map(fetch, urls[:limit])
        return {page.item: await count_words(page.unwrap().text) async for page in pages.stream()}


def failures(results: Sequence[MemberResult[Page, str]]) -> list[str]:
    return [f"{result.item} ({result.index + 1}): {result.error_message}" for result in results if not result.ok]


@agent
async def compare(url: str, other: str) -> str:
    async with parallel() as p:
        one, two = p.add(fetch(url)), p.add(fetch(other))
        words = p.add(count_words("a b c"))
        await p.gather()
        print(failures(await p.map(fetch, [url, other])))
        longer = max(one.result(), two.result(), key=lambda page: len(page.text) + words.result())
    return longer.text


async def judge(url: str, state: Run) -> bool:
    verdict = await reviewer(f"Is this good? {(await fetch(url)).text}")
    is_right: bool = await state.ask("Is it?", bool)
    return verdict.is_good and is_right and bool(await talker("Is it?"))


def report(result: ExecutionResult[Page]) -> str:
    return result.unwrap().url


async def main() -> None:
    nightly: RunOptions = {"store": "runs.db", "tags": ["nightly"], "subscribers": [ParallelEventPrinter()]}
    counted = await run(survey, ["/a"], **nightly)
    counted |= await run(survey, ["/a"], 3, store="runs.db", run_id="monday")
    counted |= await run(survey, urls=["/a"], limit=3, store="runs.db", run_id="tuesday")
    print(sum(counted.values()), await run(compare, "/a", "/b"))
    async with ExecutionState(store="runs.db") as state:
        print(await judge("/a", state))
        print(await judge("/a", current().run))
    try:
        await run.submit(survey, ["/a"], store="runs.db", queue="slow")
    except UnreadFailures as error:
        print(error.exceptions)


if __name__ == "__main__":
    print(run_sync(survey, ["/a"], retry_failed=False))
