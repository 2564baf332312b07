"""Trials as jobs of a real Slurm, with stubs for their processes."""

import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from launch_fixtures import most_at_once
from slurm_cluster import Slurm, missing

from fnostab.errors import LaunchError
from fnostab.launch.launcher import write_outcome
from fnostab.launch.slurm.cluster import ClusterFile
from fnostab.launch.slurm.ends import write_end
from fnostab.launch.slurm.launcher import SlurmLauncher
from fnostab.record import names
from fnostab.record import slurm_jobs as slurm
from fnostab.record.job_arrays import JobArray, jobs_of, queued_jobs
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import Event
from fnostab.record.outcomes import Outcome
from fnostab.record.process_end import Ending
from fnostab.record.progress import TrialProgress
from fnostab.record.slurm_jobs import JobAccount
from fnostab.study.study import load_study

TIMEOUT_S = 300


@pytest.fixture
def trials(tmp_path):
    """A function that makes ``n`` trials of control, ready to be started."""

    def make(n=1):
        trials = load_study("stage_a", "small").trials("e", tmp_path, arms=["control"], seeds=range(n))
        made = [TrialProgress(trial.spec, tmp_path / "study" / trial.name) for trial in trials]
        for trial in made:
            trial.spec.write(trial.directory / "trial.json")
        return made

    return make


@pytest.fixture
def launch(on_cluster, stub_setup):
    """A function that makes a launcher whose jobs run stubs: of what attempts do, and of the cluster file's fields."""
    setup, script = stub_setup

    def make(attempts=None, **fields):
        if attempts is not None:
            script(attempts)
        return SlurmLauncher(ClusterFile(**{"setup": setup, "time_minutes": 30, "jobs": 8} | fields))

    return make


def submit(launcher, trials):
    for start in range(0, len(trials), launcher.trials_per_job):
        launcher.submit(trials[start : start + launcher.trials_per_job])
    launcher.poll()


def until_ended(launcher, trials):
    ended, deadline = [], time.monotonic() + TIMEOUT_S
    while len(ended) < len(trials):
        assert time.monotonic() < deadline, launcher.trouble
        ended += launcher.poll()
        time.sleep(0.1)
    return {trial.name: trial.outcome for trial in ended}


