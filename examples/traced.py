"""See a run as a trace: python examples/traced.py

A receiver of OpenTelemetry's protocol, `rotel` from PyPI, is started; a run is traced and sent to it; and what has
arrived there is printed as a tree. A program of yours sends to the collector that you have: only `OTel()` is ours.

    pip install 'rh_agents[otel]' opentelemetry-sdk opentelemetry-exporter-otlp-proto-http rotel
"""

import asyncio
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

try:
    import rotel
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
except ImportError as error:
    sys.exit(f"{error}: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http rotel")

from rh_agents import ConcurrencyLimit, RetryPolicy, Usage, agent, llm, parallel, report_usage, run, tool
from rh_agents.telemetry.otel import OTel

SERVER = ConcurrencyLimit(2, name="server")
tried: set[str] = set()


@tool(retry=RetryPolicy(max_attempts=3, initial_delay=0.06, jitter=False), limits=SERVER)
async def fetch(url: str) -> str:
    """The text of a page. One of them needs a second try."""
    await asyncio.sleep(0.05)
    if url == "b" and url not in tried:
        tried.add(url)
        raise ConnectionError("the server has closed the connection")
    return f"page of {url}"


@llm
async def summarize(text: str) -> str:
    """A model, as far as a trace is concerned: it takes its time, and says what it used."""
    await asyncio.sleep(0.04)
    report_usage(Usage(input_tokens=120, output_tokens=30, requests=1, cost=0.0004))
    return text.upper()


@agent
async def read(url: str) -> str:
    """One page: fetched, and summarized."""
    return await summarize(await fetch(url))


@agent
async def survey(urls: list[str]) -> int:
    """All pages, side by side."""
    async with parallel(max_workers=3, name="pages") as p:
        for url in urls:
            p.add(read(url))
        return len(await p.gather())


class Arrived(NamedTuple):
    """A span as the receiver has it."""

    name: str
    id: str
    parent: str
    start: int
    end: int
    attributes: dict[str, str]


@contextmanager
def receiver(log: IO[str]) -> Iterator[str]:
    """The receiver, while the block lasts: where it listens. It writes what arrives to a file."""
    with socket.socket() as http, socket.socket() as grpc:
        http.bind(("127.0.0.1", 0))
        grpc.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in (http, grpc)]
    command = [
        str(Path(rotel.__file__).with_name("rotel-agent")), "start", "--exporter", "blackhole",
        "--otlp-http-endpoint", addresses[0], "--otlp-grpc-endpoint", addresses[1],
        "--debug-log", "traces", "--debug-log-verbosity", "detailed",
    ]  # fmt: skip
    agent = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(addresses[0])
        yield f"http://{addresses[0]}"
    finally:
        agent.terminate()
        agent.wait(20)


def wait_for(address: str) -> None:
    """Wait until a process listens there."""
    host, _, port = address.partition(":")
    for _ in range(400):
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit("the receiver does not listen")


def arrived(log: str) -> list[Arrived]:
    """The spans in the receiver's log."""
    found = []
    for text in re.split(r"^Span #\d+$", log, flags=re.MULTILINE)[1:]:
        fields = dict(re.findall(r"^ *([A-Z][A-Za-z ]*?) *: (.*)$", text, re.MULTILINE))
        attributes = dict(re.findall(r"-> ([\w.]+): \w+\((.*)\)$", text, re.MULTILINE))
        start, end = int(fields["Start time"]), int(fields["End time"])
        found.append(Arrived(fields["Name"], fields["ID"], fields["Parent ID"], start, end, attributes))
    return sorted(found, key=lambda span: span.start)


def show(spans: list[Arrived], parent: str = "", depth: int = 0) -> None:
    """Spans as a tree, with what each took."""
    for span in spans:
        if span.parent == parent:
            error = span.attributes.get("error.type", "")
            cost = span.attributes.get("rh_agents.usage.cost", "")
            more = "  ".join([error, f"${float(cost):.4f}" if cost else ""]).strip()
            print(
                f"{'  ' * depth}{span.name:{34 - 2 * depth}} {(span.end - span.start) / 1e6:6.0f} ms  {more}".rstrip()
            )
            show(spans, span.id, depth + 1)


def main() -> None:
    """Trace a run, and print what has arrived."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        with receiver(log) as endpoint:
            provider = TracerProvider()
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")))
            pages = asyncio.run(run(survey, ["a", "b", "c", "d"], tracing=OTel(provider)))
            provider.shutdown()  # sends what waits
        log.seek(0)
        spans = arrived(log.read())
    print(f"{pages} pages were read, and {len(spans)} spans have arrived:\n")
    show(spans)


if __name__ == "__main__":
    main()
