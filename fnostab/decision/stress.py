"""Judge a stress study: how far a setting (the knob) can be raised before each arm fails."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fnostab.decision.oversights import judged_in_part
from fnostab.decision.tally import Stage, Tally
from fnostab.stats.interval import Interval
from fnostab.stats.proportions import holm, wilson
from fnostab.stats.stress import Crossing, crossing, paired_fewer_failures_p


@dataclass(frozen=True)
class StressPoint:
    """Trials of an arm at one value of the knob, with the 95 % Wilson interval."""

    value: float
    failed: int
    n: int
    interval: Interval | None
    outcomes: Mapping[str, int]


@dataclass(frozen=True)
class StressedArm:
    """One arm over all values of the knob.

    Attributes:
        name: name of the arm, without the value.
        points: one per value, from easiest to hardest.
        margin: value at which half of the trials fail; None if no trial counts.
        p: one-sided p-value for fewer failures than control over all values, Holm over the arms; None for control.
    """

    name: str
    points: Sequence[StressPoint]
    margin: Crossing | None
    p: float | None


@dataclass(frozen=True)
class Stress:
    """Arms of a stress study, control first, and the raised setting."""

    knob: str
    arms: Sequence[StressedArm]
    alpha: float

    @property
    def better(self) -> list[StressedArm]:
        """Arms that are shown to tolerate more than control."""
        return [arm for arm in self.arms if arm.p is not None and arm.p <= self.alpha]

    @property
    def finding(self) -> str:
        """Result in one sentence."""
        control, *others = self.arms
        if control.margin is None:
            return f"where half of {control.name}'s trials fail is {margin_text(control)}"
        said = [f"half of {control.name}'s trials fail at {self.knob} {margin_text(control)}"]
        said += [f"{arm.name} tolerates more: {margin_text(arm)} (p = {arm.p:.2g})" for arm in self.better]
        if others and not self.better:
            said.append("no arm tolerates more than that, as far as these trials can tell")
        return "; ".join(said)


def compare_stress(
    stage: Stage, families: Mapping[str, Mapping[str, float]], knob: str, control: str, alpha: float = 0.05
) -> Stress:
    """Judge the arms of a stress study; ``families`` maps each arm to its stressed arms and their knob values."""
    order = [control, *(name for name in families if name != control)]
    found = {name: _points(stage, families[name]) for name in order}
    found = {name: points for name, points in found.items() if points or name == control}
    candidates = [name for name in found if name != control]
    raw = [_p(stage, families[control], families[name]) for name in candidates]
    p = dict(zip(candidates, holm(raw), strict=True))
    arms = [StressedArm(name, points, _margin(points), p.get(name)) for name, points in found.items()]
    return Stress(knob, arms, alpha)


def margin_text(arm: StressedArm) -> str:
    """Format an arm's margin with its 95 % interval, or with the known bound."""
    margin = arm.margin
    if margin is None:
        return "unknown: no trial has a training outcome"
    counted = [point.value for point in arm.points if point.n]
    if margin.estimate is not None:
        value = f"{margin.estimate:.2g}"
    else:
        value = f"beyond {counted[-1]:g}" if margin.beyond else f"before {counted[0]:g}"
    ends = [f"after {margin.trains_at:g}"] if margin.trains_at is not None else []
    ends += [f"before {margin.fails_at:g}"] if margin.fails_at is not None else []
    return f"{value} (95 %: {' and '.join(ends) or 'anywhere'})"


def _points(stage: Stage, arms: Mapping[str, float]) -> list[StressPoint]:
    points = []
    for arm, value in arms.items():
        trials = stage.arm(arm)
        if trials:
            tally = Tally.of(stage, arm)
            outcomes = dict(Counter(str(trial.outcome) for trial in trials))
            points.append(StressPoint(value, tally.failed, tally.n, wilson(tally.failed, tally.n), outcomes))
    return points


def _p(stage: Stage, control: Mapping[str, float], arm: Mapping[str, float]) -> float:
    """p-value for fewer failures of the arm, before Holm; 1 if not all were judged by the same rules.

    The larger of the observed one and that of the worst case: the arm's trials without an outcome failed, and control's
    did not.
    """
    if judged_in_part([trial for name in (*control, *arm) for trial in stage.arm(name)]):
        return 1.0
    cases = [_failed(stage, control), _failed(stage, arm)], [_failed(stage, control, False), _failed(stage, arm, True)]
    return max(paired_fewer_failures_p(_differences(*case)) for case in cases)


def _failed(stage: Stage, family: Mapping[str, float], pending: bool | None = None) -> dict[tuple[float, int], bool]:
    """Whether an arm's trial failed, by value and seed; ``pending`` is imputed to trials without an outcome."""
    found = {(value, t.seed): t.failed for name, value in family.items() for t in stage.arm(name) if t.counts}
    if pending is None:
        return found
    lacking = {(value, t.seed) for name, value in family.items() for t in stage.arm(name) if not t.counts}
    lacking |= {(value, seed) for name, value in family.items() for seed in stage.missing(name)}
    return found | dict.fromkeys(lacking, pending)


def _differences(control: Mapping[tuple[float, int], bool], arm: Mapping[tuple[float, int], bool]) -> list[int]:
    """Failures of control minus those of the arm, per seed, over the values at which both are known."""
    by_seed: dict[int, int] = {}
    for value, seed in control.keys() & arm.keys():
        by_seed[seed] = by_seed.get(seed, 0) + control[value, seed] - arm[value, seed]
    return list(by_seed.values())


def _margin(points: Sequence[StressPoint]) -> Crossing | None:
    counted = [point for point in points if point.n]
    if not counted:
        return None
    return crossing([p.value for p in counted], [p.failed for p in counted], [p.n for p in counted])
