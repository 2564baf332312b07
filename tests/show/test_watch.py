"""A study that runs in one process and is watched from another."""

import _thread
import json
import shlex
import shutil
import threading
from io import StringIO

import pytest
from rich.console import Console

import fnostab
from fnostab.errors import ConfigError, LaunchError, TrackingError
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.norm_curve import NONFINITE
from fnostab.show import watch as watch_module
from fnostab.show.sources import Journals
from fnostab.show.view import Display
from fnostab.show.watch import watch_study


def watched(output, experiment=None, *, width=80, **options):
    console = Console(file=StringIO(), width=width)
    watch_study(experiment, output=output, interval_s=0.05, console=console, **options)
    return console.file.getvalue()


@pytest.mark.parametrize("source", ["journals", "records"])
def test_a_running_study_is_followed_to_its_end(study, script, source):
    script({"control-0": ["held"], "control-1": ["collapsed"]})
    seen = []

    def display(*arguments):
        (study.folder / "script.go").touch()
        return Display(*arguments)

    def start():
        try:
            study.start(seeds=range(4), jobs=1)
        except BaseException as error:
            seen.append(error)

    runner = threading.Thread(target=start)
    with pytest.MonkeyPatch.context() as patch:
        # Only the main thread can catch signals
        patch.setattr("fnostab.launch.run.signal.signal", lambda *_: None)
        patch.setattr(watch_module, "Display", display)
        runner.start()
        output = study.folder / ("outputs" if source == "journals" else "absent")
        try:
            text = _when_there(output)
        finally:
            (study.folder / "script.go").touch()
            runner.join(240)
    assert seen == []
    assert f"{source} {'in' if source == 'journals' else 'at'} " in text
    assert "control-1: collapsed" in text
    assert "control-3: converged" in text
    assert "1/4" in text
    assert "\nnext: fnostab run stage_a --seeds 4 " in text  # only control was asked for


def _when_there(output):
    """Watch as soon as there is something to watch."""
    for _ in range(600):
        try:
            return watched(output)
        except TrackingError:
            watch_module.time.sleep(0.1)
    raise AssertionError("the study never began")


class TestSources:
    def test_journals_need_no_store(self, study, script):
        script({"control-1": ["nonfinite"]})
        study.start(seeds=range(2))
        (study.folder / "mlflow.db").unlink()
        text = watched(study.folder / "outputs", once=True)
        assert "no records: no tracking database at" in text
        assert "1/2" in text
        assert "2 of 2 trials" in text
        assert not (study.folder / "mlflow.db").exists()

    def test_a_trial_that_can_not_be_read_is_named_and_the_others_are_shown(self, study, script):
        script({"control-1": ["nonfinite"]})
        study.start(seeds=range(4))
        (folder,) = (study.folder / "outputs").glob("stage_a/*")
        (folder / "control-2" / "journal.jsonl").write_text("no record\n\n")
        (folder / "control-3" / "trial.json").write_text("{")
        text = watched(study.folder / "outputs", once=True)
        assert "1/4" in text  # the store has those two
        assert "control-3/trial.json is not" in text.replace("\n", "")
        journals = Journals(folder)
        states = journals.read({})
        assert [states["control", seed].outcome for seed in range(3)] == ["converged", "nonfinite", None]
        assert sorted(journals.unreadable) == ["control-2", "control-3"]

    def test_records_need_no_journals_and_say_the_same(self, study, script):
        script({"control-1": ["collapsed"]})
        study.start(seeds=range(2))
        from_journals = watched(study.folder / "outputs", "stage_a", once=True)
        shutil.rmtree(study.folder / "outputs")
        from_records = watched(study.folder / "outputs", "stage_a", once=True)
        for text in (from_journals, from_records):
            assert "1/2  50% [9%, 91%]" in text
            assert "the study has ended" in text

    def test_the_study_that_was_started_last_is_shown(self, study):
        study.start(experiment="first")
        study.start(experiment="second")
        assert "experiment second" in watched(study.folder / "outputs", once=True)
        study.start(experiment="first", seeds=range(2))
        assert "experiment first" in watched(study.folder / "outputs", once=True)
        assert "experiment second" in watched(study.folder / "outputs", "second", once=True)

    def test_a_study_of_another_machine_is_found_beside_old_journals(self, study):
        study.start(experiment="old")
        study.start(experiment="new", output=study.folder / "elsewhere")
        assert "experiment new, records at" in watched(study.folder / "outputs", once=True)

    def test_a_spike_and_a_step_that_is_not_finite_are_marked(self, study):
        study.start()
        (directory,) = (study.folder / "outputs").glob("stage_a/*/control-0")
        (directory / "journal.jsonl").unlink()
        with Journal(directory) as journal:
            journal.event(names.PARAMS_EVENT, {})
            for step in range(100):
                journal.record(step, {names.GRAD_NORM: 1e5 if step == 40 else float("inf") if step == 70 else 1.0})
            journal.record(40, {names.SPIKE: 1e5})
            journal.event(names.OUTCOME_EVENT, {"outcome": "killed"})
        (study.folder / "mlflow.db").unlink()
        (line,) = [x for x in watched(study.folder / "outputs", once=True).splitlines() if x.startswith("control-0 ")]
        assert line.count("█") == line.count(NONFINITE) == 1
        assert line.split()[-1] == "1"  # spike


