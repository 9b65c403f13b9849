"""A past run as spans of OpenTelemetry, from its journal: `rh-agents export RUN --otlp URL`. Needs the SDK as well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from rh_agents.core.errors import RhAgentsError, StoreError, UsageError
from rh_agents.core.ports import Store
from rh_agents.core.results import OutcomeHeader
from rh_agents.telemetry._past import PastSpans
from rh_agents.telemetry._sdk import spare_words

__all__ = ["NotExported", "export_run", "otlp_exporter", "spans_of_run"]

_BATCH = 512
_REMEDY = "pip install opentelemetry-exporter-otlp-proto-http"


class NotExported(RhAgentsError):
    """The receiver of spans has not taken all of them. To export the run again doubles nothing."""


def otlp_exporter(url: str) -> SpanExporter:
    """An exporter to a receiver of OTLP over HTTP. What the URL does not say, the variables `OTEL_EXPORTER_OTLP_*` do.

    Args:
        url: of the receiver, such as http://localhost:4318; with a path, if it has another one than `/v1/traces`.

    Raises:
        UsageError: that is no URL of HTTP, or the exporter is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"{url!r} is no address of an OTLP receiver: write it as in http://localhost:4318")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - optional
    except ImportError as error:
        raise UsageError(f"spans are sent by the OTLP exporter of OpenTelemetry ({error}): {_REMEDY}") from error
    spare_words()
    path = parts.path if parts.path.strip("/") else "/v1/traces"
    return OTLPSpanExporter(parts._replace(path=path).geturl())


async def spans_of_run(
    store: Store, run_id: str, *, new_root_over: int = 1000, resource: Resource | None = None
) -> AsyncIterator[ReadableSpan]:
    """The spans of a run, of its journal: those of all its executions, as one trace, each with its real times.

    They have the same ids whenever they are made: digests of the run, the key of the call, which start of it this was,
    and the attempt. Calls that were recovered or came from the cache have none. A call that was cut off ends with the
    execution that had started it. While the run is being executed, what is under way is left out, the run included.

    Args:
        store: where the run is recorded. No value is read.
        run_id: its name.
        new_root_over: the members of a group that has more than so many have each a trace of their own, with a link to
            the group.
        resource: what the spans are put down to; by default what `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`
            say.

    Raises:
        StoreError: there is no such run, or the store failed.
    """
    info = await store.find_run(run_id)
    if info is None:
        raise StoreError(f"there is no run {run_id!r} in this store")
    past = PastSpans(info, Resource.create() if resource is None else resource, new_root_over)
    outcomes = aiter(store.unread_outcomes(run_id))
    async for recorded in store.events(run_id, values=False):
        header: OutcomeHeader | None = None
        if recorded.has_outcome and not past.is_repeated(recorded):
            unread = await anext(outcomes, None)
            header = None if unread is None else unread.header
        for span in past.add(recorded, header):
            yield span
    for span in past.rest():
        yield span


async def export_run(
    store: Store, run_id: str, exporter: SpanExporter, *, new_root_over: int = 1000, resource: Resource | None = None
) -> int:
    """Send the spans of a run, as `spans_of_run` makes them. Returns how many. To do it again doubles nothing.

    Raises:
        NotExported: the receiver did not take some of them.
        StoreError: there is no such run, or the store failed.
    """
    sent, batch = 0, list[ReadableSpan]()
    async for span in spans_of_run(store, run_id, new_root_over=new_root_over, resource=resource):
        batch.append(span)
        if len(batch) == _BATCH:
            sent, batch = sent + await _send(exporter, batch, sent), []
    return sent + (await _send(exporter, batch, sent) if batch else 0)


async def _send(exporter: SpanExporter, batch: Iterable[ReadableSpan], sent: int) -> int:
    spans = list(batch)
    if await asyncio.to_thread(exporter.export, spans) is not SpanExportResult.SUCCESS:
        took = f"took {sent} spans and then no more" if sent else "took no span"
        raise NotExported(
            f"the receiver {took}: see whether it is there and whether that is its address; exported again, the "
            "run has the same spans, none twice"
        )
    return len(spans)
