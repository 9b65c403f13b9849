"""The commands and their options, on Typer. The module of a command is imported when that command is wanted."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from rh_agents import __version__
from rh_agents.cli.errors import INTERRUPTED, CommandError, Interrupted, one_line
from rh_agents.cli.process import leave_without_threads
from rh_agents.cli.recorded_command import Invocation

__all__ = ["app"]


_COMMANDS: Final = (
    "map", "run", "submit", "worker", "runs", "show", "score", "top", "resume", "plan", "fork", "pause", "unpause",
    "requeue", "set", "cancel", "answer", "signal", "export", "erase", "delete", "gc", "check", "backup", "doctor",
    "web",
)  # fmt: skip
"""In the order in which they are listed. Each is in a module of its name."""


class _Commands(TyperGroup):
    """The context's object says whether the process is the command's own, so that it may end without its threads."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One of them; None if there is none. Then all are made, for whoever looks for names that are close."""
        for name in (cmd_name,) if cmd_name in _COMMANDS else _COMMANDS:
            if name not in self.commands:
                self.commands[name] = _made(name)
        return self.commands.get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Older versions of Typer take Ctrl-C for a failure. And no code of the user's decides how the command ends."""
        try:
            return super().invoke(ctx)
        except SystemExit as raised:
            code = "" if raised.code is None else repr(raised.code)
            raise CommandError(f"ended by sys.exit({one_line(code)})", exit_code=1) from raised
        except KeyboardInterrupt:
            if Invocation.of(ctx).owns_process:
                leave_without_threads(INTERRUPTED)
            raise Interrupted from None


def _made(name: str) -> Any:
    """A command, of the function in its module."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command(name)(getattr(import_module(f"rh_agents.cli.commands.{name}"), f"{name}_command"))
    made = typer.main.get_command(alone)
    made.short_help = (made.help or "").partition("\n\n")[0]  # the whole sentence: else the list of commands cuts it
    return made


app: typer.Typer = typer.Typer(
    name="rh-agents",
    cls=_Commands,
    help="Run agents, tools and model calls: one flow, or one function over thousands of items in parallel. Finished "
    "work is recorded and never repeated.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"rh-agents {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What holds for every command."""
