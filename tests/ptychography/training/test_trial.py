"""Whole trials, from configuration to outcome, on a tiny data set."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import own_networks
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from trial_records import config_of
from trials import STEPS_AN_EPOCH, Trained

from fnostab.errors import JournalError, LaunchError, ModelError
from fnostab.ptychography import metric_names
from fnostab.ptychography.data import prepare
from fnostab.ptychography.models import build_initialised
from fnostab.ptychography.training import setup as setup_file
from fnostab.ptychography.training.module import PtychoModule
from fnostab.ptychography.training.trial import run_trial
from fnostab.record import names
from fnostab.record.ending import close_if_abandoned
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import Event, Point
from fnostab.record.outcomes import Outcome
from fnostab.record.settings import flatten
from fnostab.record.trial import TrialSpec

STEPS = 3 * STEPS_AN_EPOCH
STABLE_ADAMW, ZCLIP = "cure_parts.stable_adamw.stable_adamw", "cure_parts.zclip.ZClip"  # of examples/cure_search


def own(name):
    """The dotted path of a network of the user's own."""
    return f"{own_networks.__name__}.{name}"


# What a trial writes


def test_every_step_and_every_epoch_is_recorded(trained):
    trial = trained()
    assert trial.outcome is Outcome.CONVERGED
    for metric in (names.TRAIN_LOSS, names.GRAD_NORM, names.GRAD_NORM_CLIPPED, names.LEARNING_RATE):
        assert list(trial.curve(metric)) == list(range(STEPS))
    ends = [STEPS_AN_EPOCH - 1, 2 * STEPS_AN_EPOCH - 1, STEPS - 1]
    for metric in (
        "val/mae_val_Amp_loss",
        metric_names.SPREAD,
        metric_names.PATCH_VARIATION,
        metric_names.VAL_SSIM_AMP,
    ):
        assert list(trial.curve(metric)) == ends
    kinds = (names.ACTIVATION_MEAN, names.ACTIVATION_STD, names.BLOCK_GRAD_NORM)
    for block in ("encoder.0", "encoder.1", "bottleneck"):
        assert all(list(trial.curve(kind + block)) == ends for kind in kinds)


def trial_metrics(trial):
    return {name for name, _, _ in trial.points}


def test_what_is_known_once_is_recorded_once(trained):
    trial = trained()
    losses = trial.curve("val/mae_val_Amp_loss")
    assert trial.value(names.VAL_LOSS_BEST) == min(losses.values())
    assert trial.value(names.VAL_LOSS_LAST) == losses[STEPS - 1]
    assert trial.value(names.TIME_TO_FAILURE) == trial.value(names.LAST_STEP) == STEPS - 1
    assert trial.value(names.NAN_EVENTS) == trial.value(names.INF_EVENTS) == 0
    assert trial.value(names.PARAMETERS) > 100
    assert 0 < trial.value(names.VAL_LOSS_BEST) < trial.value(names.CONSTANT_LOSS)
    (machine,) = [r.values for r in trial.records if isinstance(r, Point) and names.SAMPLES_PER_S in r.values]
    assert machine[names.PEAK_MEMORY] > 1e8
    assert machine[names.SAMPLES_PER_S] > 10


def test_params_and_tags_come_before_any_number_and_the_outcome_last(trained, spec):
    trial = trained()
    first = next(i for i, record in enumerate(trial.records) if isinstance(record, Point))
    early = [record.name for record in trial.records[:first] if isinstance(record, Event)]
    assert early == [names.PARAMS_EVENT, names.TAGS_EVENT, names.ARTIFACT_EVENT, names.DATASET_EVENT]
    (params,) = trial.events(names.PARAMS_EVENT)
    assert params == {**flatten(config_of(spec())), "seed": 0, "arm": "control"}
    owner, judged = trial.events(names.TAGS_EVENT)
    assert owner[names.OWNER].startswith(f"{os.getpid()}@")
    assert owner[names.DEVICE] == "cpu"
    assert judged[names.OUTCOME] == "converged"
    (dataset,) = trial.events(names.DATASET_EVENT)
    assert len(dataset["digest"]) == 16
    assert trial.final == {
        "outcome": "converged",
        "failure_step": None,
        "known_good_step": None,
        "rules_held": [],
        "not_judged": [],
        "reason": None,
    }


