"""A real OTLP receiver, `rotel`, and behind it a server that keeps the spans which it hands on."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import rotel

from tests.services.otlp_sink import Received, sink

__all__ = ["Received", "receiver"]

AGENT = Path(rotel.__file__).with_name("rotel-agent")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def receiver(folder: Path) -> Iterator[Received]:
    """The receiver while the block lasts."""
    http_port, grpc_port = _free_port(), _free_port()
    with sink() as received:
        command = [
            str(AGENT), "start", "--otlp-http-endpoint", f"127.0.0.1:{http_port}",
            "--otlp-grpc-endpoint", f"127.0.0.1:{grpc_port}", "--exporter", "otlp", "--otlp-exporter-protocol", "http",
            "--otlp-exporter-endpoint", received.endpoint, "--log-file", str(folder / "rotel.log"),
            "--pid-file", str(folder / "rotel.pid"),
        ]  # fmt: skip
        received.endpoint = f"http://127.0.0.1:{http_port}"
        process = subprocess.Popen(command)
        try:
            _wait_until_it_listens(http_port, process)
            yield received
        finally:
            process.terminate()
            process.wait(20)


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise RuntimeError(f"the receiver has ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError("the receiver does not listen")
