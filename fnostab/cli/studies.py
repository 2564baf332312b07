"""``fnostab studies``: what can be run."""

import click
from rich.console import Console
from rich.table import Table


@click.command("studies")
def command() -> None:
    """List the built-in studies with their arms."""
    from fnostab.studies.spec import built_in_studies, load_study

    table = Table(box=None, pad_edge=False)
    for column in ("study", "arms", "what it asks"):
        table.add_column(column)
    for name in built_in_studies():
        study = load_study(name, "small")
        table.add_row(name, "\n".join(study.arms), study.file.description)
    Console().print(table)
