"""The contract of a task: the methods that the engine calls, whatever a trial trains.

Everything else (arms and seeds, launching, journals, resuming, live table, upload, outcome, answer, report) belongs to
the engine and is the same for all tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fnostab.errors import ConfigError
from fnostab.record.outcome_rules import OutcomeRules
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import Charts, Measure, Metric, PicturePanel, Resources, TrialSpec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fnostab.study.study import Study

Settings = Mapping[str, Any]  # flat: values by name, as written in study files
# Calls a function, "module:name", with keyword arguments in another process, so that a launcher need not import the
# training libraries. What it takes and returns is JSON-ready; a FnostabError that it raises is raised here.
Call = Callable[[str, Mapping[str, Any]], Any]


class Estimates(Protocol):
    """Estimates of the memory and time of a study's arms."""

    @property
    def described(self) -> str:
        """Describe in words how much `measure` measures."""

    def insist_on_fit(self) -> None:
        """Raise LaunchError if an arm can't fit into memory."""

    def refusals(self) -> list[str]:
        """Reasons why arms can't fit into memory, a line each."""

    def measure(self) -> None:
        """Measure the time of a step, which can't be computed."""

    def table(self) -> "Table":
        """A row for each arm."""

    def summary(self, trials: Mapping[str, int]) -> str:
        """Estimate in one line how long the given number of trials of each arm takes."""

    def to_json(self, trials: Mapping[str, int]) -> dict[str, Any]:
        """All estimates, JSON-ready."""


class Task:
    """Base class of tasks; methods without a useful default raise NotImplementedError.

    Attributes:
        name: name of the task in study files, as in ``task: name``.
        profiles: named layers of settings that ``--profile`` accepts; empty if there are none.
        metric: metric that decides if a study names none.
        measures: measures of quality that trials record.
        epochs: name of the setting that ``--epochs`` sets.
    """

    name: str
    profiles: tuple[str, ...] = ()
    metric = Metric(name="val/loss")
    margin: float | None = None
    measures: Mapping[str, Measure] = {}
    epochs = "epochs"
    charts = Charts()
    picture: PicturePanel | None = None

    def choose_profile(self, wanted: str, *, gpus: bool) -> str | None:
        """Choose the named layer for ``--profile``; ``gpus`` says whether trials will have a GPU.

        Raises:
            ConfigError: the task has no such layer.
        """
        if wanted == "auto":
            return None
        raise ConfigError(f"profile={wanted!r}: task {self.name} has no profiles; leave out --profile")

    def resolve(self, layers: Sequence[Settings], profile: str | None) -> dict[str, Any]:
        """Resolve all settings of an arm, typed and checked.

        Args:
            layers: settings of the study and of the command line; later ones win.
            profile: the named layer below them.

        Raises:
            ConfigError: a setting is unknown, of the wrong type, or impossible with another; ``setting`` names it.
        """
        raise NotImplementedError

    def check(self, study: "Study") -> None:
        """Refuse a study that can't be answered.

        Raises:
            ConfigError: the study can't be answered; the message says why.
        """

    def identity(self, settings: Settings) -> Any:
        """Identity of an arm's trials, besides arm and seed, JSON-ready."""
        return dict(settings)

    @property
    def goes_by_arm(self) -> bool:
        """Whether arms of one identity may train differently, because the training is told the arm's name."""
        return False

    def judged(self, settings: Settings, metric: Metric) -> str:
        """Name of the metric in the journal that outcome rules judge."""
        return metric.name

    def rules(self, settings: Settings) -> OutcomeRules:
        """Rules of failures."""
        return OutcomeRules()

    def after_failure(self, settings: Settings) -> Literal["stop", "continue"]:
        """Whether a trial continues once a failure is certain."""
        return "stop"

    def resources(self, settings: Settings) -> Resources:
        """Resources that a trial needs."""
        return Resources()

    def argv(self, settings: Settings, arm: str, seed: int, directory: Path) -> tuple[str, ...] | None:
        """Command line of the program that trains one trial; None for a task that trains in `run`."""
        return None

    def working_directory(self) -> Path | None:
        """Folder in which that program is started."""
        return None

    def size(self, study: "Study") -> str:
        """Size of the arms in one line."""
        return ""

    def caveats(self, profile: str | None) -> tuple[str, ...]:
        """Caveats that stand under every answer."""
        return ()

    def same_for_all(self, study: "Study") -> tuple[str, ...]:
        """Things that were the same for all seeds."""
        return ()

    def quality(self, study: "Study") -> Mapping[str, Measure]:
        """Names among ``measures`` that the trials of a study record."""
        return self.measures

    def next_of(self, study: "Study") -> dict[str, str]:
        """Commands that follow up on failing arms of a study, by arm."""
        return {}

    def notices(self, study: "Study", arms: Sequence[str]) -> list[str]:
        """Notices before arms are run, a line each."""
        return []

    def check_start(self, trials: Sequence[TrialSpec], *, here: bool, lockstep: bool) -> None:
        """Refuse trials that would all fail. Writes nothing, since a dry run calls this too.

        Args:
            trials: trials that are to be run.
            here: whether they run on this machine.
            lockstep: whether trials of one arm are trained together.

        Raises:
            FnostabError: the trials would fail; the message says why.
        """

    def prepare(
        self, trials: Sequence[TrialSpec], console: "Console", call: Call, *, here: bool, lockstep: bool
    ) -> None:
        """Prepare data that trials share, and refuse trials for which that fails.

        Raises:
            FnostabError: the trials would fail; the message says why.
        """

    def preflight(self, trials: Sequence[TrialSpec], jobs: int, gpus: int, call: Call) -> "Estimates | None":
        """Estimate memory and time (see `Estimates`); None for a task that can't."""
        return None

    def run(self, trials: Sequence[TrialSpec], directories: Sequence[Path]) -> list[Outcome | None]:
        """Train one trial, or several of one arm together, in this process; return outcomes, None for one cut short."""
        raise NotImplementedError