def until(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def at_work(trials):
    for trial in trials:
        trial.update()
    return all(trial.step is not None for trial in trials)


def started(tmp_path):
    log = tmp_path / "script.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return sorted(line.split()[1] for line in lines if line.startswith("start"))


def outcomes(trial):
    events = [r for r, _ in read_journal(trial.directory / "journal.jsonl") if isinstance(r, Event)]
    return [e.payload for e in events if e.name == names.OUTCOME_EVENT]


class TestAnArray:
    def test_each_trial_is_a_job_of_one_array_and_no_more_run_at_once_than_asked_for(
        self, launch, trials, on_cluster, tmp_path
    ):
        made = trials(6)
        launcher = launch({trial.name: ["held"] for trial in made}, jobs=2)
        submit(launcher, made)
        wait, run = ["PENDING JobArrayTaskLimit"] * 4, ["RUNNING None"] * 2
        until(lambda: sorted(on_cluster.states("%T %r").values()) == wait + run and len(started(tmp_path)) == 2)
        assert len({job.partition("_")[0] for job in on_cluster.states()}) == 1
        (tmp_path / "script.go").touch()
        assert until_ended(launcher, made) == {trial.name: Outcome.CONVERGED for trial in made}
        assert most_at_once(tmp_path / "script.log") == 2
        assert started(tmp_path) == sorted(trial.name for trial in made)

    def test_trials_end_as_they_do_on_one_machine(self, launch, trials):
        made = trials(5)
        launcher = launch(
            {"control-0": ["exit 3"], "control-1": ["signal 9"], "control-2": ["oom"], "control-3": ["announce 9"]}
        )
        submit(launcher, made)
        assert until_ended(launcher, made) == {
            "control-0": Outcome.INFRA_ERROR,
            "control-1": Outcome.KILLED,
            "control-2": Outcome.OOM,
            "control-3": Outcome.NONFINITE,
            "control-4": Outcome.CONVERGED,
        }
        assert made[0].reason == "exit status 3: RuntimeError: the disk melted"
        assert all(len(outcomes(trial)) == 1 for trial in made)

    def test_trials_that_are_packed_run_side_by_side_in_one_job(self, launch, trials, on_cluster, tmp_path):
        made = trials(3)
        launcher = launch({trial.name: ["held"] for trial in made}, trials_per_job=2)
        assert launcher.jobs == 16
        submit(launcher, made)
        until(lambda: len(started(tmp_path)) == 3)
        assert len(on_cluster.states()) == 2
        (tmp_path / "script.go").touch()
        until_ended(launcher, made)
        first = [line for line in (tmp_path / "script.log").read_text().splitlines() if not line.endswith("-2")]
        assert [line.split()[0] for line in first] == ["start", "start", "end", "end"]

    def test_a_retry_waits_until_it_is_no_job_too_many(self, launch, trials):
        made = trials(3)
        launcher = launch({"control-0": ["exit 3"], "control-1": ["hang"], "control-2": ["hang"]}, jobs=2)
        assert launcher.free > 100
        submit(launcher, made)
        until(lambda: made[0] in launcher.poll())
        assert launcher.free == 0

    def test_a_job_gets_what_its_file_asks_for(self, launch, trials, on_cluster):
        launcher = launch({"control-0": ["hang"]}, shards=1, cpus=2, memory_gb=0.5, options={"comment": "a study"})
        (trial,) = trials()
        submit(launcher, [trial])
        until(lambda: at_work([trial]))
        (job,) = on_cluster.states()
        shown = on_cluster.ask("scontrol", "show", "job", job, "--detail")
        for part in (
            "cpu=2",
            "MinMemoryNode=512M",
            "gres:shard:1",
            "Comment=a study",
            "TimeLimit=00:30:00",
            "Requeue=1",
        ):
            assert part in shown


class TestInterruptions:
    def test_a_preempted_job_is_queued_again_and_its_trial_goes_on(self, launch, trials, on_cluster, tmp_path):
        launcher, (trial,) = launch({"control-0": ["hang", "converged"]}), trials()
        submit(launcher, [trial])
        until(lambda: at_work([trial]))
        on_cluster.ask("scancel", "--signal=USR2", *on_cluster.states())
        assert until_ended(launcher, [trial]) == {"control-0": Outcome.CONVERGED}
        first, last = outcomes(trial)
        assert (first["outcome"], first["requested"], last["outcome"]) == ("killed", True, "converged")
        assert (started(tmp_path), trial.fruitless) == (["control-0"] * 2, 0)

    def test_a_job_that_slurm_itself_preempts_goes_on_too(self, launch, trials, on_cluster):
        """As where jobs are told by SIGTERM, and are queued again by Slurm."""
        launcher = launch({"control-0": ["hang", "converged"]}, cpus=8, options={"nodelist": "n1"})
        (trial,) = trials()
        submit(launcher, [trial])
        until(lambda: at_work([trial]))
        urgent = ["--partition=urgent", "--nodelist=n1", "--cpus-per-task=8", "--output=/dev/null"]
        on_cluster.ask("sbatch", *urgent, "--wrap", "sleep 1")
        assert until_ended(launcher, [trial]) == {"control-0": Outcome.CONVERGED}
        first, last = outcomes(trial)
        assert (first["outcome"], first["requested"], last["outcome"]) == ("killed", True, "converged")
        assert len(set(jobs_of(trial.directory.parent, "toy").values())) == 1

    def test_of_packed_trials_only_those_go_on_that_had_not_ended(self, launch, trials, on_cluster, tmp_path):
        launcher, made = launch({"control-0": ["hang", "converged"]}, trials_per_job=2), trials(2)
        submit(launcher, made)
        until(lambda: made[1] in launcher.poll())
        until(lambda: at_work(made[:1]))
        on_cluster.ask("scancel", "--signal=USR2", *on_cluster.states())
        assert until_ended(launcher, made[:1]) == {"control-0": Outcome.CONVERGED}
        assert started(tmp_path) == ["control-0", "control-0", "control-1"]

    def test_a_job_whose_time_was_up_too_often_is_killed_by_the_time_limit(self, launch, trials, on_cluster):
        launcher, (trial,) = launch({"control-0": ["hang"]}, time_minutes=5, max_timeouts=0), trials()
        submit(launcher, [trial])
        until(lambda: at_work([trial]))
        on_cluster.ask("scancel", "--signal=USR2", *on_cluster.states())
        assert until_ended(launcher, [trial]) == {"control-0": Outcome.KILLED}
        assert trial.reason.startswith("Slurm job ")
        assert "TIMEOUT" in trial.reason
        assert trial.fruitless == 0

    @pytest.mark.parametrize("attempt", ["hang", "silent"])
    def test_who_is_cancelled_is_killed_by_that_job(self, launch, trials, on_cluster, attempt):
        launcher, (trial,) = launch({"control-0": ["hang"]}), trials()
        submit(launcher, [trial])
        (job,) = on_cluster.states()
        if attempt == "hang":
            until(lambda: at_work([trial]))
        launcher.cancel()
        assert (trial.outcome, trial.reason) == (Outcome.KILLED, f"Slurm job {job}: CANCELLED")
        assert on_cluster.states() == {}
        assert trial.fruitless == 0

    def test_jobs_of_a_node_that_dies_run_elsewhere(self, launch, trials, on_cluster, tmp_path):
        launcher, (trial,) = launch({"control-0": ["hang", "converged"]}, options={"nodelist": "n1"}), trials()
        submit(launcher, [trial])
        until(lambda: at_work([trial]))
        assert on_cluster.crash_node("n1")
        try:
            until(lambda: "PENDING" in on_cluster.states().values())
        finally:
            on_cluster.start_node("n1")
        assert until_ended(launcher, [trial]) == {"control-0": Outcome.CONVERGED}
        assert started(tmp_path) == ["control-0"] * 2

    def test_a_job_that_may_not_be_queued_again_is_killed_with_its_node(self, launch, trials, on_cluster):
        options = {"nodelist": "n1", "no-requeue": True}
        launcher, (trial,) = launch({"control-0": ["hang"]}, options=options), trials()
        submit(launcher, [trial])
        until(lambda: at_work([trial]))
        (job,) = on_cluster.states()
        assert on_cluster.crash_node("n1")
        try:
            assert until_ended(launcher, [trial]) == {"control-0": Outcome.KILLED}
        finally:
            on_cluster.start_node("n1")
        assert trial.reason == f"Slurm job {job}: NODE_FAIL"

    def test_a_job_that_takes_more_memory_than_it_asked_for_is_out_of_memory(self, launch, trials, on_cluster):
        launcher, (trial,) = launch({"control-0": ["gorge 900"]}, memory_gb=0.5), trials()
        submit(launcher, [trial])
        job = jobs_of(trial.directory.parent, "toy")["control-0"]
        assert until_ended(launcher, [trial]) == {"control-0": Outcome.OOM}
        assert trial.reason == f"Slurm job {job}: exceeded memory limit"

    def test_a_controller_that_is_away_ends_nothing(self, launch, trials, on_cluster):
        launcher, (trial,) = launch({"control-0": ["hang"]}), trials()
        submit(launcher, [trial])
        until(lambda: at_work([trial]))
        on_cluster.kill("slurmctld", signal.SIGTERM)
        slurm.forget_queue()
        assert launcher.poll() == []
        assert launcher.trouble.startswith("can't query Slurm: squeue: ")
        on_cluster.start_controller()
        until(lambda: launcher.poll() == [] and launcher.trouble is None)
        assert list(on_cluster.states().values()) == ["RUNNING"]


class TestADriverThatDied:
    def test_the_next_one_adopts_jobs_and_submits_only_what_is_missing(self, launch, trials, on_cluster, tmp_path):
        made = trials(3)
        submit(launch({"control-0": ["hang", "converged"]}, jobs=1), made[:2])
        until(lambda: at_work(made[:1]))
        assert sorted(queued_jobs(tmp_path / "study")) == ["control-0", "control-1"]
        fresh = trials(3)
        second = launch(jobs=1)
        submit(second, fresh)
        assert len(on_cluster.states()) == 3
        on_cluster.ask("scancel", "--signal=USR2", next(j for j, s in on_cluster.states().items() if s == "RUNNING"))
        until(lambda: fresh[0] in second.poll())
        assert started(tmp_path).count("control-0") == 2

    def test_a_trial_that_is_done_by_now_is_not_trained_again(self, launch, trials, tmp_path):
        made = trials()
        first = launch()
        submit(first, made)
        until_ended(first, made)
        again = trials()  # whose journals were not read since
        second = launch()
        second.submit(again)
        assert until_ended(second, again) == {"control-0": Outcome.CONVERGED}
        assert started(tmp_path) == ["control-0"]

    def test_jobs_whose_number_nobody_noted_are_found_by_their_name(self, launch, trials, on_cluster, tmp_path):
        made = trials(2)
        submit(launch({"control-0": ["hang"], "control-1": ["hang"]}), made)
        (record,) = (tmp_path / "study" / "slurm").glob("*.json")
        array = JobArray.model_validate_json(record.read_text())
        array.model_copy(update={"number": None}).write(tmp_path / "study")
        assert queued_jobs(tmp_path / "study") == {}  # it may be about to be submitted
        second = launch()
        submit(second, trials(2))
        assert len(on_cluster.states()) == 2
        assert jobs_of(tmp_path / "study", "toy")["control-1"] == f"{array.number}_1"

    def test_jobs_of_another_user_are_neither_taken_up_nor_submitted_again(self, launch, trials, on_cluster, tmp_path):
        theirs = ["--uid=nobody", "--parsable", "--output=/dev/null", "--chdir=/", "--wrap", "sleep 600"]
        job = on_cluster.ask("sbatch", *theirs).strip()
        made = trials()
        JobArray.of("e", "toy", [["control-0"]]).model_copy(update={"number": job}).write(tmp_path / "study")
        launcher = launch()
        launcher.submit(made)
        with pytest.raises(LaunchError, match=f"control-0 is job {job} of another user"):
            launcher.poll()
        assert list(on_cluster.states()) == [job]
        assert slurm.is_queued(job, "toy")

    def test_what_two_drivers_submit_at_once_is_submitted_once(self, launch, trials, on_cluster):
        first, second = launch({"control-0": ["hang"]}), launch()
        first.submit(trials())
        second.submit(trials())
        first.poll()
        second.poll()
        assert len(on_cluster.states()) == 1


class TestRefusals:
    def test_no_slurm_on_path(self, monkeypatch):
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(LaunchError, match=r"no Slurm here: sbatch, .* not on PATH"):
            SlurmLauncher(ClusterFile())

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"partition": "gold"}, "invalid partition specified: gold"),
            ({"account": "nobody"}, "Invalid account"),
            ({"constraint": "h100"}, "Invalid feature specification"),
            ({"gpus": 99}, "Requested node configuration is not available"),
        ],
    )
    def test_what_slurm_does_not_accept_is_said_in_its_words(self, launch, trials, tmp_path, fields, said):
        launcher, made = launch(**fields), trials()
        launcher.submit(made)
        with pytest.raises(LaunchError, match=f"Slurm refuses the jobs: .*{said}"):
            launcher.poll()
        assert list((tmp_path / "study" / "slurm").glob("*.json")) == []

    def test_a_folder_that_nodes_do_not_see(self, launch, trials, on_cluster, tmp_path):
        on_cluster.kill("n1", signal.SIGTERM)
        on_cluster.start_node("n1", without=tmp_path)
        launcher, (trial,) = launch(options={"nodelist": "n1"}), trials()
        try:
            submit(launcher, [trial])
            assert until_ended(launcher, [trial]) == {"control-0": Outcome.INFRA_ERROR}
        finally:
            on_cluster.kill("n1", signal.SIGTERM)
            on_cluster.start_node("n1")
        assert "FAILED on n1" in trial.reason
        assert "is --output on a disk that compute nodes share?" in trial.reason

    def test_a_trial_that_a_node_does_not_see(self, trials, monkeypatch):
        from fnostab.launch.slurm.job import TrialsJob

        (trial,) = trials()
        (trial.directory / "trial.json").unlink()
        monkeypatch.setattr(signal, "pthread_sigmask", lambda *_: None)
        with pytest.raises(LaunchError, match=r"trial.json: No such file .* on a disk that compute nodes share\?"):
            TrialsJob([trial.directory])()

    def test_a_cluster_that_keeps_no_accounts(self, monkeypatch):
        if reason := missing():
            pytest.skip(f"no Slurm: {reason}")
        folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        folder.chmod(0o755)
        try:
            with Slurm(folder, accounting=False) as forgetful:
                monkeypatch.setenv("SLURM_CONF", forgetful.environment["SLURM_CONF"])
                slurm.settings.cache_clear()
                with pytest.raises(LaunchError, match="cluster toy has no accounting"):
                    SlurmLauncher(ClusterFile())
        finally:
            slurm.settings.cache_clear()
            shutil.rmtree(folder, ignore_errors=True)


