"""A study from its start to its records in MLflow, with stubs for the trials' processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from slow_proxy import SlowProxy
from tracking_helpers import marked

import fnostab
from fnostab.cli.execution import insist_on_results
from fnostab.errors import ConfigError, JournalError, LaunchError, TrackingError
from fnostab.launch import run, study_upload
from fnostab.launch.local import LocalLauncher
from fnostab.launch.run import _checked
from fnostab.record import names
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import Event, Point
from fnostab.record.outcomes import Outcome
from fnostab.tracking import (
    find_experiment,
    newest_study,
    open_store,
    sync,
    trial_rows,
)
from fnostab.tracking.store import store as store_module


def runs(kind=names.KIND_TRIAL, experiment="stage_a"):
    """Runs of a kind by name, whatever became of the trial."""
    client = open_store().client
    found = client.get_experiment_by_name(experiment)
    every = client.search_runs([found.experiment_id], f"tags.`{names.KIND}` = '{kind}'") if found else []
    return {run.info.run_name.split(" ")[0]: run for run in every}


def statuses(kind=names.KIND_TRIAL):
    return {name: run.info.status for name, run in runs(kind).items()}


def rows():
    store = open_store()
    experiment = find_experiment(store, "stage_a")
    return {f"{r.arm}-{r.seed}": r for r in trial_rows(store, experiment, newest_study(store, experiment))}


def started(study):
    """Trials in the order in which processes were started for them."""
    log = study.folder / "script.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[1] for line in lines if line.startswith("start")]


def journal_of(study, trial):
    (directory,) = study.folder.glob(f"outputs/stage_a/*/{trial}")
    return directory / "journal.jsonl"


def test_a_study_runs_seed_by_seed_and_a_second_start_repeats_nothing(study):
    arms = ("control", "opt_fix")
    first = study.start(arms=arms, seeds=(0, 1), jobs=1)
    assert started(study) == ["control-0", "opt_fix-0", "control-1", "opt_fix-1"]
    assert [t.outcome for t in first.trials] == [Outcome.CONVERGED] * 4
    assert (first.unsent, statuses(), statuses(names.KIND_STUDY)) == (
        None,
        dict.fromkeys(started(study), "FINISHED"),
        {"stage_a": "FINISHED"},
    )
    parents = {run.data.tags["mlflow.parentRunId"] for run in runs().values()}
    assert parents == {first.run_id}

    again = study.start(arms=arms, seeds=(0, 1))
    assert "4 of 4 trials are finished already" in study.output
    assert again.run_id == first.run_id
    extended = study.start(arms=arms, seeds=(0, 1, 2))
    assert extended.run_id == first.run_id
    assert sorted(started(study)[4:]) == ["control-2", "opt_fix-2"]
    study.start(arms=("control",), seeds=(3,))
    store = open_store()
    asked = newest_study(store, find_experiment(store, "stage_a")).spec.seeds
    assert asked == {"control": (0, 1, 2, 3), "opt_fix": (0, 1, 2)}


def test_a_request_to_end_before_the_trials_is_heeded_like_ctrl_c(study, monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("not by the study"))
    monkeypatch.setattr(run, "_prepare", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with pytest.raises(KeyboardInterrupt):
            study.start()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (heard, started(study)) == ([], [])


def test_a_study_can_run_in_a_thread_where_signals_stay_the_callers(study):
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        run_of = pool.submit(study.start, arms=("control",), seeds=(0,)).result()
    assert [trial.outcome for trial in run_of.trials] == [Outcome.CONVERGED]
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_kept_a_trial_from_a_result_is_tried_again_and_only_that(study, script):
    script(
        {
            "control-0": ["exit 3", "converged"],
            "control-1": ["signal 9", "collapsed"],
            "control-2": ["collapsed", "converged"],
            "control-3": ["oom", "converged"],
        }
    )
    seeds = range(4)
    study.start(seeds=seeds, jobs=1)
    assert started(study) == ["control-0", "control-1", "control-2", "control-3", "control-0", "control-1"]
    assert "control-0: infra_error (exit status 3: RuntimeError: the disk melted); retrying" in study.output
    assert study.output.count("control-0: ") == 2  # that, and how it ended
    assert {name: row.outcome for name, row in rows().items()} == {
        "control-0": Outcome.CONVERGED,
        "control-1": Outcome.COLLAPSED,
        "control-2": Outcome.COLLAPSED,
        "control-3": Outcome.OOM,
    }
    assert len(runs()) == 4  # the same run goes on
    assert statuses(names.KIND_STUDY) == {"stage_a": "FINISHED"}
    study.start(seeds=seeds)
    assert len(started(study)) == 6

    study.start(seeds=seeds, retry_oom=True)
    assert started(study)[6:] == ["control-3"]
    assert statuses()["control-3"] == "FINISHED"


def test_what_ends_every_attempt_at_once_is_given_up_also_across_starts(study, script):
    script({"control-0": ["exit 3"] * 5 + ["converged"]})
    result = study.start(seeds=range(2))
    assert sorted(started(study)) == ["control-0"] * 3 + ["control-1"]
    (given_up,) = result.given_up
    assert (given_up.name, given_up.outcome, given_up.fruitless) == ("control-0", Outcome.INFRA_ERROR, 3)
    assert given_up.reason == "exit status 3: RuntimeError: the disk melted"
    with pytest.raises(LaunchError, match=r"1 of 2 .* control-0: infra_error .*melted\); .* --attempts 6 ret") as said:
        insist_on_results(result)
    assert f"; its output is in {given_up.directory / 'stderr.log'}; fix that" in str(said.value)
    assert statuses() == {"control-0": "FAILED", "control-1": "FINISHED"}

    assert study.start(seeds=range(2)).given_up
    assert len(started(study)) == 4
    assert "1 of 2 trials were given up earlier" in study.output
    assert not study.start(seeds=range(2), attempts=6).given_up
    assert started(study)[4:] == ["control-0"] * 3
    assert rows()["control-0"].outcome is Outcome.CONVERGED
    assert len(runs()) == 2


def test_an_attempt_that_came_further_is_not_held_against_a_trial(study, script):
    script({"control-0": ["silent 4", "silent 4", "signal 9", "signal 9", "signal 9", "converged"]})
    (trial,) = study.start().trials  # the third attempt records steps, the fourth and fifth none that are new
    assert (trial.outcome, len(started(study))) == (Outcome.CONVERGED, 6)


def test_a_trial_that_somebody_asks_to_end_is_tried_again_and_that_does_not_count(study, script, when):
    script({"control-0": ["exit 3", "exit 3", "hang", "hang", "converged"]})
    ended = []

    def end_it():
        for _ in range(2):
            while len(owners := owners_of(study, "control-0")) <= len(ended) or not has_points(study, "control-0"):
                time.sleep(0.02)
            ended.append(owners[-1])
            os.kill(ended[-1], signal.SIGTERM)

    when(lambda: list(study.folder.glob("outputs/stage_a/*/control-0/journal.jsonl")), end_it)
    (trial,) = study.start().trials
    assert (trial.outcome, len(started(study)), len(ended)) == (Outcome.CONVERGED, 5, 2)


def test_a_network_that_always_asks_to_end_does_not_run_for_ever(study, script):
    script({"control-0": ["quit"] * 9})
    (trial,) = study.start().trials
    assert (trial.outcome, trial.fruitless, len(started(study))) == (Outcome.KILLED, 0, 3)


def has_points(study, trial):
    """Whether a trial has come further than nothing."""
    return any(isinstance(record, Point) for record, _ in read_journal(journal_of(study, trial)))


def owners_of(study, trial):
    """Processes that wrote a journal, one after the other."""
    events = [record for record, _ in read_journal(journal_of(study, trial)) if isinstance(record, Event)]
    return [int(event.payload[names.OWNER].split("@")[0]) for event in events if names.OWNER in event.payload]


def test_a_resumed_trial_holds_no_point_twice(study, script):
    script({"control-0": ["signal 9", "converged"]})
    study.start()
    study.start()
    points = [
        (record.step, name)
        for record, _ in read_journal(journal_of(study, "control-0"))
        if isinstance(record, Point)
        for name in record.values
    ]
    assert len(points) == len(set(points)) == 10
    history = open_store().client.get_metric_history(runs()["control-0"].info.run_id, names.GRAD_NORM)
    assert [point.step for point in history] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("signs", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]])
def test_interrupted_it_leaves_killed_trials_no_process_and_nothing_running(study, script, when, signs):
    script({"control-0": ["converged"], "control-1": ["hang", "converged"], "control-2": ["hang", "collapsed"]})
    everything = {"seeds": range(4), "jobs": 2}

    def both_hang():
        hanging = [marked(study.folder, f"control-{seed}") for seed in (1, 2)]
        return len(started(study)) == 3 and all(hanging)

    when(both_hang, lambda: [os.kill(os.getpid(), sign) for sign in signs])
    with pytest.raises(KeyboardInterrupt) as interrupted:
        study.start(**everything)
    assert "the same command resumes" in study.output
    assert "the same command resumes" in interrupted.value.__notes__[0]  # what --notify sends
    assert statuses() == {"control-0": "FINISHED", "control-1": "KILLED", "control-2": "KILLED"}
    assert statuses(names.KIND_STUDY) == {"stage_a": "KILLED"}
    assert (study.folder / "script.log").read_text().count("end") == 3
    before = {name: run.info.run_id for name, run in runs().items()}

    study.start(**everything)
    assert sorted(started(study)[3:]) == ["control-1", "control-2", "control-3"]
    assert [rows()[f"control-{seed}"].outcome for seed in range(4)] == [
        "converged",
        "converged",
        "collapsed",
        "converged",
    ]
    assert before.items() <= {name: run.info.run_id for name, run in runs().items()}.items()
    assert statuses(names.KIND_STUDY) == {"stage_a": "FINISHED"}


def test_a_study_alone_runs_as_the_command_line_would(study, capsys):
    result = fnostab.run_study(fnostab.load_study("stage_a", "small", study.settings), arms=["control"], seeds=[0])
    assert (result.experiment, result.folder.parent) == ("stage_a", study.folder / "outputs" / "stage_a")
    assert [trial.outcome for trial in result.trials] == [Outcome.CONVERGED]
    assert statuses() == {"control-0": "FINISHED"}
    assert "in experiment stage_a at " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"seeds": [0, 0]}, r"seeds=\[0, 0\] is not accepted: expected their number, as 10, or a list"),
        ({"seeds": [-1]}, r"seeds=\[-1\] is not accepted"),
        ({"seeds": "0-4"}, "seeds='0-4' is not accepted"),
        ({"arms": "control"}, "arms='control' is not accepted: expected a list of names"),
        ({"arms": ["control", "control"]}, "without repetition"),
        ({"jobs": "2"}, "jobs='2' is not accepted: expected a whole number"),
        ({"study": "stage_a"}, r"study='stage_a' is not accepted: expected a study, as load_study\('study.yaml'\)"),
    ],
    ids=str,
)
def test_an_argument_that_is_not_accepted_is_named_before_anything_starts(tmp_path, monkeypatch, named, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"run_study: .*{said}"):
        fnostab.run_study(**({"study": fnostab.load_study("stage_a", "small")} | named))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seeds", [2, np.arange(2), range(2)], ids=str)
def test_seeds_may_be_a_number_of_them_or_any_list(seeds):
    study = fnostab.load_study("stage_a", "small")
    assert list(_checked(study, seeds, (), None)) == [0, 1]


def test_when_the_launcher_is_killed_its_trials_go_on_and_the_next_one_adopts_them(study, script, monkeypatch):
    script({"control-0": ["hang", "converged"]})
    driver = (
        "import sys, json; from pathlib import Path; from rich.console import Console\n"
        "from fnostab.launch.run import run_study; from fnostab.study.study import load_study\n"
        "python, settings = sys.argv[1:]; sys.executable = python\n"
        "run_study(load_study('stage_a', 'small', json.loads(settings)), experiment='stage_a',"
        " output=Path('outputs'), arms=['control'], seeds=[0], console=Console())"
    )
    real = Path(sys.executable).read_text().split('"')[1]  # the stub's starter names it
    command = [real, "-c", driver, sys.executable, json.dumps(study.settings)]
    launcher = subprocess.Popen(command, env=os.environ | {"STUB_IMPORTS": "all"})
    try:
        deadline = time.monotonic() + 240
        while not marked(study.folder, "control-0"):
            assert launcher.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        launcher.kill()
        launcher.wait()
    assert statuses() == {"control-0": "RUNNING"}

    submit, to_end = LocalLauncher.submit, owners_of(study, "control-0")

    def adopt_and_end(launcher, trials):
        submit(launcher, trials)
        if to_end:
            os.kill(to_end.pop(), signal.SIGTERM)

    log = study.folder / "script.log"
    monkeypatch.setattr(LocalLauncher, "submit", adopt_and_end)
    (trial,) = study.start().trials
    assert trial.outcome is Outcome.CONVERGED
    assert log.read_text().split() == ["start", "control-0", "end", "control-0"] * 2
    assert statuses() == {"control-0": "FINISHED"}
    assert "closed runs whose process is gone: stage_a: KILLED\n" in study.output


class TestWithoutTheJournals:
    """The output folder is gone, MLflow's records are not."""

    def test_what_has_an_outcome_is_not_run_again(self, study, script):
        script({"control-0": ["converged"], "control-1": ["collapsed"], "control-2": ["oom"]})
        study.start(seeds=range(3))
        before = {name: run.info.run_id for name, run in runs().items()}
        shutil.rmtree("outputs")
        result = study.start(seeds=range(4))
        assert started(study)[3:] == ["control-3"]
        assert "3 of 4 trials are finished already" in study.output
        assert [(t.outcome, t.run_id) for t in result.trials][:2] == [
            (Outcome.CONVERGED, before["control-0"]),
            (Outcome.COLLAPSED, before["control-1"]),
        ]
        assert result.unsent is None
        assert len(rows()) == 4
        script({})
        study.start(seeds=range(4), retry_oom=True)
        assert started(study)[4:] == ["control-2"]
        assert rows()["control-2"].outcome is Outcome.CONVERGED

    def test_what_has_none_is_run_again_in_a_run_of_its_own(self, study, script):
        script({"control-0": ["silent 4"], "control-1": ["exit 3"]})
        study.start(seeds=range(2), attempts=1)
        before = {run.info.run_id for run in runs().values()}
        shutil.rmtree("outputs")
        script({})
        for _ in range(2):
            result = study.start(seeds=range(2))
            assert result.unsent is None
            assert {name: row.outcome for name, row in rows().items()} == dict.fromkeys(rows(), Outcome.CONVERGED)
        assert sorted(started(study)[2:]) == ["control-0", "control-1"]
        aside = runs(names.KIND_SET_ASIDE)
        assert {run.info.run_id for run in aside.values()} == before
        assert "RUNNING" not in {run.info.status for run in aside.values()}

    def test_a_run_whose_process_is_dead_is_not_waited_for(self, study):
        study.start()
        client, (run,) = open_store().client, runs().values()
        client.set_tag(run.info.run_id, names.OUTCOME, "running")
        client.set_tag(run.info.run_id, names.OWNER, f"99999999@{os.uname().nodename}")
        client.update_run(run.info.run_id, status="RUNNING")
        shutil.rmtree("outputs")
        study.start()
        assert started(study) == ["control-0", "control-0"]
        (aside,) = runs(names.KIND_SET_ASIDE).values()
        assert (aside.info.run_id, aside.info.status) == (run.info.run_id, "KILLED")

    def test_a_trial_at_work_in_another_folder_is_left_alone(self, study):
        study.start(output=study.folder / "other")
        client, (run,) = open_store().client, runs().values()
        client.set_tag(run.info.run_id, names.OWNER, f"{os.getppid()}@{os.uname().nodename}")
        client.update_run(run.info.run_id, status="RUNNING")
        with pytest.raises(LaunchError, match=r"control-0 is running in another folder as \d+@.*: wait .* --output"):
            study.start()
        assert started(study) == ["control-0"]
        assert statuses(names.KIND_STUDY) == {"stage_a": "FINISHED"}  # nothing was set running

    def test_another_folders_journal_does_not_stand_in_the_way(self, study, script):
        script({"control-0": ["exit 3"]})
        study.start(output=study.folder / "a", attempts=1)
        script({"control-0": ["converged"]})
        study.start(output=study.folder / "b")
        assert study.start(output=study.folder / "a").unsent is None
        assert started(study) == ["control-0", "control-0"]
        assert rows()["control-0"].outcome is Outcome.CONVERGED
        again = sync(study.folder / "b", open_store())
        assert (again.points_sent, again.refused) == (0, ())


