"""The task ``command``: run any program as a trial."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fnostab.errors import ConfigError, LaunchError
from fnostab.record.outcomes import Outcome
from fnostab.record.recorder import METRIC_NAMES, is_metric_name
from fnostab.record.settings import shown
from fnostab.record.trial import UNLESS_DRAWN, Resources, TrialSpec
from fnostab.tasks.command.code import code_hashes, hashes_of_values
from fnostab.tasks.command.settings import Declared, declare, resolve
from fnostab.tasks.command.supervisor import supervise, was_asked_to_end
from fnostab.tasks.command.template import Template, parse
from fnostab.tasks.contract import Settings, Task

if TYPE_CHECKING:
    from fnostab.study.file import StudyFile
    from fnostab.study.study import Study

NOT_RECORDED = ("loss", "grad_norm")  # arguments of Recorder.step, which records them under other names
FILES = "files"  # folder within a trial's folder, for which {directory} stands


class Command(Task):
    """A program, started once for each trial.

    Args:
        file: file of the study; None if trials on disk are only to be run.

    Raises:
        ConfigError: the command, a declaration of a setting, or ``code`` is not accepted.
    """

    name = "command"

    def __init__(self, file: "StudyFile | None" = None) -> None:
        self._folder = Path.cwd() if file is None else file.folder
        self._template = Template(())
        self._declared: Mapping[str, Declared] = {}
        self._code: Mapping[str, str] = {}
        self._values: dict[str, str | None] = {}  # hash of the file that a setting's value names; None if it names none
        self._place = lambda name: ""
        self._after_failure: Literal["stop", "continue"] = "stop" if file is None else file.after_failure
        if file is None:
            return
        self._place = lambda name: file.line_of("command" if name in ("", "command") else f"defaults.{name}")
        self._template = parse(file.command or "", self._place)
        self._declared = declare(file.defaults, self._place)
        self._template.check(self._declared, self._place)
        self._code = code_hashes(self._template, file.code, self._folder)

    @property
    def goes_by_arm(self) -> bool:
        """Whether the program is told its arm's name."""
        return self._template.names_arm

    def resolve(self, layers: Sequence[Settings], profile: str | None) -> dict[str, Any]:
        """Compute the values of all declared settings; the first of ``layers`` is the declarations themselves."""
        return resolve(self._declared, layers[1:])

    def check(self, study: "Study") -> None:
        """Refuse a metric name that can't be recorded, and a baseline that the rule ``failed`` would not fail.

        Raises:
            ConfigError: with the line of the study file.
        """
        outcome, metric = study.file.outcome, study.metric
        for name in (metric.name, *((*outcome.collapsed, *outcome.stagnated) if outcome else ())):
            line = study.file.line_of("metric" if name == metric.name else "outcome")
            if not is_metric_name(name):
                raise ConfigError(f"{line}{shown(name)} is not a metric name: expected {METRIC_NAMES}")
            if name in NOT_RECORDED:
                raise ConfigError(f"{line}no {name!r} is recorded: rec.validation(i, {name}=...) records val/{name}")
        if outcome is None or outcome.baseline is None or outcome.failed is None:
            return
        limit = outcome.failed.below if metric.higher_is_better else outcome.failed.above
        if limit is None or (outcome.baseline > limit if metric.higher_is_better else outcome.baseline < limit):
            better = "higher" if metric.higher_is_better else "lower"
            raise ConfigError(
                f"{study.file.line_of('outcome')}baseline {outcome.baseline:g} and failed contradict one another: "
                f"{better} is better for {metric.name}, so that an output that has learnt nothing would not fail"
            )

    def identity(self, settings: Settings) -> Any:
        """Identify an arm's trials by the command's words, settings, hashes of the code, and ``after_failure``."""
        goes_on = {} if self._after_failure == "stop" else {"after_failure": self._after_failure}
        code = {**self._code, **self._hashes_of_values(settings)}
        return {"command": self._template.words, "settings": dict(settings), "code": code, **goes_on}

    def _hashes_of_values(self, settings: Settings) -> dict[str, str]:
        """Hash the files that settings name; each is read once, so that a later change leaves the study the same."""
        new = [value for value in settings.values() if isinstance(value, str) and value not in self._values]
        self._values |= dict.fromkeys(new) | hashes_of_values(new, self._folder)
        named = {value: self._values.get(value) for value in settings.values() if isinstance(value, str)}
        return {name: digest for name, digest in named.items() if digest is not None}

    def after_failure(self, settings: Settings) -> Literal["stop", "continue"]:
        """Whether the program is asked to stop or to continue, as set in the study file."""
        return self._after_failure

    def resources(self, settings: Settings) -> Resources:
        """Request a GPU per trial and any number of threads; without GPUs one trial runs at a time."""
        return Resources(gpu=True, threads=None, one_a_core=False)

    def argv(self, settings: Settings, arm: str, seed: int, directory: Path) -> tuple[str, ...]:
        """Words of one trial's command line."""
        return self._template.fill({**settings, "seed": seed, "arm": arm, "directory": str(directory / FILES)})

    def working_directory(self) -> Path:
        """The study file's folder."""
        return self._folder

    def same_for_all(self, study: "Study") -> tuple[str, ...]:
        """Name what is the same for all seeds unless the program draws it from the seed."""
        return UNLESS_DRAWN

    def check_start(self, trials: Sequence[TrialSpec], *, here: bool, lockstep: bool) -> None:
        """Refuse lockstep, and a program that does not exist or is not executable."""
        if lockstep:
            raise LaunchError("--lockstep trains networks of the program's own together: leave it out for a command")
        program = self._template.words[0]
        if not here or "{" in program:
            return
        if "/" in program:
            if not (self._folder / program).exists():
                hint = "; no shell expands ~, so write the whole path" if program.startswith("~") else ""
                raise LaunchError(f"command: no program {self._folder / program}{hint}")
            if (self._folder / program).is_dir() or not os.access(self._folder / program, os.X_OK):
                raise LaunchError(
                    f"command: {self._folder / program} is not executable: chmod +x it, or name another program"
                )
        elif shutil.which(program) is None:
            hint = f"; of the file beside the study write ./{program}" if (self._folder / program).is_file() else ""
            raise LaunchError(f"command: no program {program!r} on PATH{hint}")

    def run(self, trials: Sequence[TrialSpec], directories: Sequence[Path]) -> list[Outcome | None]:
        """Run the programs one after the other and record their outcomes; after a request to end, start no more."""
        outcomes: list[Outcome | None] = []
        for trial, directory in zip(trials, directories, strict=True):
            outcomes.append(supervise(trial, directory))
            if was_asked_to_end(directory):
                break
        return outcomes + [None] * (len(trials) - len(outcomes))


def make_task(file: "StudyFile | None") -> Command:
    """Make the task for a study file."""
    return Command(file)
