"""An approval by a person: an agent wants to send a letter, and may not until somebody has allowed this very letter.

    python examples/approval.py --store runs.db --run-id letter    # waits, and the process ends
    rh-agents answer --store runs.db letter                        # what is it?
    rh-agents answer --store runs.db letter QUESTION true          # allow it
    python examples/approval.py --store runs.db --run-id letter    # goes on behind the question

Without `--store` it asks on the terminal. What was allowed is bound to the arguments: a letter with one word changed
is another question.

It needs a model: the small local one (`make setup` installs it), or a provider's: `pip install 'rh_agents[openai]'`,
OPENAI_API_KEY and `--model`.
"""

from __future__ import annotations

import asyncio

from examples.model import arguments, the_model
from rh_agents import Agent, Question, RunAwaiting, run, tool
from rh_agents.errors import TooManyTurns


@tool(effect="external", on_unknown="ask")
async def send_letter(to: str, text: str) -> str:
    """Send a letter. It cannot be taken back.

    Args:
        to: who gets it.
        text: what it says.
    """
    print(f"(sent to {to!r}: {text!r})")
    return "sent"


async def ask_on_the_terminal(question: Question) -> bool:
    """Somebody is there."""
    answer = await asyncio.to_thread(input, f"{question.text} [y/n] ")
    return answer.strip().lower().startswith("y")


async def main() -> None:
    """Ask the agent for a letter."""
    given = arguments(__doc__ or "")
    async with the_model(given.model) as model:
        secretary = Agent(name="secretary", llm=model, tools=[send_letter], tool_choice="required", max_turns=2)
        try:
            answer = await run(
                secretary,
                "Send Ms Lovelace a letter that says thank you.",
                store=given.store,
                run_id=given.run_id,
                answerer=None if given.store else ask_on_the_terminal,
            )
        except RunAwaiting as waiting:
            print(waiting)
        except TooManyTurns as error:
            print(f"(no answer: {error})")
        else:
            print(answer)


if __name__ == "__main__":
    asyncio.run(main())