def test_artifacts_exist_and_are_announced(trained):
    trial = trained()
    announced = {event["path"]: event["artifact_path"] for event in trial.events(names.ARTIFACT_EVENT)}
    assert announced == {
        "artifacts/environment.json": "",
        "artifacts/reconstruction_0.png": "figures",
        "artifacts/best.safetensors": "checkpoint",
    }
    assert all((trial.directory / path).stat().st_size > 100 for path in announced)
    assert {path.name for path in (trial.directory / "artifacts").iterdir()} == {p.split("/")[1] for p in announced}
    environment = json.loads((trial.directory / "artifacts" / "environment.json").read_text())
    version = environment["packages"]["torch"]  # the build after the + is not in the metadata of every wheel
    assert version.split("+")[0] == torch.__version__.split("+")[0]
    assert environment["device"] == "cpu"


def test_the_checkpoint_is_that_of_the_best_validation(trained, spec, data):
    trial = trained(training__learning_rate=0.05, training__epochs=4)
    path = trial.directory / "artifacts" / "best.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    of = TrialSpec.model_validate_json(metadata["trial"])
    assert of == spec(training__learning_rate=0.05, training__epochs=4)
    assert float(metadata["val_loss"]) == trial.value(names.VAL_LOSS_BEST)

    generator = build_initialised(config_of(of).model, seed=99)
    generator.load_state_dict(load_file(path))
    module = PtychoModule(generator, data, config_of(of))
    with torch.no_grad():
        amplitudes = data.validation.amplitudes
        loss = float(module.training_step((amplitudes, torch.arange(len(amplitudes))), 0))
    assert loss == pytest.approx(trial.value(names.VAL_LOSS_BEST), rel=1e-5)


# Learning


@pytest.mark.parametrize("architecture", ["hybrid", "stable_hybrid", "fno"])
def test_the_loss_falls(trained, architecture):
    trial = trained(model__architecture=architecture)
    loss = list(trial.curve(names.TRAIN_LOSS).values())
    first, last = loss[:5], loss[-5:]
    assert max(last) < min(first)
    assert trial.value(names.VAL_LOSS_LAST) < trial.value(names.CONSTANT_LOSS)


def test_poisson_trains_under_its_own_name(trained):
    trial = trained(training__loss="poisson")
    loss = list(trial.curve(names.TRAIN_LOSS).values())
    assert max(loss[-5:]) < min(loss[:5])
    assert len(trial.curve("val/poisson_val_Amp_loss")) == 3
    assert not trial.curve("val/mae_val_Amp_loss")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_every_optimiser_learns(trained, optimizer):
    trial = trained(training__optimizer=optimizer, model__architecture=own("Plain"))
    loss = list(trial.curve(names.TRAIN_LOSS).values())
    assert sum(loss[-5:]) < 0.9 * sum(loss[:5])


def test_the_schedule_is_taken_by_steps(trained):
    trial = trained(seed=1, training__schedule="warmup_cosine", training__warmup_steps=4)
    rates = list(trial.curve(names.LEARNING_RATE).values())
    assert rates[:5] == pytest.approx([5e-3 * share for share in (0.2, 0.4, 0.6, 0.8, 1)])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.01 * 5e-3


# Clipping is no part of the model


def test_a_clip_that_never_binds_changes_no_number(trained):
    unclipped = trained()
    for algorithm in ("norm", "value", "agc"):
        trial = trained(execution__gradient_clip_algorithm=algorithm, execution__gradient_clip_val=1e9)
        assert set(trial.curve(names.CLIP_FRACTION).values()) == {0.0}
        assert [point for point in trial.points if point[0] != names.CLIP_FRACTION] == unclipped.points


@pytest.mark.parametrize(("algorithm", "value"), [("norm", 0.05), ("value", 1e-3), ("agc", 1e-3)])
def test_clipping_starts_from_the_same_weights_and_the_same_batch(trained, algorithm, value):
    unclipped = trained()
    trial = trained(execution__gradient_clip_algorithm=algorithm, execution__gradient_clip_val=value)
    for metric in (names.TRAIN_LOSS, names.GRAD_NORM):
        assert trial.curve(metric)[0] == unclipped.curve(metric)[0]
        assert trial.curve(metric)[STEPS - 1] != unclipped.curve(metric)[STEPS - 1]
    before, after = trial.curve(names.GRAD_NORM), trial.curve(names.GRAD_NORM_CLIPPED)
    assert all(after[step] <= before[step] * (1 + 1e-6) for step in before)
    assert after[0] < 0.99 * before[0]
    assert 0 < max(trial.curve(names.CLIP_FRACTION).values()) <= 1


