"""``fnostab doctor``: check the installation, the machine and the records."""

from itertools import chain
from pathlib import Path

import click

from fnostab.cli.options import OUTPUT, TRACKING_URI

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


@click.command("doctor", epilog="Example: fnostab doctor")
@click.option("--mend", is_flag=True, help="Move the addresses of artifacts, if their database was moved or copied.")
@OUTPUT
@TRACKING_URI
@click.pass_context
def command(context: click.Context, /, mend: bool, output: Path, tracking_uri: str | None) -> None:
    """Check this installation, this machine and the records, and say how to fix each fault.

    One line a check. It writes a scratch run and deletes it again. The exit status is 1 if something failed.
    """
    from rich.text import Text

    from fnostab.doctor import State, installation_checks, look, machine_checks, records_checks
    from fnostab.show.console import Console

    console, failed = Console(highlight=False), False
    checks = chain(installation_checks(), machine_checks(output), records_checks(tracking_uri, output, mend))
    for name, finding in look(checks):
        state = Text(f"{finding.state:<8}", style=STYLES[finding.state])
        console.print(state, Text(f"{name:<11}"), Text(finding.text), soft_wrap=True)
        failed |= finding.state is State.FAILED
    context.exit(1 if failed else 0)
