"""``fnostab studies``: list and explain studies, and write a new one to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from fnostab.cli.options import PROFILE
from fnostab.cli.printing import echo
from fnostab.errors import ConfigError
from fnostab.record.plurals import counted
from fnostab.record.settings import value_text
from fnostab.show.console import Console
from fnostab.tasks.registry import PROGRAM, PROGRAM_TEMPLATE, TEMPLATE, load

if TYPE_CHECKING:
    from fnostab.study.study import Study


@click.group("studies", epilog="Example: fnostab studies show stage_a", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List the built-in studies, explain one, or write a new one."""
    if context.invoked_subcommand is None:
        _list(Console())


@command.command("show", epilog="Example: fnostab studies show stage_a")
@click.argument("study")
@PROFILE
def show(study: str, profile: str) -> None:
    """Explain STUDY: a built-in one, or the path of a YAML file."""
    from fnostab.study.study import load_study

    _explain(load_study(study, profile), Console())


@command.command("new", epilog="Example: fnostab studies new my_study.yaml --program")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--program", is_flag=True, help="Train with a program, and write a small one beside FILE.")
def new(file: Path, program: bool) -> None:
    """Write a study to FILE, to start from; it runs as it is. Without --program it trains the built-in networks."""
    from fnostab.study.file import read_study_file

    if file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{file} is not accepted: the name of a study file ends in .yaml")
    script, quoted = file.with_suffix(".py"), shlex.quote(str(file))
    if program and script.exists():
        raise ConfigError(f"{script} exists already: name another file")
    _write(file, load(PROGRAM_TEMPLATE if program else TEMPLATE).format(name=file.stem))
    try:
        read_study_file(str(file))
    except ConfigError:
        file.unlink()
        raise ConfigError(f"{file.stem!r} can't be the name of a study: letters, digits, dots, hyphens, _") from None
    if not program:
        echo(f"wrote {file}\n\nnext:\n  fnostab studies show {quoted}\n  fnostab run {quoted}")
        return
    _write(script, load(PROGRAM))
    echo(f"wrote {file} and {script}\n\nnext:")
    echo(f"  fnostab train {quoted}    # one trial\n  fnostab run {quoted}    # all of them")


def _write(file: Path, text: str) -> None:
    try:
        with open(file, "x") as written:
            written.write(text)
    except FileExistsError:
        raise ConfigError(f"{file} exists already: name another file") from None
    except OSError as error:
        raise ConfigError(f"can't write {file}: {error.strerror}") from error


def _list(console: Console) -> None:
    from fnostab.study.file import read_study_file
    from fnostab.tasks.registry import built_in_studies

    table = Table(box=None, pad_edge=False)
    table.add_column("study", no_wrap=True)
    table.add_column("arms", justify="right")
    table.add_column("what it asks")
    for name in built_in_studies():
        file = read_study_file(name)
        table.add_row(name, str(len(file.arms)), file.description)
    console.print(table, highlight=False)
    console.print("\n`fnostab studies show NAME` lists the arms of a study.", highlight=False)
    console.print("`fnostab run strategy` runs several of them.", highlight=False)


def _explain(study: Study, console: Console) -> None:
    file = study.file
    description = f": {file.description}" if file.description else ""
    console.print(Text.assemble((file.name, "bold"), f"{description}\n"))
    control = study.arms[file.control]
    table = Table(box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    table.add_column("role", no_wrap=True)
    table.add_column("what it changes")
    roles = {file.control: "control"} | {arm: role for role, arm in file.roles.items()}
    for arm, settings in study.arms.items():
        changed = {name: value for name, value in settings.items() if value != control[name]}
        what = "\n".join(f"{name} = {value_text(value)}" for name, value in changed.items())
        table.add_row(arm, roles.get(arm, ""), what)
    console.print(table, highlight=False)
    seeds = counted(file.seeds, "seed") if isinstance(file.seeds, int) else f"seeds {', '.join(map(str, file.seeds))}"
    for line in study.twins():
        console.print(f"\n{line}", highlight=False)
    console.print(f"\n{seeds}; decides on failures and {study.metric.key}", highlight=False)
    if size := study.task.size(study):
        profile = f" in the {study.profile} profile" if study.profile else ""
        console.print(f"control{profile}: {size}", highlight=False)