# Seeds


def test_equal_seeds_give_equal_numbers(trained):
    assert trained(again=True).directory != trained().directory
    assert trained(again=True).points == trained().points


def test_another_seed_gives_other_numbers_on_the_same_data(trained):
    one, other = trained(), trained(seed=1)
    assert one.events(names.DATASET_EVENT) == other.events(names.DATASET_EVENT)
    assert one.value(names.CONSTANT_LOSS) == other.value(names.CONSTANT_LOSS)
    assert one.curve(names.TRAIN_LOSS)[0] != other.curve(names.TRAIN_LOSS)[0]
    assert one.value(metric_names.SSIM_AMP) != other.value(metric_names.SSIM_AMP)


def test_only_what_vary_names_is_varied(trained):
    order = {"vary": ("data_order",), "model__architecture": own("Plain"), "training__epochs": 1}
    weights = {**order, "vary": ("initialisation",)}
    data = {**order, "vary": ("data",)}
    at_start = names.CONSTANT_LOSS
    assert trained(0, **order).curve(names.TRAIN_LOSS) != trained(1, **order).curve(names.TRAIN_LOSS)
    assert trained(0, **weights).curve(names.TRAIN_LOSS) != trained(1, **weights).curve(names.TRAIN_LOSS)
    assert trained(0, **data).value(at_start) != trained(1, **data).value(at_start)


# Going on after a death


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_trial_that_goes_on_repeats_no_point_and_ends_with_the_same_numbers(trained, spec, tmp_path, share):
    whole = trained()
    offsets = [offset for _, offset in read_journal(whole.directory / "journal.jsonl")]
    cut = offsets[int(share * len(offsets))] + 25  # within a record
    (tmp_path / "journal.jsonl").write_bytes((whole.directory / "journal.jsonl").read_bytes()[:cut])
    before = [record for record, _ in read_journal(tmp_path / "journal.jsonl")]
    resumed = Trained(run_trial(spec(), tmp_path), tmp_path)
    assert resumed.records[: len(before)] == before
    assert len({point[:2] for point in resumed.points}) == len(resumed.points)
    assert sorted(resumed.points) == sorted(whole.points)
    assert resumed.final == whole.final


def test_a_second_process_in_the_same_directory_is_refused(spec, tmp_path):
    with Journal(tmp_path), pytest.raises(JournalError, match="another process"):
        run_trial(spec(), tmp_path)


# The test set


def test_the_test_set_is_looked_at_once_and_never_learnt_from(trained, spec, tmp_path, monkeypatch):
    def prepare_without_test(config, seed, root):
        data = prepare(config, seed, root)
        spoilt = dataclasses.replace(data.test, amplitudes=data.test.amplitudes.flip(0))
        return dataclasses.replace(data, test=spoilt)

    monkeypatch.setattr(setup_file, "prepare", prepare_without_test)
    spoilt, whole = Trained(run_trial(spec(), tmp_path), tmp_path), trained()
    of_test = {name for name in trial_metrics(whole) if name.startswith("test/")}
    assert of_test >= {
        metric_names.SSIM_AMP,
        metric_names.SSIM_PHASE,
        metric_names.MAE_AMP,
        metric_names.CONSTANT_SSIM_AMP,
    }
    assert all(list(whole.curve(name)) == [STEPS - 1] for name in of_test)
    assert spoilt.value(metric_names.SSIM_AMP) != whole.value(metric_names.SSIM_AMP)
    assert [p for p in spoilt.points if p[0] not in of_test] == [p for p in whole.points if p[0] not in of_test]


def test_no_phase_is_scored_where_there_is_none(trained):
    trial = trained(data__set_phi=False, model__architecture=own("Plain"))
    assert trial.curve(metric_names.SSIM_AMP)
    assert not any(trial.curve(metric) for metric in (*metric_names.PHASE_METRICS, metric_names.CONSTANT_SSIM_PHASE))


# Networks of the user's own, and how they end


def test_a_network_of_the_users_own(trained):
    trial = trained(model__architecture=own("Plain"), model__options__width=6)
    assert trial.outcome is Outcome.CONVERGED
    assert trial.value(names.PARAMETERS) == 6 * 9 + 6 + 2 * 6 * 9 + 2
    assert {name for name in trial_metrics(trial) if name.startswith(names.ACTIVATION_STD)} == {
        names.ACTIVATION_STD + "first",
        names.ACTIVATION_STD + "last",
    }


