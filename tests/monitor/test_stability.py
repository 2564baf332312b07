"""The monitor in a Lightning module that knows nothing of it."""

import itertools
import math
import statistics

import pytest
import torch
from lightning import Callback
from small_module import FUSED_ADAM, INF, NAN, Recorder, Small, batches, fit, fused, make_trainer
from waiting import Reads, Waits

from fnostab import live_sink
from fnostab.errors import ConfigError
from fnostab.monitor import StabilityMonitor, stability
from fnostab.ptychography import metric_names
from fnostab.record import names
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import Point
from fnostab.record.outcome_rules import Bound, OutcomeRules
from fnostab.record.outcomes import Outcome

FLAT = Bound(below=0.1)
ALIKE = Bound(below=0.005, validations=2, ends_early=True)
CONSTANT = OutcomeRules(collapsed={metric_names.SPREAD: FLAT, metric_names.PATCH_VARIATION: ALIKE})  # a task's


def watched(module, steps, *, watching=None, **settings):
    """Train and return (monitor, what its sink got)."""
    sink = Recorder()
    monitor = StabilityMonitor(sink, **watching or {})
    fit(module, monitor, steps, **settings)
    return monitor, sink


class Validated(Small):
    """Logs the given validation losses, one an epoch, and any other metrics that are given as lists."""

    def __init__(self, losses, optimizer=FUSED_ADAM, **metrics):
        super().__init__(optimizer)
        self.to_log = {"val_loss": losses, **metrics}

    def validation_step(self, batch, batch_idx):
        for name, values in self.to_log.items():
            self.log(name, torch.tensor(float(values[self.current_epoch])))


# Without anything configured


def test_a_monitor_needs_no_arguments():
    monitor = StabilityMonitor()
    assert (monitor.outcome, monitor.failure_step) == (Outcome.RUNNING, None)
    fit(Small(), monitor, 40, epochs=3)
    assert (monitor.outcome, monitor.failure_step) == (Outcome.CONVERGED, None)
    said = [reason.split(":")[0] for reason in monitor.judgement.not_judged]
    assert said == ["collapsed", "stagnated", "exploded"]
    assert "training loss" in monitor.judgement.not_judged[-1]
    assert "'val_loss'" in monitor.judgement.not_judged[-1]


@pytest.mark.parametrize("sink", [live_sink(experiment="mine"), "outputs"], ids=["not entered", "a folder"])
def test_what_is_no_sink_is_refused_at_once(sink):
    with pytest.raises(
        ConfigError, match=r"sink=.* is not accepted: expected one, as `with live_sink\(\.\.\.\) as sink:`"
    ):
        StabilityMonitor(sink)


def test_a_monitor_changes_nothing_of_a_healthy_training():
    for optimizer in (FUSED_ADAM, torch.optim.Adam):
        alone, seen = Small(optimizer), Small(optimizer)
        fit(alone, [], 20, gradient_clip_val=0.1)
        fit(seen, StabilityMonitor(), 20, gradient_clip_val=0.1)
        assert torch.equal(torch.stack(alone.weights), torch.stack(seen.weights))


def test_a_journal_is_a_sink(tmp_path):
    with Journal(tmp_path) as journal:
        fit(Small(times_gradient={7: NAN}), StabilityMonitor(journal), 40)
        points = [record for record, _ in read_journal(journal.path) if isinstance(record, Point)]
    assert [p.step for p in points if names.TRAIN_LOSS in p.values] == list(range(32))
    assert [p.step for p in points if names.GRAD_NORM in p.nonfinite] == [7]


# Every step


def test_loss_and_learning_rate_of_every_step_are_recorded():
    module = Small(fused(torch.optim.SGD, lr=0.25))
    _, sink = watched(module, 45, watching={"block_steps": 16})
    assert sink.curve(names.TRAIN_LOSS) == list(enumerate(map(float, module.losses)))
    assert sink.curve(names.LEARNING_RATE) == [(step, 0.25) for step in range(45)]


