"""Every name that we give to a backend: those of the conventions for generative AI, and our own.

The conventions are of https://github.com/open-telemetry/semantic-conventions-genai, still in development: names move.
So they stand in this file only, and `SCHEMA_URL` says of which version they are.
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai/1.42.0"
SCOPE: Final = "rh_agents"

# -- of the conventions ------------------------------------------------------------------------------------------------

OPERATION: Final = "gen_ai.operation.name"
INVOKE_WORKFLOW: Final = "invoke_workflow"
INVOKE_AGENT: Final = "invoke_agent"
EXECUTE_TOOL: Final = "execute_tool"
CHAT: Final = "chat"
AGENT_NAME: Final = "gen_ai.agent.name"
AGENT_VERSION: Final = "gen_ai.agent.version"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"
ERROR_TYPE: Final = "error.type"

DURATION: Final = "gen_ai.client.operation.duration"
TOKENS: Final = "gen_ai.client.token.usage"

# -- our own -----------------------------------------------------------------------------------------------------------

RUN_ID: Final = "rh_agents.run.id"
EPOCH: Final = "rh_agents.run.epoch"
STATUS: Final = "rh_agents.status"
REASON: Final = "rh_agents.reason"
ADDRESS: Final = "rh_agents.address"
KEY: Final = "rh_agents.key"
ACTOR: Final = "rh_agents.actor"
ATTEMPT: Final = "rh_agents.attempt"
ATTEMPTS: Final = "rh_agents.attempts"
DELAY: Final = "rh_agents.delay"
CALLS: Final = "rh_agents.calls"
FAILED: Final = "rh_agents.failed"
RETRIES: Final = "rh_agents.retries"
RECOVERED: Final = "rh_agents.recovered"
CACHED: Final = "rh_agents.cached"
COST: Final = "rh_agents.usage.cost"
USED_INPUT: Final = "rh_agents.usage.input_tokens"
"""Of calls that are no questions to a model but report usage all the same."""
USED_OUTPUT: Final = "rh_agents.usage.output_tokens"
GROUP_ID: Final = "rh_agents.group.id"
GROUP: Final = "rh_agents.group.name"
GROUP_WORKERS: Final = "rh_agents.group.max_workers"
GROUP_MEMBERS: Final = "rh_agents.group.members"
GROUP_COMPLETED: Final = "rh_agents.group.completed"
GROUP_FAILED: Final = "rh_agents.group.failed"
GROUP_CANCELLED: Final = "rh_agents.group.cancelled"
GROUP_ENDING: Final = "rh_agents.group.ending"
INDEX: Final = "rh_agents.group.index"
LIMITER: Final = "rh_agents.limiter"
SECONDS: Final = "rh_agents.seconds"
INPUT: Final = "rh_agents.input"
OUTPUT: Final = "rh_agents.output"

WAITED: Final = "rh_agents.waited"
"""Seconds of a call without work: it waited for a limit, a budget, its next attempt, a person, a pause."""
EXECUTIONS: Final = "rh_agents.run.executions"
EXECUTION: Final = "rh_agents.run.execution"
VERB: Final = "rh_agents.control.verb"
LINK: Final = "rh_agents.link"

EVENT_WAITED: Final = "waited"
EVENT_RETRY: Final = "retry"
EVENT_RECOVERED: Final = "recovered"
EVENT_RESUMED: Final = "resumed"
EVENT_CONTROL: Final = "control"

# -- metrics: our own. Those of the conventions are DURATION and TOKENS ------------------------------------------------

METRIC_RUNS: Final = "rh_agents.runs"
METRIC_CALLS: Final = "rh_agents.calls"
METRIC_DURATION: Final = "rh_agents.call.duration"
METRIC_RETRIES: Final = "rh_agents.call.retries"
METRIC_IN_FLIGHT: Final = "rh_agents.calls.in_flight"
METRIC_RECOVERED: Final = "rh_agents.calls.recovered"
METRIC_CACHED: Final = "rh_agents.calls.cached"
METRIC_WAITED: Final = "rh_agents.limiter.wait"
METRIC_COST: Final = "rh_agents.usage.cost"
METRIC_BATCH: Final = "rh_agents.store.batch.size"
METRIC_COMMIT: Final = "rh_agents.store.commit.duration"