def test_a_network_with_dropout_tied_and_lazy_weights_and_odd_parts(trained):
    settings = {"model__architecture": own("Untidy"), "training__epochs": 1}
    trial = trained(**settings)
    assert trial.outcome in (Outcome.CONVERGED, Outcome.STAGNATED, Outcome.COLLAPSED)
    assert (trial.directory / "artifacts" / "best.safetensors").exists()
    torch.rand(7)  # whatever else drew random numbers before
    assert trained(again=True, **settings).points == trial.points
    assert trained(seed=1, **settings).points != trial.points
    seen = {name.removeprefix(names.ACTIVATION_STD) for name in trial_metrics(trial)}
    assert seen >= {"columns", "lazy", "phase", "same", "tied"}


def test_a_constant_output_is_called_collapsed(trained):
    trial = trained(model__architecture=own("Constant"), training__epochs=8)
    assert trial.outcome is Outcome.COLLAPSED
    assert trial.final["rules_held"] == ["collapsed", "stagnated"]
    assert (trial.final["failure_step"], trial.final["known_good_step"]) == (STEPS_AN_EPOCH - 1, None)
    assert len(trial.curve("val/mae_val_Amp_loss")) == 3  # ended early, at the first validation past a quarter
    assert trial.value(metric_names.SSIM_AMP) == 0
    assert trial.value(metric_names.CONSTANT_SSIM_AMP) > 0


@pytest.mark.parametrize(
    ("after_failure", "steps"), [("stop", 19), ("continue", STEPS)]
)  # the block after the validation at 10
def test_a_step_that_is_not_finite_ends_a_trial_with_its_number(trained, after_failure, steps):
    trial = trained(
        model__architecture=own("NotFinite"),
        model__options__step=13,
        monitor__block_steps=8,
        monitor__after_failure=after_failure,
    )
    assert trial.outcome is Outcome.NONFINITE
    assert (trial.final["failure_step"], trial.final["known_good_step"]) == (13, 12)
    assert len(trial.curve(names.TRAIN_LOSS)) == steps
    assert [s for s, norm in trial.curve(names.GRAD_NORM).items() if isinstance(norm, str)] == [13]
    assert trial.value(names.TIME_TO_FAILURE) == 13
    assert list(trial.curve(metric_names.SSIM_AMP)) == [steps - 1]  # tested all the same
    assert (trial.directory / "artifacts" / "reconstruction_0.png").exists()
    assert all(torch.isfinite(w).all() for w in load_file(trial.directory / "artifacts" / "best.safetensors").values())


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit", "OutOfMemoryError", "ValueError"])
def test_a_failure_that_was_observed_wins_over_what_ended_the_trial_later(trained, error):
    trial = trained(model__architecture=own("FailsAndRaises"), model__options__error=error)
    assert trial.outcome is Outcome.NONFINITE
    assert trial.final["outcome"] == "nonfinite"
    assert (trial.final["failure_step"], trial.final["known_good_step"]) == (1, 0)
    assert trial.final["rules_held"] == ["nonfinite"]
    assert trial.final["reason"].startswith(error)
    assert not (trial.directory / "resume.safetensors").exists()


