"""`fnostab run --launcher slurm` and the commands beside it, on a real Slurm, with stubs for the trials' processes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fnostab.errors import ConfigError
from fnostab.launch.slurm.cluster import read_cluster_file
from fnostab.record import names
from fnostab.record import slurm_jobs as slurm
from fnostab.record.attempt import is_alive
from fnostab.record.ending import close_if_abandoned
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import Event
from fnostab.tracking import open_store

ROOT = Path(names.__file__).parent.parent.parent
TIMEOUT_S = 300
ELSEWHERE = "77@node7 in Slurm job {} of toy"  # an owner on another machine


@pytest.fixture
def study(workplace, on_cluster, stub_setup, tiny, fnostab):
    return Commands(workplace, on_cluster, stub_setup, tiny, fnostab)


class Commands:
    """A directory in which a user types commands; `run` is one study there, of which stubs are the trials."""

    def __init__(self, folder, cluster, stub_setup, tiny, fnostab):
        self.folder, self._fnostab = folder, fnostab
        setup, self.script = stub_setup
        (folder / "cluster.yaml").write_text(yaml.safe_dump({"setup": list(setup), "time_minutes": 30}))
        self.environment = cluster.environment
        self.run = ["run", "stage_a", "--profile", "small", "--arms", "control", *tiny]
        self.run += ["--launcher", "slurm", "--cluster", "cluster.yaml"]

    def call(self, *arguments):
        answer = self._fnostab(self.folder, *arguments, **self.environment)
        return answer.returncode, answer.stdout, answer.stderr

    def start(self, *arguments, environment):
        with open(self.folder / "driver.txt", "w") as printed:
            return subprocess.Popen(
                [sys.executable, "-m", "fnostab", *arguments],
                cwd=self.folder,
                env=environment | self.environment,
                stdout=printed,
                stderr=printed,
            )

    def journal(self, trial="control-0"):
        found = list(self.folder.glob(f"outputs/stage_a/*/{trial}/journal.jsonl"))
        return [record for path in found for record, _ in read_journal(path)]

    def outcomes(self, trial="control-0"):
        events = [r for r in self.journal(trial) if isinstance(r, Event) and r.name == names.OUTCOME_EVENT]
        return [event.payload["outcome"] for event in events]


def until(condition, process=None):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.1)


def runs():
    client = open_store().client
    found = client.get_experiment_by_name("stage_a")
    every = client.search_runs([found.experiment_id]) if found else []
    return {run.info.run_name.split()[0]: run for run in every}


def test_a_dry_run_shows_the_script_and_starts_nothing(study, on_cluster):
    status, out, _ = study.call(*study.run, "--seeds", "3", "--jobs", "2", "--dry-run")
    assert status == 0
    assert "3 of 3 trials would be started, 2 side by side:" in out
    for line in ("#SBATCH --array=0-2%2", "#SBATCH --time=30", "export STUB_SCRIPT=", "# job 2: control-2"):
        assert line in out
    assert not (study.folder / "outputs").exists()
    assert on_cluster.states() == {}


def test_a_dry_run_of_this_machine_names_its_trials(study):
    status, out, _ = study.call(*study.run[:-4], "--seeds", "30", "--dry-run")
    assert status == 0
    assert {"control-0", "control-1"} <= set(out.replace(",", " ").split())
    assert max(map(len, out.splitlines()[2:])) <= 80
    assert not (study.folder / "outputs").exists()


def test_jobs_outlive_their_driver_and_are_followed_without_one(study, on_cluster, environment):
    """The driver is interrupted; `watch` sees its jobs, a local run is refused, `sync --follow` sends their records."""
    study.script({"control-0": ["hang", "converged"]})
    driver = study.start(*study.run, "--seeds", "2", environment=environment)
    until(lambda: study.journal() and study.outcomes("control-1"), driver)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(TIMEOUT_S) == 130
    assert "without this process" in (study.folder / "driver.txt").read_text()
    until(lambda: list(on_cluster.states().values()) == ["RUNNING"])  # the other one may not be wholly gone

    status, out, _ = study.call("watch", "--once")
    assert status == 0
    assert "1 of 2 trials" in out
    assert "the study has ended" not in out
    status, _, err = study.call(*study.run[:-4], "--seeds", "2")
    assert status == 2
    assert "1 trial of this study in Slurm's queue, such as control-0: follow" in err

    (study.folder / "driver.txt").unlink()
    follower = study.start("sync", "outputs", "--follow", environment=environment)
    time.sleep(3)
    on_cluster.ask("scancel", "--signal=USR2", *on_cluster.states())
    assert follower.wait(TIMEOUT_S) == 0, (study.folder / "driver.txt").read_text()
    found = runs()
    assert {name: found[name].data.tags[names.OUTCOME] for name in ("control-0", "control-1")} == {
        "control-0": "converged",
        "control-1": "converged",
    }


def test_cancelling_stops_the_driver_and_its_jobs(study, on_cluster, environment):
    study.script({"control-0": ["hang"], "control-1": ["hang"]})
    driver = study.start(*study.run, "--seeds", "2", "--jobs", "1", environment=environment)
    until(study.journal, driver)
    status, out, _ = study.call("cancel", "stage_a")
    assert status == 0, out
    assert driver.wait(TIMEOUT_S) == 130
    assert "cancelled by `fnostab cancel`" in (study.folder / "driver.txt").read_text()
    assert on_cluster.states() == {}
    assert study.outcomes()[-1] == study.outcomes("control-1")[-1] == "killed"
    assert {run.info.status for run in runs().values()} == {"KILLED"}

    study.script({"control-0": ["hang", "converged"]})
    assert study.call(*study.run, "--seeds", "2")[0] == 0
    assert study.outcomes()[-1] == study.outcomes("control-1")[-1] == "converged"


def test_cancelling_ends_jobs_whose_driver_is_gone(study, on_cluster, environment):
    study.script({"control-0": ["hang"]})
    driver = study.start(*study.run, "--seeds", "1", environment=environment)
    until(study.journal, driver)
    driver.kill()
    driver.wait()
    (job,) = on_cluster.states()
    status, out, _ = study.call("cancel")
    assert status == 0
    assert f"control-0: killed  (Slurm job {job}: CANCELLED)" in out
    assert on_cluster.states() == {}


class TestReconcile:
    """A job is looked up where the process of another machine can't be."""

    @pytest.fixture
    def job(self, on_cluster):
        return on_cluster.ask("sbatch", "--parsable", "--output=/dev/null", "--wrap", "sleep 600").strip()

    def test_a_job_that_is_queued_is_alive_however_long_it_is_silent(self, job):
        slurm.queue(fresh=True)
        assert is_alive(ELSEWHERE.format(job), None, time.time() - 86_400)

    def test_one_of_another_cluster_counts_by_its_last_sign(self, job):
        owner = f"77@node7 in Slurm job {job} of another"
        assert not is_alive(owner, None, time.time() - 86_400)
        assert is_alive(owner, None, time.time())

    def test_a_trial_whose_job_is_gone_ends_with_what_slurm_says(self, job, on_cluster, tmp_path):
        with Journal(tmp_path) as journal:
            journal.event(names.TAGS_EVENT, {names.OWNER: ELSEWHERE.format(job)})
        assert not close_if_abandoned(tmp_path)
        on_cluster.ask("scancel", job)
        until(lambda: slurm.end_of(job, "toy"))
        until(lambda: job not in slurm.queue(fresh=True))
        assert close_if_abandoned(tmp_path)
        *_, (end, _) = read_journal(tmp_path / "journal.jsonl")
        assert (end.payload["outcome"], end.payload["reason"]) == ("killed", f"Slurm job {job}: CANCELLED")
        assert end.payload["requested"]


