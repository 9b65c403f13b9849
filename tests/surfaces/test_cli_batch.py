"""`rh-agents map --batch` sends the same work as a batch, and `--budget-…` stops a job that can go on."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.services.anthropic_server import AnthropicServer, message
from tests.services.anthropic_server import text as block
from tests.services.batch_server import BatchServer
from tests.services.model_server import answer, model_server

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")

ACTOR = """
import os
from rh_agents import Usage, report_usage, tool
from rh_agents.llms import OpenAIChat

model = OpenAIChat("stub", base_url=os.environ["STUB_URL"], api_key="k", retry=None)

@tool
async def shout(text: str) -> str:
    return await model.ask(text)

@tool
async def spend(text: str) -> str:
    report_usage(Usage(input_tokens=10, cost=0.1))
    return text
"""


async def rh_agents(folder: Path, base_url: str, *words: str) -> tuple[int, str]:
    """The exit code of a command, and what it says on standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rh_agents", *words, cwd=folder,
        env={"STUB_URL": base_url, "RH_AGENTS_POLL_EVERY": "0.05", "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, errors.decode()


def write_input(folder: Path, count: int) -> None:
    (folder / "actor.py").write_text(ACTOR)
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": f"t{number}"}) + "\n" for number in range(count)))


def test_a_job_is_one_batch_with_the_same_output_and_the_same_command_again_submits_nothing(tmp_path: Path) -> None:
    write_input(tmp_path, 40)

    def echo(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, answer(body["messages"][-1]["content"].upper()).body

    async def main() -> None:
        server = BatchServer(echo)
        words = ("map", "actor.py:shout", "in.jsonl", "-o", "out.jsonl", "--store", "runs.db", "--batch")
        async with model_server(server) as served:
            code, said = await rh_agents(tmp_path, served.base_url, *words)
            assert code == 0, said
            assert "40 requests submitted" in said
            lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
            assert {line["result"] for line in lines} == {f"T{number}" for number in range(40)}
            assert set(lines[0]) >= {"id", "index", "ok", "result", "attempts", "seconds"}
            code, said = await rh_agents(tmp_path, served.base_url, *words)
            assert code == 0, said
        assert len(server.batches) == 1

    asyncio.run(main())


def test_a_budget_stops_a_job_and_a_larger_one_lets_it_go_on(tmp_path: Path) -> None:
    write_input(tmp_path, 10)

    async def main() -> None:
        words = ("map", "actor.py:spend", "in.jsonl", "-o", "out.jsonl", "--store", "runs.db", "-n", "1")
        code, said = await rh_agents(tmp_path, "http://127.0.0.1:1/v1", *words, "--budget-calls", "4")
        assert code == 1
        assert "calls=4" in said
        assert "4 calls, 40 tokens, $0.4000" in said
        assert said.rstrip().endswith("--store runs.db --budget-calls MORE")
        again = ("resume", said.split("resume with: rh-agents resume ")[1].split()[0], "--store", "runs.db")
        code, said = await rh_agents(tmp_path, "http://127.0.0.1:1/v1", *again)
        assert code == 1, "the same budget as before does not suffice"
        code, said = await rh_agents(tmp_path, "http://127.0.0.1:1/v1", *again, "--budget-calls", "6")
        assert (code, said.count("calls=6")) == (1, 1)
        code, said = await rh_agents(tmp_path, "http://127.0.0.1:1/v1", *words, "--budget-cost", "5")
        assert code == 0, said
        assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 10
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rh_agents", "runs", "--store", str(tmp_path / "runs.db"), "--json",
            stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        listed, _ = await process.communicate()
        run_id = json.loads(listed.splitlines()[0])["run_id"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rh_agents", "show", run_id, "--store", str(tmp_path / "runs.db"),
            stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        shown, _ = await process.communicate()
        assert "spent: 10 calls, 100 tokens, $1.0000 (spend $1.0000)" in shown.decode()

    asyncio.run(main())


CLAUDE = """
import os
from rh_agents import tool
from rh_agents.llms import AnthropicChat

model = AnthropicChat("claude-test", os.environ["STUB_URL"], "k", retry=None)

@tool
async def shout(text: str) -> str:
    return await model.ask(text)
"""


def test_models_of_anthropic_are_sent_as_message_batches(tmp_path: Path) -> None:
    pytest.importorskip("anthropic", reason="anthropic is not installed: pip install 'rh_agents[anthropic]'")
    write_input(tmp_path, 5)
    (tmp_path / "actor.py").write_text(CLAUDE)

    def echo(body: dict[str, Any]) -> dict[str, Any]:
        return message(block(body["messages"][-1]["content"][0]["text"].upper()))

    async def main() -> None:
        server = AnthropicServer(echo)
        words = ("map", "actor.py:shout", "in.jsonl", "-o", "out.jsonl", "--store", "runs.db", "--batch")
        async with model_server(server) as served:
            code, said = await rh_agents(tmp_path, served.base_url.removesuffix("/v1"), *words)
            assert code == 0, said
            assert "batch msgbatch_0: 5 requests submitted" in said
        lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert {line["result"] for line in lines} == {f"T{number}" for number in range(5)}
        assert len(server.batches) == 1

    asyncio.run(main())
