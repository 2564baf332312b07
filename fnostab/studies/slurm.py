"""Trials as jobs of a Slurm cluster, through submitit."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from fnostab import slurm
from fnostab.errors import LaunchError
from fnostab.outcomes import Outcome
from fnostab.slurm import EndedJob, SlurmError
from fnostab.studies.cluster import ClusterFile
from fnostab.studies.launcher import write_outcome
from fnostab.studies.progress import TrialProgress
from fnostab.studies.slurm_records import FOLDER, JobArray, jobs_of

if TYPE_CHECKING:
    from submitit import SlurmExecutor

__all__ = ["SlurmLauncher"]

MOST_IN_ARRAY = 1000  # jobs: Slurm's own default of MaxArraySize is 1001
ACCOUNTING_S = 60.0  # that accounting may be behind
CANCEL_S = 180.0  # for jobs to end that were told to
TAIL_BYTES = 4096
LONGEST_REASON = 500  # characters
OUT_OF_TIMEOUTS = "timed-out too many times"  # what submitit leaves in stderr
_ERROR = re.compile(r"[\w.]+(Error|Exception|Exit|Interrupt)\b")  # the end of a traceback


@dataclass
class _Job:
    """A job that is in the queue, or left it not long ago."""

    id: str
    trials: list[TrialProgress]
    gone_since_s: float | None = None


class SlurmLauncher:
    """Runs trials in job arrays, adopts the jobs that a study has already, and says how trials ended.

    Jobs outlive this process: a study that is started again takes them up. What was submitted since the last `poll`
    becomes one array. More trials than fit into one wait, as do those that are tried again while there are enough
    jobs, so that never more than ``jobs`` run at once.

    Args:
        cluster: what jobs ask for.
        jobs: that run at once; None for those of ``cluster``.

    Raises:
        LaunchError: there is no Slurm here, no submitit, or no accounting.
    """

    one_arm_a_job = False
    here = False

    def __init__(self, cluster: ClusterFile, jobs: int | None = None) -> None:
        self._cluster = cluster
        self._jobs = jobs or cluster.jobs
        self.jobs = self._jobs * cluster.trials_per_job
        self.trials_per_job = cluster.trials_per_job
        self.has_gpus = bool(cluster.gpus or cluster.shards)
        self.trouble: str | None = None
        self._name = _insist_on_slurm()
        self._gathered: list[list[TrialProgress]] = []
        self._done_before: list[TrialProgress] = []  # before a job was submitted for them
        self._running: list[_Job] = []

    @property
    def leaving(self) -> str:
        """What becomes of trials when this process is interrupted."""
        if not self._running:
            return "no job is in the queue"
        return (
            f"{len(self._running)} jobs go on without this process: the same command follows them again, "
            "`fnostab cancel` ends them, `fnostab sync --follow` sends what they record"
        )

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now."""
        if not self._running:
            return MOST_IN_ARRAY - len(self._gathered)
        return max(self._jobs - len(self._running) - len(self._gathered), 0)

    def submit(self, trials: Sequence[TrialProgress]) -> None:
        """Let the next `poll` submit a job for trials, but for those that have one."""
        self._gathered.append(list(trials))

    def poll(self) -> list[TrialProgress]:
        """Submit what was gathered; trials that have ended since the last call, each with its outcome in its journal.

        Raises:
            LaunchError: Slurm refuses the jobs; says so in its own words.
        """
        if self._gathered:
            self._submit_gathered()
        try:
            queue = slurm.queue()
            gone = [job for job in self._running if job.id not in queue]
            accounts = slurm.ended([job.id for job in gone if self._is_unclear(job)])
            self.trouble = None
        except SlurmError as error:
            queue, gone, accounts = {}, [], {}
            self.trouble = f"Slurm can't be asked: {error}"
        ended, self._done_before = self._done_before, []
        for job in self._running:
            for trial in job.trials:
                trial.update()
                trial.queued = queue.get(job.id) in slurm.WAITING
            ended += [trial for trial in job.trials if trial.finished]
        for job in gone:
            if self._conclude(job, accounts.get(job.id)):
                ended += [trial for trial in job.trials if not trial.finished]
        self._forget(ended)
        return ended

    def preview(self, trials: Sequence[TrialProgress]) -> str:
        """The script that would be given to sbatch, and the trials that its jobs would train.

        Raises:
            LaunchError: Slurm does not answer.
        """
        without = self._adopt(trials, find=False)
        k = self.trials_per_job
        groups = [without[i : i + k] for i in range(0, len(without), k)]
        lines = [f"{len(trials) - len(without)} trials have a job already"] if len(without) < len(trials) else []
        if not groups:
            return "\n".join(lines)
        executor = self._executor(without[0].directory.parent, "NAME", self._jobs - len(self._running))
        if len(groups) > 1:
            executor.parameters["map_count"] = min(len(groups), MOST_IN_ARRAY)
        lines.append(executor._make_submission_file_text(executor._submitit_command_str, ""))  # public nowhere
        return "\n".join([*lines, *(f"# job {n}: {' '.join(t.name for t in group)}" for n, group in enumerate(groups))])

    def leave(self) -> None:
        """Jobs need nobody."""

    def adopt(self, trials: Sequence[TrialProgress]) -> None:
        """Take up the jobs that trials have in the queue, and submit none.

        Raises:
            LaunchError: Slurm does not answer, or a record of jobs is damaged.
        """
        if trials:
            with _lock(trials[0].directory.parent):
                self._adopt(trials, find=True)

    def cancel(self) -> list[TrialProgress]:
        """Cancel all jobs and wait for their end; their trials write, or get, ``killed``, and are returned.

        Raises:
            LaunchError: Slurm refuses.
        """
        self._gathered.clear()
        try:
            slurm.cancel([job.id for job in self._running])
        except SlurmError as error:
            raise LaunchError(f"the jobs can't be cancelled: {error}") from error
        deadline, ended = time.monotonic() + CANCEL_S, list[TrialProgress]()
        while self._running and time.monotonic() < deadline:
            ended += self.poll()
            time.sleep(0.5)
        return ended

    def _submit_gathered(self) -> None:
        groups, self._gathered = self._gathered, []
        folder = groups[0][0].directory.parent
        with _lock(folder):  # a second launcher adopts what this one submits
            without = self._adopt([trial for trials in groups for trial in trials], find=True)
            rest = [[trial for trial in trials if self._is_missing(trial, without)] for trials in groups]
            rest = [trials for trials in rest if trials]
            if not rest:
                return
            array = JobArray.of(rest[0][0].spec.experiment, self._name, [[t.name for t in trials] for trials in rest])
            array.write(folder)
            executor = self._executor(folder, array.name, self._jobs - len(self._running))
            try:
                number = _sbatch(executor, rest)
            except LaunchError:
                array.remove(folder)
                raise
            array = array.model_copy(update={"number": number})
            array.write(folder)
        slurm.queue(fresh=True)
        self._running += [_Job(array.job(index), trials) for index, trials in enumerate(rest)]

    def _adopt(self, trials: Sequence[TrialProgress], *, find: bool) -> list[TrialProgress]:
        """Take up the jobs that trials have in the queue; the trials that have none. For ``find`` see `jobs_of`.

        Raises:
            LaunchError: Slurm does not answer, or a record of jobs is damaged.
        """
        if not trials:
            return []
        folder = trials[0].directory.parent
        try:
            known, queue = jobs_of(folder, self._name, find=find), slurm.queue(fresh=True)
        except SlurmError as error:
            raise LaunchError(f"Slurm can't be asked for the jobs of {folder}: {error}") from error
        without = []
        for trial in trials:
            job = known.get(trial.name)
            if job is None or job not in queue:
                without.append(trial)
            elif (adopted := next((each for each in self._running if each.id == job), None)) is not None:
                adopted.trials.append(trial)
            else:
                self._running.append(_Job(job, [trial]))
        return without

    def _is_missing(self, trial: TrialProgress, without: Sequence[TrialProgress]) -> bool:
        """Whether a trial has neither a job, nor ended in one since its journal was read."""
        if all(trial is not each for each in without):
            return False
        trial.update()
        if trial.finished:
            self._done_before.append(trial)
        return not trial.finished

    def _executor(self, folder: Path, name: str, at_once: int) -> SlurmExecutor:
        from submitit import SlurmExecutor

        cluster = self._cluster
        executor = SlurmExecutor(folder / FOLDER, max_num_timeout=cluster.max_timeouts)
        executor.update_parameters(
            job_name=name,
            partition=cluster.partition,
            account=cluster.account,
            qos=cluster.qos,
            constraint=cluster.constraint,
            time=cluster.time_minutes,
            mem=None if cluster.memory_gb is None else f"{round(cluster.memory_gb * 1024)}M",
            nodes=1,
            ntasks_per_node=1,
            cpus_per_task=cluster.cpus,
            srun_args=None if cluster.cpus is None else [f"--cpus-per-task={cluster.cpus}"],  # srun asks anew
            gpus_per_node=cluster.gpus or None,
            gres=f"shard:{cluster.shards}" if cluster.shards else None,
            signal_delay_s=cluster.notice_s,
            setup=list(cluster.setup) or None,
            wckey=None,
            array_parallelism=max(at_once, 1),
            additional_parameters={"requeue": True} | dict(cluster.options),
        )
        return executor

    def _is_unclear(self, job: _Job) -> bool:
        """Whether only accounting can say what became of a trial of a job that is gone."""
        for trial in job.trials:
            trial.update()
        return any(trial.outcome in (None, Outcome.KILLED) for trial in job.trials)

    def _conclude(self, job: _Job, account: EndedJob | None) -> bool:
        """Give the trials of a job that left the queue their outcomes; whether it is known by now what they are."""
        job.gone_since_s = job.gone_since_s or time.monotonic()
        told = account is not None and account.has_ended
        if self._is_unclear(job) and not told and time.monotonic() - job.gone_since_s < ACCOUNTING_S:
            return False
        for trial in job.trials:
            if trial.outcome in (None, Outcome.KILLED):
                self._write_outcome(trial, job.id, account if told else None)
        return True

    def _write_outcome(self, trial: TrialProgress, job: str, account: EndedJob | None) -> None:
        """What Slurm says of the end of a trial that could not, or only that it was asked to end."""
        if account is None:
            if trial.outcome is None:
                reason = f"Slurm job {job} is gone, and accounting does not say how it ended"
                write_outcome(trial, Outcome.KILLED, reason, requested=False)
            return
        log = _tail(trial.directory.parent / FOLDER / f"{job}_0_log.err")
        outcome, asked, what = account.outcome, account.was_asked_to_end, account.state
        if account.state == "FAILED" and OUT_OF_TIMEOUTS in log:
            outcome, asked, what = Outcome.KILLED, True, f"TIMEOUT, {self._cluster.max_timeouts + 1} times: its last"
        elif outcome is Outcome.INFRA_ERROR:
            said = _error_in(log) or (
                f"it left nothing in {trial.directory.parent / FOLDER}: is --output on a disk that compute nodes share?"
            )
            what = f"{account.state} on {account.node or 'no node'} (exit code {account.exit_code}): {said}"
        if trial.outcome is not None and not (asked or account.state == "NODE_FAIL"):
            return  # the trial's own word
        trial.begin_again()
        write_outcome(trial, outcome, f"Slurm job {job}: {what}"[:LONGEST_REASON], requested=asked)

    def _forget(self, ended: Sequence[TrialProgress]) -> None:
        names = {trial.name for trial in ended}
        for job in self._running:
            job.trials = [trial for trial in job.trials if trial.name not in names]
        self._running = [job for job in self._running if job.trials]


