"""Durability for agents that were written with other frameworks: `durable(...)` of the module that is named after each.

    from rh_agents.integrations.pydantic_ai import durable
    from rh_agents.integrations.openai_agents import durable
    from rh_agents.integrations.langchain import durable

What it returns is used like what it was given. Within a run with a store, each question to a model and each tool call
is then a recorded step: started again, the run gets their results from its journal, and pays for none of them twice.
"""

from rh_agents.integrations._steps import NotRecordedWarning
from rh_agents.integrations._streams import NotStreamedWarning

__all__ = ["NotRecordedWarning", "NotStreamedWarning"]
