"""Pages of the reference that are made from the code when the site is built: a hook of mkdocs.

Every setting is listed with the comment that stands beside it in the source, and every public package
with what its ``__all__`` names, so that the reference can't say anything else than the program does.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

import fnostab
from fnostab.cli import COMMANDS, group
from fnostab.launch.slurm.cluster import ClusterFile
from fnostab.ptychography.settings import TrialConfig
from fnostab.study.file import StudyFile

PACKAGES = (
    "asking",
    "ptychography.physics",
    "ptychography.models",
    "monitor",
    "tracking",
    "stats",
    "decision",
    "figures",
)
WIDTH = 100  # of the text of --help
SOURCE = Path(__file__).parent.parent / "fnostab"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; called by mkdocs once it has found the others."""
    pages = {"commands": commands_page(), "configuration": configuration_page()}
    pages["python"] = python_page()
    pages |= {name.rpartition(".")[2]: package_page(name) for name in PACKAGES}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def commands_page() -> str:
    """Page with the --help of each command, in the order of ``fnostab --help``."""
    top = click.Context(group, info_name="fnostab", max_content_width=WIDTH, terminal_width=WIDTH)
    parts = ["# Commands", "", "What `--help` says. `fnostab` and `python -m fnostab` are the same.", ""]
    for name in COMMANDS:
        command = group.get_command(top, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=top, **command.context_settings)
        parts += [f"## `fnostab {name}`", "", "```text", command.get_help(context).rstrip(), "```", ""]
        for part in getattr(command, "commands", {}).values():
            inner = click.Context(part, info_name=part.name, parent=context)
            parts += [f"### `fnostab {name} {part.name}`", "", "```text", part.get_help(inner).rstrip(), "```", ""]
    return "\n".join(parts)


def configuration_page() -> str:
    """Every setting of a trial, group by group, and every field of a study file."""
    parts = [
        "# Settings",
        "",
        "Written `data.N` in a study, on the command line (`--set data.N=32`), after `mlflow run ... -P` and as a",
        "parameter of a run in MLflow. A wrong name or value is refused before anything starts, with what is accepted.",
        "[Studies, settings and profiles](../studies.md) says which of several values wins.",
    ]
    for prefix, model in _groups(TrialConfig):
        doc = (inspect.getdoc(model) or "").split("\n\n")[0].replace("docs/outcomes.md", "[Failures](../outcomes.md)")
        heading, about = (f"`{prefix}`", doc) if prefix else ("Of the trial itself", "Beside the groups above.")
        parts += ["", f"## {heading}", "", about, "", *_table(model, f"{prefix}.")]
    parts += ["", "## Of a study file", "", "See [a study as YAML](../studies.md).", "", *_table(StudyFile, "")]
    about = "What a job of `--launcher slurm` asks for, see [a study on Slurm](../cluster.md)."
    parts += ["", "## Of a cluster file", "", about, "", *_table(ClusterFile, "")]
    return "\n".join(parts) + "\n"


def package_page(name: str) -> str:
    """Page of a package's public names, from mkdocstrings."""
    package = import_module(f"fnostab.{name}")
    public = getattr(package, "__all__", [])
    lines = [f"# `fnostab.{name}`", "", inspect.getdoc(package) or "", ""]
    if public:
        return "\n".join([*lines, *(f"::: fnostab.{name}.{each}" for each in public), ""])
    modules = sorted(path.stem for path in (SOURCE / name.replace(".", "/")).glob("[!_]*.py"))
    options = [
        "    options:",
        "      show_root_toc_entry: true",
        "      heading_level: 2",
        '      filters: ["!^_", "!^[A-Z_]+$"]',
    ]
    return "\n".join([*lines, *("\n".join([f"::: fnostab.{name}.{each}", *options, ""]) for each in modules)])


def python_page() -> str:
    """Page of what `import fnostab` offers and no package's own page has."""
    modules = {name: getattr(fnostab, name).__module__ for name in dir(fnostab) if name != "__version__"}
    paged = tuple(f"fnostab.{package}" for package in PACKAGES)
    own = [f"::: {module}.{name}" for name, module in modules.items() if not module.startswith(paged)]
    return "\n".join(["# Functions of `fnostab`", "", "[Python API](../python.md) has examples.", "", *own, ""])


def _groups(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Models nested in ``model``, each with its dotted name; the model itself last."""
    for name, field in model.model_fields.items():
        if _is_model(field.annotation):
            yield from _groups(field.annotation, f"{prefix}.{name}" if prefix else name)
    yield prefix, model


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _table(model: type[BaseModel], prefix: str) -> list[str]:
    comments = comments_of(model)
    schema = model.model_json_schema()["properties"]
    rows = ["| name | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if not _is_model(field.annotation):
            default = "needed" if field.is_required() else f"`{_yaml(field.default)}`"
            cells = (f"`{prefix.lstrip('.')}{name}`", _type(schema[name]), default, comments.get(name, ""))
            rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return rows


def comments_of(model: type[BaseModel]) -> dict[str, str]:
    """The comment at the end of each field's line in the source."""
    source = textwrap.dedent(inspect.getsource(model))
    lines = source.splitlines()
    (body,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    comments = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_col_offset:
            rest = lines[(node.end_lineno or node.lineno) - 1].encode()[node.end_col_offset :].decode()
            comments[node.target.id] = rest.strip().removeprefix("#").strip()
    return comments


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "$ref" in schema:
        return "mapping"
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if kind == "object":
        return "mapping"
    words = {"string": "text", "integer": "whole number", "boolean": "`true`, `false`"}.get(str(kind), str(kind))
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return f"{words} {', '.join(limits)}".strip()


def _yaml(value: Any) -> str:
    """A default as it is written in YAML."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return re.sub(r"e-0(\d)", r"e-\1", str(value))
