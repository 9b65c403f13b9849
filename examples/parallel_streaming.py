"""Work that finds more work: python examples/parallel_streaming.py

A crawler follows links as it finds them: it adds pages to the group while their results are streamed. Then the same
pages come in a fixed order, and a reader leaves when it has seen enough.
"""

import asyncio

from rh_agents import agent, parallel, run, tool

# A small web: what each page links to, and how long it takes to come.
WEB = {
    "/": (["/docs", "/blog", "/about"], 0.05),
    "/docs": (["/docs/groups", "/docs/replay", "/"], 0.20),
    "/docs/groups": (["/docs/replay"], 0.10),
    "/docs/replay": ([], 0.05),
    "/blog": (["/blog/1", "/blog/2", "/blog/lost"], 0.10),
    "/blog/1": (["/blog/2"], 0.15),
    "/blog/2": (["/"], 0.05),
    "/about": ([], 0.10),
}


@tool
async def visit(url: str) -> list[str]:
    """The links of a page."""
    if url not in WEB:
        raise LookupError(f"{url}: no such page")
    links, seconds = WEB[url]
    await asyncio.sleep(seconds)
    return links


async def crawl(start: str) -> list[str]:
    """All pages that can be reached from `start`, each one visited once."""
    found = [start]
    async with parallel(max_workers=3, name="crawl") as p:
        p.add(visit(start), name=start)
        async for page in p.stream():
            links = page.unwrap() if page.ok else []
            new = [link for link in dict.fromkeys(links) if link not in found]
            found += new
            for link in new:
                p.add(visit(link), name=link)
            news = f"{len(new)} new" if page.ok else page.error_message
            print(f"   {page.name:<14}{news:<12} | {p.group.finished} done, {p.group.total} known")
    return found


async def in_order(urls: list[str]) -> None:
    """`stream(ordered=True)` gives results in the order of the items, each one as soon as those before it are there."""
    async with parallel(max_workers=3, name="ordered") as p:
        p.map(visit, urls)
        async for page in p.stream(ordered=True):
            print(f"   {urls[page.index or 0]:<14}took {page.execution_time:.2f} s")


async def until_enough(urls: list[str]) -> None:
    """Leaving the loop and then the block cancels what still runs."""
    async with parallel(max_workers=3, name="enough") as p:
        p.map(visit, urls)
        async for page in p.stream():
            print(f"   first: {urls[page.index or 0]}")
            break
    print(f"   the group was {p.group.status.value} with {p.group.cancelled} calls under way")


@agent
async def tour() -> None:
    """The three in a row."""
    print("1. A crawler adds pages while results are streamed:")
    found = await crawl("/")
    print(f"   {len(found)} pages were found.")
    print("2. An ordered stream:")
    await in_order(["/docs", "/blog", "/about", "/docs/replay"])
    print("3. A reader that leaves early:")
    await until_enough(["/docs", "/", "/blog/1", "/about", "/blog/2"])


if __name__ == "__main__":
    asyncio.run(run(tour))
