"""Infer how a trial without an outcome ended, from Slurm's accounting and the job's output."""

from fnostab.launch.launcher import write_outcome
from fnostab.record.job_arrays import FOLDER
from fnostab.record.outcomes import Outcome
from fnostab.record.process_end import Ending, last_words
from fnostab.record.progress import TrialProgress
from fnostab.record.slurm_jobs import JobAccount
from fnostab.record.stderr_tail import tail_of

OUT_OF_TIMEOUTS = "timed-out too many times"  # written by submitit to a job's output
OUT_OF_MEMORY = "exceeded memory limit"  # written there by Slurm where it watches the memory without cgroups


def write_end(trial: TrialProgress, job: str, account: JobAccount | None) -> None:
    """Write the outcome that Slurm reports for a trial that wrote none, or only ``killed``.

    ``account`` is None if accounting does not know how the job ended. An outcome of the trial stays unless Slurm says
    that the job was asked to end, lost its node or ran out of memory.
    """
    if account is None:
        if trial.outcome is None:
            reason = f"Slurm job {job} is gone, and accounting does not say how it ended"
            write_outcome(trial, Ending(Outcome.KILLED, reason))
        return
    folder = trial.directory.parent / FOLDER
    log = tail_of(folder / f"{job}_0_log.err")
    outcome, asked, what = account.outcome, account.was_asked_to_end, account.state
    if account.state == "FAILED" and OUT_OF_TIMEOUTS in log:
        outcome, asked, what = Outcome.KILLED, True, "TIMEOUT, and it is not queued again"
    elif account.state == "FAILED" and OUT_OF_MEMORY in log:
        outcome, what = Outcome.OOM, OUT_OF_MEMORY
    elif outcome is Outcome.INFRA_ERROR:
        nothing = f"it left nothing in {folder}: is --output on a disk that compute nodes share?"
        said = last_words(log) if log.strip() else nothing
        what = f"{account.state} on {account.node or 'no node'} (exit code {account.exit_code}): {said}"
    if trial.outcome is not None and not (asked or account.state == "NODE_FAIL" or outcome is Outcome.OOM):
        return  # Slurm knows no better than whoever wrote the outcome
    trial.begin_again()
    write_outcome(trial, Ending(outcome, f"Slurm job {job}: {what}", asked))
