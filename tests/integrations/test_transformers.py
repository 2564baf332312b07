"""The callback for Hugging Face's Trainer, in trainings by the real one."""

import math
import os
import subprocess
import sys

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from fnostab.errors import ConfigError, JournalError
from fnostab.integrations.transformers import StabilityCallback
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.journal_outcomes import read_recorded
from fnostab.record.lines import FILE_NAME
from fnostab.record.program_journal import ATTEMPT
from fnostab.record.recorder import RANK_VARIABLES
from fnostab.recorder import Recorder


class Line(torch.nn.Module):
    """One weight; its loss at x is (w - x)^2 / 2, of which the gradient is w - x."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=dtype))

    def forward(self, x):
        return {"loss": 0.5 * (self.weight - x.to(self.weight)).square().mean(), "logits": x}


def at(*values):
    """Data of that loss."""
    return [{"x": torch.tensor(value)} for value in values]


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """Directory of a trial whose attempt is under way."""
    for name in (*RANK_VARIABLES, "FNOSTAB_AFTER_FAILURE"):
        monkeypatch.delenv(name, raising=False)
    directory = tmp_path / "trial"
    directory.mkdir()
    monkeypatch.setenv("FNOSTAB_JOURNAL", str(directory))
    monkeypatch.setenv("FNOSTAB_TOKEN", "first")
    with Journal(directory) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@here", ATTEMPT: "first"})
    return directory


@pytest.fixture
def trainer_of(tmp_path):
    """A Trainer with the callback: of a model and its data, and more arguments; plain SGD, one sample a batch."""

    def make(data, model=None, evaluated=None, compute_metrics=None, **more):
        arguments = {
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 1,
            "num_train_epochs": 1,
            "learning_rate": 0.1,
            "lr_scheduler_type": "constant",
            "optim": "sgd",
            "max_grad_norm": 0.0,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
            "train_sampling_strategy": "sequential",
            "label_names": ["x"],
        }
        trainer = Trainer(
            model=model or Line(),
            args=TrainingArguments(**arguments | more),
            train_dataset=data,
            eval_dataset=evaluated,
            compute_metrics=compute_metrics,
        )
        trainer.add_callback(StabilityCallback(trainer))
        return trainer

    return make


def curves(trial):
    return {name: list(curve.values()) for name, curve in read_recorded(trial).curves.items()}


def test_each_step_has_the_loss_that_was_trained_on_and_the_gradient_norm_before_clipping(trial, trainer_of):
    trainer_of(at(2.0, 2.0, 2.0), max_grad_norm=1.0, logging_steps=3).train()
    weights = [0.0, 0.1, 0.2]  # with steps of 0.1 times a gradient that is clipped to 1
    recorded = curves(trial)
    assert recorded["train/loss"] == pytest.approx([0.5 * (2 - w) ** 2 for w in weights])
    assert recorded["grad_norm/total"] == pytest.approx([2 - w for w in weights], rel=1e-5)
    assert recorded["lr"] == [0.1, 0.1, 0.1]
    assert read_recorded(trial).scheduled_steps == 3


def test_a_gradient_that_nobody_clips_has_a_norm_too_and_the_rate_is_that_of_the_step(trial, trainer_of):
    trainer_of(at(2.0, 2.0), lr_scheduler_type="linear").train()
    recorded = curves(trial)
    assert recorded["grad_norm/total"] == pytest.approx([2.0, 1.8])
    assert recorded["lr"] == pytest.approx([0.1, 0.05])


def test_an_accelerator_that_is_created_anew_tells_the_norms_too(trial, trainer_of):
    trainer = trainer_of(at(2.0, 2.0))
    trainer.create_accelerator_and_postprocess()
    trainer.train()
    assert curves(trial)["grad_norm/total"] == pytest.approx([2.0, 1.8])


def test_an_optimiser_may_have_no_learning_rate(trial, trainer_of):
    class Fixed(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {})

        @torch.no_grad()
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                p -= 0.1 * p.grad

    trainer = trainer_of(at(2.0, 2.0))
    trainer.optimizer = Fixed(trainer.model.parameters())
    trainer.lr_scheduler = torch.optim.lr_scheduler.LRScheduler.__new__(torch.optim.lr_scheduler.LRScheduler)
    trainer.lr_scheduler.step = trainer.lr_scheduler.get_last_lr = lambda: [0.0]
    trainer.train()
    recorded = curves(trial)
    assert recorded["grad_norm/total"] == pytest.approx([2.0, 1.8])
    assert "lr" not in recorded


def test_an_error_that_ends_the_training_is_named(trial, trainer_of):
    class Breaks(Line):
        def forward(self, x):
            if self.weight.item() > 0:  # in the second step
                raise ValueError("mine")
            return super().forward(x)

    with pytest.raises(ValueError, match="mine"):
        trainer_of(at(2.0, 2.0), Breaks()).train()
    assert read_recorded(trial).seen == ("infra_error", "ValueError: mine")


def test_accumulated_batches_are_one_step_with_their_mean_loss(trial, trainer_of):
    trainer_of(at(1.0, 3.0, 2.0, 2.0, 1.0), gradient_accumulation_steps=2, learning_rate=0.0).train()
    recorded = read_recorded(trial)
    assert recorded.curves["train/loss"] == pytest.approx({0: (0.5 + 4.5) / 2, 1: 2.0, 2: 0.5})
    assert recorded.scheduled_steps == 3


def test_the_losses_of_many_batches_of_a_model_in_bfloat16_add_up(trial, trainer_of):
    trainer_of(at(2.0) * 512, Line(torch.bfloat16), gradient_accumulation_steps=512, learning_rate=0.0).train()
    assert curves(trial)["train/loss"] == [2.0]  # in bfloat16 1 + 2 / 512 is 1


def test_a_loss_that_the_log_shows_as_0_is_seen_to_be_nan_and_ends_the_training(trial, trainer_of):
    trainer = trainer_of(at(math.nan) * 4, logging_steps=1)
    trainer.train()
    assert [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] == [0.0]
    recorded = read_recorded(trial)
    assert math.isnan(recorded.curves["train/loss"][0])
    assert (recorded.first_nonfinite_step, recorded.last_step, recorded.complete) == (0, 0, True)


def test_a_training_that_breaks_later_ends_at_that_step_unless_the_study_goes_on(trial, trainer_of, monkeypatch):
    monkeypatch.setenv("FNOSTAB_AFTER_FAILURE", "continue")
    trainer_of(at(1.0, 1.0, math.inf, 1.0, 1.0)).train()
    recorded = read_recorded(trial)
    assert (recorded.first_nonfinite_step, recorded.last_step) == (2, 4)
    assert recorded.announced == ("nonfinite", 2)


def test_validations_have_their_measures_but_not_how_fast_they_were(trial, trainer_of):
    trainer = trainer_of(
        at(2.0) * 4,
        evaluated=at(1.0, 3.0),
        compute_metrics=lambda outputs: {"accuracy": 0.75, "labels": "many"},
        eval_strategy="steps",
        eval_steps=2,
        eval_on_start=True,
    )
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()  # the same step once more
    recorded = read_recorded(trial)
    assert {name for name in recorded.curves if name.startswith("val/")} == {"val/loss", "val/accuracy"}
    assert list(recorded.curves["val/loss"]) == [1, 3]
    assert recorded.curves["val/accuracy"] == {1: 0.75, 3: 0.75}


def test_an_evaluation_after_the_training_is_of_its_last_step(trial, trainer_of):
    trainer = trainer_of(at(2.0, 2.0), evaluated=at(2.0))
    trainer.train()
    trainer.evaluate()
    trainer.evaluate(at(5.0), metric_key_prefix="test")
    assert curves(trial)["val/loss"] == pytest.approx([0.5 * 1.62**2])
    assert not [name for name in curves(trial) if "test" in name]


def test_data_sets_that_are_evaluated_at_one_step_have_a_loss_each(trial, trainer_of):
    sets = {"near": at(2.0), "far": at(9.0)}
    trainer_of(at(2.0) * 2, evaluated=sets, eval_strategy="steps", eval_steps=1, learning_rate=0.0).train()
    recorded = read_recorded(trial).curves
    assert recorded["val/near_loss"] == {0: 2.0, 1: 2.0}
    assert recorded["val/far_loss"] == {0: 40.5, 1: 40.5}


def test_a_measure_of_any_name_is_recorded_and_ends_no_training(trial, trainer_of):
    measures = {"recall@5": 0.5, "error (%)": 2.0, "reaction_time": 0.3, "words_per_second": 7.0}
    trainer_of(at(2.0) * 2, evaluated=at(1.0), compute_metrics=lambda outputs: measures, eval_strategy="epoch").train()
    recorded = curves(trial)
    assert {name: recorded[name] for name in recorded if name.startswith("val/") and name != "val/loss"} == {
        "val/recall_5": [0.5],
        "val/error ___": [2.0],
        "val/reaction_time": [0.3],
        "val/words_per_second": [7.0],
    }


def test_a_language_model_records_the_loss_that_the_trainer_logs(trial, trainer_of):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    data = [{"input_ids": row, "labels": row} for row in torch.randint(11, (12, 8))]
    trainer = trainer_of(
        data,
        GPT2LMHeadModel(config),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        logging_steps=1,
        label_names=None,
        max_grad_norm=0.5,
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    recorded = curves(trial)
    assert len(logged) == 3
    assert recorded["train/loss"] == pytest.approx([entry["loss"] for entry in logged])
    assert recorded["grad_norm/total"] == pytest.approx([entry["grad_norm"] for entry in logged])


def test_a_training_that_goes_on_from_a_checkpoint_goes_on_with_its_steps(trial, trainer_of, monkeypatch):
    made = {"save_strategy": "steps", "save_steps": 2}
    monkeypatch.delenv("FNOSTAB_JOURNAL")
    trainer_of(at(2.0) * 4, **made).train()
    monkeypatch.setenv("FNOSTAB_JOURNAL", str(trial))
    trainer = trainer_of(at(2.0) * 4, **made)
    trainer.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-2")
    recorded = read_recorded(trial)
    assert list(recorded.curves["train/loss"]) == [2, 3]
    assert recorded.reached_the_end


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_a_trainer_may_train_the_next_trial_of_the_same_process(trial, trainer_of, monkeypatch, is_interrupted):
    class Interrupted(TrainerCallback):
        def on_epoch_end(self, *args, **others):
            raise KeyboardInterrupt

    trainer = trainer_of(at(2.0, 2.0), evaluated=at(1.0), eval_strategy="steps", eval_steps=2)
    if is_interrupted:
        trainer.add_callback(Interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        trainer.remove_callback(Interrupted)
    else:
        trainer.train()
    following = trial.with_name("following")
    following.mkdir()
    with Journal(following) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@here", ATTEMPT: "first"})
    monkeypatch.setenv("FNOSTAB_JOURNAL", str(following))
    trainer.train()
    recorded = read_recorded(following).curves
    assert list(recorded["train/loss"]) == [0, 1]
    assert list(recorded["val/loss"]) == [1]


@pytest.mark.parametrize("is_same", [True, False])
def test_a_second_training_in_one_trial_is_refused_before_its_first_step(trial, trainer_of, is_same):
    trainer = trainer_of(at(1.0, 2.0, 3.0))
    trainer.train()
    again = trainer if is_same else trainer_of(at(1.0))
    with pytest.raises(JournalError, match="starts at step 0, but step 2 is recorded: a trial is one training"):
        again.train()
    assert len(read_recorded(trial).curves["train/loss"]) == 3


def test_a_batch_size_that_the_trainer_looks_for_by_failing_is_refused(trial, trainer_of):
    class Hungry(Line):
        def forward(self, x):
            if len(x) == 2 and self.weight.item() > 0:  # in the second step
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    trainer = trainer_of(at(1.0, 2.0, 3.0, 4.0), Hungry(), per_device_train_batch_size=2, auto_find_batch_size=True)
    with pytest.raises(JournalError, match="leave out auto_find_batch_size"):
        trainer.train()


def test_a_callback_is_added_once_and_to_a_trainer(trial, trainer_of):
    trainer = trainer_of(at(1.0))
    with pytest.raises(ConfigError, match="this Trainer has a StabilityCallback already"):
        StabilityCallback(trainer)
    with pytest.raises(ConfigError, match=r"StabilityCallback\(TrainingArguments\): expected a Trainer"):
        StabilityCallback(trainer.args)


def test_outside_a_study_nothing_is_touched(tmp_path, trainer_of, monkeypatch):
    monkeypatch.delenv("FNOSTAB_JOURNAL", raising=False)
    trainer = trainer_of(at(math.nan, 1.0))
    assert "training_step" not in vars(trainer)
    trainer.train()
    assert trainer.state.global_step == 2  # it is not for fnostab to end it
    assert not list(tmp_path.rglob(FILE_NAME))


def test_a_recorder_of_the_scripts_own_beside_it_is_refused(trial, trainer_of):
    with Recorder(), pytest.raises(JournalError, match="already being recorded"):
        trainer_of(at(1.0)).train()


TWO_PROCESSES = """
import os, pathlib, sys, torch
from transformers import Trainer, TrainingArguments
from fnostab.integrations.transformers import StabilityCallback

