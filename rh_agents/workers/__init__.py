"""Workers: processes that take submitted runs from a queue of a store and execute them.

    rh-agents worker --queue default --store postgresql://… --max-runs 10

does it from the command line, `Worker` in a program. A run that was submitted (`run.submit`, `rh-agents submit`) is a
row without an owner; a worker becomes its owner as any program does that opens a run, so that the same holds here: a
run has one owner, finished calls are never repeated, and a run whose worker is gone is taken over by another one.
"""

from rh_agents.workers.worker import Flow, Worker, load_flow

__all__ = ["Flow", "Worker", "load_flow"]
