"""Launcher that runs trials as jobs of a Slurm cluster, through submitit."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from fnostab.errors import LaunchError
from fnostab.launch.calls import call_with, new_process
from fnostab.launch.slurm.cluster import ClusterFile
from fnostab.launch.slurm.ends import write_end
from fnostab.launch.slurm.submission import insist_on_slurm, insist_on_submitit, make_executor, sbatch, script
from fnostab.record import slurm_jobs as slurm
from fnostab.record.job_arrays import FOLDER, JobArray, jobs_of
from fnostab.record.outcomes import Outcome
from fnostab.record.plurals import counted
from fnostab.record.progress import TrialProgress
from fnostab.record.slurm_jobs import JobAccount, SlurmError
from fnostab.record.trial import Resources

MOST_IN_ARRAY = 1000  # jobs; Slurm's default of MaxArraySize is 1001
ACCOUNTING_S = 60.0  # by which accounting may be late
CANCEL_S, CANCEL_POLL_S = 180.0, 1.0  # for cancelled jobs to end, and between two looks at them


@dataclass
class _Job:
    """A job that is in the queue or has left it recently; ``gone_since_s`` is in monotonic time."""

    id: str
    trials: list[TrialProgress]
    gone_since_s: float | None = None


class SlurmLauncher:
    """Runs trials in job arrays, adopts the jobs that a study already has, and reports how trials ended.

    Jobs outlive this process; a study that is started again adopts them. Trials that were submitted since the last
    `poll` become one array. Trials that do not fit into it wait, and so do retries while enough jobs are in the queue,
    so that never more than ``jobs`` run at once.

    Args:
        cluster: resources that jobs request.
        jobs: number of jobs that run at once; None for the number in ``cluster``.
        starts: whether trials will be started; a launcher that only previews them works without Slurm.

    Raises:
        LaunchError: submitit is not installed; or, with ``starts``, there is no Slurm here, or it has no accounting.
    """

    lockstep = False
    here = False
    live = False

    def __init__(self, cluster: ClusterFile, jobs: int | None = None, *, starts: bool = True) -> None:
        self._cluster = cluster
        self._jobs = jobs or cluster.jobs
        self.jobs = self._jobs * cluster.trials_per_job
        self.trials_per_job = cluster.trials_per_job
        self.has_gpus = bool(cluster.gpus or cluster.shards)
        self.trouble: str | None = None
        insist_on_submitit()
        try:
            self._name = insist_on_slurm()
        except LaunchError as error:
            if starts:
                raise
            self._name, self.trouble = "", str(error)
        self._gathered: list[list[TrialProgress]] = []
        self._done_before: list[TrialProgress] = []  # ended before a job was submitted for them
        self._running: list[_Job] = []
        self._queue: Mapping[str, str] = {}  # as it was last read

    @property
    def leaving(self) -> str:
        """Describe in words what happens to trials when this process is interrupted."""
        if not self._running:
            return "no job is in the queue"
        return (
            f"{counted(len(self._running), 'job continues', 'jobs continue')} without this process: the same command "
            "follows, `fnostab cancel` ends, `fnostab sync --follow` sends what is recorded"
        )

    @property
    def free(self) -> int:
        """Number of further jobs that can be submitted now."""
        if not self._running:
            return MOST_IN_ARRAY - len(self._gathered)
        return max(self._jobs - len(self._running) - len(self._gathered), 0)

    def call(self, place: str, given: Mapping[str, Any], resources: Resources) -> Any:
        """Call a function in a new process of this machine; see `call_with`."""
        return call_with(new_process, place, given)

    def submit(self, trials: Sequence[TrialProgress]) -> None:
        """Let the next `poll` submit a job for those of the trials that have none."""
        self._gathered.append(list(trials))

    def poll(self) -> list[TrialProgress]:
        """Submit jobs for the gathered trials; return the trials that have ended since the last call.

        A returned trial has its outcome in its journal.

        Raises:
            LaunchError: Slurm refuses the jobs; the message is Slurm's own.
        """
        submitted = bool(self._gathered)
        if submitted:
            self._submit_gathered()
        ended, self._done_before = self._done_before, []
        for job in self._running:
            for trial in job.trials:
                if not trial.queued:
                    trial.update()
            ended += [trial for trial in job.trials if trial.finished]
        try:
            queue = slurm.queue(fresh=submitted)
            if queue is not self._queue:
                ended += self._look_at(queue)
            self._queue, self.trouble = queue, None
        except SlurmError as error:
            self.trouble = f"can't query Slurm: {error}"
        self._forget(ended)
        return ended

    def _look_at(self, queue: Mapping[str, str]) -> list[TrialProgress]:
        """Note which jobs of a newly read queue wait or are gone; return the gone jobs' trials without a result.

        Raises:
            SlurmError: accounting does not answer.
        """
        for job in self._running:
            job.gone_since_s = None if job.id in queue else job.gone_since_s or time.monotonic()
            for trial in job.trials:
                trial.queued = queue.get(job.id) in slurm.WAITING
        gone = [job for job in self._running if job.id not in queue]
        accounts = slurm.accounts_of([job.id for job in gone if self._is_unclear(job)])
        ended_jobs = [job for job in gone if self._end_trials(job, accounts.get(job.id))]
        return [trial for job in ended_jobs for trial in job.trials if not trial.finished]

    def preview(self, trials: Sequence[TrialProgress]) -> str:
        """Show the script that would be given to sbatch, and the trials of its jobs.

        Without Slurm, trials that already have a job are shown as well, and a line says why.

        Raises:
            LaunchError: Slurm does not answer.
        """
        without = self._adopt(trials, find=False) if self._name else trials
        k = self.trials_per_job
        groups = [without[i : i + k] for i in range(0, len(without), k)]
        n_adopted = len(trials) - len(without)
        lines = [counted(n_adopted, "trial has a job already", "trials have a job already")] if n_adopted else []
        lines += [] if self._name else [f"# jobs in the queue are not known: {self.trouble}"]
        if not groups:
            return "\n".join(lines)
        at_once = self._jobs - len(self._running)
        executor = make_executor(self._cluster, without[0].directory.parent, "NAME", at_once)
        lines.append(script(executor, min(len(groups), MOST_IN_ARRAY)))
        return "\n".join([*lines, *(f"# job {n}: {' '.join(t.name for t in group)}" for n, group in enumerate(groups))])

    def leave(self) -> None:
        """Do nothing, since jobs continue without this process."""

    def adopt(self, trials: Sequence[TrialProgress]) -> None:
        """Adopt the jobs that trials have in the queue, and submit none.

        Raises:
            LaunchError: Slurm does not answer, or a record of jobs is damaged.
        """
        if trials:
            with _lock(trials[0].directory.parent):
                self._adopt(trials, find=True)

    def cancel(self) -> list[TrialProgress]:
        """Cancel all jobs and wait until they end; return their trials, whose outcome is then ``killed``.

        Raises:
            LaunchError: Slurm refuses to cancel them.
        """
        self._gathered.clear()
        try:
            slurm.cancel([job.id for job in self._running])
        except SlurmError as error:
            raise LaunchError(f"the jobs can't be cancelled: {error}") from error
        deadline, ended = time.monotonic() + CANCEL_S, list[TrialProgress]()
        while self._running and time.monotonic() < deadline:
            time.sleep(CANCEL_POLL_S)
            slurm.forget_queue()
            ended += self.poll()
        return ended

    def _submit_gathered(self) -> None:
        groups, self._gathered = self._gathered, []
        folder = groups[0][0].directory.parent
        with _lock(folder):  # a second launcher waits, and adopts the jobs submitted here
            without = self._adopt([trial for trials in groups for trial in trials], find=True)
            rest = [[trial for trial in trials if self._is_missing(trial, without)] for trials in groups]
            rest = [trials for trials in rest if trials]
            if not rest:
                return
            array = JobArray.of(rest[0][0].spec.experiment, self._name, [[t.name for t in trials] for trials in rest])
            array.write(folder)
            executor = make_executor(self._cluster, folder, array.name, self._jobs - len(self._running))
            try:
                number = sbatch(executor, [[trial.directory for trial in trials] for trials in rest])
            except LaunchError:
                array.remove(folder)
                raise
            array = array.model_copy(update={"number": number})
            array.write(folder)
        self._running += [_Job(array.job(index), trials) for index, trials in enumerate(rest)]

    def _adopt(self, trials: Sequence[TrialProgress], *, find: bool) -> list[TrialProgress]:
        """Adopt the jobs that trials have in the queue; return the trials without one. For ``find`` see `jobs_of`.

        Raises:
            LaunchError: Slurm does not answer, or a record of jobs is damaged.
        """
        if not trials:
            return []
        folder = trials[0].directory.parent
        try:
            known, queue = jobs_of(folder, self._name, find=find), slurm.queue(fresh=True)
        except SlurmError as error:
            raise LaunchError(f"can't query Slurm for the jobs of {folder}: {error}") from error
        without = []
        for trial in trials:
            job = known.get(trial.name)
            if job is None or job not in queue:
                without.append(trial)
            elif (adopted := next((each for each in self._running if each.id == job), None)) is not None:
                adopted.trials.append(trial)
            else:
                self._running.append(_Job(job, [trial]))
        others = slurm.anybodys_queue({known[t.name].partition("_")[0] for t in without if t.name in known})
        for trial in without:
            if (job := known.get(trial.name)) in others:
                raise LaunchError(f"{trial.name} is job {job} of another user: only that user can follow or cancel it")
        return without

    def _is_missing(self, trial: TrialProgress, without: Sequence[TrialProgress]) -> bool:
        """Whether a trial has no job and has not ended since its journal was last read."""
        if all(trial is not each for each in without):
            return False
        trial.update()
        if trial.finished:
            self._done_before.append(trial)
        return not trial.finished

    def _is_unclear(self, job: _Job) -> bool:
        """Whether only accounting can tell how a trial of a gone job ended."""
        for trial in job.trials:
            trial.update()
        return any(trial.outcome in (None, Outcome.KILLED) for trial in job.trials)

    def _end_trials(self, job: _Job, account: JobAccount | None) -> bool:
        """Write the outcomes of the trials of a gone job; return False while accounting may still report them."""
        told = account is not None and account.has_ended
        gone_s = time.monotonic() - (job.gone_since_s or time.monotonic())
        if self._is_unclear(job) and not told and gone_s < ACCOUNTING_S:
            return False
        for trial in job.trials:
            if trial.outcome in (None, Outcome.KILLED):
                write_end(trial, job.id, account if told else None)
        return True

    def _forget(self, ended: Sequence[TrialProgress]) -> None:
        names = {trial.name for trial in ended}
        for job in self._running:
            job.trials = [trial for trial in job.trials if trial.name not in names]
        self._running = [job for job in self._running if job.trials]


def _lock(folder: Path) -> FileLock:
    (folder / FOLDER).mkdir(exist_ok=True)
    return FileLock(folder / FOLDER / "lock")
