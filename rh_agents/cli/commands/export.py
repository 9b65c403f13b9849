"""`rh-agents export`: events and outcomes as lines of JSON, for other programs; or spans, for an OTLP receiver."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from pydantic_core import PydanticSerializationError, to_json

from rh_agents.cli.commands.common import NoContent, RunName, StoreOfRuns, with_store
from rh_agents.cli.errors import CommandError
from rh_agents.cli.json_text import json_line, schema_of
from rh_agents.cli.output.progress import say
from rh_agents.cli.output.wording import counted
from rh_agents.cli.stores import DEFAULT_STORE, existing_run, shown_url
from rh_agents.core._loops.beside import read_beside
from rh_agents.core._replay.recorded import KeyTable
from rh_agents.core.ports import RecordedEvent, Store
from rh_agents.core.ports.keeping import erasure_of
from rh_agents.core.redaction import redact
from rh_agents.core.results import Outcome, describe_error
from rh_agents.core.values import ErasedValue, UnknownValue
from rh_agents.display.text import harmless

__all__ = ["export_command"]


def export_command(
    run: RunName,
    outcomes: Annotated[
        bool, typer.Option("--outcomes", help="The outcomes of calls, one per line, instead of the events.")
    ] = False,
    otlp: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send the run as spans to this OTLP receiver (HTTP), such as http://localhost:4318, with its real "
            "times. To do so twice doubles nothing.",
        ),
    ] = None,
    no_content: NoContent = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="For programs: begin each line, which is JSON anyhow, with what it is and in which version."
        ),
    ] = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Write the journal of a run as JSON lines: every event, with the results. Or send it as spans of OpenTelemetry."""
    if otlp is not None:
        if outcomes:
            raise CommandError("--outcomes writes lines and --otlp sends spans: give one of them")
        if no_content:
            raise CommandError("--no-content is about lines; spans have no content")
        _send_spans(run, otlp, store, as_json=as_json)
        return
    schema = {"schema": schema_of("outcome" if outcomes else "event")} if as_json else {}

    def line_of(record: dict[str, Any]) -> str:
        return _to_line({**schema, **(_without_content(record) if no_content else record)})

    async def write(opened: Store) -> None:
        erasure = erasure_of(await existing_run(opened, run))
        if erasure is not None:
            say(f"run {harmless(run)}: {erasure}, so there are no results in what follows")
        if outcomes:
            async for unread in opened.unread_outcomes(run):
                outcome = await read_beside(unread, unknown_ok=True)
                sys.stdout.write(line_of(_outcome_record(outcome, unread.input)))
        else:
            known, outcomes_in_order = KeyTable(), aiter(opened.unread_outcomes(run))
            async for recorded in opened.events(run):
                record = _event_record(recorded)
                if recorded.has_outcome and known.add(bytes.fromhex(recorded.event.key or ""), recorded.sequence) < 0:
                    record["repeated"] = True  # it counts for nothing: its call has an earlier outcome
                elif recorded.has_outcome:
                    its = await anext(outcomes_in_order, None)
                    if its is not None and its.input is not None:
                        record["input"] = its.input
                sys.stdout.write(line_of(record))

    with_store(store, write)


def _send_spans(run: str, url: str, store: str, *, as_json: bool) -> None:
    """Send the run as spans, and say how many there were."""
    try:
        from rh_agents.telemetry.export import NotExported, export_run, otlp_exporter  # noqa: PLC0415 - optional
    except ImportError as error:
        raise CommandError(
            f"--otlp needs the SDK of OpenTelemetry ({error}): "
            "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        ) from error

    async def send(opened: Store) -> int:
        await existing_run(opened, run)
        exporter = otlp_exporter(url)
        try:
            return await export_run(opened, run, exporter)
        finally:
            exporter.shutdown()

    try:
        sent = with_store(store, send)
    except NotExported as error:
        raise CommandError(f"--otlp {harmless(shown_url(url))}: {error}", exit_code=1) from error
    if as_json:
        sys.stdout.write(json_line("spans", {"run_id": run, "spans": sent, "url": shown_url(url)}))
        return
    say(f"{counted(sent, 'span')} of run {harmless(run)} sent to {harmless(shown_url(url))}")


def _event_record(recorded: RecordedEvent) -> dict[str, Any]:
    """An event with its number in the journal; what it does not have is left out."""
    event = recorded.event
    record: dict[str, Any] = {
        "sequence": recorded.sequence,
        "timestamp": event.timestamp,
        "status": event.execution_status.value,
        "kind": event.event_type.value,
        "name": event.name,
        "actor": event.actor.name,
        "version": event.actor.recorded_version,
        "address": event.address,
        "key": event.key,
        "group_id": event.group_id,
        "index": event.parallel_index,
        "attempt": event.attempt,
        "seconds": event.execution_time,
        "retry_delay": event.retry_delay,
        "message": event.message,
        "tag": event.tag or None,
        "metadata": dict(event.metadata) or None,
        "group": None if event.group is None else event.group.model_dump(mode="json"),
        "control": None if event.control is None else _control_record(event.control),
    }
    record = {name: value for name, value in record.items() if value is not None}
    if event.execution_status.value in ("completed", "recovered") and event.group is None:
        record |= {"erased": True} if isinstance(event.result, ErasedValue) else {"result": event.result}
    return record


def _control_record(control: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked of the run, by whom, and what came of it. Names of items may look like credentials."""
    arguments = dict(control["arguments"])
    asked: dict[str, Any] = {name: control[name] for name in ("id", "author", "asked_at")}
    if "items" in arguments:
        asked["items"] = [redact(item) for item in arguments["items"]]
    if "settings" in arguments:
        asked["settings"] = arguments["settings"]
    return asked | dict(control["answer"])


def _outcome_record(outcome: Outcome, given: str | None) -> dict[str, Any]:
    """What a call came to."""
    record: dict[str, Any] = {
        "key": outcome.key.hex(),
        "parent": outcome.parent.hex(),
        "name": outcome.name,
        "address": outcome.address,
        "ok": outcome.error is None,
        "seconds": outcome.seconds,
        "attempts": outcome.attempts,
        "group_id": outcome.group_id,
    }
    if given is not None:
        record["input"] = given
    if isinstance(outcome.value, ErasedValue):
        record["erased"] = True
    elif outcome.error is None:
        record["result"] = outcome.value
    else:
        record["error"] = describe_error(outcome.error)
    return record


_CONTENT = frozenset({"result", "input", "error", "message", "metadata", "tag", "control"})


def _without_content(record: dict[str, Any]) -> dict[str, Any]:
    """The same without what people and programs gave and got: what was called, when, how long, and how it ended."""
    return {name: value for name, value in record.items() if name not in _CONTENT}


def _to_line(record: dict[str, Any]) -> str:
    """A record as JSON with its line feed.

    Bytes are written in base64, NaN and infinity as texts, and what has no form in JSON as its `repr`. Instances of
    classes that this program does not know are written as those of others: their contents.
    """
    try:
        return to_json(record, fallback=_shown, bytes_mode="base64", inf_nan_mode="strings").decode() + "\n"
    except (PydanticSerializationError, ValueError):  # halves of surrogate pairs, for instance
        return json.dumps(record, default=_shown, skipkeys=True) + "\n"


def _shown(value: object) -> Any:
    return value.data if isinstance(value, UnknownValue) else repr(value)
