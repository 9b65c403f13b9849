"""The picture in the docs is one of real spans."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")
pytest.importorskip("rotel", reason="rotel, which the example starts, is not installed")

from tests.telemetry.make_picture import FILE, drawing, names, spans_of_example


def bars(svg: str) -> list[str]:
    return sorted(re.findall(r"<title>(.*?)</title>", svg))


def test_the_picture_has_a_bar_for_each_span_of_the_example() -> None:
    spans = spans_of_example()
    assert bars(drawing(spans)) == names(spans.all)
    assert bars(FILE.read_text(encoding="utf-8")) == names(spans.all)