def test_a_scheduled_learning_rate_is_that_of_the_step():
    class Scheduled(Small):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 2.0**-step)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    for rate in (0.5, torch.tensor(0.5)):
        _, sink = watched(Scheduled(lambda p, rate=rate: torch.optim.AdamW(p, lr=rate, fused=True)), 6)
        assert sink.values(names.LEARNING_RATE) == [2.0 ** -(step + 1) for step in range(6)]


def true_norms(steps, factor):
    """Gradient norms of SGD(lr=1, no momentum): how far each step moves the weights, over ``factor``."""
    return [float((after - before).norm()) / factor for before, after in itertools.pairwise(steps)]


def test_norms_before_and_after_clipping_by_the_trainer():
    """SGD moves the weights by lr times the clipped gradient, which is an oracle of its own."""
    module = Small(fused(torch.optim.SGD, lr=0.5))
    _, sink = watched(module, 30, gradient_clip_val=0.3)
    before, after = sink.values(names.GRAD_NORM), sink.values(names.GRAD_NORM_CLIPPED)
    assert after == pytest.approx(true_norms(module.weights, 0.5), rel=1e-4)
    assert after == pytest.approx([min(norm, 0.3) for norm in before], rel=1e-4)
    assert max(before) > 0.6
    assert min(before) < 0.3


def test_norms_without_clipping_are_equal():
    module = Small(fused(torch.optim.SGD, lr=0.5))
    _, sink = watched(module, 20)
    assert sink.values(names.GRAD_NORM) == pytest.approx(true_norms(module.weights, 0.5), rel=1e-4)
    assert sink.values(names.GRAD_NORM_CLIPPED) == sink.values(names.GRAD_NORM)
    assert sink.values(names.CLIP_FRACTION) == []


def test_norms_around_a_modules_own_clipping():
    class Halving(Small):
        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            for p in self.parameters():
                p.grad *= 0.5
            self.clip_fraction = torch.tensor(self.batches / 10)

    module = Halving()
    _, sink = watched(module, 5)
    halves = [norm / 2 for norm in sink.values(names.GRAD_NORM)]
    assert sink.values(names.GRAD_NORM_CLIPPED) == pytest.approx(halves)
    assert sink.values(names.CLIP_FRACTION) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert "configure_gradient_clipping" not in vars(module)


def test_two_monitors_see_the_same_and_leave_the_module_as_it_was():
    module = Small()

    def halve(optimizer, *args, **kwargs):
        for p in module.parameters():
            p.grad *= 0.5

    module.configure_gradient_clipping = halve
    monitors = [StabilityMonitor(Recorder(), block_steps=size) for size in (1, 7)]
    fit(module, monitors, 10, gradient_clip_val=1.0)
    one, other = ([m.sink.values(name) for name in (names.GRAD_NORM, names.GRAD_NORM_CLIPPED)] for m in monitors)
    assert one == other
    assert one[1] == pytest.approx([norm / 2 for norm in one[0]])
    assert module.configure_gradient_clipping is halve


def test_an_optimiser_that_changes_gradients_in_place_does_not_change_their_norm():
    """Nesterov momentum is added to the gradients themselves, by the implementation that is the default on a GPU."""
    module = Small(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=True))
    _, sink = watched(module, 20, gradient_clip_val=0.05)
    clipped = sink.values(names.GRAD_NORM_CLIPPED)
    assert clipped == pytest.approx([min(norm, 0.05) for norm in sink.values(names.GRAD_NORM)], rel=1e-4)


def test_a_loss_of_one_element_is_a_loss():
    class Shaped(Small):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx).reshape(1)

    monitor, sink = watched(Shaped(), 3)
    assert len(sink.values(names.TRAIN_LOSS)) == 3
    assert monitor.outcome is Outcome.CONVERGED


def test_an_optimiser_that_evaluates_a_step_several_times_still_makes_one():
    module = Small(lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=5))
    monitor, sink = watched(module, 6)
    assert [step for step, _ in sink.curve(names.TRAIN_LOSS)] == list(range(6))
    assert module.batches > 12
    assert monitor.outcome is Outcome.CONVERGED


