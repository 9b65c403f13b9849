"""`--executor`: further engines for the functions of a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from rh_agents.cli.errors import CommandError, close_names, one_line
from rh_agents.cli.targets import load_value
from rh_agents.core.actors.reachable import actors_named_in
from rh_agents.core.errors import DefinitionError
from rh_agents.core.ports import Executor
from rh_agents.core.ports.executors import Executors
from rh_agents.core.results import describe_error

__all__ = ["ExecutorsGiven", "engines_for"]

_OF_OURS = {"ray": "rh_agents.executors.ray:RayExecutor"}

ExecutorsGiven = Annotated[
    list[str] | None,
    typer.Option(
        "--executor",
        metavar="NAME[=MODULE:FACTORY]",
        help="An engine for functions with engine=NAME: an executor, or what makes one. `ray` alone is the cluster of "
        "RAY_ADDRESS, or one on this machine. May be repeated.",
    ),
]


def engines_for(program: object, given: Sequence[str] | None) -> dict[str, Executor]:
    """The executors that options give, by engine, for a program that has been imported.

    Raises:
        CommandError: one cannot be made, or a function that the program leads to names an engine that there is not.
    """
    executors = dict(_read(each) for each in given or ())
    try:
        Executors(executors).expect_all(actors_named_in(program))
    except DefinitionError as error:
        reason = one_line(str(error)).partition("; give it one:")[0]
        raise CommandError(f"{reason}; give it one with --executor NAME=MODULE:FACTORY") from error
    return executors


def _read(text: str) -> tuple[str, Executor]:
    name, is_named, spec = text.partition("=")
    if not is_named:
        if name not in _OF_OURS:
            meant = close_names(name, _OF_OURS)
            raise CommandError(f"--executor {text}: write NAME=MODULE:FACTORY; only `ray` needs none{meant}")
        spec = _OF_OURS[name]
    found = load_value(spec, "an executor", "my_cluster.py:executor")
    try:
        executor = found() if _makes_one(found) else found
        Executors({name: executor})
    except DefinitionError as error:
        raise CommandError(f"--executor {text}: {one_line(str(error))}") from error
    except Exception as error:
        raise CommandError(f"--executor {text}: {one_line(describe_error(error))}") from error
    return name, executor


def _makes_one(found: Any) -> bool:
    return isinstance(found, type) or (callable(found) and not callable(getattr(found, "call", None)))