def test_a_lost_database_is_filled_again_from_the_journals(study, empty_database):
    study.start(seeds=range(2))
    shutil.copy(empty_database, "mlflow.db")
    study.start(seeds=range(2))
    assert len(started(study)) == 2
    assert [rows()[f"control-{seed}"].outcome for seed in range(2)] == ["converged"] * 2


def test_a_damaged_journal_is_named_before_anything_starts(study):
    study.start()
    journal = journal_of(study, "control-0")
    journal.write_bytes(journal.read_bytes().replace(b'"s":2', b'"s":9'))
    with pytest.raises(JournalError, match=r"control-0.*damaged.*restore it from a copy, or delete its folder"):
        study.start(seeds=range(2))
    assert started(study) == ["control-0"]
    assert statuses(names.KIND_STUDY) == {"stage_a": "FINISHED"}


def test_an_outcome_that_the_disk_does_not_take_still_ends_the_run(study, script, monkeypatch):
    script({"control-0": ["signal 9", "converged"], "control-1": ["converged"]})
    full = JournalError("can't write control-0/journal.jsonl: No space left on device; free some space")

    def refuse(directory):
        raise full

    monkeypatch.setattr("fnostab.launch.launcher.Journal", refuse)
    result = study.start(seeds=range(2))
    assert [(t.outcome, t.unwritten) for t in result.trials] == [(Outcome.KILLED, True), (Outcome.CONVERGED, False)]
    assert statuses() == {"control-0": "KILLED", "control-1": "FINISHED"}
    assert "No space left" in runs()["control-0"].data.tags[names.REASON]
    monkeypatch.setattr("fnostab.launch.launcher.Journal", Journal)
    study.start(seeds=range(2))
    assert statuses() == dict.fromkeys(("control-0", "control-1"), "FINISHED")


