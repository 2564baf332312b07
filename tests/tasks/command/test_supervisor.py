"""A supervisor runs a program, ends what it leaves behind, and judges what it recorded."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fnostab.errors import JournalError, LaunchError
from fnostab.record import names
from fnostab.record.attempt import is_being_written
from fnostab.record.ending import close_if_abandoned
from fnostab.record.journal import read_journal
from fnostab.record.lines import FILE_NAME, Event, Point
from fnostab.record.outcomes import Outcome
from fnostab.record.recorder import TOKEN_VARIABLE
from fnostab.record.trial import Metric, TrialSpec
from fnostab.tasks.command.supervisor import end_program, supervise

ROOT = Path(__file__).parents[3]
HEAD = "import os, signal, subprocess, sys, time\nfrom fnostab.recorder import Recorder\n"
ENDLESS = (
    "with Recorder() as rec:\n"
    "    rec.scheduled(100000)\n"
    "    for i in range(100000):\n"
    "        rec.step(i, loss=1 / (i + 1))\n"
    "        time.sleep(0.001)\n"
)
SUPERVISE = (
    "import sys; from pathlib import Path; from fnostab.tasks.command.supervisor import supervise\n"
    "from fnostab.record.trial import TrialSpec\n"
    "path = Path(sys.argv[1]); print(supervise(TrialSpec.read(path), path.parent))"
)


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


class Trial:
    """One trial whose program is a Python script."""

    def __init__(self, home, script="", argv=None, **more):
        self.directory = home / "trial"
        self.directory.mkdir(exist_ok=True)
        (home / "script.py").write_text(HEAD + script)
        self.spec = TrialSpec(
            task="command",
            experiment="e",
            study="s",
            study_hash="0" * 16,
            arm="a",
            seed=3,
            settings={"lr": 0.1},
            config_hash="0" * 16,
            metric=Metric(name="val/loss"),
            judged="val/loss",
            argv=argv or (sys.executable, "script.py"),
            working_directory=str(home),
            shared_dir="shared",
            **more,
        )
        self.spec.write(self.directory / "trial.json")

    def run(self):
        return supervise(self.spec, self.directory)

    def start(self):
        """As launchers do: in a session of its own, with its output in stderr.log."""
        with open(self.directory / "stderr.log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", SUPERVISE, str(self.directory / "trial.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def records(self):
        return [record for record, _ in read_journal(self.directory / FILE_NAME)]

    @property
    def steps(self):
        return [r.step for r in self.records if isinstance(r, Point) and names.TRAIN_LOSS in r.values]

    @property
    def end(self):
        last = self.records[-1]
        assert isinstance(last, Event)
        assert last.name == names.OUTCOME_EVENT
        return last.payload

    def await_steps(self, count):
        wait_for(lambda: (self.directory / FILE_NAME).exists() and len(self.steps) >= count)

    @property
    def processes(self):
        """Processes of the program."""
        tokens = [r.payload.get("fnostab.attempt") for r in self.records if isinstance(r, Event)]
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(TOKEN_VARIABLE) in [t for t in tokens if t]:
                    found.append(process)
            except (psutil.Error, OSError):
                pass
        return found


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def recorded(*lines):
    return "with Recorder() as rec:\n" + "".join(f"    {line}\n" for line in lines)


GOOD = recorded("for i in range(5): rec.step(i, loss=1 / (i + 1))", "rec.validation(4, loss=0.5)")


def closed(trial):
    """Outcome of a trial that is closed as whoever looks for abandoned ones does."""
    assert close_if_abandoned(trial.directory)
    return trial.end["outcome"]


class TestHowItEnded:
    def test_a_program_that_records_and_ends_well_is_judged(self, tmp_path):
        trial = Trial(tmp_path, GOOD)
        assert trial.run() is Outcome.CONVERGED
        assert trial.end["reason"] is None
        assert trial.records[0].payload == {"lr": 0.1, "seed": 3, "arm": "a"}
        values = {name: v for r in trial.records if isinstance(r, Point) for name, v in r.values.items()}
        assert (values["val/loss_best"], values["last_step"]) == (0.5, 4)
        assert not is_being_written(trial.directory)
        assert trial.processes == []

    def test_a_negative_loss_that_falls_has_converged(self, tmp_path):
        script = recorded("for i in range(9): rec.step(i, loss=2.0 - i); rec.validation(i, loss=2.0 - i)")
        assert Trial(tmp_path, script).run() is Outcome.CONVERGED

    @pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
    def test_a_value_that_is_not_finite_is_the_outcome_whatever_ends_the_program(self, tmp_path, value):
        script = recorded(f"rec.step(0, loss=1.0); rec.step(1, loss=float('{value}'))", "sys.exit('error: NaN')")
        trial = Trial(tmp_path, script)
        assert trial.run() is Outcome.NONFINITE
        assert trial.end["failure_step"] == 1

    def test_an_announced_failure_wins_over_a_signal(self, tmp_path):
        script = recorded("rec.step(0, loss=1.0)", "rec.failed('collapsed', 0)", "os.kill(os.getpid(), 9)")
        assert Trial(tmp_path, script).run() is Outcome.COLLAPSED

    @pytest.mark.parametrize("script", ["", "with Recorder(): pass\n", recorded("rec.scheduled(3)")])
    def test_a_program_that_records_nothing_is_told_how_to(self, tmp_path, script):
        trial = Trial(tmp_path, script)
        assert trial.run() is Outcome.INFRA_ERROR
        assert "from fnostab.recorder import Recorder" in trial.end["reason"]

    @pytest.mark.parametrize(
        ("script", "outcome", "reason"),
        [
            ("raise ValueError('no such file')", Outcome.INFRA_ERROR, "exit status 1: ValueError: no such file"),
            ("sys.exit('what a pity')", Outcome.INFRA_ERROR, "exit status 1: what a pity"),
            ("sys.exit(3)", Outcome.INFRA_ERROR, "exit status 3: it left no message"),
            ("rec.step(1, loss=1.0); raise MemoryError('x')", Outcome.OOM, "MemoryError: x"),
            (
                "print('torch.OutOfMemoryError: CUDA out of memory.', file=sys.stderr); os._exit(1)",
                Outcome.OOM,
                "torch.OutOfMemoryError: CUDA out of memory.",
            ),
            (
                "os.kill(os.getpid(), 9)",
                Outcome.KILLED,
                "ended by SIGKILL (perhaps by the kernel, out of memory)",
            ),
            ("os.kill(os.getpid(), 11)", Outcome.KILLED, "ended by SIGSEGV"),
        ],
    )
    def test_the_reason_says_how(self, tmp_path, script, outcome, reason):
        trial = Trial(tmp_path, recorded("rec.step(0, loss=1.0)", script))
        assert trial.run() is outcome
        assert trial.end["reason"] == reason
        assert "requested" not in trial.end

    @pytest.mark.parametrize(
        ("lines", "outcome", "reason"),
        [
            (["raise ValueError('x')"], Outcome.INFRA_ERROR, "its training ended with ValueError: x, which the script"),
            (
                ["raise MemoryError('x')"],
                Outcome.OOM,
                "its training ended with MemoryError: x, which",
            ),
            (["raise ValueError('NaN')"], Outcome.INFRA_ERROR, "which the script caught; if the training failed so, "),
            (["raise KeyboardInterrupt"], Outcome.KILLED, "its training ended with KeyboardInterrupt"),
            (["sys.exit(0)"], Outcome.CONVERGED, ""),
            (["rec.scheduled(1)", "raise ValueError('x')"], Outcome.CONVERGED, ""),
            (["rec.step(1, loss=float('nan'))", "raise ValueError('x')"], Outcome.NONFINITE, ""),
        ],
    )
    def test_an_exception_that_the_script_caught_is_no_success_unless_the_training_was_complete(
        self, tmp_path, lines, outcome, reason
    ):
        training = recorded("rec.step(0, loss=1.0)", *lines).replace("\n", "\n    ")
        trial = Trial(tmp_path, f"try:\n    {training}\nexcept BaseException as error:\n    print(error)\n")
        assert trial.run() is outcome
        assert reason in (trial.end["reason"] or "")
        (tmp_path / "script.py").write_text(HEAD + GOOD)
        if outcome not in (Outcome.CONVERGED, Outcome.NONFINITE):
            assert trial.run() is Outcome.CONVERGED

    @pytest.mark.parametrize(
        ("lines", "error"),
        [
            (
                ["rec.step(3, loss=1.0)", "rec.step(2, loss=1.0)"],
                "step 2 comes after step 3: steps must rise; go on counting in",
            ),
            (["rec.step(0, loss=1.0)", "Recorder()"], "only one process may record"),
            (["rec.step(0, loss=1.0)", "rec.close()", "rec.step(1, loss=1.0)"], "the recorder is closed"),
        ],
    )
    def test_a_wrong_use_of_the_recorder_is_the_reason(self, tmp_path, lines, error):
        trial = Trial(tmp_path, recorded(*lines))
        assert trial.run() is Outcome.INFRA_ERROR
        assert error in trial.end["reason"]

    def test_what_a_second_launcher_writes_into_the_log_is_not_the_reason(self, tmp_path):
        second = (
            "from fnostab.record.journal import Journal\n"
            "try:\n    Journal(os.environ['FNOSTAB_JOURNAL'])\n"
            "except Exception as error:\n    print(f'error: {error}', file=sys.stderr)\n"
        )
        trial = Trial(tmp_path, f"{recorded('rec.step(0, loss=1.0)')}{second}sys.exit(3)\n")
        assert trial.run() is Outcome.INFRA_ERROR
        assert "is being written by another process" in (trial.directory / "stderr.log").read_text()
        assert trial.end["reason"] == "exit status 3: it left no message"

    def test_of_two_processes_one_records(self, tmp_path):
        script = (
            "if len(sys.argv) == 1:\n"
            "    with Recorder() as rec:\n"
            "        rec.step(0, loss=1.0)\n"
            "        second = subprocess.run([sys.executable, 'script.py', 'x'], capture_output=True, text=True)\n"
            "        assert 'only one process' in second.stderr, second.stderr\n"
            "else:\n"
            "    Recorder()\n"
        )
        assert Trial(tmp_path, script).run() is Outcome.CONVERGED

    @pytest.mark.parametrize("program", ["no-such-program", "./script.py", "a\0b"])
    def test_a_program_that_can_not_be_started_is_named(self, tmp_path, program):
        trial = Trial(tmp_path, argv=(program, "x"))
        assert trial.run() is Outcome.INFRA_ERROR
        assert f"can't start {program!r}" in trial.end["reason"]

    def test_a_trial_without_a_program_is_refused(self, tmp_path):
        trial = Trial(tmp_path)
        with pytest.raises(LaunchError, match="has no command"):
            supervise(trial.spec.model_copy(update={"argv": None}), trial.directory)


class TestWhatAProgramGets:
    def test_the_environment_is_without_what_belongs_to_others(self, tmp_path, monkeypatch):
        for name in ("MLFLOW_RUN_ID", "SLURM_JOB_ID", "SLURM_PROCID", "RANK", "MASTER_PORT", "FNOSTAB_POLICY"):
            monkeypatch.setenv(name, "1")
        script = recorded(
            "rec.step(0, loss=1.0)",
            "bad = [n for n in os.environ if n.startswith(('SLURM_', 'MASTER_')) or n in ('MLFLOW_RUN_ID', 'RANK')]",
            "assert not bad and os.environ['FNOSTAB_POLICY'] == '1', bad",
            "assert 'MLFLOW_HTTP_REQUEST_TIMEOUT' not in os.environ",  # it is fnostab's own
        )
        assert "MLFLOW_HTTP_REQUEST_TIMEOUT" in os.environ
        trial = Trial(tmp_path, script)
        assert trial.run() is Outcome.CONVERGED, trial.end

    def test_files_of_its_own_become_artifacts(self, tmp_path):
        files = tmp_path / "trial" / "files"
        files_of_it = {"sub/a.csv": 1, "b.bin": 1, "big.txt": 6_000_000}
        writes = "".join(f"open({name!r}, 'w').write('1' * {size})\n" for name, size in files_of_it.items())
        script = f"os.chdir({str(files)!r})\nos.mkdir('sub')\n" + GOOD + writes
        trial = Trial(tmp_path, script)
        assert trial.run() is Outcome.CONVERGED
        artifacts = [r.payload for r in trial.records if isinstance(r, Event) and r.name == names.ARTIFACT_EVENT]
        assert artifacts == [{"path": "files/sub/a.csv", "artifact_path": "files/sub"}]

    def test_its_output_is_shown_and_kept(self, tmp_path, capfd):
        trial = Trial(tmp_path, GOOD + "print('on stdout', flush=True); print('on stderr', file=sys.stderr)")
        trial.run()
        out, err = capfd.readouterr()
        assert (out, err) == ("on stdout\n", "on stderr\n")
        assert (trial.directory / "stderr.log").read_text() == "on stderr\n"


class TestTheEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_asked_to_end_it_is_killed_even_with_exit_0(self, tmp_path, number):
        trial = Trial(tmp_path, "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + ENDLESS)
        supervisor = trial.start()
        trial.await_steps(5)
        supervisor.send_signal(number)
        assert supervisor.wait(120) == 0
        assert (trial.end["outcome"], trial.end["requested"]) == ("killed", True)
        assert trial.processes == []

    def test_a_program_that_does_not_listen_is_ended(self, tmp_path, monkeypatch):
        monkeypatch.setattr("fnostab.tasks.command.supervisor.GRACE_S", 0.2)
        script = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.kill(os.getppid(), signal.SIGTERM)\n" + ENDLESS
        trial = Trial(tmp_path, script)
        assert trial.run() is Outcome.KILLED
        assert trial.processes == []

    def test_asked_after_its_last_step_it_is_judged(self, tmp_path):
        script = "signal.signal(signal.SIGTERM, lambda *_: None)\n" + recorded(
            "rec.scheduled(1)", "rec.step(0, loss=1.0)", "os.kill(os.getppid(), 15)", "time.sleep(0.1)"
        )
        assert Trial(tmp_path, script).run() is Outcome.CONVERGED

    @pytest.mark.parametrize("apart", [False, True])
    def test_what_it_leaves_behind_is_ended(self, tmp_path, apart):
        child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_DFL); time.sleep(100)"
        script = f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session={apart})\n" + GOOD
        trial = Trial(tmp_path, script)
        assert trial.run() is Outcome.CONVERGED
        assert trial.processes == []

    def test_a_retry_repeats_steps_and_the_first_record_counts(self, tmp_path):
        trial = Trial(tmp_path, recorded("for i in range(4): rec.step(i, loss=5.0 - i)", "os._exit(1)"))
        assert trial.run() is Outcome.INFRA_ERROR
        (tmp_path / "script.py").write_text(HEAD + recorded("for i in range(6): rec.step(i, loss=1 / (i + 1))"))
        assert trial.run() is Outcome.CONVERGED
        assert trial.steps == [0, 1, 2, 3, 4, 5]
        assert any(isinstance(r, Event) and names.RESTARTED in r.payload for r in trial.records)


@pytest.mark.parametrize("round_", range(3))
class TestSudden:
    """SIGKILL at random steps: every step is kept, the outcome is right, no process is left."""

    @pytest.fixture
    def running(self, tmp_path, round_):
        trial = Trial(tmp_path, ENDLESS)
        supervisor = trial.start()
        trial.await_steps(random.Random(round_).randrange(1, 60))
        yield trial, supervisor
        if supervisor.poll() is None:
            supervisor.kill()
            supervisor.wait()
        end_program(trial.directory)

    def steps_are_whole(self, trial):
        assert trial.steps == list(range(len(trial.steps)))

    def test_death_of_the_program(self, running):
        trial, supervisor = running
        before = trial.steps
        for process in trial.processes:
            process.kill()
        assert supervisor.wait(120) == 0
        assert trial.end["outcome"] == "killed"
        assert "ended by SIGKILL" in trial.end["reason"]
        assert trial.steps[: len(before)] == before
        self.steps_are_whole(trial)
        assert trial.processes == []

    def test_death_of_the_supervisor(self, running):
        trial, supervisor = running
        supervisor.kill()
        supervisor.wait()
        known = len(trial.steps)
        trial.await_steps(known + 5)  # it goes on
        assert is_being_written(trial.directory)
        assert not close_if_abandoned(trial.directory)
        with pytest.raises(JournalError):  # and is not run twice
            trial.run()
        end_program(trial.directory)
        wait_for(lambda: not is_being_written(trial.directory))
        assert closed(trial) == closed(trial) == "killed"
        self.steps_are_whole(trial)
        assert trial.processes == []

    def test_death_of_the_supervisor_and_the_script_but_not_of_a_process_that_records_for_it(self, tmp_path, round_):
        apart = "import subprocess, sys; subprocess.run([sys.executable, 'script.py'], close_fds=True)"
        trial = Trial(tmp_path, ENDLESS, argv=(sys.executable, "-c", apart))
        supervisor = trial.start()
        trial.await_steps(3)
        (parent,) = psutil.Process(supervisor.pid).children()
        supervisor.kill()
        parent.kill()
        supervisor.wait()
        assert is_being_written(trial.directory)  # so that launchers wait
        assert not close_if_abandoned(trial.directory)
        with pytest.raises(JournalError, match="still being recorded"):
            trial.run()
        end_program(trial.directory)
        assert closed(trial) == "killed"
        self.steps_are_whole(trial)

    def test_death_of_both(self, running):
        trial, supervisor = running
        os.killpg(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
        wait_for(lambda: not is_being_written(trial.directory))
        assert closed(trial) == "killed"
        self.steps_are_whole(trial)
        assert trial.processes == []


def test_a_program_that_outlives_its_supervisor_and_ends_well_is_judged(tmp_path):
    waits = "    while i == 9 and not os.path.exists('go'): time.sleep(0.01)"
    trial = Trial(tmp_path, recorded("for i in range(300):", "    rec.step(i, loss=1 / (i + 1))", waits))
    supervisor = trial.start()
    trial.await_steps(3)
    supervisor.kill()
    supervisor.wait()
    (tmp_path / "go").touch()
    wait_for(lambda: not is_being_written(trial.directory))
    assert closed(trial) == "converged"
    assert trial.steps == list(range(300))


def test_a_new_attempt_ends_what_one_left_whose_supervisor_died(tmp_path):
    leaves = "subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
    trial = Trial(tmp_path, leaves + ENDLESS)
    supervisor = trial.start()
    trial.await_steps(3)
    script = next(p for p in psutil.Process(supervisor.pid).children() if p.name() != "sleep")
    supervisor.kill()
    script.kill()
    supervisor.wait()
    wait_for(lambda: not is_being_written(trial.directory))
    left = trial.processes
    assert [process.name() for process in left] == ["sleep"]
    again = trial.start()
    wait_for(lambda: not left[0].is_running() or left[0].status() == psutil.STATUS_ZOMBIE)
    again.terminate()
    again.wait()


def test_the_last_line_of_a_trials_process_names_the_step_of_its_failure(tmp_path):
    trial = Trial(tmp_path, recorded("rec.step(0, loss=1)", "rec.step(1, loss=float('nan'))"))
    command = [sys.executable, "-m", "fnostab", "train", "--trial", str(trial.directory / "trial.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "a-3: nonfinite at step 1"