def test_under_accumulation_a_step_is_the_optimisers_and_its_loss_the_mean():
    module = Small(fused(torch.optim.SGD, lr=0.5))
    monitor, sink = watched(module, 7, epochs=2, accumulate_grad_batches=3)
    losses = list(map(float, module.losses))
    groups = [losses[0:3], losses[3:6], losses[6:7], losses[7:10], losses[10:13], losses[13:14]]
    means = [statistics.mean(group) for group in groups]
    assert sink.curve(names.TRAIN_LOSS) == [(step, pytest.approx(mean)) for step, mean in enumerate(means)]
    assert sink.values(names.LAST_STEP) == [5]
    assert monitor.steps_read == 6


@pytest.mark.parametrize(("last", "outcome"), [(1e3, "exploded"), (0.3, "converged")])
def test_a_training_that_is_stopped_while_its_loss_explodes_has_exploded(last, outcome):
    class Stops(Validated):
        def training_step(self, batch, batch_idx):
            self.trainer.should_stop |= self.batches == 65
            return super().training_step(batch, batch_idx)

    module = Stops([0.9, 0.5, 0.4, last])
    module.add_to_loss = {step: 10.0 ** (step - 60) for step in range(61, 80)}
    monitor, _ = watched(module, 20, epochs=8)  # Lightning validates once more where it stops
    assert (monitor.outcome, monitor.failure_step) == (outcome, 61 if outcome == "exploded" else None)


def test_a_nonfinite_micro_batch_spoils_its_step():
    monitor, _ = watched(Small(add_to_loss={7: NAN}), 20, accumulate_grad_batches=3)
    assert monitor.failure_step == 2


# Manual optimisation


class Manual(Small):
    """Takes ``optimizers`` steps a batch, one for each layer; the gradients of the first are clipped by hand."""

    def __init__(self, make, n_optimizers=1, **injected):
        super().__init__(make, **injected)
        self.automatic_optimization = False
        self.n_optimizers = n_optimizers

    def training_step(self, batch, batch_idx):
        optimizers = self.optimizers()
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            loss = super().training_step(batch, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(optimizer, gradient_clip_val=0.2, gradient_clip_algorithm="norm")
            optimizer.step()

    def configure_optimizers(self):
        layers = [self.net[0], self.net[2]] if self.n_optimizers == 2 else [self.net]
        return [self.optimizer(layer.parameters()) for layer in layers]


def test_manual_optimisation_shows_norms_before_and_after_clipping():
    module = Manual(fused(torch.optim.SGD, lr=0.5))
    _, sink = watched(module, 20)
    before, after = sink.values(names.GRAD_NORM), sink.values(names.GRAD_NORM_CLIPPED)
    assert sink.values(names.TRAIN_LOSS) == list(map(float, module.losses))
    assert after == pytest.approx(true_norms(module.weights, 0.5), rel=1e-4)
    assert after == pytest.approx([min(norm, 0.2) for norm in before], rel=1e-4)
    assert max(before) > 0.4


@pytest.mark.parametrize("block_steps", [1, 2, 3, 64])
def test_each_optimiser_has_its_own_curve_and_its_own_exact_step(block_steps):
    """The loss of batch 9 belongs to the second optimiser's step 4; the first one's step of that batch is good."""
    module = Manual(fused(torch.optim.SGD), n_optimizers=2, add_to_loss={9: NAN})
    monitor, sink = watched(module, 10, watching={"block_steps": block_steps, "after_failure": "continue"})
    losses = list(map(float, module.losses))
    assert sink.curve(names.TRAIN_LOSS) == list(enumerate(losses[0::2]))
    second = sink.curve(f"{names.TRAIN_LOSS}/optimizer_1")
    assert [step for step, _ in second] == list(range(10))
    assert [value for _, value in second] == pytest.approx(losses[1::2], nan_ok=True)
    assert sink.values(names.LAST_STEP) == [9]
    assert (monitor.outcome, monitor.failure_step) == (Outcome.NONFINITE, 4)
    assert [j.outcome for j in monitor.judgements] == [Outcome.CONVERGED, Outcome.NONFINITE]
    assert [curve.first_nonfinite_step for curve in monitor.curves] == [None, 4]
    moved = [bool((a - b)[:16].abs().sum() > 0) for a, b in itertools.pairwise(module.weights)]
    assert all(moved)  # the good step was not dropped
    assert torch.isfinite(module.weights[-1]).all()


class Bare(Small):
    """Calls backward by itself."""

    def __init__(self, clip=None, **injected):
        super().__init__(**injected)
        self.automatic_optimization = False
        self.clip = clip

    def training_step(self, batch, batch_idx):
        self.optimizers().zero_grad()
        super().training_step(batch, batch_idx).backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.clip)
        self.optimizers().step()


