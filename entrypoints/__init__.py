"""Entry points of MLproject. They run in the project's folder, which for a git URL is a temporary clone."""

import os
import sys
from pathlib import Path

import psutil

SHELLS = ("bash", "sh")  # shells in which MLflow runs a project's command


def arguments() -> list[str]:
    """Arguments of this process, with paths relative to the directory in which the user typed `mlflow run`.

    This applies to ``--output``, and to study and cluster files that are not in the project.
    """
    typed_in = _typed_in()
    if any(argument.partition("=")[0] == "--notify" for argument in sys.argv[1:]) and "MLFLOW_RUN_ID" in os.environ:
        print(
            "error: MLflow records -P notify=URL with the secrets in it: set FNOSTAB_NOTIFY=URL in the environment "
            f"instead, and delete what it has recorded: mlflow runs delete --run-id {os.environ['MLFLOW_RUN_ID']}",
            file=sys.stderr,
        )
        sys.exit(2)
    given = [_found(argument, typed_in) for argument in sys.argv[1:]]
    if "--output" not in given[:-1]:
        return [*given, "--output", str(typed_in / "outputs")]
    value = given.index("--output") + 1
    return [*given[:value], str(typed_in / given[value]), *given[value + 1 :]]


def _typed_in() -> Path:
    """Working directory of the process that called MLflow; this process's own if MLflow did not start it."""
    if "MLFLOW_RUN_ID" not in os.environ:
        return Path.cwd()
    try:
        caller = next(each for each in psutil.Process().parents() if each.name() not in SHELLS)
        return Path(caller.cwd())
    except (psutil.Error, StopIteration) as error:
        print(f"who called `mlflow run` is gone: records are kept in {Path.cwd()} ({error})", file=sys.stderr)
        return Path.cwd()


def _found(argument: str, typed_in: Path) -> str:
    is_theirs = argument.endswith((".yaml", ".yml")) and not Path(argument).exists() and (typed_in / argument).is_file()
    return str(typed_in / argument) if is_theirs else argument
