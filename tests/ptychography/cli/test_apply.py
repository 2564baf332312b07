"""``fnostab decide --apply`` and ``fnostab policy`` on studies that are in a store."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import mlflow
import pytest
import torch
from tiny import TINY
from trial_records import config_of

from fnostab.cli import main
from fnostab.ptychography import metric_names
from fnostab.ptychography.models import build_initialised
from fnostab.ptychography.policy import policy_path, read_policy
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.checkpoint import BestCheckpoint
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.study.file import read_study_file
from fnostab.study.study import Study, load_study
from fnostab.tracking import Uploader, ensure_study, open_store

CAPPED = TINY | {"model.max_hidden_channels": 8}
CHAMPION = "models:/fnostab-generator@champion"
GOLD = ["decide", "--experiment", "gold_a", "--deep-experiment", "gold_b"]
SILVER = ["decide", "--experiment", "silver"]
BEST = 3  # seed of the winner with the lowest loss in the deep stage, the only one with a checkpoint
LOSS = {"control": 0.030, "arch_fix": 0.010, "opt_fix": 0.029}


def write_study(store, folder, experiment, failures, *, study="stage_a", profile="full", seeds=10, blocks=2, best=None):
    """Record a study whose arms fail in their first ``failures[arm]`` seeds, and else end at about LOSS."""
    resolved = Study(read_study_file(study), profile, CAPPED | {"model.fno_blocks": blocks})
    uploader = Uploader(store, ensure_study(store, resolved.spec(experiment)))
    for trial in resolved.trials(experiment, folder, arms=list(failures), seeds=range(seeds)):
        spec, directory = trial.spec, trial.directory
        spec.write(directory / "trial.json")
        is_best = (spec.arm, spec.seed) == ("arch_fix", best)
        failed = spec.seed < failures[spec.arm]
        with Journal(directory) as journal:
            loss = 0.001 if failed else LOSS[spec.arm] * (0.9 if is_best else 1 + 0.001 * spec.seed)
            journal.record(9, {names.VAL_LOSS_BEST: loss, names.LAST_STEP: 9.0, metric_names.VAL_SSIM_AMP: 0.9})
            if is_best:
                (directory / "artifacts").mkdir()
                write_checkpoint(directory / "artifacts" / "best.safetensors", spec)
                artifact = {"path": "artifacts/best.safetensors", "artifact_path": "checkpoint"}
                journal.event(names.ARTIFACT_EVENT, artifact)
            journal.event(
                names.OUTCOME_EVENT,
                {
                    "outcome": "collapsed" if failed else "converged",
                    "failure_step": 5 if failed else None,
                    "known_good_step": None,
                    "rules_held": ["collapsed"] if failed else [],
                    "not_judged": [],
                    "reason": None,
                },
            )
        uploader.follow(directory)
    uploader.drain(60)


def write_checkpoint(path, spec):
    trainer = SimpleNamespace(
        sanity_checking=False,
        state=SimpleNamespace(fn="fit"),
        callback_metrics={config_of(spec).training.val_loss_name: 0.009},
    )
    BestCheckpoint(path, spec).on_validation_end(trainer, SimpleNamespace(generator=trained(config_of(spec))))


def trained(config):
    """A network with weights that no seed draws."""
    generator = build_initialised(config.model, 0)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter += 0.05
    return generator


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A store with a study for each verdict, at full and at small profile."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where MLflow puts artifacts
        store = open_store(f"sqlite:///{folder}/mlflow.db")
        write_study(store, folder, "gold_a", {"control": 6, "arch_fix": 0})
        write_study(store, folder, "gold_b", {"control": 8, "arch_fix": 1}, study="stage_b", blocks=3, best=BEST)
        write_study(store, folder, "silver", {"control": 6, "arch_fix": 7, "opt_fix": 0})
        write_study(store, folder, "weak", {"control": 2, "arch_fix": 3, "opt_fix": 0}, seeds=4)
        write_study(store, folder, "scale_model", {"control": 6, "arch_fix": 7, "opt_fix": 0}, profile="small")
        write_study(store, folder, "nothing", {"control": 0, "arch_fix": 0}, seeds=3)
    return store


@pytest.fixture
def call(recorded, tmp_path, monkeypatch, capsys):
    """A function that runs a command in an empty folder, and returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody is at the keyboard
    monkeypatch.setenv("MLFLOW_TRACKING_URI", recorded.uri)
    monkeypatch.delenv("FNOSTAB_POLICY", raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        written = capsys.readouterr()
        return ended.value.code, written.out, written.err

    return run


def champion(store):
    return store.client.get_model_version_by_alias("fnostab-generator", "champion")


def test_gold_says_what_it_would_do_and_does_nothing(call, recorded):
    versions = recorded.client.search_model_versions()
    status, out, _ = call(*GOLD, "--evidence")
    assert status == 0
    assert "`--apply` would:" in out
    assert f"register the network of arch_fix-{BEST} (run " in out
    assert "make model.architecture=stable_hybrid the default" in out
    assert "deprecate hybrid" in out
    assert read_policy() is None
    assert recorded.client.search_model_versions() == versions


def test_without_evidence_one_line_says_how_to_apply_it(call):
    _, out, _ = call(*GOLD)
    assert out.endswith(
        "\nto make it the default: fnostab decide --experiment gold_a --deep-experiment gold_b --apply\n"
    )
    assert "model.architecture" not in out


def test_a_winner_that_could_be_luck_is_not_to_be_applied(call):
    assert "to make it the default" not in call("decide", "--experiment", "weak")[1]


def test_to_say_so_the_task_is_not_imported(recorded, tmp_path, environment):
    program = (
        "import sys; from fnostab.cli import main\n"
        f"try: main({[*SILVER, '--tracking-uri', recorded.uri]!r})\n"
        "finally: print('imported', sorted(name for name in sys.modules if 'ptychography' in name))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    command = f"fnostab decide --experiment silver --tracking-uri {recorded.uri} --apply"
    assert done.stdout.endswith(f"to make it the default: {command}\nimported []\n")


def test_gold_registers_the_best_network_and_makes_its_architecture_the_default(call, recorded, monkeypatch):
    status, out, err = call(*GOLD, "--apply")
    assert (status, err) == (0, "")
    first = champion(recorded)
    assert f"registered fnostab-generator version {first.version}, alias champion" in out

    study = Study(read_study_file("stage_b"), "full", CAPPED | {"model.fno_blocks": 3})
    generator = trained(TrialConfig.from_dotted(study.arms["arch_fix"])).eval()
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    amplitude = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(mlflow.pytorch.load_model(CHAMPION)(amplitude), generator(amplitude))

    policy = read_policy()
    assert policy is not None
    assert policy.settings == {"model.architecture": "stable_hybrid", "model.residual": "zero_gamma"}
    assert policy.deprecated == ("hybrid",)
    verdict = recorded.client.get_run(policy.verdict.run)
    assert verdict.data.tags[names.VERDICT] == policy.verdict.headline == "GOLD"
    trial = recorded.client.get_run(first.tags["fnostab.trial_run"])
    of_arm = study.config_hashes["arch_fix"][:8]
    assert trial.data.tags[names.TRIAL_ID] == f"{study.hash}-arch_fix-{of_arm}-{BEST}"
    assert first.tags["fnostab.verdict_run"] == policy.verdict.run
    assert first.tags[names.STUDY_RUN] == trial.data.tags["mlflow.parentRunId"]
    assert (first.tags[names.ARM], first.tags[names.SEED]) == ("arch_fix", str(BEST))

    assert call(*GOLD, "--apply")[0] == 0
    second = champion(recorded)
    assert int(second.version) == int(first.version) + 1
    assert second.tags["fnostab.verdict_run"] != first.tags["fnostab.verdict_run"]


def test_silver_records_how_to_clip(call, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "{name: mine, task: ptychography, description: d, control: quiet, "
        "arms: {quiet: {}, own: {execution.gradient_clip_val: 0.5}}}"
    )
    status, out, err = call(*SILVER, "--apply")
    assert (status, err) == (0, "")
    assert "wrote fnostab-policy.yaml" in out
    execution = {a: TrialConfig.from_dotted(s).execution for a, s in load_study("mine.yaml", "full").arms.items()}
    assert (execution["quiet"].gradient_clip_algorithm, execution["quiet"].gradient_clip_val) == ("agc", 0.01)
    assert (execution["own"].gradient_clip_algorithm, execution["own"].gradient_clip_val) == ("norm", 0.5)
    run = read_policy().verdict.run
    assert f"in place of that of SILVER, verdict run {run}" in call(*SILVER, "--evidence")[1]


def test_json_stays_json(call):
    status, out, err = call(*SILVER, "--json")
    assert status == 0
    assert json.loads(out)["verdict"] == "SILVER"
    assert err == "to make it the default: fnostab decide --experiment silver --apply\n"


@pytest.mark.parametrize(
    ("experiment", "doubt"),
    [("weak", "could be luck"), ("scale_model", "is of the small profile, a demonstration")],
)
def test_a_doubtful_verdict_needs_force(call, experiment, doubt):
    arguments = ["decide", "--experiment", experiment]
    status, out, _ = call(*arguments, "--evidence")
    assert status == 0
    assert "`--apply --force` would:" in out
    assert f"--force because the verdict {doubt}" in out
    status, _, err = call(*arguments, "--apply")
    assert status == 2
    assert err == f"error: --apply: the verdict {doubt}: add --force to make it the default anyway\n"
    assert read_policy() is None
    assert call(*arguments, "--apply", "--force")[0] == 0
    assert read_policy() is not None


def test_an_inconclusive_verdict_changes_nothing(call):
    arguments = ["decide", "--experiment", "nothing"]
    out = call(*arguments, "--evidence")[1]
    assert not [line for line in ("would:", "to make it the default:") if line in out]
    status, out, err = call(*arguments, "--apply", "--force")
    assert status == 2
    assert "INCONCLUSIVE" in out
    assert err.startswith("error: --apply: INCONCLUSIVE changes no default, only GOLD and SILVER do; ")
    assert err.count("\n") == 1
    assert read_policy() is None


def test_a_table_can_not_be_applied(call):
    status, _, err = call("decide", "--table", "trials.csv", "--apply")
    assert status == 2
    assert err == "error: --apply needs --experiment: a table holds no settings and no networks\n"


def test_a_policy_is_shown_with_its_verdict(call):
    status, out, _ = call("policy")
    assert status == 0
    assert "no policy is in force: fnostab-policy.yaml does not exist" in out
    call(*SILVER, "--apply")
    run = read_policy().verdict.run
    out = call("policy")[1]
    assert "execution.gradient_clip_val = 0.01" in out
    assert f"set by SILVER, verdict run {run}, on " in out
    assert "Stage A: stage_a, full profile, learning rate 0.005, blocks 2, epochs 2" in out


def test_a_damaged_policy_is_one_line(call):
    policy_path().write_text("settings: {training.epoch: 3}")
    for arguments in (["policy"], ["run", "stage_a"], ["train", "stage_a"]):
        status, _, err = call(*arguments)
        assert status == 2
        assert err.startswith("error: fnostab-policy.yaml: settings: unknown setting 'training.epoch'")
        assert err.count("\n") == 1