def test_a_module_that_calls_backward_by_itself_shows_no_loss():
    monitor, sink = watched(Bare(times_gradient={3: INF}), 10, watching={"after_failure": "continue"})
    assert sink.values(names.TRAIN_LOSS) == []
    assert len(sink.values(names.GRAD_NORM)) == 10  # nobody has written to them since they were made
    assert (monitor.outcome, monitor.failure_step) == (Outcome.NONFINITE, 3)
    (said,) = [payload for name, payload in sink.events if name == "not_measured"]
    assert (said["metric"], said["step"]) == (names.TRAIN_LOSS, 0)


def test_of_gradients_that_were_clipped_unseen_only_the_clipped_norm_is_recorded():
    monitor, sink = watched(Bare(clip=0.05), 10)
    assert sink.values(names.GRAD_NORM) == []
    assert sink.values(names.GRAD_NORM_CLIPPED) == pytest.approx([0.05] * 10, rel=1e-3)
    assert monitor.outcome is Outcome.CONVERGED
    said = [payload["metric"] for name, payload in sink.events if name == "not_measured"]
    assert said == [names.TRAIN_LOSS, names.GRAD_NORM]


# Long runs


def test_a_spike_stays_visible_in_at_most_300_points():
    spike = 1234
    monitor, sink = watched(Small(times_gradient={spike: 1e6}), 2000)
    maxima = sink.curve(names.GRAD_NORM_WINDOW_MAX)
    assert 200 <= len(maxima) <= names.WINDOWS
    norms = sink.values(names.GRAD_NORM)
    starts = [0, *(step + 1 for step, _ in maxima)]
    for start, (end, largest) in zip(starts, maxima, strict=False):
        assert largest == max(norms[start : end + 1])
    assert maxima[-1][0] == 1999
    (seen,) = [largest for _, largest in maxima if largest > 1e4]
    assert seen == norms[spike]
    assert (monitor.outcome, len(norms)) == (Outcome.CONVERGED, 2000)


def test_each_of_two_optimisers_has_no_more_windows_than_one():
    _, sink = watched(Manual(fused(torch.optim.SGD), n_optimizers=2), 320)
    for end in ("", "/optimizer_1"):
        assert len(sink.values(names.GRAD_NORM + end)) == 320
        assert len(sink.values(names.GRAD_NORM_WINDOW_MAX + end)) == 160


def test_the_tail_of_the_gradient_norm_is_that_of_the_last_half():
    module = Small(times_gradient=dict.fromkeys(range(50), 1e5))
    _, sink = watched(module, 100)
    late = sink.values(names.GRAD_NORM)[50:]
    assert sink.values(names.GRAD_MEDIAN_LAST_HALF) == [pytest.approx(statistics.median(late))]
    assert max(late) >= sink.values(names.GRAD_P99_LAST_HALF)[0] >= sorted(late)[-2]