class TestClusterFile:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("partition: [gpu]", "partition=['gpu'] is not accepted"),
            ("partiton: gpu", "unknown setting 'partiton' (did you mean 'partition'?)"),
            ("time_minutes: 0", "time_minutes=0 is not accepted"),
            ("{gpus: 1, shards: 2}", "gpus=1 and shards=2 exclude each other"),
            ("{time_minutes: 2, notice_s: 120}", "notice_s=120 leaves nothing of time_minutes=2"),
            ("- gpu", "is not a cluster file: expected a mapping"),
            ("partition: 'gpu", "can't be read"),
        ],
    )
    def test_what_is_not_accepted_is_said(self, tmp_path, text, said):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ConfigError) as refused:
            read_cluster_file(tmp_path / "c.yaml")
        assert said in str(refused.value)

    @pytest.mark.parametrize("path", sorted((ROOT / "docs/clusters").glob("*.yaml")), ids=lambda path: path.stem)
    def test_the_examples_are_accepted(self, path):
        example = read_cluster_file(path)
        assert example.account
        assert example.gpus == 1

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(ConfigError, match=r"can't read the cluster file .*: No such file"):
            read_cluster_file(tmp_path / "c.yaml")

    def test_a_cluster_without_its_launcher(self, fnostab, workplace):
        answer = fnostab(workplace, "run", "stage_a", "--cluster", "c.yaml")
        assert (answer.returncode, answer.stderr) == (
            2,
            "error: --cluster c.yaml needs --launcher slurm: add that, or leave --cluster out\n",
        )
