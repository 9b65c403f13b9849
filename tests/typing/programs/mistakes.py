"""A user's program with mistakes. The line of each says what is wrong; every checker has to find just those."""

import asyncio

import polars
from pydantic import BaseModel

from rh_agents import Agent, RetryPolicy, Run, agent, current, parallel, run, run_sync, tool
from rh_agents.llms import OpenAIChat


class Page(BaseModel):
    url: str
    text: str


class Verdict(BaseModel):
    is_good: bool


@tool(retry=3, timeout=30)
async def fetch(url: str) -> Page:
    return Page(url=url, text="...")


@tool(retries=3)  # WRONG: the option is called retry
async def look_up(word: str) -> str:
    return word


@tool
def count_words(text: str) -> int:
    return len(text.split())


model = OpenAIChat("gpt-5-mini")
reviewer = Agent(name="reviewer", llm=model, output=Verdict, instructions="Be strict.")
writer = Agent(name="writer", llm="gpt-5-mini")  # WRONG: a model, not its name
critic = Agent(name="critic", llm=model, instruction="Be kind.")  # WRONG: instructions


@agent
async def survey(urls: list[str], limit: int = 10) -> dict[str, int]:
    counted: dict[str, int] = {}
    async with parallel(max_workers=20, name="pages") as p:
        pages = p.map(fetch, urls[:limit])
        async for page in pages.stream():
            counted[page.item] = await count_words(page.unwrap())  # WRONG: a page is no text
    return counted


@agent
async def compare(url: str, other: str) -> str:
    async with parallel() as p:
        one, two = p.add(fetch(url)), p.add(fetch(other))
        words = p.add(count_words("a b c"))
        results = p.gather()
        print(results[0])  # WRONG: await is missing
        longer: str = words.result()  # WRONG: it counts words
        print((await one).txet, longer)  # WRONG: the field is text
        p.map(count_words, [1, 2, 3])  # WRONG: the items are texts
        p.add(fetch)  # WRONG: the function, not a call
    return (await two).text


async def judge(url: str) -> bool:
    page = await fetch(url)
    verdict = await reviewer(f"Is this good? {page.text}")
    return verdict.good  # WRONG: the field is is_good


async def ask(question: str) -> int:
    state: Run = current().run
    answer = await state.ask(question, int)
    return answer.upper()  # WRONG: a number


async def of_rows(frame: polars.DataFrame) -> None:
    async with parallel() as p:
        p.map(count_words, frame)  # WRONG: a row is no text
        counts = await p.map(lambda row: count_words(row["text"]), frame)
        print(counts[0].unwrap().upper())  # WRONG: a number


async def main() -> None:
    await run(survey, "https://example.org", store="runs.db")  # WRONG: a list of them
    await run(survey, ["/a"], stoer="runs.db")  # WRONG: the option is called store
    await run(compare, "/a", store="runs.db", run_id="monday")  # WRONG: the second URL is missing
    await run(survey, ["/a"], 10, "monday", store="runs.db")  # WRONG: there are two parameters
    await run(survey, ["/a"], limit="10")  # WRONG: a number
    await run.submit(survey, {"/a"}, store="runs.db")  # WRONG: a list of them
    counted: dict[str, str] = await run(survey, ["/a"], store="runs.db")  # WRONG: numbers of words
    print(counted, RetryPolicy(3))  # WRONG: its options have names
    with parallel() as p:  # WRONG: async is missing
        print(p)


run_sync(survey, ["/a"], retry_failed="no")  # WRONG: yes or no
asyncio.run(main())
