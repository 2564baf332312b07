"""A short study with `fnostab run`: imports shared by forks, or a new process for each call and each trial.

    python -m benchmarks --only start

Two seeds of one arm, one epoch each: most of the time is spent before and between trials.
"""

import tempfile
from statistics import median

from benchmarks.processes import Use, run
from benchmarks.timing import Row, compared

ROUNDS = {True: 1, False: 3}  # quick or not
STUDY = "run stage_a --profile small --arms control --seeds 0,1 --jobs 1 --set execution.device=cpu"
SHORT = "--set training.epochs=1 --set data.n_lines=40"
MAIN = "from fnostab.cli import main; main()"
WITHOUT_FORKS = """
from functools import partialmethod
from fnostab.launch.local import LocalLauncher
LocalLauncher.__init__ = partialmethod(LocalLauncher.__init__, forks=False)
"""
PROGRAMS = {"a new process for each": WITHOUT_FORKS + MAIN, "forks of one process": MAIN}


def measure(quick: bool) -> list[Row]:
    uses: dict[str, list[Use]] = {variant: [] for variant in PROGRAMS}
    study(MAIN)  # warm-up, which compiles Python's files
    for _ in range(ROUNDS[quick]):
        for variant, program in PROGRAMS.items():
            uses[variant].append(study(program))
    cpu = {variant: median(use.cpu_s for use in found) for variant, found in uses.items()}
    wall = {variant: median(use.wall_s for use in found) for variant, found in uses.items()}
    what = "study of two short trials"
    return [*compared(f"{what}, CPU", cpu, "s"), *compared(f"{what}, wall", wall, "s")]


def study(program: str) -> Use:
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        places = ("--output", f"{folder}/outputs", "--tracking-uri", f"sqlite:///{folder}/mlflow.db")
        return run("-c", program, *STUDY.split(), *SHORT.split(), *places)
