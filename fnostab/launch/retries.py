"""Decide which trials without a result are retried, and when to give up."""

from collections import Counter
from dataclasses import dataclass, field

from fnostab.record.ending import CANT_BE_JUDGED
from fnostab.record.ignored_seed import IGNORES_SEED
from fnostab.record.outcomes import Outcome
from fnostab.record.progress import TrialProgress
from fnostab.record.stderr_tail import STDERR_FILE, tail_of

ATTEMPTS = 3
TAIL_LINES = 12


@dataclass
class Retries:
    """Retry policy: trials that were ``killed`` or ended in an ``infra_error`` are retried while they make progress.

    Args:
        attempts: consecutive attempts without progress after which a trial is given up. They are counted from the
            journal, across restarts. Attempts that were asked to end do not count.
        oom: whether a trial that ran out of memory is retried once per start.
        once: whether each trial without a result is tried exactly once, whatever its attempts before.
    """

    attempts: int = ATTEMPTS
    oom: bool = False
    once: bool = False
    _stalled: Counter[str] = field(default_factory=Counter)  # attempts without progress since the start

    def wants(self, trial: TrialProgress) -> bool:
        """Whether to run a trial when a study starts."""
        if trial.outcome is Outcome.OOM:
            return self.oom or self.once
        return not trial.finished and not self.gave_up(trial)

    def wants_again(self, trial: TrialProgress) -> bool:
        """Whether to retry a trial at once after an attempt.

        A trial that is repeatedly asked to end without a new step (its network calls ``sys.exit()``, say)
        waits for the next start.
        """
        self._stalled[trial.name] = 0 if trial.came_further else self._stalled[trial.name] + 1
        hopeless = trial.outcome is Outcome.OOM or trial.unwritten or self._stalled[trial.name] >= self.attempts
        return not (self.once or hopeless) and self.wants(trial)

    def gave_up(self, trial: TrialProgress) -> bool:
        """Whether a trial without a result has used up its attempts."""
        used_up = trial.fruitless >= self.attempts and not self.once
        return trial.outcome is not None and not trial.finished and used_up


REMEDIES = {  # by the beginning of a reason that applies to all trials
    IGNORES_SEED: "use {seed} where the script draws",
    CANT_BE_JUDGED: "record it in every arm, or correct metric and outcome in the study file; then repeat the command",
}


@dataclass
class FailuresAlike:
    """Detect faults common to all trials: programs that fail alike before their first step, or can't be judged."""

    found: bool = False
    _reasons: dict[str, str] = field(default_factory=dict)  # reason -> first trial with it

    def take(self, trial: TrialProgress) -> str | None:
        """Examine an ended trial; return a message, once, when a second one shows the same fault."""
        remedy = next((remedy for why, remedy in REMEDIES.items() if (trial.reason or "").startswith(why)), None)
        if trial.outcome is Outcome.INFRA_ERROR and remedy is not None and not self.found:
            self.found = True
            return f"{trial.name}: {trial.reason}; no more trials are started: {remedy}"
        early = trial.outcome is Outcome.INFRA_ERROR and trial.step is None and trial.held_step is None
        if self.found or trial.spec.argv is None or not early:
            return None
        first = self._reasons.setdefault(trial.reason or "", trial.name)
        self.found = first != trial.name
        if not self.found:
            return None
        log = trial.directory / STDERR_FILE
        own = f"{trial.name}: {trial.outcome}"  # last line of the trial's process
        lines = [line.rstrip() for line in tail_of(log).splitlines() if line.strip() not in ("", own)]
        tail = "\n".join([" ends with", *(f"  {line}" for line in lines[-TAIL_LINES:])]) if lines else " is empty"
        return (
            f"{first} and {trial.name} failed alike before their first step, so no more trials are started: "
            f"{trial.reason}\n{log}{tail}\nfix that, then repeat the command"
        )
