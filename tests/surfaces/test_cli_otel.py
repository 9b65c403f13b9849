"""`--otel`: runs of the command are traced, without a line in the program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from rh_agents.cli import main
from rh_agents.telemetry import VARIABLE
from tests.services.otlp_sink import Received, sink
from tests.surfaces.cli_kit import Folder, environment


def ended(folder: Folder, received: Received, *words: str, **variables: str) -> list[str]:
    """The names of the spans of a command in a process of its own."""
    before = len(received.spans)
    command = [sys.executable, "-m", "rh_agents", *words, "--store", "runs.db"]
    traced = environment(OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint, **variables)
    done = subprocess.run(command, cwd=folder.path, env=traced, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return sorted(span.name for span in received.spans[before:])


def test_a_run_is_traced_with_metrics_and_when_it_is_resumed_as_well(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.flag("broken")
    with sink() as received:
        command = ["run", "program.py:survey", "--run-id", "job", "--progress", "none", "--otel"]
        with pytest.raises(AssertionError, match="the survey is broken"):
            ended(folder, received, *command)
        assert len([span for span in received.spans if span.name == "execute_tool fetch"]) == 3
        folder.flag("broken", is_set=False)
        assert ended(folder, received, "resume", "job") == [
            "group pages",
            "invoke_agent survey",
            "invoke_workflow survey",
        ]
        assert {"rh_agents.calls", "rh_agents.call.duration"} <= {metric.name for metric in received.metrics}


@pytest.mark.parametrize("left_out", ["TRACES", "METRICS"])
def test_the_environment_can_leave_out_spans_or_metrics(tmp_path: Path, left_out: str) -> None:
    with sink() as received:
        command = ["run", "program.py:survey", "--run-id", "job", "--progress", "none", "--otel"]
        spans = ended(Folder(tmp_path), received, *command, **{f"OTEL_{left_out}_EXPORTER": "none"})
    assert bool(spans) == (left_out != "TRACES")
    assert bool(received.metrics) == (left_out != "METRICS")


def test_a_worker_traces_what_it_executes(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with sink() as received:
        assert ended(folder, received, "submit", "program.py:survey", "--run-id", "job") == []
        names = ended(folder, received, "worker", "--until-empty", "--otel")
    assert (names.count("execute_tool fetch"), names[-1]) == (3, "invoke_workflow survey")


def test_the_environment_is_put_back_when_the_command_has_ended(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert main(["worker", "--otel", "--store", "none"]) == 2
    assert VARIABLE not in os.environ
    assert "keeps nothing" in capfd.readouterr().err