def test_a_server_that_goes_away_stops_nothing_and_what_was_not_sent_is_named(study, monkeypatch):
    def away(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("fnostab.tracking.upload.trial_run.TrialRun.find_or_make", away)
    monkeypatch.setattr(study_upload, "DRAIN_S", 0.5)
    result = study.start(seeds=range(2))
    assert [t.outcome for t in result.trials] == [Outcome.CONVERGED] * 2
    assert "`fnostab sync" in result.unsent
    monkeypatch.undo()
    monkeypatch.chdir(study.folder)
    assert sync("outputs", open_store()).points_sent == 10
    assert len(rows()) == 2


def test_a_study_whose_records_cannot_be_linked_does_not_stay_running(study, monkeypatch):
    def refuse(*_):
        raise TrackingError("the server refuses")

    monkeypatch.setattr(study_upload, "link_project_run", refuse)
    with pytest.raises(TrackingError):
        study.start()
    assert statuses(names.KIND_STUDY) == {"stage_a": "FAILED"}
    assert started(study) == []


def test_with_a_terminal_the_table_is_drawn(study):
    study.start(terminal=True)
    assert "control" in study.output
    assert "\x1b[" in study.output


def test_a_gpu_that_is_not_there_is_refused_at_once(study, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(LaunchError, match=r"execution.device=cuda, but torch sees no GPU"):
        study.start(settings={"execution.device": "cuda"})
    assert not Path("outputs/stage_a").exists()


@pytest.fixture
def slow(real_server, study, monkeypatch):
    """A real server behind a proxy that is slower than MLflow's client is patient."""
    monkeypatch.setitem(store_module.IMPATIENT, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(study_upload, "RETRY_S", 0.1)
    proxy = SlowProxy(real_server, 3)
    yield proxy
    proxy.close()


class TestASlowServer:
    @staticmethod
    def settle(slow, monkeypatch):
        """It is fast from now on, and its client patient: the machine itself may be busy."""
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        slow.delay_s = 0

    @staticmethod
    def ended(slow, experiment):
        client = open_store(slow.url).client
        found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        return sorted((run.data.tags[names.KIND], run.info.status) for run in found)

    def test_trials_start_before_it_answers_and_their_records_are_sent_then(
        self, study, slow, when, script, monkeypatch
    ):
        script({"control-0": ["silent 3"]})
        when(lambda: started(study), lambda: self.settle(slow, monkeypatch))
        monkeypatch.setattr(study_upload, "DRAIN_S", 60.0)
        result = study.start(tracking_uri=slow.url, experiment="late", seeds=(0, 1))
        assert "trials start anyway, and their records are sent later" in study.output
        assert result.unsent is None
        assert self.ended(slow, "late")[0][0] == names.KIND_STUDY
        assert "RUNNING" not in dict(self.ended(slow, "late")).values()

    def test_one_that_stays_slow_costs_no_record(self, study, slow, monkeypatch):
        monkeypatch.setattr(study_upload, "DRAIN_S", 5.0)
        result = study.start(tracking_uri=slow.url, experiment="never")
        assert result.trials[0].outcome is Outcome.CONVERGED
        assert f"`fnostab sync {result.folder}` sends it later" in result.unsent
        with pytest.raises(TrackingError, match="nothing was sent"):
            _ = result.store
        self.settle(slow, monkeypatch)
        assert sync(result.folder, open_store(slow.url)).points_sent > 0
        assert self.ended(slow, "never") == [(names.KIND_STUDY, "FINISHED"), (names.KIND_TRIAL, "FINISHED")]
