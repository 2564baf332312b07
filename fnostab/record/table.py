"""Table on which a decision is based: one row per trial, from MLflow or from a file (`fnostab.record.table_file`)."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fnostab.errors import DecisionError, JournalError
from fnostab.record.numbers import LARGEST, number
from fnostab.record.outcomes import EXCLUDED, FAILURES, TRAINING_OUTCOMES, Outcome
from fnostab.record.table_study import TableStudy, is_missing

STAGES = ("a", "b")


@dataclass(frozen=True)
class TrialRow:
    """One trial of a study.

    Attributes:
        loss: value of the study's metric, of any sign; None if the trial has none.
        failure_step: 0-based optimiser step of the failure; None if it did not fail.
        last_step: last recorded step, 0-based; None if there is none.
        scheduled_steps: number of scheduled optimiser steps.
        rules_held: every outcome rule that held, not only the deciding one.
        grad_ratio: p99 over median of the gradient norm in the last half of the run.
        run_id: MLflow run; None if the row does not come from MLflow.
        constant_loss: validation loss of the best constant output; None if unknown, as in a CSV file.
        noise_floor_loss: validation loss of a perfect prediction, caused by noise; None if unknown, as in a CSV file.
        not_judged: outcome rules that could not be judged, each with its reason, as ``rule: reason``.
        reason: why it has no training outcome, or what is odd about it; None if unknown, as in a CSV file.
    """

    arm: str
    seed: int
    outcome: Outcome
    loss: float | None = None
    failure_step: int | None = None
    last_step: int | None = None
    scheduled_steps: int | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    rules_held: tuple[Outcome, ...] = ()
    grad_ratio: float | None = None
    run_id: str | None = None
    constant_loss: float | None = None
    noise_floor_loss: float | None = None
    not_judged: tuple[str, ...] = ()
    reason: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Convert an outcome given as text, and numbers; drop measures and a failed trial's loss beyond `LARGEST`.

        Raises:
            DecisionError: the outcome is unknown, a value is no number, or a converged trial's loss is not finite.
        """
        where = f"arm {self.arm}, seed {self.seed}"
        object.__setattr__(self, "outcome", known_outcome(self.outcome, where))
        loss = _float(f"{where}: loss", self.loss)
        if loss is not None and not abs(loss) <= LARGEST:
            if self.outcome is Outcome.CONVERGED:
                raise DecisionError(
                    f"{where}: expected a finite loss of a converged trial, at most {LARGEST:g}, or None; got {loss}"
                )
            loss = None
        object.__setattr__(self, "loss", loss)
        measures = {name: _float(f"{where}: {name}", value) for name, value in self.measures.items()}
        finite = {name: value for name, value in measures.items() if value is not None and abs(value) <= LARGEST}
        object.__setattr__(self, "measures", finite)

    @property
    def counts(self) -> bool:
        """Whether the trial counts in rates and medians."""
        return self.outcome in TRAINING_OUTCOMES

    @property
    def failed(self) -> bool:
        """Whether its training failed."""
        return self.outcome in FAILURES

    @property
    def excluded(self) -> bool:
        """Whether it ended without a training outcome."""
        return self.outcome in EXCLUDED


@dataclass(frozen=True)
class Table:
    """Trials by stage, with the facts of their study.

    Attributes:
        study: facts of the study; None if the table has none.
        missing: missing seeds of the study by stage and arm; unknown for a stage that is not named.
        same_settings: arms with the settings of another arm, each with that arm, by stage.
        path: file that it was read from; empty if it was not read from a file.
    """

    stages: Mapping[str, Sequence[TrialRow]]
    study: TableStudy | None = None
    missing: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    same_settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    path: str = field(default="", kw_only=True, compare=False)


def check_arm_names(arms: Iterable[str]) -> None:
    """Refuse a name that means a missing value in a table, and two that look alike.

    Raises:
        DecisionError: there is such a name, or two that differ only by capitals or by characters that can't be seen.
    """
    seen: dict[str, str] = {}
    for arm in arms:
        if is_missing(arm):
            raise DecisionError(f"the arm {arm!r} would be missing in a table: rename it")
        visible = "".join(c for c in unicodedata.normalize("NFC", arm) if c.isprintable() or c.isspace())
        other = seen.setdefault(" ".join(visible.split()).casefold(), arm)
        if other != arm:
            what = f"arms {other!a} and {arm!a} differ only by capitals or by characters that can't be seen"
            raise DecisionError(f"{what}: give both the same name, or rename one")


def _float(what: str, value: float | None) -> float | None:
    try:
        return None if value is None else number(what, value)
    except JournalError as error:
        raise DecisionError(str(error)) from None


def known_outcome(text: str, where: str) -> Outcome:
    """Return the outcome of that name.

    Raises:
        DecisionError: there is none; the message names ``where``.
    """
    if text not in list(Outcome):
        raise DecisionError(
            f"{where}: outcome={text!r} is not known; accepted: {', '.join(Outcome)}; a column of "
            "other words, or of true and false, is mapped by a file given with --runs"
        )
    return Outcome(text)
