"""What is recorded of a command with its run, so that the same command finds the run again and `resume` repeats it."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Self

from rh_agents.cli.errors import CommandError
from rh_agents.cli.stores import store_option
from rh_agents.core.ports import RunInfo, is_untouched_fork
from rh_agents.core.ports.keeping import expect_values
from rh_agents.core.values import kept_text

__all__ = [
    "STANDARD_STREAM",
    "Invocation",
    "RunCommand",
    "absolute_path",
    "command_line",
    "derived_run_id",
    "expect_items_again",
    "here",
    "resume_line",
    "settings_text",
]

STANDARD_STREAM = "-"
_NOT_KEPT = frozenset(
    {"run_id", "store", "force", "help", "detach", "log", "accept_changes", "summary_json", "as_json"}
)
"""Options that say where the run is, or that were meant for one time."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What the process knows of a command beyond its arguments.

    Attributes:
        owns_process: the process is the command's own, so that it may end without waiting for threads.
        run_id, store: instead of what the arguments say.
        shown_store: the same store as its user called it.
        resume_from: the address of a call that is to be called again.
        output, force: another output file, and whether it may be written over.
        accept_changes: whether results of code that has changed are reused without a word.
        as_json: whether what came of it is written for programs.
    """

    owns_process: bool = False
    run_id: str | None = None
    store: str | None = None
    shown_store: str | None = None
    resume_from: str | None = None
    output: str | None = None
    force: bool = False
    accept_changes: bool = False
    as_json: bool = False

    @classmethod
    def of(cls, context: Any) -> Self:
        """The one that came with the context of a command."""
        return context.obj if isinstance(context.obj, cls) else cls()

    def asks_for(self, context: Any, name: str) -> bool:
        """Whether the user has given this option, even with its usual value."""
        source = context.get_parameter_source(name)
        return source is not None and not source.name.startswith("DEFAULT")


@dataclass(frozen=True, slots=True)
class RunCommand:
    """A command that executes a run, as it is kept among the facts of the run.

    Attributes:
        words: the command without the name of the program.
        folder: the working directory.
        kind: map or run.
        target: the last part of the module and the name of what it runs, for example `sentiment:classify`.
        settings: the arguments that are the same for every item, as JSON.
        output: the absolute path of the output file; "" for standard output.
    """

    words: tuple[str, ...]
    folder: str
    kind: str
    target: str
    settings: str = "{}"
    output: str = ""

    @classmethod
    def of(cls, info: RunInfo, *, unknown_ok: bool = True) -> Self | None:
        """The command of a run; None if none started it, or another version of this program wrote something else.

        Args:
            info: the run.
            unknown_ok: put the names of secrets that are not registered in their place.

        Raises:
            StoreError: there is such a secret, and that is not `unknown_ok`.
        """
        facts = {name: kept_text(text, unknown_ok=unknown_ok) for name, text in info.facts.items()}
        try:
            words = json.loads(facts["command"])
            return cls(
                tuple(map(str, words)),
                facts["folder"],
                facts["kind"],
                facts["target"],
                facts.get("settings", "{}"),
                facts.get("output", ""),
            )
        except (KeyError, ValueError, TypeError):
            return None

    @property
    def workflow(self) -> str:
        """The name of what is executed: a run that Python code starts with the same function has the same."""
        name = self.target.rpartition(":")[2]
        return name if self.kind == "run" else f"{self.kind} {name}"

    @property
    def facts(self) -> dict[str, str]:
        """The same as facts of a run."""
        return {
            "command": json.dumps(self.words),
            "folder": self.folder,
            "kind": self.kind,
            "target": self.target,
            "settings": self.settings,
            "output": self.output,
        }

    def check_same(self, known: RunInfo) -> None:
        """Refuse to resume a run that does something else.

        Raises:
            CommandError: it does.
            ValuesErased: what it came to was erased.
        """
        expect_values(known, "resumed")
        before = RunCommand.of(known)
        if before is None:
            if known.workflow not in ("", self.workflow):
                raise CommandError(
                    f"there is a run {known.run_id!r} already, which Python code started with the workflow "
                    f"{known.workflow}: name another one with --run-id"
                )
            return
        if (before.kind, before.target) != (self.kind, self.target):
            raise CommandError(
                f"run {known.run_id!r} is `{before.kind} {before.target}`, and this is `{self.kind} {self.target}`: "
                "name another one with --run-id"
            )
        if before.settings != self.settings:
            raise CommandError(
                f"run {known.run_id!r} has the settings {before.settings}, and these are {self.settings}: "
                "name another one with --run-id"
            )

    def owns(self, known: RunInfo | None) -> bool:
        """Whether the output file is that of the run as it was executed before."""
        if known is None or is_untouched_fork(known):
            return False
        before = RunCommand.of(known)
        return before is not None and bool(self.output) and before.output == self.output


def command_line(context: Any, **replaced: str) -> tuple[str, ...]:
    """The command of a Click context as words, with only what is not usual; `replaced` gives other values by name."""
    words: list[str] = []
    options: list[str] = []
    for parameter in context.command.params:
        name = parameter.name
        if name in _NOT_KEPT:
            continue
        value = replaced.get(name, context.params.get(name))
        if value is None or value == parameter.default or value in ([], ()):
            continue
        if parameter.param_type_name == "argument":
            words.append(_word(value))
            continue
        option = max(parameter.opts, key=len)
        if getattr(parameter, "is_flag", False):
            options.append(option)
            continue
        for each in value if isinstance(value, list | tuple) else [value]:
            options += [option, _word(each)]
    if any(word.startswith("-") and word != STANDARD_STREAM for word in words):  # it could be taken for an option
        return (context.command.name, *options, "--", *words)
    return (context.command.name, *words, *options)


def _word(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value)


def derived_run_id(name: str, *what: str) -> str:
    """The name of a run whose command gives none: the same command has the same one.

    Args:
        name: of the actor.
        what: whatever makes it another run: the module's file, the input, the settings.
    """
    text = json.dumps([name, *what])
    return f"{_tame(name)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _tame(name: str) -> str:
    """The name in characters that need no quotes in a shell."""
    return "".join(c if c.isalnum() or c in "_." else "-" for c in name).strip("-.")[:40] or "run"


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings as JSON that is the same for equal ones."""
    return json.dumps(settings, sort_keys=True, ensure_ascii=False)


def absolute_path(path: str) -> str:
    """The path from the root; standard input and output stay what they are."""
    return path if path == STANDARD_STREAM else os.path.realpath(path)


def resume_line(run_id: str, store: str, words: Sequence[str] | None = None) -> str:
    """The command that resumes a run: `words` themselves if only they can do that."""
    if words is not None:
        return f"rh-agents {shlex.join(words)} --run-id {shlex.quote(run_id)}{store_option(store)}"
    return f"rh-agents resume {shlex.quote(run_id)}{store_option(store)}"


def expect_items_again(run_id: str, store: str, *, are_given: bool) -> None:
    """Refuse to resume a run that reads standard input where that has no items: its output would be emptied.

    Raises:
        CommandError: there are none.
    """
    if not are_given:
        raise CommandError(
            f"run {run_id!r} reads its items from standard input: give them again, as in "
            f"`... | {resume_line(run_id, store)}`"
        )


def here() -> str:
    """The working directory."""
    return os.fspath(Path.cwd())