def test_a_trial_that_was_found_killed_in_a_job_that_was_out_of_memory_was_so_itself(trials):
    """The kernel ends a trial and leaves the job, which only sees that it was killed."""
    (trial,) = trials()
    write_outcome(trial, Ending(Outcome.KILLED, "ended by SIGKILL"))
    write_end(trial, "7", JobAccount("OUT_OF_MEMORY", "0:125", "n0"))
    assert (trial.outcome, trial.reason) == (Outcome.OOM, "Slurm job 7: OUT_OF_MEMORY")


@pytest.mark.parametrize("state", ["OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL", "FAILED", None])
def test_a_failure_that_was_seen_wins_over_what_slurm_says(trials, state):
    (trial,) = trials()
    with Journal(trial.directory) as journal:
        journal.event(names.PARAMS_EVENT, {"arm": "control"})
        journal.record(2, {names.GRAD_NORM: 1.0})
        journal.event(names.TAGS_EVENT, {names.OUTCOME: "nonfinite", names.FAILURE_STEP: "3"})
    trial.update()
    write_end(trial, "7", state and JobAccount(state, "1:0", "n0"))
    assert (trial.outcome, trial.failure_step, trial.finished) == (Outcome.NONFINITE, 3, True)
    assert trial.reason.startswith("Slurm job 7")


@pytest.mark.parametrize(
    ("state", "outcome", "asked"),
    [
        ("TIMEOUT", Outcome.KILLED, True),
        ("OUT_OF_MEMORY", Outcome.OOM, False),
        ("NODE_FAIL", Outcome.KILLED, False),
        ("PREEMPTED", Outcome.KILLED, True),
        ("CANCELLED", Outcome.KILLED, True),
        ("FAILED", Outcome.INFRA_ERROR, False),
    ],
)
def test_a_state_of_slurm_is_an_outcome(state, outcome, asked):
    job = JobAccount(state, "1:0", "n0")
    assert (job.outcome, job.was_asked_to_end, job.has_ended) == (outcome, asked, True)
