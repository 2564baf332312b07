"""Find out from Slurm's accounting and the job's output how a trial ended that recorded no outcome."""

import os
import re
from pathlib import Path

from fnostab.launch.launcher import write_outcome
from fnostab.record.job_arrays import FOLDER
from fnostab.record.outcomes import Outcome
from fnostab.record.progress import TrialProgress
from fnostab.record.slurm_jobs import JobAccount

__all__ = ["write_end"]

TAIL_BYTES = 4096
LONGEST_REASON = 500  # characters
OUT_OF_TIMEOUTS = "timed-out too many times"  # what submitit leaves in a job's output
OUT_OF_MEMORY = "exceeded memory limit"  # what Slurm leaves there where it looks at the memory without cgroups
_ERROR = re.compile(r"[\w.]+(Error|Exception|Exit|Interrupt)\b")  # the end of a traceback


def write_end(trial: TrialProgress, job: str, account: JobAccount | None) -> None:
    """Write what Slurm says of the end of a trial that could not, or only that it was asked to end.

    Args:
        trial: without an outcome, or ``killed``.
        job: in which it ran.
        account: of that job; None if accounting does not know its end.
    """
    if account is None:
        if trial.outcome is None:
            reason = f"Slurm job {job} is gone, and accounting does not say how it ended"
            write_outcome(trial, Outcome.KILLED, reason, requested=False)
        return
    log = _tail(trial.directory.parent / FOLDER / f"{job}_0_log.err")
    outcome, asked, what = account.outcome, account.was_asked_to_end, account.state
    if account.state == "FAILED" and OUT_OF_TIMEOUTS in log:
        outcome, asked, what = Outcome.KILLED, True, "TIMEOUT, and it is not queued again"
    elif account.state == "FAILED" and OUT_OF_MEMORY in log:
        outcome, what = Outcome.OOM, OUT_OF_MEMORY
    elif outcome is Outcome.INFRA_ERROR:
        said = _error_in(log) or (
            f"it left nothing in {trial.directory.parent / FOLDER}: is --output on a disk that compute nodes share?"
        )
        what = f"{account.state} on {account.node or 'no node'} (exit code {account.exit_code}): {said}"
    if trial.outcome is not None and not (asked or account.state == "NODE_FAIL" or outcome is Outcome.OOM):
        return  # the trial's own word, or that of whoever found it killed and could not know by whom
    trial.begin_again()
    write_outcome(trial, outcome, f"Slurm job {job}: {what}"[:LONGEST_REASON], requested=asked)


def _error_in(log: str) -> str | None:
    """The error that a job's output ends in, or else what the job said last."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if _ERROR.match(line)), lines[-1] if lines else None)


def _tail(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - TAIL_BYTES, 0))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""
