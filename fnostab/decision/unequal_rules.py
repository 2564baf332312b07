"""Find outcome rules that could be judged in some trials only: where they could not, failures go unseen."""

from collections import Counter
from collections.abc import Sequence

from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow

__all__ = ["rules_judged_in_part"]


def rules_judged_in_part(trials: Sequence[TrialRow]) -> list[str]:
    """A line on each rule without which trials converged, though others were judged by it."""
    lacking: dict[str, list[TrialRow]] = {}
    for trial in trials:
        for reason in trial.not_judged if trial.outcome is Outcome.CONVERGED else ():
            lacking.setdefault(reason, []).append(trial)
    lines = []
    for reason, bare in lacking.items():
        rule, _, why = reason.partition(": ")
        ended_so = [trial for trial in trials if trial.outcome in (rule, Outcome.CONVERGED)]
        if not why.startswith("needs ") or len(ended_so) == len(bare):
            continue
        counts = ", ".join(f"{n} of {arm}" for arm, n in Counter(trial.arm for trial in bare).items())
        lines.append(
            f"{rule} was not judged, since it {why}, in trials that converged: {counts}; others were judged by it; "
            "do not trust these failure rates until every arm is judged alike"
        )
    return lines
