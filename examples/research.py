"""A research agent over local files: a model that searches and reads, and answers with its sources.

    python examples/research.py
    python examples/research.py --store runs.db --run-id research      # kill it: it goes on at its turn

The local model cannot judge *when* to call a tool, so its first turn has to call one (`tool_choice="required"`), and
what it makes of the results is a matter of luck. A provider's model (`--model`) answers the question.

It needs a model: the small local one (`make setup` installs it), or a provider's: `pip install 'rh_agents[openai]'`,
OPENAI_API_KEY and `--model`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from examples.model import arguments, the_model
from rh_agents import Agent, Budget, run, tool
from rh_agents.errors import TooManyTurns

FOLDER = Path(__file__).resolve().parents[1] / "docs"
QUESTION = "What happens to a run when its process is killed?"


@tool
def search(words: str) -> list[str]:
    """Find the files in which words occur.

    Args:
        words: what to look for; one word is enough.
    """
    wanted = [word.lower() for word in words.split()]
    return sorted(
        str(path.relative_to(FOLDER))
        for path in FOLDER.rglob("*.md")
        if any(word in path.read_text(encoding="utf-8").lower() for word in wanted)
    )


@tool
def read(file: str) -> str:
    """The beginning of a file.

    Args:
        file: its name, as `search` gives it.
    """
    path = (FOLDER / file).resolve()
    if not path.is_relative_to(FOLDER) or not path.is_file():
        raise FileNotFoundError(f"there is no file {file!r}; take a name that search has given")
    return path.read_text(encoding="utf-8")[:1_000]


async def main() -> None:
    """Ask the agent, and show its answer."""
    given = arguments(__doc__ or "")
    async with the_model(given.model) as model:
        researcher = Agent(
            name="researcher",
            llm=model,
            tools=[search, read],
            instructions="Answer from the files alone. Search first, then read, then answer and name the file.",
            tool_choice="required",
            max_turns=4,
        )
        try:
            answer = await run(
                researcher, QUESTION, store=given.store, run_id=given.run_id, budget=Budget(calls=30, tokens=50_000)
            )
        except TooManyTurns as error:
            answer = f"(no answer: {error})"
        print(f"{QUESTION}\n{answer}")


if __name__ == "__main__":
    asyncio.run(main())
