"""Draw the picture of a stress study for a report."""

from fnostab.decision import Stress
from fnostab.figures.arms import FailureRate
from fnostab.figures.stress import stress_figure
from fnostab.report.pictures import Picture, drawing


def stress_picture(stress: Stress, name: str = "stress") -> Picture:
    """Draw the failure rate of each arm against the knob."""
    arms = {arm.name: [(p.value, FailureRate(p.failed, p.n, p.interval)) for p in arm.points] for arm in stress.arms}
    caption = f"Share of trials that failed against {stress.knob}, with 95 % intervals: {stress.finding}."
    return drawing(stress_figure(arms, stress.knob), name, alt=f"Failure rate against {stress.knob}", caption=caption)
