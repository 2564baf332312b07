"""From which depth on training fails: what a study of control at several depths says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fnostab.decision.tally import ArmSummary, Stage, summarise

__all__ = ["Depth", "Depths", "compare_depths"]


@dataclass(frozen=True)
class Depth:
    """What became of the trials with so many blocks."""

    blocks: int
    summary: ArmSummary


@dataclass(frozen=True)
class Depths:
    """Every depth, rising. ``lowest`` is the first at which a trial failed; None if none did."""

    depths: Sequence[Depth]

    @property
    def lowest(self) -> Depth | None:
        """The lowest depth that fails."""
        return next((depth for depth in self.depths if depth.summary.n_failed), None)

    @property
    def finding(self) -> str:
        """What they say together, in a sentence."""
        if self.lowest is not None:
            s = self.lowest.summary
            interval = s.failure_rate_ci
            between = f" (95 % interval {interval[0]:.0%} to {interval[1]:.0%})" if interval else ""
            return (
                f"training begins to fail at {self.lowest.blocks} blocks: {s.n_failed}/{s.n} failed{between}, "
                "the lowest depth that fails"
            )
        seen = [depth.blocks for depth in self.depths if depth.summary.n]
        if not seen:
            return "no trial came to a training outcome at any depth"
        return f"no trial failed at {', '.join(map(str, seen))} blocks"


def compare_depths(stage: Stage, blocks: Mapping[str, int], control: str) -> Depths:
    """Summaries of the arms of a study in which only the number of blocks differs, by depth.

    Args:
        stage: its trials.
        blocks: ``fno_blocks`` of each arm; those without a trial are left out.
        control: the arm that the others stand beside.
    """
    found = [Depth(n, summarise(stage, arm, control)) for arm, n in blocks.items() if arm in stage.arms]
    return Depths(sorted(found, key=lambda depth: depth.blocks))
