"""Registry of tasks by name; each is imported only when a study asks for it."""

from importlib import import_module, resources
from typing import TYPE_CHECKING, Any

from fnostab.errors import ConfigError

if TYPE_CHECKING:
    from fnostab.study.file import StudyFile
    from fnostab.tasks.contract import Task

TASKS = {"ptychography": "fnostab.ptychography.task", "command": "fnostab.tasks.command.task"}
HOOKS = {  # optional functions of tasks, beside their contract; listed here so that no task is imported to find them
    "ptychography": {
        "apply": "fnostab.ptychography.cli.policy:act_on",
        "after": "fnostab.ptychography.deep_study:deep_study",
    },
}
COMMANDS = {  # commands that tasks add to the command line, by name: help text and module
    "policy": ("Show the defaults that verdicts have set.", "fnostab.ptychography.cli.policy"),
    "replay": ("Run a failure again from its black box.", "fnostab.ptychography.cli.replay"),
    "data": ("Import measured data, and show it.", "fnostab.ptychography.cli.data"),
    "activations": ("Show the drift of the activations against depth.", "fnostab.ptychography.cli.activations"),
}
CHAINS = {  # several studies that `fnostab run NAME` runs one after another
    "strategy": "fnostab.ptychography.cli.strategy:run_strategy",
}
TEMPLATE = "fnostab.ptychography.study_template:TEMPLATE"  # a study to begin with
PROGRAM_TEMPLATE = "fnostab.tasks.command.study_template:TEMPLATE"  # one of a program
PROGRAM = "fnostab.tasks.command.study_template:SCRIPT"  # that program
STUDIES = ("fnostab.ptychography.studies",)  # packages with built-in study files


def task_names() -> list[str]:
    """List the names of all tasks, ``command`` among them."""
    return list(TASKS)


def make_task(name: str, file: "StudyFile | None" = None) -> "Task":
    """Make the task called ``name``, for a study file.

    Raises:
        ConfigError: there is no such task, or the task does not accept the file.
    """
    if name not in TASKS:
        raise ConfigError(f"task={name!r} is not known; accepted: {', '.join(TASKS)}")
    task: Task = import_module(TASKS[name]).make_task(file)
    return task


def built_in_studies() -> dict[str, Any]:
    """Find the study files that come with the tasks: by study name, objects with ``read_text``."""
    found = [p for package in STUDIES for p in resources.files(package).iterdir() if p.name.endswith(".yaml")]
    return {p.name.removesuffix(".yaml"): p for p in sorted(found, key=lambda p: p.name)}


def hook(task: str, name: str) -> Any:
    """Import an optional function of a task, such as ``apply``, which applies a verdict; None if the task has none."""
    return load(HOOKS[task][name]) if has_hook(task, name) else None


def has_hook(task: str, name: str) -> bool:
    """Whether a task has a hook of that name; does not import the task."""
    return name in HOOKS.get(task, {})


def load(place: str) -> Any:
    """Import and return the object that ``module:name`` names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