class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return {"loss": 0.5 * (self.weight - x).square().mean()}

values = [1.0, 3.0, 1.0, float("nan"), 1.0, 1.0]  # two at a step: the second process has those at odd places
data = [{"x": torch.tensor(value)} for value in values]
args = TrainingArguments(
    sys.argv[1], use_cpu=True, ddp_backend="gloo", per_device_train_batch_size=1, num_train_epochs=1, learning_rate=0.0,
    train_sampling_strategy="sequential", report_to=[], save_strategy="no",
)
trainer = Trainer(Line(), args, train_dataset=data)
trainer.add_callback(StabilityCallback(trainer))
trainer.train()
pathlib.Path(sys.argv[1], "ended-" + os.environ["RANK"]).write_text(str(trainer.state.global_step))
"""


@pytest.mark.slow
def test_processes_that_train_together_record_their_mean_once_and_stop_together(trial, environment):
    (trial / "train.py").write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    place = {name: os.environ[name] for name in ("FNOSTAB_JOURNAL", "FNOSTAB_TOKEN")}
    run = subprocess.run(
        [*command, str(trial / "train.py"), str(trial / "out")],
        env=environment | place,
        capture_output=True,
        text=True,
        timeout=200,
    )
    ended = sorted((path.name, path.read_text()) for path in (trial / "out").glob("ended-*"))
    assert ended == [("ended-0", "2"), ("ended-1", "2")], run.stderr
    recorded = read_recorded(trial)
    assert recorded.curves["train/loss"][0] == (0.5 + 4.5) / 2
    assert recorded.announced == ("nonfinite", 1)