def _insist_on_slurm() -> str:
    """The cluster's name.

    Raises:
        LaunchError: jobs can't be submitted from here, or their ends could not be seen.
    """
    if missing := [name for name in slurm.PROGRAMS if not shutil.which(name)]:
        raise LaunchError(
            f"no Slurm here: {', '.join(missing)} not on PATH; log in to the cluster, or leave out --launcher slurm"
        )
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise LaunchError("--launcher slurm needs submitit: pip install 'fnostab[slurm]'") from None
    try:
        settings = slurm.settings()
    except SlurmError as error:
        raise LaunchError(f"Slurm does not answer here: {error}") from error
    if settings.get("AccountingStorageType", "").endswith("/none") or not settings.get("AccountingStorageType"):
        raise LaunchError(
            f"cluster {settings.get('ClusterName')} keeps no accounts (AccountingStorageType is "
            f"{settings.get('AccountingStorageType') or 'empty'}): how jobs end can't be seen there; see "
            "'Trials on any scheduler' in docs/cluster.md"
        )
    return settings["ClusterName"]


def _sbatch(executor: SlurmExecutor, groups: Sequence[Sequence[TrialProgress]]) -> str:
    """Submit a job for each group of trials, as an array if they are several; its number.

    Raises:
        LaunchError: Slurm refuses.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from fnostab.studies.slurm_job import TrialsJob

    try:
        with _outside_of_a_job():
            jobs = executor.submit_array([TrialsJob([t.directory for t in trials]) for trials in groups])
    except (FailedJobError, FailedSubmissionError) as error:
        lines = [line for line in str(error).splitlines() if line.startswith("sbatch: ")] or str(error).splitlines()
        raise LaunchError(f"Slurm refuses the jobs: {'; '.join(lines)}") from error
    except OSError as error:
        raise LaunchError(f"can't submit jobs: {error.strerror or error}") from error
    return jobs[0].job_id.partition("_")[0]


def _lock(folder: Path) -> FileLock:
    (folder / FOLDER).mkdir(exist_ok=True)
    return FileLock(folder / FOLDER / "lock")


@contextmanager
def _outside_of_a_job() -> Iterator[None]:
    """A job that is submitted from within another one would take over what that one has."""
    from submitit.helpers import clean_env

    kept = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")}
    with clean_env():
        os.environ |= kept
        yield


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
