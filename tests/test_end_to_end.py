"""The shootout as a new user starts it: `mlflow run`, real trials, real interruptions."""

import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tracking_helpers import marked

from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import Event, Point
from fnostab.record.trial import TrialSpec
from fnostab.tracking import find_experiment, newest_study, open_store, trial_rows

ROOT = Path(__file__).parent.parent
TRIALS = ["arch_fix-0", "arch_fix-1", "control-0", "control-1"]


def git(folder, *arguments):
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def project(tmp_path_factory, empty_database):
    """A fresh clone of the project, with an empty database in it."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git repository")
    folder = tmp_path_factory.mktemp("project") / "fnostab"
    for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "as it is")
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def mlflow_run(project, environment, tiny):
    """``mlflow run . -e ENTRY -P ...`` in the project, with tiny networks."""

    def run(entry_point, *parameters, small=True):
        settings = [s for s in tiny[1::2] if not s.startswith("training.epochs")] if small else []
        given = [part for p in (*parameters, *settings) for part in ("-P", p)]
        command = ["mlflow", "run", ".", "-e", entry_point, "--env-manager", "local", *given]
        clean = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        return subprocess.run(command, cwd=project, env=clean, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="session")
def shootout(mlflow_run):
    given = ("seeds=2", "arms=control,arch_fix", "profile=small", "epochs=2", "jobs=2")
    return mlflow_run("shootout", *given)


@pytest.fixture
def store(project, shootout, monkeypatch):
    monkeypatch.chdir(project)
    return open_store(f"sqlite:///{project}/mlflow.db")


@pytest.fixture
def experiment(store):
    return find_experiment(store, "stage_a")


@pytest.fixture
def trials(store, experiment):
    """Runs of the trials, by arm and seed."""
    found = store.client.search_runs([experiment], f"tags.`{names.KIND}` = '{names.KIND_TRIAL}'")
    return {run.info.run_name.split()[0]: run for run in found}


def journal_of(project, trial):
    (path,) = project.glob(f"outputs/stage_a/*/{trial}/journal.jsonl")
    return path


def points_of(journal):
    """{metric: [(step, value, time)]}"""
    points = {}
    for record, _ in read_journal(journal):
        if isinstance(record, Point):
            for name, value in record.values.items():
                points.setdefault(name, []).append((record.step, value, record.time_ms))
    return {name: sorted(values) for name, values in points.items()}


class TestShootout:
    def test_it_shows_progress_the_outcomes_the_verdict_and_what_to_do_next(self, shootout):
        assert shootout.returncode == 0, shootout.stderr
        assert "Traceback" not in shootout.stdout + shootout.stderr
        for expected in (
            "trying a step of each arm, preparing the data set ... ",
            "control-0: ",
            "arch_fix-1: ",
            "Stage A",
            "INCONCLUSIVE",
            "fnostab ui",
            "fnostab report --experiment stage_a",
        ):
            assert expected in shootout.stdout

    def test_mlflow_holds_a_study_with_its_trials_nested(self, store, experiment, trials):
        study = newest_study(store, experiment)
        run = store.client.get_run(study.run_id)
        assert (run.info.status, study.spec.profile) == ("FINISHED", "small")
        assert list(study.spec.arms) == ["control", "arch_fix", "opt_fix", "cure"]
        assert sorted(trials) == TRIALS
        for trial in trials.values():
            assert trial.info.status == "FINISHED"
            assert trial.data.tags["mlflow.parentRunId"] == study.run_id
        assert [row.counts for row in trial_rows(store, experiment, study)] == [True] * 4
        every = store.client.search_runs([experiment])
        assert {run.info.status for run in every} == {"FINISHED"}

    def test_the_run_that_mlflow_made_for_itself_links_to_the_study(self, store, experiment):
        (made,) = store.client.search_runs(["0"], "tags.mlflow.project.entryPoint = 'shootout'")
        study = newest_study(store, experiment).run_id
        assert (made.info.status, made.data.tags[names.STUDY_RUN]) == ("FINISHED", study)
        assert store.client.get_run(study).data.tags[names.PROJECT_RUN] == made.info.run_id
        assert study in made.data.tags["mlflow.note.content"]

    def test_mlflow_holds_exactly_the_points_of_the_journals(self, store, project, trials):
        for name, run in trials.items():
            recorded = points_of(journal_of(project, name))
            stored = {
                metric: sorted(
                    (m.step, m.value, m.timestamp) for m in store.client.get_metric_history(run.info.run_id, metric)
                )
                for metric in run.data.metrics
            }
            assert stored == recorded

    def test_every_step_is_there(self, project):
        for name in TRIALS:
            points = points_of(journal_of(project, name))
            last = int(points[names.LAST_STEP][0][1])
            for metric in (names.TRAIN_LOSS, names.GRAD_NORM, names.GRAD_NORM_CLIPPED, names.LEARNING_RATE):
                assert [step for step, *_ in points[metric]] == list(range(last + 1)), (name, metric)

    def test_a_trial_says_what_it_was_made_of(self, project, trials):
        for name, run in trials.items():
            spec = TrialSpec.read(journal_of(project, name).parent / "trial.json")
            assert run.data.params.keys() == spec.settings.keys() | {"arm", "seed"}
            assert run.data.params["model.hidden_channels"] == "4"
            assert run.data.params["training.epochs"] == "2"
            tags = run.data.tags
            assert (tags[names.ARM], tags[names.SEED], tags[names.PROFILE]) == (spec.arm, str(spec.seed), "small")
            assert tags[names.CONFIG_HASH] == spec.config_hash
            assert tags[names.GIT_COMMIT] == git(project, "rev-parse", "HEAD").strip()
            assert tags[names.DEVICE] in ("cpu", "cuda")
            (data_set,) = run.inputs.dataset_inputs
            assert spec.settings["data.set_phi"]
            assert data_set.dataset.digest in {path.name for path in project.glob("outputs/datasets/*")}

    def test_pictures_the_best_weights_and_the_environment_are_there(self, store, trials):
        for run in trials.values():

            def inside(folder, run_id=run.info.run_id):
                return {Path(artifact.path).name for artifact in store.client.list_artifacts(run_id, folder)}

            assert "environment.json" in inside(None)
            assert "best.safetensors" in inside("checkpoint")
            assert [name for name in inside("figures") if name.startswith("reconstruction")]

    def test_arms_share_one_data_set(self, project):
        assert len(list(project.glob("outputs/datasets/*/manifest.json"))) == 1

    def test_git_sees_nothing_of_what_was_written(self, shootout, project):
        assert git(project, "status", "--porcelain") == ""


@pytest.fixture(scope="session")
def others(shootout, mlflow_run):
    """The other entry points and bad values, two at a time."""
    small = ("profile=small", "epochs=2")
    calls = {
        "train": ("train", "seed=1", "arm=arch_fix", *small),
        "activations": ("activations", "profile=small", "epochs=2", "arms=control,arch_fix"),
        "decide": ("decide", "experiment=stage_a"),
        "seeds": ("shootout", "seeds=-1", *small),
        "setting": ("shootout", "training.momentum=banana", *small),
    }
    with ThreadPoolExecutor(2) as pool:
        ended = {what: pool.submit(mlflow_run, *call, small=call[0] != "decide") for what, call in calls.items()}
        return {what: future.result() for what, future in ended.items()}


class TestOtherEntryPoints:
    def test_train_repeats_nothing_that_the_study_has(self, others, trials):
        assert others["train"].returncode == 0, others["train"].stderr
        assert "1 of 1 trial is finished already" in others["train"].stdout
        assert sorted(trials) == TRIALS

    def test_decide_tells_the_verdict(self, others, store, experiment):
        assert others["decide"].returncode == 0, others["decide"].stderr
        assert "INCONCLUSIVE" in others["decide"].stdout
        verdicts = store.client.search_runs([experiment], f"tags.`{names.KIND}` = '{names.KIND_VERDICT}'")
        assert len(verdicts) == 2  # the shootout's and this one

    def test_activations_have_a_figure_and_numbers(self, others, store, experiment, project):
        assert others["activations"].returncode == 0, others["activations"].stderr
        (numbers,) = project.glob("outputs/stage_a/*/activations.json")
        moments = json.loads(numbers.read_text())
        assert moments.keys() == {"control", "arch_fix"}
        for of_arm in moments.values():
            before, after = (of_arm[moment]["seeds"]["0"] for moment in ("initialisation", "after training"))
            assert before.keys() == after.keys()
            assert all(state["activation_std"] > 0 for state in before.values())
        study = newest_study(store, experiment).run_id
        kept = {artifact.path for artifact in store.client.list_artifacts(study)}
        assert {"activations.png", "activations.json"} <= kept

    @pytest.mark.parametrize(
        ("what", "line"),
        [
            ("seeds", "error: seeds='-1' is not accepted"),
            ("setting", "error: arm control: training.momentum='banana' is not accepted"),
        ],
    )
    def test_a_bad_value_ends_mlflow_run_with_one_line(self, others, store, what, line):
        ended = others[what]
        assert ended.returncode != 0
        assert "Traceback" not in ended.stdout + ended.stderr
        (error,) = [printed for printed in ended.stderr.splitlines() if printed.startswith("error: ")]
        assert error.startswith(line)
        failed = store.client.search_runs(["0"], "attributes.status = 'FAILED'")
        assert len(failed) == 2
        assert not store.client.search_runs(["0"], "attributes.status = 'RUNNING'")


class TestTypedElsewhere:
    """`mlflow run` of another folder, as of a git address, which MLflow clones into a temporary folder."""

    def test_records_of_a_clone_are_kept_where_it_was_typed(self, project, environment, tiny, tmp_path, empty_database):
        shutil.copy(empty_database, tmp_path / "mlflow.db")
        given = [part for setting in (*tiny[1::2], "profile=small", "arm=control") for part in ("-P", setting)]
        command = ["mlflow", "run", f"file://{project}", "-e", "train", "--env-manager", "local", *given]
        clean = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        (tmp_path / "tmp").mkdir()
        clean |= {"TMPDIR": str(tmp_path / "tmp")}
        ended = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr
        kept = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("study.json")}
        assert kept == {"outputs", "mlruns"}
        assert not list((tmp_path / "tmp").rglob("journal.jsonl"))

    @pytest.fixture
    def started(self, tmp_path, environment):
        """Arguments of an entry point, with those that `mlflow run` passes on: typed in one folder, run in another."""
        for folder in ("typed", "project"):
            (tmp_path / folder).mkdir()
        show = "python -c 'from entrypoints import arguments; print(*arguments())'"
        call = "import subprocess, sys; subprocess.run(['bash', '-c', sys.argv[1] + '; true'], cwd='../project')"

        def start(given, **more):
            asked = [sys.executable, "-c", call, f"{show} {given}"]
            ended = subprocess.run(
                asked, cwd=tmp_path / "typed", env=environment | more, check=True, capture_output=True, text=True
            )
            return ended.stdout.strip().replace(str(tmp_path), "")

        return start

    def test_output_follows_the_user(self, started, tmp_path):
        (tmp_path / "typed/mine.yaml").touch()
        (tmp_path / "project/theirs.yaml").touch()
        within = {"MLFLOW_RUN_ID": "0" * 32}
        assert started("mine.yaml --seeds 2", **within) == "/typed/mine.yaml --seeds 2 --output /typed/outputs"
        assert started("theirs.yaml --output o --lr 1", **within) == "theirs.yaml --output /typed/o --lr 1"
        assert started("stage_a --output /x", **within) == "stage_a --output /x"
        assert started("stage_a") == "stage_a --output /project/outputs"  # by hand


def imported(stderr):
    """Top-level packages that a process with ``-X importtime`` has imported."""
    return {line.rpartition("|")[2].strip().split(".")[0] for line in stderr.splitlines() if "|" in line}


def test_a_trial_needs_no_mlflow(project, shootout, tmp_path, environment):
    """It starts faster without, and runs on machines that do not have it."""
    shutil.copy(journal_of(project, "control-0").parent / "trial.json", tmp_path)
    one_thread = environment | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # as launchers set it
    command = [sys.executable, "-X", "importtime", "-m", "fnostab", "train", "--trial", str(tmp_path / "trial.json")]
    ended = subprocess.run(command, cwd=tmp_path, env=one_thread, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0
    assert "torch" in imported(ended.stderr)
    assert not {"mlflow", "sqlalchemy", "requests"} & imported(ended.stderr)
    assert "Traceback" not in ended.stderr
    # The same trial in another process gives the same numbers
    first, second = points_of(journal_of(project, "control-0")), points_of(tmp_path / "journal.jsonl")
    for metric in (names.TRAIN_LOSS, names.GRAD_NORM, names.VAL_LOSS_BEST):
        assert [point[:2] for point in first[metric]] == [point[:2] for point in second[metric]]


def test_ctrl_c_ends_trials_and_their_runs_and_what_started_them_needs_no_torch(workplace, environment, tiny):
    """Real trials, which Lightning watches over; tests/launch/test_run.py goes on with such a study."""
    longer = ["--set", "training.epochs=1000", "--set", "training.stress_test=true"]  # minutes: it is ended below
    shared = ["run", "stage_a", "--profile", "small", "--arms", "control,opt_fix", "--seeds", "1", *tiny]
    command = [sys.executable, "-X", "importtime", "-m", "fnostab", *shared, *longer]
    with open("out.txt", "w") as out:
        driver = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    started = time.monotonic()
    while not (marked(workplace, "control-0") and marked(workplace, "opt_fix-0")):
        assert driver.poll() is None, Path("out.txt").read_text()
        assert time.monotonic() - started < 240
        time.sleep(0.1)
    owners = [owner(path.parent) for path in workplace.glob("outputs/stage_a/*/*/journal.jsonl")]
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    assert driver.wait(240) == 130
    text = Path("out.txt").read_text()
    assert "the same command resumes them" in text
    assert "Traceback" not in text
    assert "mlflow" in imported(text)
    assert not {"torch", "lightning"} & imported(text)
    assert not [pid for pid in owners if Path(f"/proc/{pid}").exists()]

    client = open_store().client
    experiment = client.get_experiment_by_name("stage_a").experiment_id
    killed = {run.data.tags.get(names.ARM, "study"): run for run in client.search_runs([experiment])}
    assert {arm: run.info.status for arm, run in killed.items()} == dict.fromkeys(
        ("study", "control", "opt_fix"), "KILLED"
    )
    assert {run.data.tags.get(names.OUTCOME) for run in killed.values()} == {None, "killed"}
    assert "SIGTERM" in killed["control"].data.tags[names.REASON]


def owner(directory):
    """Process that writes a journal."""
    for record, _ in read_journal(directory / "journal.jsonl"):
        if isinstance(record, Event) and names.OWNER in record.payload:
            return int(record.payload[names.OWNER].split("@")[0])
    raise AssertionError(f"{directory} has no owner")


def bin_of_a_user(folder):
    """Programs of an environment that `make run` has made where there is no pyenv."""
    folder.mkdir()
    for name in ("python", "uv"):
        if found := shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])):
            (folder / name).symlink_to(sys.executable if name == "python" else found)
    (folder / "mlflow").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mlflow "$@"\n')
    (folder / "mlflow").chmod(0o755)
    shutil.copy(ROOT / "deploy" / "pyenv", folder / "pyenv")
    return folder


@pytest.mark.skipif("FNOSTAB_TEST_ENVIRONMENTS" not in os.environ, reason="minutes: set FNOSTAB_TEST_ENVIRONMENTS=1")
@pytest.mark.parametrize("manager", [(), ("--env-manager", "uv"), ("--env-manager", "local")], ids=str)
def test_the_line_of_the_readme_runs_on_a_machine_without_pyenv(project, environment, tmp_path, manager):
    programs, home = bin_of_a_user(tmp_path / "bin"), tmp_path / "home"
    if "uv" in manager and not (programs / "uv").exists():
        pytest.skip("needs uv")
    home.mkdir()
    if "local" in manager:
        (programs / "python").unlink()
        (programs / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        (programs / "python").chmod(0o755)
    clean = {name: value for name, value in environment.items() if name not in ("PYTHONPATH", "PYENV_ROOT")}
    base = Path(sys._base_executable).parent  # uv takes no Python of a virtual environment
    clean |= {"HOME": str(home), "PATH": f"{programs}:{base}:/usr/sbin:/usr/bin:/sbin:/bin"}
    line = ["mlflow", "run", ".", "-e", "shootout", "-P", "seeds=1", *manager]
    small = ["profile=small", "epochs=1", "arms=control", f"experiment=by_{manager[-1] if manager else 'pyenv'}"]
    given = [part for parameter in small for part in ("-P", parameter)]
    ended = subprocess.run([*line, *given], cwd=project, env=clean, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "control" in ended.stdout
    assert bool(list(home.glob(".mlflow/envs/*/bin/python"))) == ("local" not in manager)


class TestTheStandInOfPyenv:
    @pytest.fixture
    def pyenv(self, tmp_path):
        programs = bin_of_a_user(tmp_path / "bin")

        def call(*arguments, **more):
            command = [programs / "pyenv", *arguments]
            clean = {"PATH": "/usr/bin:/bin", **more}
            return subprocess.run(command, env=clean, cwd="/", capture_output=True, text=True)

        return call

    def test_it_offers_the_python_that_it_is_beside(self, pyenv, tmp_path):
        version = platform.python_version()
        assert pyenv("install", "--list").stdout == f"{version}\n"
        assert pyenv("install", "--skip-existing", version).returncode == 0
        root = Path(pyenv("root").stdout.strip())
        python = root / "versions" / version / "bin" / "python"
        subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "made"], check=True)
        code = "import platform, sys; print(platform.python_version(), sys.prefix)"
        said = subprocess.run([tmp_path / "made" / "bin" / "python", "-c", code], capture_output=True, text=True).stdout
        assert said == f"{version} {tmp_path / 'made'}\n"

    def test_it_follows_the_root_that_it_is_told(self, pyenv, tmp_path):
        told = {"PYENV_ROOT": str(tmp_path / "elsewhere")}
        assert pyenv("install", platform.python_version(), **told).returncode == 0
        assert (tmp_path / "elsewhere" / "versions" / platform.python_version() / "bin" / "python").exists()

    @pytest.mark.parametrize("asked", [("install", "2.7.18"), ("global", "3.12"), ()])
    def test_it_refuses_what_it_has_not_in_a_line(self, pyenv, asked):
        ended = pyenv(*asked)
        assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
        assert "stands in for it" in ended.stderr
