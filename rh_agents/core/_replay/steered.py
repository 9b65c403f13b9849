"""What people have asked of a run, as its journal has it: a fold over its CONTROL events.

Only the owner of a run appends such an event, when it applies a request, and nothing of the request has an effect
before. So the event is what makes a request count, and its place in the journal is when: a crash before it leaves the
request open, and the next start applies it; a crash after it finds the id here, and does not apply it again. All that a
request changes is in this one entry, so that no crash leaves half of it.

A call that is to be made again is so by the entry itself (`now`), which supersedes its failure as a SUPERSEDED event
does. If the program has had the failure, it may have acted on it, and this execution must not contradict it: then the
entry only names it (`later`), and the next start supersedes it, and what was made of it around it, by another entry
with the same id. So each execution gives its program one story, whichever entry the process dies after.

In a group whose stream can give a further result of a member, the failure stays, and the entry says that another try
follows it (`live`). It begins when the program has been given the failure, in this execution as in one that repeats it:
so what the program sees is a failure, and later what came of the other try, always in that order.

How long it holds: a pause, settings and a request to stop the run hold until it ends, so they carry its epoch; and
they are of this run and not of its copies, so they carry its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rh_agents.core._replay.identity import again_key
from rh_agents.core.redaction import without_secrets

__all__ = ["NOTHING_ASKED", "Steered", "is_named"]

Control = Mapping[str, Any]
"""What a CONTROL event says: `id`, `verb`, `author`, `asked_at`, `arguments`, `run`, `epoch`, and in `answer` what came
of it. One that was refused has `refused` in there, and changes nothing."""


@dataclass(slots=True, eq=False)
class Steered:
    """The requests that were applied.

    Attributes:
        answers: what came of each request, by its id.
        paused: the pause that holds.
        stopped: the newest request to stop the run for good.
        settings: by name, the newest value with the event that set it.
        cancelled: why members of groups are cancelled when their turn comes, by the names under which somebody did.
        undone: by the calls of members that were cancelled and asked for again, the names that mean them no more.
        later: by the ids of requests to make calls again, the keys of those that wait for the next start.
        live: the keys of failures after which a group makes the call again, and gives both results.
        further: the keys under which it makes them, those included of which somebody has asked not to use the outcome.
        due: when waits of the program are over, in seconds since 1970, by what stands for the wait.
        delivered: what waits were given of signals, as JSON text, by the same.
        trace: the context of the trace of the newest start that had one.
    """

    answers: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    paused: Control | None = None
    stopped: Control | None = None
    settings: dict[str, tuple[Any, Control]] = field(default_factory=dict)
    cancelled: dict[str, str] = field(default_factory=dict)
    undone: dict[str, set[str]] = field(default_factory=dict)
    later: dict[str, list[bytes]] = field(default_factory=dict)
    live: set[bytes] = field(default_factory=set)
    further: set[bytes] = field(default_factory=set)
    due: dict[str, float] = field(default_factory=dict)
    delivered: dict[str, str] = field(default_factory=dict)
    trace: Mapping[str, str] = field(default_factory=dict)

    def add(self, control: Control) -> tuple[list[bytes], list[str]]:
        """The next event; returns the keys of outcomes that do not count any more, and the groups of these."""
        answer: Mapping[str, Any] = control["answer"]
        self.answers[control["id"]] = answer
        if "refused" in answer:
            return [], []
        verb, arguments = control["verb"], control["arguments"]
        if verb == "requeue":
            return self._requeue(control, arguments)
        if verb in ("pause", "unpause"):
            self.paused = control if verb == "pause" else None
        elif verb == "set":
            self.settings.update({name: (value, control) for name, value in arguments["settings"].items()})
        elif verb == "wait":
            self.due[arguments["wait"]] = arguments["due_at"]
        elif verb == "signal":
            self.delivered[control["wait"]] = arguments["value"]
        elif verb == "trace":
            self.trace = arguments["context"]
        elif verb == "cancel" and not arguments["items"]:
            self.stopped = control
        elif verb == "cancel":
            self.cancelled.update(dict.fromkeys(arguments["items"], arguments["why"]))
            for names in self.undone.values():
                names.difference_update(arguments["items"])
        return [], []

    def _requeue(self, control: Control, arguments: Mapping[str, Any]) -> tuple[list[bytes], list[str]]:
        for item in arguments["items"]:
            self.cancelled.pop(item, None)
        for base in arguments.get("undone", ()):
            self.undone.setdefault(base, set()).update(self.cancelled)
        self.later.pop(control["id"], None)
        if control["later"]:
            self.later[control["id"]] = list(map(bytes.fromhex, control["later"]))
        for key in map(bytes.fromhex, control.get("live", ())):  # earlier versions had none
            self.live.add(key)
            self.further.add(again_key(key))
        return list(map(bytes.fromhex, control["now"])), control["groups"]

    def why_cancelled(self, label: str, address: str, key: bytes | None, base: bytes | None) -> str | None:
        """Why a member is cancelled; None if it is not. It is named by its name, its address, or `@` and its key."""
        undone = self.undone.get(base.hex(), ()) if base is not None and self.undone else ()
        named = (
            why for item, why in self.cancelled.items() if item not in undone and is_named(item, label, address, key)
        )
        return next(named, None)

    def pause_of(self, run_id: str, epoch: int) -> Control | None:
        """The pause with which an execution of the run begins."""
        return self.paused if self.paused is not None and _is_of(self.paused, run_id, epoch) else None

    def why_stopped(self, run_id: str, epoch: int) -> str | None:
        """Why an execution of the run ends at once: its owner died before the run had ended for good."""
        stopped = self.stopped
        return None if stopped is None or not _is_of(stopped, run_id, epoch) else str(stopped["arguments"]["why"])

    def settings_of(self, run_id: str, epoch: int) -> dict[str, Any]:
        """The settings with which it begins."""
        return {name: value for name, (value, control) in self.settings.items() if _is_of(control, run_id, epoch)}


NOTHING_ASKED = Steered()
"""Of runs that nobody has steered, which most are. Nothing is added to it."""


def is_named(item: str, label: str, address: str, key: bytes | None) -> bool:
    """Whether a member is meant by what somebody wrote: its name, its address, the end of that from an index on
    (`pages[3]` or `pages[3]::fetch` of `survey::pages[3]::fetch`), or @ and the beginning of its key.
    """
    if item.startswith("@") and len(item) > 1 and key is not None and key.hex().startswith(item[1:].lower()):
        return True
    return item in (without_secrets(label), address) or (
        "]" in item and f"::{address}::".endswith((f"::{item}::", _below(item, address)))
    )


def _below(item: str, address: str) -> str:
    """How an address ends that has one more part behind an item."""
    return f"::{item}::{address.rpartition('::')[2]}::"


def _is_of(control: Control, run_id: str, epoch: int) -> bool:
    return (control["run"], control["epoch"]) == (run_id, epoch)