# Waiting for the device


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize(
    "optimizer",
    [FUSED_ADAM, lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), fused=True)],
    ids=["rate is a number", "rate is a tensor"],
)
def test_the_device_is_read_once_a_block_and_never_else(optimizer, clip, monkeypatch):
    monkeypatch.setattr(stability, "READ_S", INF)
    per_step = []

    class Counted(Small):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx:
                return
            self.modes = Waits(), Reads()
            for mode in self.modes:
                mode.__enter__()

        def optimizer_step(self, *args, **kwargs):
            per_step.append(self.modes[0].count + self.modes[1].count)
            super().optimizer_step(*args, **kwargs)

        def on_train_epoch_end(self):
            per_step.append(self.modes[0].count + self.modes[1].count)
            for mode in reversed(self.modes):
                mode.__exit__(None, None, None)

    monitor = StabilityMonitor(Recorder(), block_steps=8)
    fit(Counted(optimizer), monitor, 20, gradient_clip_val=clip)
    waited = [after - before for before, after in itertools.pairwise(per_step)]
    reading = [step for step, count in enumerate(waited[:-1]) if count]  # after the last, the epoch ends
    assert reading == [7, 15]
    assert monitor.steps_read == 20


@pytest.mark.parametrize("read_s", [0.0, INF])
def test_slow_steps_are_recorded_before_their_block_ends_but_only_its_end_ends_a_failed_training(read_s, monkeypatch):
    monkeypatch.setattr(stability, "READ_S", read_s)
    recorded = []

    class Looks(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            recorded.append(len(monitor.sink.values(names.TRAIN_LOSS)))

    monitor = StabilityMonitor(Recorder(), block_steps=8)
    fit(Small(add_to_loss={3: NAN}), [monitor, Looks()], 20)
    assert recorded == ([0] * 7 + [8] if read_s else [1, 2, 3, 4, 5, 6, 7, 8])


def test_what_was_recorded_before_a_validation_is_all_steps():
    class Looks(Callback):
        def on_validation_start(self, trainer, pl_module):
            assert monitor.sink.curve(names.TRAIN_LOSS)[-1][0] == trainer.global_step - 1

    class Validates(Small):
        def validation_step(self, batch, batch_idx):
            pass

    monitor = StabilityMonitor(Recorder())
    fit(Validates(), [monitor, Looks()], 5, epochs=2)


# What becomes of a training


def test_a_value_that_a_validation_did_not_log_is_not_recorded_again():
    class Sometimes(Validated):
        def validation_step(self, batch, batch_idx):
            if self.current_epoch < 3:
                super().validation_step(batch, batch_idx)

    monitor, sink = watched(Sometimes([1.0, 0.5, 9.0]), 5, epochs=4)
    assert sink.curve("val/val_loss") == [(4, 1.0), (9, 0.5), (14, 9.0)]
    assert monitor.outcome is Outcome.CONVERGED  # two validations in a row make it exploded


def test_a_validation_loss_that_is_logged_at_the_end_of_an_epoch_is_one():
    class AtEnd(Small):
        at_end = (1.0, 0.5, 0.4, 0.3)

        def on_train_epoch_end(self):
            if self.current_epoch != 1:
                self.log("val_loss", self.at_end[self.current_epoch])

    class Besides(AtEnd):  # a validation of the Trainer's own, of another metric
        def validation_step(self, batch, batch_idx):
            self.log("val_accuracy", float(self.current_epoch))

    class Validates(AtEnd):  # the Trainer's own counts
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", 1.0 / (1 + self.current_epoch))

    for kind, steps in ((AtEnd, [4, 14, 19]), (Besides, [4, 14, 19]), (Validates, [4, 9, 14, 19])):
        monitor, sink = watched(kind(), 5, epochs=4)
        assert [v.step for v in monitor.validations] == steps
        assert [step for step, _ in sink.curve("val/val_loss")] == steps
        assert monitor.validations[0].loss == 1.0

    AtEnd.at_end = (1.0, 0.5, NAN, 0.5)
    monitor, _ = watched(AtEnd(), 5, epochs=4)
    assert (monitor.outcome, monitor.failure_step, monitor.steps_read) == (Outcome.NONFINITE, 14, 15)
    assert [v.step for v in monitor.validations] == [4, 14]


def test_exploded_is_judged_on_the_validation_loss_that_is_named():
    module = Validated([1.0, 0.5, 1.6, 1.7], mine=[9.0, 0.1, 0.1, 0.1])
    monitor, sink = watched(module, 5, epochs=4)
    assert (monitor.outcome, monitor.failure_step) == (Outcome.EXPLODED, 14)
    assert sink.curve("val/val_loss") == [(4, 1.0), (9, 0.5), (14, pytest.approx(1.6)), (19, pytest.approx(1.7))]
    assert sink.values(names.VAL_LOSS_BEST) == [0.5]
    assert sink.values(names.VAL_LOSS_LAST) == [pytest.approx(1.7)]
    assert sink.tags()[names.FAILURE_AFTER] == "9"

    other = StabilityMonitor(val_loss_name="mine")
    fit(Validated([1.0, 0.5, 1.6, 1.7], mine=[9.0, 0.1, 0.1, 0.1]), other, 5, epochs=4)
    assert other.outcome is Outcome.CONVERGED


def test_without_a_validation_loss_exploded_is_judged_on_the_epochs_mean_loss():
    module = Small(add_to_loss=dict.fromkeys(range(20, 40), 1e6))
    monitor, sink = watched(module, 10, epochs=4)
    assert (monitor.outcome, monitor.failure_step) == (Outcome.EXPLODED, 29)
    assert "training loss" in sink.tags()[names.NOT_JUDGED]
    assert sink.values(names.VAL_LOSS_BEST) == []


def test_the_loss_of_an_output_that_learnt_nothing_makes_stagnation_visible():
    monitor = StabilityMonitor(rules=OutcomeRules(stagnated_vs_baseline=0.95), baseline=1.0)
    fit(Validated([1.0, 0.99, 0.96]), monitor, 4, epochs=3)
    assert (monitor.outcome, monitor.failure_step) == (Outcome.STAGNATED, 11)


def test_stagnation_may_be_judged_by_the_last_validation():
    outcomes = []
    for of in ("best", "last"):
        monitor = StabilityMonitor(rules=OutcomeRules(of=of), baseline=1.0)
        fit(Validated([1.2, 0.9, 1.1]), monitor, 4, epochs=3)
        outcomes.append(monitor.outcome)
    assert outcomes == [Outcome.CONVERGED, Outcome.STAGNATED]


def constant_from(epoch, epochs):
    """Patch variations and spreads of a run whose output is constant from that epoch on."""
    variation = [0.5] * epoch + [0.001] * (epochs - epoch)
    return {metric_names.PATCH_VARIATION: variation, metric_names.SPREAD: [v / 0.5 for v in variation]}


def test_a_constant_output_ends_a_trial_after_a_quarter_of_it():
    monitor, _ = watched(Validated([1.0] * 20, **constant_from(0, 20)), 2, epochs=20, watching={"rules": CONSTANT})
    assert (monitor.outcome, monitor.failure_step) == (Outcome.COLLAPSED, 1)
    assert monitor.steps_read == 12  # the first validation after step 10


def test_a_constant_output_ends_no_trial_before_warm_up_does():
    monitor = StabilityMonitor(rules=CONSTANT, warmup_steps=30)
    fit(Validated([1.0] * 20, **constant_from(0, 20)), monitor, 2, epochs=20)
    assert monitor.steps_read == 32


def test_a_constant_output_that_is_only_flat_ends_nothing_early():
    flat = {metric_names.SPREAD: [0.01] * 10, metric_names.PATCH_VARIATION: [0.5] * 10}
    monitor, _ = watched(Validated([1.0] * 10, **flat), 2, epochs=10, watching={"rules": CONSTANT})
    assert (monitor.outcome, monitor.steps_read) == (Outcome.COLLAPSED, 20)


def test_a_failed_trial_goes_on_if_told_to():
    watching = {"rules": CONSTANT, "after_failure": "continue"}
    losses = [math.nan, *[1.0] * 9]
    monitor, _ = watched(Validated(losses, **constant_from(1, 10)), 2, epochs=10, watching=watching)
    assert monitor.steps_read == 20
    assert monitor.judgement.rules_held == (Outcome.NONFINITE, Outcome.COLLAPSED)


def test_a_validation_loss_that_is_not_finite_ends_a_trial():
    monitor, sink = watched(Validated([1.0, math.inf, *[1.0] * 8]), 3, epochs=10)
    assert (monitor.outcome, monitor.failure_step, monitor.steps_read) == (Outcome.NONFINITE, 5, 6)
    assert sink.tags()[names.FAILURE_AFTER] == "2"


def test_a_validation_after_training_changes_nothing():
    module = Validated([1.0, 0.5, 0.5, 0.01])
    monitor = StabilityMonitor(sink := Recorder())
    trainer = fit(module, monitor, 3, epochs=3)
    before = (monitor.judgement, len(monitor.validations), len(sink.points))
    trainer.validate(module, dataloaders=batches(2), verbose=False)
    assert (monitor.judgement, len(monitor.validations), len(sink.points)) == before


def test_time_to_failure_of_a_run_that_did_not_fail_is_its_last_step():
    for module, expected in ((Small(), 24), (Small(times_gradient={11: NAN}), 11)):
        _, sink = watched(module, 25)
        assert sink.values(names.TIME_TO_FAILURE) == [expected]


def test_the_start_says_how_long_it_will_be_and_what_guards_it():
    monitor, sink = watched(Small(), 7, epochs=3)
    assert sink.events[0] == (names.STARTED_EVENT, {"scheduled_steps": 21, "guard": monitor.guard})
    assert "Adam: fused" in monitor.guard


def test_a_training_that_goes_on_from_a_checkpoint_is_counted_on(tmp_path):
    first = fit(Small(), StabilityMonitor(), 10, epochs=1)
    first.save_checkpoint(tmp_path / "half.ckpt")
    monitor = StabilityMonitor(sink := Recorder())
    trainer = make_trainer([monitor], max_epochs=2)
    trainer.fit(Small(times_gradient={5: NAN}), batches(10), ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    assert [step for step, _ in sink.curve(names.TRAIN_LOSS)] == list(range(10, 20))
    assert (monitor.outcome, monitor.failure_step) == (Outcome.NONFINITE, 15)


# Exceptions


class Raises(Small):
    def __init__(self, exception):
        super().__init__()
        self.exception = exception

    def training_step(self, batch, batch_idx):
        if batch_idx == 5:
            raise self.exception
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("exception", "outcome"),
    [
        (ValueError("two\nlines"), Outcome.INFRA_ERROR),
        (RuntimeError("shapes"), Outcome.INFRA_ERROR),
        (torch.OutOfMemoryError("CUDA out of memory"), Outcome.OOM),
        (MemoryError(), Outcome.OOM),
        (KeyboardInterrupt(), Outcome.KILLED),
        (SystemExit("ended by SIGTERM"), Outcome.KILLED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_exception_is_an_outcome_and_loses_no_step(exception, outcome):
    monitor = StabilityMonitor(sink := Recorder())
    module = Raises(exception)
    with pytest.raises((type(exception), SystemExit)):
        fit(module, monitor, 20)
    assert monitor.outcome is outcome
    assert (monitor.judgement, monitor.failure_step) == (None, None)
    assert len(sink.values(names.TRAIN_LOSS)) == 5
    assert sink.tags()[names.OUTCOME] == outcome
    reason = sink.tags()[names.REASON]
    assert reason.startswith(type(exception).__name__)
    assert "\n" not in reason
    assert "configure_gradient_clipping" not in vars(module)


def test_a_sink_that_fails_ends_the_training_with_its_own_error():
    class Full(Recorder):
        def record(self, step, values):
            raise OSError("disk is full")

    monitor = StabilityMonitor(Full(), block_steps=4)
    with pytest.raises(OSError, match="disk is full"):
        fit(Small(), monitor, 20)
    assert monitor.outcome is Outcome.INFRA_ERROR
