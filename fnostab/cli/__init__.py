"""The command line. Each command is in a module of its own, imported when it is called.

``fnostab --help`` needs only the table below, so that it answers immediately.
"""

import atexit
import errno
import gc
import importlib
import os
import sys
from difflib import get_close_matches
from typing import Any

import click

from fnostab import __version__
from fnostab.cli.printing import echo, show_warnings_safely
from fnostab.errors import FnostabError, one_line
from fnostab.tasks.registry import COMMANDS as OF_TASKS
from fnostab.tracking.environment import settle

__all__ = ["main"]

OWN = {
    "run": "Run a study: arms over seeds, recorded in MLflow.",
    "watch": "Show a study while it runs.",
    "cancel": "End a study, wherever its trials run.",
    "train": "Train one trial.",
    "plan": "Plan the number of seeds of a study.",
    "estimate": "Estimate the memory and time of a study.",
    "decide": "Turn the records of a study into a verdict.",
    "report": "Write a verdict with its figures as one HTML file.",
    "export": "Write the trials of a study as a CSV table.",
    "studies": "List the built-in studies.",
    "sync": "Send journals on disk to MLflow.",
    "reconcile": "Close runs whose process is gone.",
    "prune": "Thin old curves and archive old journals.",
    "serve": "Start a tracking server for a group.",
    "doctor": "Check a set-up and say how to fix it.",
    "ui": "Open the records in the MLflow UI.",
}
OF_THE_EXTRA_TORCH = {"lightning", "safetensors", "skimage", "torch"}  # modules
COMMANDS = OWN | {name: about for name, (about, _) in OF_TASKS.items()}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            similar = get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f" (did you mean {similar[0]!r}?)" if similar else ""
            raise click.UsageError(f"No such command {cmd_name!r}{hint}", ctx)
        module = f"fnostab.cli.{cmd_name}" if cmd_name in OWN else OF_TASKS[cmd_name][1]
        command: click.Command = importlib.import_module(module).command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Call a command; an error of its options that click raises without a context names its help."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            name = ctx.invoked_subcommand
            if error.ctx is None and name and (command := self.get_command(ctx, name)):
                error.ctx = click.Context(command, parent=ctx, info_name=name)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fnostab")
@click.pass_context
def group(context: click.Context) -> None:
    """Does this change make training stable?

    Trains a control and your changes to it over many seeds, records every step in MLflow, and says for each change
    whether it fails less often than control, and how certain that is.
    """
    if context.invoked_subcommand is None:
        echo(context.get_help())


def _positional(error: click.UsageError) -> str:
    """Part of an error about an option of the name of a positional argument: how that is given; else empty."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return ""
    name = error.option_name.lstrip("-")
    params = error.ctx.command.params
    is_positional = any(isinstance(param, click.Argument) and param.name == name for param in params)
    return f": give {name.upper()} by itself, as in {error.ctx.command_path} {name.upper()}" if is_positional else ""


def _drop_unwritten_output() -> None:
    """Discard output that can't be written, which Python would try to write once more when it ends."""
    try:
        if sys.stdout is not None:  # as where it was closed
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error that the user can fix is printed as one line, with exit status 2."""
    settle()
    show_warnings_safely()
    atexit.register(gc.freeze)  # else Python looks through all objects for garbage before it ends: up to a second
    try:
        status = group(args=arguments, prog_name="fnostab", standalone_mode=False)
    except click.exceptions.Exit as leave:
        status = leave.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        echo(error.format_message(), err=True)
        status = error.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "fnostab"
        echo(f"error: {error.format_message().rstrip('.')}{_positional(error)}; see `{command} --help`", err=True)
        status = error.exit_code
    except click.ClickException as error:
        echo(f"error: {error.format_message()}", err=True)
        status = error.exit_code
    except FnostabError as error:
        echo(f"error: {error}", err=True)
        status = 2
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in OF_THE_EXTRA_TORCH:
            raise
        echo(f"error: {error.name} is not installed: pip install 'fnostab[torch]'", err=True)
        status = 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # of standard output too, as in `fnostab decide > file`
            raise
        echo(f"error: {one_line(error)}; free some space, then run the command again", err=True)
        _drop_unwritten_output()
        status = 2
    except (click.Abort, KeyboardInterrupt):
        status = 130
    sys.exit(status if isinstance(status, int) else 0)