@pytest.mark.parametrize(("signal", "status"), [("SIGTERM", 0), ("SIGKILL", -9)])
def test_it_wins_over_a_signal_too(spec, tmp_path, signal, status):
    """After SIGKILL the trial can't say so itself: whoever finds it reads its journal."""
    settings = {"monitor__block_steps": 1, "monitor__after_failure": "continue"}
    own_spec = spec(model__architecture=own("FailsAndRaises"), model__options__error=signal, **settings)
    own_spec.write(tmp_path / "trial.json")
    command = [sys.executable, "-m", "fnostab", "train", "--trial", str(tmp_path / "trial.json")]
    path = os.pathsep.join([str(Path(own_networks.__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == status, done.stderr
    close_if_abandoned(tmp_path)
    trial = Trained(Outcome.NONFINITE, tmp_path)
    found = [trial.final[name] for name in ("outcome", "failure_step", "known_good_step", "rules_held")]
    assert found == ["nonfinite", 1, 0, ["nonfinite"]]
    said = "SystemExit: ended by SIGTERM" if signal == "SIGTERM" else "ended without recording an outcome"
    assert said in trial.final["reason"]


# Complex weights


@pytest.mark.parametrize(
    "settings",
    [
        *({"training__optimizer": optimizer} for optimizer in ("adam", "adamw", "sgd", STABLE_ADAMW)),
        *(
            {"execution__gradient_clip_algorithm": algorithm, "execution__gradient_clip_val": value}
            for algorithm, value in (("norm", 0.05), ("value", 1e-3), ("agc", 1e-3), (ZCLIP, 0.5))
        ),
    ],
    ids=lambda settings: str(next(iter(settings.values()))),
)
def test_complex_weights_train_with_every_optimiser_and_clipper(trained, settings):
    trial = trained(model__architecture=own("Spectral"), **settings)
    assert trial.outcome in (Outcome.CONVERGED, Outcome.STAGNATED, Outcome.COLLAPSED)
    loss = list(trial.curve(names.TRAIN_LOSS).values())
    assert len(loss) == STEPS
    assert sum(loss[-5:]) < 0.98 * sum(loss[:5])
    weights = load_file(trial.directory / "artifacts" / "best.safetensors")
    assert weights["modes"].is_complex()
    assert (weights["gain"] != 1).all()
    if "execution__gradient_clip_val" in settings:
        assert 0 < max(trial.curve(names.CLIP_FRACTION).values()) <= 1


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", STABLE_ADAMW])
def test_a_step_that_is_not_finite_never_reaches_complex_weights(trained, optimizer):
    trial = trained(
        model__architecture=own("Spectral"),
        model__options__step=13,
        training__optimizer=optimizer,
        monitor__after_failure="continue",
    )
    assert (trial.outcome, trial.final["failure_step"]) == (Outcome.NONFINITE, 13)
    losses = trial.curve(names.TRAIN_LOSS)
    assert len(losses) == STEPS
    assert all(isinstance(loss, float) for loss in losses.values())  # after step 13 too
    assert (trial.directory / "artifacts" / names.BLACK_BOX / "state.safetensors").exists()


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        ("KeyboardInterrupt", Outcome.KILLED, "KeyboardInterrupt"),
        ("SystemExit", Outcome.KILLED, "SystemExit: ended by SIGTERM"),
        ("OutOfMemoryError", Outcome.OOM, "OutOfMemoryError: CUDA out of memory"),
        ("alloc_cpu", Outcome.OOM, "RuntimeError: [enforce fail"),
    ],
)
def test_a_trial_that_was_cut_off_says_by_what(trained, error, outcome, reason):
    trial = trained(model__architecture=own("Raises"), model__options__error=error)
    assert trial.outcome is outcome
    assert trial.final["outcome"] == outcome
    assert trial.final["reason"].startswith(reason)
    assert trial.final["failure_step"] is None
    assert len(trial.curve(names.TRAIN_LOSS)) == 2


def test_a_network_that_raises_is_an_infrastructure_error(spec, tmp_path):
    broken = spec(model__architecture=own("Raises"), model__options__error="ValueError")
    with pytest.raises(ValueError, match="one too many"):
        run_trial(broken, tmp_path)
    trial = Trained(Outcome.INFRA_ERROR, tmp_path)
    assert trial.final["outcome"] == "infra_error"
    assert trial.final["reason"] == "ValueError: the third batch is one too many"
    assert len(trial.curve(names.TRAIN_LOSS)) == 2
    Journal(tmp_path).close()  # nobody holds it any more


def test_a_network_too_large_for_the_memory_is_no_error_of_the_infrastructure(trained):
    trial = trained(model__architecture=own("TooLarge"))
    assert trial.outcome is Outcome.OOM
    assert trial.final["outcome"] == "oom"


def test_a_network_that_does_not_exist(spec, tmp_path):
    with pytest.raises(ModelError, match="Nowhere"):
        run_trial(spec(model__architecture=own("Nowhere")), tmp_path)
    assert Trained(Outcome.INFRA_ERROR, tmp_path).final["reason"].startswith("ModelError: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(spec, tmp_path):
    with pytest.raises(LaunchError, match="device=cuda"):
        run_trial(spec(execution__device="cuda"), tmp_path)
    assert Trained(Outcome.INFRA_ERROR, tmp_path).final["outcome"] == "infra_error"
