"""Pair of an arm and control within one stage: everything needed to compare them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fnostab.decision.oversights import judged_in_part
from fnostab.decision.rules import Rules
from fnostab.decision.scale import Scale
from fnostab.decision.tally import Stage, Tally

LONGEST_APART = 0.05  # largest relative difference in length


@dataclass(frozen=True)
class Pair:
    """Arm and control.

    Attributes:
        repeats: whether the trials repeat those of Stage A, and so are no new evidence.
        family: number of arms of the stage that are compared with control.
        judged_in_part: rule by which only some trials of the pair were judged, with the reason; empty if there is none.
    """

    stage: str
    arm: str
    control_arm: str
    control: Tally
    ours: Tally
    scale: Scale
    rules: Rules
    repeats: bool = False
    family: int = 1
    judged_in_part: str = ""

    @property
    def worst(self) -> "Pair":
        """Worst case: the arm's pending trials failed and control's succeeded."""
        return replace(self, control=self.control.had_succeeded(), ours=self.ours.had_failed())

    @property
    def best(self) -> "Pair":
        """Best case: the arm's pending trials succeeded and control's failed."""
        return replace(self, control=self.control.had_failed(), ours=self.ours.had_succeeded())

    @property
    def pending(self) -> int:
        """Number of trials of both without a training outcome."""
        return self.control.pending + self.ours.pending

    @property
    def nothing_failed(self) -> bool:
        """Whether no trial of either arm failed."""
        return not (self.control.failed or self.ours.failed)

    @property
    def obstacle(self) -> str:
        """Reason why the two can't be compared at all, as text; empty if they can."""
        n, name = min((self.ours.n, self.arm), (self.control.n, self.control_arm))
        if n < self.rules.least_trials:
            whose = "" if self.ours.n == self.control.n else f" of {name}"
            return f"too few seeds to tell: {n}{whose}, at least {self.rules.least_trials} are needed"
        if self.judged_in_part:
            rule, _, why = self.judged_in_part.partition(": ")
            return f"only some of the trials were judged by {rule} ({why}): they can't be compared"
        if (lengths := self._unlike_lengths) and not self.rules.free_lengths:
            ours, theirs = lengths
            return f"{self.control_arm} ran {theirs:g} steps, {self.arm} {ours:g}: they can't be compared"
        if self.repeats:
            return "Stage B repeats trials of Stage A, which says nothing new"
        return ""

    @property
    def lengths_text(self) -> str:
        """Lengths of both as text, if they differ and the study allows it; else empty."""
        return "{:g} steps against {:g}".format(*lengths) if (lengths := self._unlike_lengths) else ""

    @property
    def _unlike_lengths(self) -> tuple[float, float] | None:
        """Lengths of the arm and control, if they differ.

        Of an arm without a success, only what its trials reached before they failed is known.
        """
        ours, theirs = (t.steps if t.steps is not None else t.reached for t in (self.ours, self.control))
        if ours is None or theirs is None or abs(ours - theirs) <= LONGEST_APART * max(ours, theirs):
            return None
        shorter = self.ours if ours < theirs else self.control
        return None if shorter.steps is None else (ours, theirs)


def pairs_of(stage: Stage, control: str, rules: Rules, repeats: Mapping[str, bool] | None = None) -> Sequence[Pair]:
    """Pair every arm of a stage that has a trial with control, except arms that repeat another's settings."""
    scale, tally = Scale.of(stage, rules), Tally.of(stage, control)
    arms = stage.compared(control)
    return [
        Pair(
            stage=stage.name,
            arm=arm,
            control_arm=control,
            control=tally,
            ours=Tally.of(stage, arm),
            scale=scale,
            rules=rules,
            repeats=(repeats or {}).get(arm, False),
            family=len(arms),
            judged_in_part=next(iter(judged_in_part([*stage.arm(control), *stage.arm(arm)])), ""),
        )
        for arm in arms
    ]
