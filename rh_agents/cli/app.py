"""The commands and their options, on Typer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rh_agents import __version__
from rh_agents.cli.commands.answer import answer_command
from rh_agents.cli.commands.cancel import cancel_command
from rh_agents.cli.commands.check import check_command
from rh_agents.cli.commands.delete import delete_command
from rh_agents.cli.commands.erase import erase_command
from rh_agents.cli.commands.export import export_command
from rh_agents.cli.commands.fork import fork_command
from rh_agents.cli.commands.gc import gc_command
from rh_agents.cli.commands.map import map_command
from rh_agents.cli.commands.pause import pause_command
from rh_agents.cli.commands.plan import plan_command
from rh_agents.cli.commands.requeue import requeue_command
from rh_agents.cli.commands.resume import resume_command
from rh_agents.cli.commands.run import run_command
from rh_agents.cli.commands.runs import runs_command
from rh_agents.cli.commands.set import set_command
from rh_agents.cli.commands.show import show_command
from rh_agents.cli.commands.top import top_command
from rh_agents.cli.commands.unpause import unpause_command
from rh_agents.cli.commands.web import web_command
from rh_agents.cli.errors import CommandError, one_line
from rh_agents.cli.output.progress import say
from rh_agents.cli.output.summary import INTERRUPTED
from rh_agents.cli.process import leave_without_threads
from rh_agents.cli.recorded_command import Invocation

__all__ = ["app"]


class _Commands(TyperGroup):
    """The context's object says whether the process is the command's own, so that it may end without its threads."""

    def invoke(self, ctx: Any) -> Any:
        """Older versions of Typer take Ctrl-C for a failure. And no code of the user's decides how the command ends."""
        try:
            return super().invoke(ctx)
        except SystemExit as raised:
            code = "" if raised.code is None else repr(raised.code)
            raise CommandError(f"ended by sys.exit({one_line(code)})", exit_code=1) from raised
        except KeyboardInterrupt:
            say("rh-agents: interrupted")
            if Invocation.of(ctx).owns_process:
                leave_without_threads(INTERRUPTED)
            raise typer.Exit(INTERRUPTED) from None


app: typer.Typer = typer.Typer(
    name="rh-agents",
    cls=_Commands,
    help="Run agents, tools and model calls: one flow, or one actor over thousands of items in parallel. Finished work "
    "is recorded and never repeated.",
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


_COMMANDS: dict[str, Callable[..., None]] = {
    "map": map_command,
    "run": run_command,
    "runs": runs_command,
    "show": show_command,
    "top": top_command,
    "resume": resume_command,
    "plan": plan_command,
    "fork": fork_command,
    "pause": pause_command,
    "unpause": unpause_command,
    "requeue": requeue_command,
    "set": set_command,
    "cancel": cancel_command,
    "answer": answer_command,
    "export": export_command,
    "erase": erase_command,
    "delete": delete_command,
    "gc": gc_command,
    "check": check_command,
    "web": web_command,
}
for _name, _function in _COMMANDS.items():
    app.command(_name)(_function)
