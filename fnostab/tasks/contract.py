"""The contract of a task: what the engine asks of whatever a trial trains.

All else (arms and seeds, launching, journals, resume, live table, upload, outcome, answer, report) is the
engine's and the same for all tasks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fnostab.errors import ConfigError
from fnostab.record.outcome_rules import OutcomeRules
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import Charts, Measure, Metric, PicturePanel, Resources, TrialSpec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fnostab.study.study import Study

__all__ = ["Estimates", "Settings", "Task"]

Settings = Mapping[str, Any]  # flat: a name as it is written in study files, and its value


class Estimates(Protocol):
    """What the arms of a study take of a machine."""

    @property
    def described(self) -> str:
        """How much `measure` measures, in words."""

    def insist_on_fit(self) -> None:
        """Raise LaunchError if an arm can't fit into memory."""

    def refusals(self) -> list[str]:
        """Why arms can't fit into memory, a line each."""

    def measure(self) -> None:
        """Measure what can't be computed: the time of a step."""

    def table(self) -> "Table":
        """A row for each arm."""

    def summary(self, trials: Mapping[str, int]) -> str:
        """One line: how long so many trials of each arm take together."""

    def to_json(self, trials: Mapping[str, int]) -> dict[str, Any]:
        """All of it, JSON-ready."""


class Task:
    """What a task gives; methods without a useful default raise NotImplementedError.

    Attributes:
        name: as in ``task: name``.
        profiles: named layers of settings that ``--profile`` accepts; empty if there are none.
        metric: what decides where a study does not say.
        margin: of that metric.
        measures: of quality, recorded by every trial.
        charts: of its own metrics.
        picture: that its trials keep.
        epochs: the setting that ``--epochs`` sets.
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
        """The named layer for ``--profile``; ``gpus`` says whether trials will have a GPU.

        Raises:
            ConfigError: the task has no such layer.
        """
        if wanted == "auto":
            return None
        raise ConfigError(f"profile={wanted!r}: task {self.name} has no profiles; leave out --profile")

    def resolve(self, layers: Sequence[Settings], profile: str | None) -> dict[str, Any]:
        """All settings of an arm, typed and checked.

        Args:
            layers: what the study and the command line say, later ones winning.
            profile: the named layer below them.

        Raises:
            ConfigError: a setting is unknown, of the wrong type, or impossible with another; ``setting`` names it.
        """
        raise NotImplementedError

    def check(self, study: "Study") -> None:
        """Refuse a study that can't be answered.

        Raises:
            ConfigError: and why.
        """

    def identity(self, settings: Settings) -> Any:
        """What identifies the trials of an arm, but for arm and seed: JSON-ready."""
        return dict(settings)

    def judged(self, settings: Settings, metric: Metric) -> str:
        """The metric of the journal that outcome rules are about."""
        return metric.name

    def rules(self, settings: Settings) -> OutcomeRules:
        """What counts as a failure."""
        return OutcomeRules()

    def after_failure(self, settings: Settings) -> str:
        """Whether a trial goes on once a failure is certain: "stop" or "continue"."""
        return "stop"

    def resources(self, settings: Settings) -> Resources:
        """What a trial takes of a machine."""
        return Resources()

    def argv(self, settings: Settings, arm: str, seed: int, directory: Path) -> tuple[str, ...] | None:
        """The program that trains one trial, each argument a word; None of a task that trains by `run`."""
        return None

    def working_directory(self) -> Path | None:
        """Where that program is started."""
        return None

    def size(self, study: "Study") -> str:
        """How large the arms are, in a line."""
        return ""

    def caveats(self, profile: str | None) -> tuple[str, ...]:
        """What any answer is to be read with."""
        return ()

    def same_for_all(self, study: "Study") -> tuple[str, ...]:
        """What was not varied from seed to seed."""
        return ()

    def next_of(self, study: "Study") -> dict[str, str]:
        """Commands that go on from arms of a study that fail, by arm."""
        return {}

    def notices(self, study: "Study", arms: Sequence[str]) -> list[str]:
        """What to know before arms are run, a line each."""
        return []

    def check_start(self, trials: Sequence[TrialSpec], *, here: bool, lockstep: bool) -> None:
        """Refuse what would fail in all trials, and write nothing: a dry run asks this too.

        Args:
            trials: those that were asked for.
            here: whether they run on this machine.
            lockstep: whether those of an arm are trained together.

        Raises:
            FnostabError: and why.
        """

    def prepare(self, trials: Sequence[TrialSpec], console: "Console", *, here: bool, lockstep: bool) -> None:
        """Make what trials share; refuse what only shows itself while that is made.

        Raises:
            FnostabError: and why.
        """

    def preflight(self, trials: Sequence[TrialSpec], jobs: int, gpus: int) -> "Estimates | None":
        """Estimates of memory and time (see `Estimates`); None of a task that has none."""
        return None

    def run(self, trials: Sequence[TrialSpec], directories: Sequence[Path]) -> list[Outcome | None]:
        """Train in this process: one trial, or several of one arm side by side; None of one that broke off."""
        raise NotImplementedError
