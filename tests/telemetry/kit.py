"""Runs whose spans stay in memory, as trees that a test can compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanContext

__all__ = ["Spans", "context_of", "is_error"]


class Spans:
    """What a provider has exported."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._memory = InMemorySpanExporter()
        self.provider: TracerProvider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))

    @property
    def all(self) -> Sequence[ReadableSpan]:
        """In the order in which they ended."""
        return self._memory.get_finished_spans()

    def clear(self) -> None:
        """Forget what there was."""
        self._memory.clear()

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of this name."""
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The one of this name."""
        (span,) = self.named(name)
        return span

    def children(self, span: ReadableSpan | None) -> list[ReadableSpan]:
        """Those right below a span, or those whose parent is none of ours; in the order in which they began."""
        ids = {context_of(each).span_id for each in self.all}
        if span is None:
            found = [each for each in self.all if each.parent is None or each.parent.span_id not in ids]
        else:
            mine = context_of(span)
            found = [
                each
                for each in self.all
                if each.parent is not None
                and (each.parent.trace_id, each.parent.span_id) == (mine.trace_id, mine.span_id)
            ]
        return sorted(found, key=lambda each: each.start_time or 0)

    def tree(self, span: ReadableSpan | None = None) -> list[Any]:
        """Names, each followed by the list of those below it, if there are any."""
        found: list[Any] = []
        for child in self.children(span):
            found.append(child.name)
            below = self.tree(child)
            if below:
                found.append(below)
        return found


def context_of(span: ReadableSpan) -> SpanContext:
    """Its identity."""
    context: SpanContext | None = span.context
    assert context is not None
    return context


def is_error(span: ReadableSpan) -> bool:
    """Whether it has failed."""
    return not span.status.is_ok and span.status.status_code.name == "ERROR"
