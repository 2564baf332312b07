"""Find the value of a setting above which training fails, in a study whose arms differ only in that number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fnostab.decision.tally import ArmSummary, Stage, summarise


@dataclass(frozen=True)
class Place:
    """Trials at one value of the setting."""

    value: float
    summary: ArmSummary


@dataclass(frozen=True)
class Along:
    """Trials at every value of ``setting``, in increasing order."""

    setting: str
    places: Sequence[Place]

    @property
    def lowest(self) -> Place | None:
        """Lowest value at which a trial failed; None if none did."""
        return next((place for place in self.places if place.summary.n_failed), None)

    @property
    def falls(self) -> bool:
        """Whether failures only decrease as the value increases, so that there is no onset of failure."""
        rates = [rate for place in self.places if (rate := place.summary.failure_rate) is not None]
        return len(rates) > 1 and rates == sorted(rates, reverse=True) and rates[0] > rates[-1]

    @property
    def finding(self) -> str:
        """Result in one sentence."""
        if self.lowest is not None:
            s = self.lowest.summary
            interval = s.failure_rate_ci
            between = f" (95 % interval {interval[0]:.0%} to {interval[1]:.0%})" if interval else ""
            return (
                f"training begins to fail at {self.setting} {self.lowest.value:g}: {s.n_failed}/{s.n} failed{between}, "
                "the lowest value that fails"
            )
        seen = [f"{place.value:g}" for place in self.places if place.summary.n]
        if not seen:
            return f"no trial has a training outcome at any {self.setting}"
        return f"no trial failed at {self.setting} {', '.join(seen)}"


def values_along(arms: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, float]] | None:
    """Find the one numeric setting in which the arms of a study differ, with its value in each arm.

    None if the arms differ in several settings or in one that is not a number.
    """
    settings = list(arms.values())
    names = [name for name in settings[0] if any(s.get(name) != settings[0][name] for s in settings)]
    if len(names) != 1 or any(arm.keys() != settings[0].keys() for arm in settings) or len(settings) < 3:
        return None
    values = {arm: of_arm[names[0]] for arm, of_arm in arms.items()}
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values.values())
    return (names[0], values) if numbers and len(set(values.values())) == len(values) else None


def compare_along(stage: Stage, setting: str, values: Mapping[str, float], control: str) -> Along:
    """Summarise the arms of a study that differ in one number only; arms without a trial are left out."""
    found = [Place(value, summarise(stage, arm, control)) for arm, value in values.items() if arm in stage.arms]
    return Along(setting, sorted(found, key=lambda place: place.value))
