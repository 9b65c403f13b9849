"""Traces and metrics of runs, for whatever OpenTelemetry backend the program exports to. Needs the extra `otel`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rh_agents.core.errors import UsageError
from rh_agents.core.ports.tracing import CONTINUED, Tracing, TracingLike

__all__ = ["VARIABLE", "entered", "expect_sdk", "open_tracing", "send_what_waits"]

VARIABLE = "RH_AGENTS_TRACING"
"""The environment variable that says how runs are traced which do not say it themselves."""


def open_tracing(given: TracingLike | None) -> Tracing | None:
    """The tracer that is meant; None for none.

    Args:
        given: a tracer; or "otel" for `OTel()` with the SDK that the program has set up, or else one that is set up
            from the environment (`OTEL_EXPORTER_OTLP_ENDPOINT` and the others of the SDK), with metrics if there is
            an SDK for them. None is what the variable
            `RH_AGENTS_TRACING` says, False none. "continued" is for a part of a run that another process traces: the
            SDK that the program has set up here too, and what waits is sent when the part has ended.

    Raises:
        UsageError: there is none of this name, or what it needs is not installed.
    """
    where = "tracing="
    if given is None:
        where, given = f"{VARIABLE}=", os.environ.get(VARIABLE) or False
    if given is False or given == "none":
        return None
    if given is True or given in ("otel", CONTINUED):
        try:
            from rh_agents.telemetry._sdk import has_meters, send_waiting, set_up  # noqa: PLC0415 - optional
            from rh_agents.telemetry.otel import OTel  # noqa: PLC0415 - optional
        except ImportError as error:
            raise UsageError(f"{where}otel needs OpenTelemetry ({error}): pip install 'rh_agents[otel]'") from error
        if given != CONTINUED or os.environ.get(VARIABLE) == "otel":
            set_up()
        return OTel(metrics=has_meters(), when_run_ends=send_waiting if given == CONTINUED else None)
    if isinstance(given, str):
        raise UsageError(f"{where}{given!r} is no way to trace a run: it is 'otel' or 'none'")
    return given


def expect_sdk(where: str) -> None:
    """See to it that spans can be exported, without setting anything up.

    Args:
        where: what wants that, for the message.

    Raises:
        UsageError: the SDK of OpenTelemetry or its exporter is not installed.
    """
    try:
        import opentelemetry.exporter.otlp.proto.http  # noqa: PLC0415 - optional
        import opentelemetry.sdk  # noqa: F401, PLC0415 - optional
    except ImportError as error:
        raise UsageError(
            f"{where} needs the SDK of OpenTelemetry ({error}): "
            "pip install 'rh_agents[otel]' opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        ) from error


def send_what_waits() -> None:
    """Send spans and metrics that wait, if this process has any: it is about to end without the usual clean-up."""
    if "rh_agents.telemetry._sdk" in sys.modules:
        from rh_agents.telemetry._sdk import send_waiting  # noqa: PLC0415 - optional

        send_waiting()


def entered(trace: Mapping[str, str]) -> AbstractContextManager[Any]:
    """A block in which the context of a trace from another process is the current one."""
    try:
        from rh_agents.telemetry._context import Remote  # noqa: PLC0415 - optional
    except ImportError:
        return nullcontext()
    return Remote(trace)
