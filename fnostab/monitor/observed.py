"""Observations of one fit and the outcome judged from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

from fnostab.monitor.optimizer_curve import Curve
from fnostab.record import names
from fnostab.record.outcome_rules import OutcomeRules, Validation
from fnostab.record.outcomes import Judgement, ends_early, judge, judge_end


class Observed:
    """Curves of all optimisers and validation results of one fit.

    Args:
        rules: what counts as a failure.
        baseline: validation loss of an output that has learnt nothing; None if unknown.
        val_loss_name: name of the validation loss as the user gave it.

    Attributes:
        epochs: mean training loss of each epoch, judged if there are no validations.
        validated: step of the latest validation (-1 before the first), and number of steps of all optimisers by then.
        judgements: judgement of each optimiser; empty until `judge` was called.
    """

    def __init__(self, rules: OutcomeRules, baseline: float | None, val_loss_name: str) -> None:
        self.rules = rules
        self.baseline = baseline
        self.val_loss_name = val_loss_name
        self.curves: list[Curve] = []
        self.validations: list[Validation] = []
        self.epochs: list[Validation] = []
        self.validated = -1, 0
        self.judgements: tuple[Judgement, ...] = ()

    @property
    def steps(self) -> int:
        """Largest number of steps made by any optimiser."""
        return max((curve.steps for curve in self.curves), default=0)

    @property
    def first_failed(self) -> Curve | None:
        """Curve with the earliest non-finite step; None without one."""
        failed = [curve for curve in self.curves if curve.first_nonfinite_step is not None]
        return min(failed, key=lambda curve: curve.failure_place, default=None)

    def begin_validation(self) -> int:
        """Return the step under which a validation is recorded: the last optimiser step.

        If an earlier validation has that number although steps were made since, the next number is returned. This
        happens if each phase of a training has an optimiser of its own, whose steps count from 0.
        """
        (step, before), made = self.validated, sum(curve.steps for curve in self.curves)
        self.validated = max(self.steps - 1, step + (made > before)), made
        return max(self.validated[0], 0)

    def validate(self, loss: float, logged: Mapping[str, float]) -> None:
        """Add the validation that began, with the metrics that the rules use."""
        found = {measure: logged[measure] for measure in self.rules.measures if measure in logged}
        self.validations.append(Validation(max(self.validated[0], 0), loss, found))

    def end_epoch(self) -> None:
        """Add the mean training loss of an epoch."""
        means = [curve.epoch_loss() for curve in self.curves]
        if means and means[0] is not None:
            self.epochs.append(Validation(self.curves[0].steps - 1, means[0]))

    def certain_failure(self, least_steps: float) -> bool:
        """Whether the last validation is a certain failure; judged by its loss alone until ``least_steps``."""
        ends = not math.isfinite(self.validations[-1].loss)
        if self.steps > least_steps:
            ends |= ends_early(self.validations, self.rules)
        return ends

    def judge(self, last_scheduled_step: int, elsewhere: int | None = None) -> Judgement:
        """Judge the fit by the optimiser that failed first, else by the first one.

        Args:
            last_scheduled_step: 0-based.
            elsewhere: first non-finite step seen by another process, if this one saw none.
        """
        self.judgements = tuple(
            self._judge_one(curve.first_nonfinite_step, curve.losses, last_scheduled_step) for curve in self.curves
        )
        failed = self.first_failed
        if not self.curves:
            return self._judge_one(elsewhere, [], last_scheduled_step)
        return self.judgements[0 if failed is None else failed.index]

    def _judge_one(self, nonfinite: int | None, losses: Sequence[float], last_scheduled_step: int) -> Judgement:
        validations = self.validations or self.epochs
        judgement = judge(
            validations,
            first_nonfinite_step=nonfinite,
            last_step=last_scheduled_step,
            baseline=self.baseline if self.validations else None,
            rules=self.rules,
            training=losses,
        )
        if not self.validations and len(validations) >= 3:
            note = f"exploded: on the training loss of each epoch, no {self.val_loss_name!r} was logged"
            judgement = replace(judgement, not_judged=(*judgement.not_judged, note))
        return judge_end(judgement, self.validations, self.rules, losses, last_scheduled_step)

    def summary(self, failure_step: int | None) -> dict[str, float]:
        """Summary metrics of the whole training run; finite values only."""
        last_step = max(self.steps - 1, 0)
        losses = [v.loss for v in self.validations]
        values = {curve.name(name): value for curve in self.curves for name, value in curve.summary().items()}
        values[names.TIME_TO_FAILURE] = last_step if failure_step is None else failure_step
        values[names.VAL_LOSS_BEST] = min((loss for loss in losses if math.isfinite(loss)), default=math.nan)
        values[names.VAL_LOSS_LAST] = losses[-1] if losses else math.nan
        return {name: float(value) for name, value in values.items() if math.isfinite(value)}

    def state_dict(self) -> dict[str, Any]:
        """All observations as plain data."""
        return {
            "curves": [curve.state_dict() for curve in self.curves],
            "validations": [astuple(v) for v in self.validations],
            "epochs": [astuple(v) for v in self.epochs],
            "validated": self.validated,
        }

    def restore(self, state: Mapping[str, Any] | None, global_step: int) -> None:
        """Continue from a `state_dict`, or from ``global_step`` without earlier observations."""
        if state is not None and len(state.get("curves", ())) == len(self.curves):
            for curve, kept in zip(self.curves, state["curves"], strict=True):
                curve.load_state_dict(kept)
            self.validations = [Validation(*v) for v in state["validations"]]
            self.epochs = [Validation(*v) for v in state["epochs"]]
            self.validated = state.get("validated", self.validated)
        else:  # no checkpoint, or one written without a monitor
            for curve in self.curves:
                curve.go_on_at(global_step // len(self.curves))
