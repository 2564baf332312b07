"""Which trials without a result are tried again, and when they are given up."""

from collections import Counter
from dataclasses import dataclass, field

from fnostab.record.outcomes import Outcome
from fnostab.record.progress import TrialProgress

__all__ = ["ATTEMPTS", "Retries"]

ATTEMPTS = 3


@dataclass
class Retries:
    """A trial that was ``killed`` or ended in an ``infra_error`` is tried again, as long as that helps.

    Args:
        attempts: in a row that came no further, after which a trial is given up. The journal holds them, so
            that a restart forgets none. Those that were asked to end do not count.
        oom: whether a trial that ran out of memory is tried again, once a start.
    """

    attempts: int = ATTEMPTS
    oom: bool = False
    _stalled: Counter[str] = field(default_factory=Counter)  # attempts since the start that came no further

    def wants(self, trial: TrialProgress) -> bool:
        """Whether a trial is to be run when a study starts."""
        if trial.outcome is Outcome.OOM:
            return self.oom
        return not trial.finished and not self.gave_up(trial)

    def wants_again(self, trial: TrialProgress) -> bool:
        """Whether a trial whose attempt has just ended is to be run again at once.

        One that is asked to end again and again without a new step, by a network that calls ``sys.exit()``, say,
        waits for the next start.
        """
        self._stalled[trial.name] = 0 if trial.came_further else self._stalled[trial.name] + 1
        hopeless = trial.outcome is Outcome.OOM or trial.unwritten or self._stalled[trial.name] >= self.attempts
        return not hopeless and self.wants(trial)

    def gave_up(self, trial: TrialProgress) -> bool:
        """Whether a trial without a result had its attempts."""
        return trial.outcome is not None and not trial.finished and trial.fruitless >= self.attempts