class TestNext:
    """The command that a watcher is told at the end."""

    def test_of_an_interrupted_study_it_is_the_one_that_goes_on(self, study, script, when):
        script({"control-1": ["hang"], "opt_fix-0": ["converged"]})
        study.start(arms=("opt_fix",))
        when(lambda: list(study.folder.glob("outputs/*/*/control-1/journal.jsonl")), _thread.interrupt_main)
        with pytest.raises(KeyboardInterrupt):
            study.start(seeds=range(2))
        text = watched(study.folder / "outputs", once=True)
        assert "it was interrupted" in text
        words = shlex.split(text.splitlines()[-1])
        assert words[:8] == ["next:", "fnostab", "run", "stage_a", "--arms", "control", "--seeds", "2"]
        assert words[-2:] == ["--output", f"{study.folder}/outputs"]
        asked = {words[at + 1] for at, word in enumerate(words) if word == "--set"}
        assert asked == {f"{name}={json.dumps(value)}" for name, value in study.settings.items()}

    def test_of_one_that_ended_it_is_the_one_that_judges(self, study):
        study.start(arms=("control", "opt_fix"))
        uri = f"sqlite:///{study.folder}/mlflow.db"
        text = watched(study.folder / "outputs", once=True, tracking_uri=uri)
        assert text.splitlines()[-1] == f"next: fnostab decide --experiment stage_a --tracking-uri {uri}"

    def test_of_a_loop_of_ones_own_it_sends_the_records_and_names_no_command_that_runs_them(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        study = fnostab.Study("mine", control={"clip": False}, arms={"clipped": {"clip": True}}, seeds=1)
        monkeypatch.setattr("fnostab.show.sources.QUIET_S", -1.0)
        for trial in study:
            with trial.recorder() as rec:
                rec.step(0, loss=1.0)
                rec.validation(0, loss=1.0)
            text = watched(tmp_path / "outputs", once=True)
            if trial.arm == "control":
                assert (
                    text.splitlines()[-1]
                    == "the study has ended: trials of your own loop have no result; the same loop resumes them"
                )
        assert text.splitlines()[-1] == f"next: fnostab sync {tmp_path}/outputs"
        study.decide()
        assert watched(tmp_path / "outputs", once=True).splitlines()[-1] == "next: fnostab decide --experiment mine"


class TestNothingThere:
    def test_no_study_anywhere(self, workplace):
        with pytest.raises(TrackingError, match=r"no study is recorded in .*no journals are under /.*/absent"):
            watched(workplace.relative_to(workplace) / "absent")

    def test_another_experiment(self, study):
        study.start()
        said = r"no experiment 'stage_z'.*there are: Default, stage_a .*no journals of stage_z are"
        with pytest.raises(TrackingError, match=said):
            watched(study.folder / "outputs", "stage_z")

    def test_an_experiment_without_a_study(self, workplace):
        with pytest.raises(TrackingError, match="has no study"):
            watched(workplace, "Default")

    @pytest.mark.parametrize("name", ["", "a/b", ".."])
    def test_a_name_that_is_none(self, workplace, name):
        with pytest.raises((ConfigError, TrackingError), match="experiment"):
            watched(workplace, name)

    def test_a_damaged_study_file_is_named(self, study):
        study.start()
        (file,) = (study.folder / "outputs").glob("stage_a/*/study.json")
        file.write_text("{")
        with pytest.raises(LaunchError, match=r"study.json is not a StudySpec"):
            watched(study.folder / "outputs")
