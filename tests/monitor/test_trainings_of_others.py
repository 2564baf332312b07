"""Kinds of trainings that other people have: what is recorded is true, and nothing is changed or ended."""

import copy
import itertools
import math
import pickle
import signal

import pytest
import torch
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.tuner import Tuner
from small_module import INF, NAN, Gan, Recorder, Small, batches, fit, make_trainer
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from fnostab.errors import ConfigError, JournalError
from fnostab.monitor import StabilityMonitor
from fnostab.record import names
from fnostab.record.journal import Journal, read_journal
from fnostab.record.journal_outcomes import read_recorded
from fnostab.record.lines import FILE_NAME, Point
from fnostab.record.outcome_rules import OutcomeRules
from fnostab.record.outcomes import Outcome
from fnostab.record.program_journal import ATTEMPT

SGD = staticmethod(lambda parameters: torch.optim.SGD(parameters, lr=0.1))
CLIPPED = names.GRAD_NORM_CLIPPED


def watched(module, steps, **settings):
    monitor = StabilityMonitor(Recorder(), after_failure=settings.pop("after_failure", "stop"))
    fit(module, [monitor, *settings.pop("callbacks", [])], steps, **settings)
    return monitor, monitor.sink


def said(sink):
    return [payload["metric"] for name, payload in sink.events if name == "not_measured"]


def norm_of(parameters):
    return float(nn.utils.get_total_norm([p.grad for p in parameters]))


def clip(parameters, value=0.01):
    nn.utils.clip_grad_norm_(list(parameters), value)


# What it never ends, and never changes


class Loader:
    """A loader with a state: it goes on where it was."""

    at = 0

    def __len__(self):
        return 10

    def __iter__(self):
        for k in range(self.at, 10):
            self.at = k + 1
            yield torch.full((2, 3), float(k))
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


def test_a_resumed_training_sees_the_batches_that_it_would_see_alone(tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 3:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    class Seen(Small):
        def training_step(self, batch, batch_idx):
            self.got = [*getattr(self, "got", []), int(batch[0, 0])]
            return super().training_step(batch, batch_idx)

    make_trainer([Save()], max_epochs=1).fit(Seen(), Loader())
    for callbacks in ([], [StabilityMonitor()]):
        module = Seen()
        make_trainer(callbacks, max_epochs=1).fit(module, Loader(), ckpt_path=tmp_path / "mid.ckpt", weights_only=False)
        assert module.got == list(range(4, 10))


def test_loaders_are_not_set_up_before_their_time():
    order = []

    class Asked(Small):
        def on_fit_start(self):
            order.append("fit starts")

        def train_dataloader(self):
            order.append("loader")
            return batches(3)

    make_trainer([StabilityMonitor()], max_epochs=1).fit(Asked())
    assert order == ["fit starts", "loader"]


def test_no_random_number_is_drawn():
    states = []

    class Ends(Small):
        def on_train_end(self):
            states.append(torch.get_rng_state())

    for monitor in ([], [StabilityMonitor(Recorder())]):
        torch.manual_seed(3)
        fit(Ends(), monitor, 10)
    assert torch.equal(*states)


def test_the_module_and_its_optimiser_hold_nothing_of_the_monitor():
    class Saves(Small):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            trainer, self._trainer = self._trainer, None
            self.saved = sorted(vars(copy.deepcopy(self)))
            self._trainer = trainer

    alone, module = Saves(), Saves()
    fit(alone, [], 5)
    (optimizer,) = fit(module, StabilityMonitor(), 5).optimizers
    assert module.saved == alone.saved
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert "found_inf" not in vars(optimizer)


def test_a_monitor_can_be_pickled():
    fit(Small(), monitor := StabilityMonitor(), 5)
    assert pickle.loads(pickle.dumps(StabilityMonitor())).outcome is Outcome.RUNNING
    assert monitor.outcome is Outcome.CONVERGED


class Sparse(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.e, self.l = nn.Embedding(50, 4, sparse=True), nn.Linear(4, 1)
        self.norms, self.factor = [], {}

    def training_step(self, batch, batch_idx):
        loss = self.l(self.e((batch[:, 0].abs() * 10).long().clamp(max=49))).square().mean()
        return loss * self.factor.get(batch_idx, 1)

    def on_before_optimizer_step(self, optimizer):
        dense = [p.grad.to_dense() if p.grad.is_sparse else p.grad for p in self.parameters()]
        self.norms.append(float(nn.utils.get_total_norm(dense)))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_sparse_gradients_have_the_norm_of_dense_ones():
    _, sink = watched(module := Sparse(), 8)
    assert sink.values(names.GRAD_NORM) == pytest.approx(module.norms, rel=1e-5)
    spoilt = Sparse()
    spoilt.factor = {3: NAN}
    monitor, _ = watched(spoilt, 8, after_failure="continue")
    assert monitor.failure_step == 3
    assert all(torch.isfinite(p).all() for p in spoilt.parameters())


@pytest.mark.parametrize("defaults", [{"lr": None}, {}])
def test_an_optimiser_may_have_no_learning_rate(defaults):
    class Relative(torch.optim.Optimizer):  # Hugging Face's Adafactor has None, and finds its own
        def __init__(self, parameters):
            super().__init__(parameters, defaults)

        @torch.no_grad()
        def step(self, closure=None):
            with torch.enable_grad():
                closure()
            for p in self.param_groups[0]["params"]:
                p -= 0.01 * p.grad.sign()

    fit(alone := Small(Relative), [], 40)
    _, sink = watched(module := Small(Relative), 40)
    assert torch.equal(module.flat(), alone.flat())
    assert (sink.values(names.LEARNING_RATE), len(sink.values(names.GRAD_NORM))) == ([], 40)


def test_a_vector_may_go_backward():
    class Vector(Small):
        automatic_optimization = False

        def __init__(self):
            super().__init__(SGD)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.optimizers().zero_grad()
            loss = (self.net(batch) - 1).flatten()
            self.manual_backward(loss, gradient=torch.ones_like(loss))
            self.optimizers().step()

    monitor, sink = watched(Vector(), 6)
    assert (monitor.outcome, len(sink.values(names.GRAD_NORM))) == (Outcome.CONVERGED, 6)
    assert sink.values(names.TRAIN_LOSS) == []
    assert said(sink) == [names.TRAIN_LOSS]


def test_without_an_optimiser_nothing_was_observed():
    class Alone(Small):
        def configure_optimizers(self):
            return None

    monitor, sink = watched(Alone(), 4)
    assert (monitor.outcome, monitor.judgement) == (Outcome.INFRA_ERROR, None)
    assert "no optimiser step" in sink.tags()[names.REASON]


def test_a_training_of_no_steps_is_no_success():
    monitor, _ = watched(Small(), 4, max_steps=0)
    assert monitor.outcome is Outcome.INFRA_ERROR


def test_a_batch_that_is_skipped_has_no_norm_and_no_loss():
    class Skips(Small):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) if batch_idx % 3 == 0 else None

    monitor, sink = watched(Skips(SGD), 9)
    for name in (names.TRAIN_LOSS, names.GRAD_NORM, CLIPPED):
        assert [step for step, _ in sink.curve(name)] == [0, 3, 6]
    assert [step for step, _ in sink.curve(names.LEARNING_RATE)] == list(range(9))
    assert said(sink) == ["gradient"]
    assert monitor.outcome is Outcome.CONVERGED


def test_a_training_that_skips_everything_observed_nothing():
    class Skips(Small):
        def training_step(self, batch, batch_idx):
            return None

    assert watched(Skips(), 5)[0].outcome is Outcome.INFRA_ERROR


def test_a_checkpoint_of_the_end_keeps_its_outcome(tmp_path):
    fit(Small(), StabilityMonitor(), 5).save_checkpoint(tmp_path / "end.ckpt")
    monitor = StabilityMonitor()
    trainer = make_trainer([monitor], max_epochs=1)
    trainer.fit(Small(), batches(5), ckpt_path=tmp_path / "end.ckpt", weights_only=False)
    assert (monitor.outcome, monitor.steps_read) == (Outcome.CONVERGED, 5)


def test_gradients_of_two_kinds():
    class Two(Small):
        def __init__(self):
            super().__init__(SGD)
            self.other = nn.Parameter(torch.zeros(3, dtype=torch.complex128))

        def compute_loss(self, batch):
            return super().compute_loss(batch) + (self.other - 1j).abs().square().sum().float()

        def on_after_backward(self):
            norms = [p.grad.norm().double() for p in self.parameters()]
            self.true = [*getattr(self, "true", []), float(torch.stack(norms).norm())]

    monitor, sink = watched(module := Two(), 6)
    assert sink.values(names.GRAD_NORM) == pytest.approx(module.true, rel=1e-6)
    assert monitor.outcome is Outcome.CONVERGED


def test_a_loader_without_length_has_an_unknown_number_of_steps():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(torch.randn(12, 3))

    monitor = StabilityMonitor(sink := Recorder())
    make_trainer([monitor], max_epochs=2).fit(Small(), DataLoader(Endless(), batch_size=2))
    assert sink.events[0][1]["scheduled_steps"] is None
    assert (monitor.outcome, sink.values(names.LAST_STEP)) == (Outcome.CONVERGED, [11])
    monitor = StabilityMonitor(sink := Recorder())
    make_trainer([monitor], max_epochs=2, max_steps=7).fit(Small(), DataLoader(Endless(), batch_size=2))
    assert sink.events[0][1]["scheduled_steps"] == 7


def test_an_epoch_that_only_renews_running_statistics_is_not_scheduled():
    class Normed(Small):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    monitor, sink = watched(Normed(), 10, epochs=4, callbacks=[StochasticWeightAveraging(0.01, swa_epoch_start=2)])
    assert sink.events[0][1]["scheduled_steps"] == 40
    assert len(sink.values(names.TRAIN_LOSS)) == 40
    assert monitor.outcome is Outcome.CONVERGED


def test_accumulation_that_is_scheduled():
    monitor, sink = watched(Small(), 8, epochs=2, callbacks=[GradientAccumulationScheduler({0: 1, 1: 4})])
    assert sink.values(names.LAST_STEP) == [9]
    assert sink.events[0][1]["scheduled_steps"] is None
    assert monitor.outcome is Outcome.CONVERGED


# Clipping, wherever it takes place


class ClipsInHook(Small):
    def on_before_optimizer_step(self, optimizer):
        clip(self.parameters())


class ClipsAfterBackward(Small):
    def on_after_backward(self):
        clip(self.parameters())


class ClipsInStep(Small):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        def closure():
            loss = optimizer_closure()
            clip(self.parameters())
            return loss

        optimizer.step(closure=closure)


class ClipsInTheConfiguredHook(Small):
    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        clip(self.parameters())


class ClipsData(Small):
    """The old way, of which autograd knows nothing."""

    def on_before_optimizer_step(self, optimizer):
        factor = 0.01 / norm_of(self.parameters())
        for p in self.parameters():
            p.grad.data.mul_(factor)


class ClipsInAnOptimiserHook(Small):
    """Registered late, and so after the monitor's; called before the closure, it clips what is there: manual."""

    def __init__(self, optimizer):
        super().__init__(optimizer)
        self.automatic_optimization = False

    def on_train_start(self):
        self.optimizers().optimizer.register_step_pre_hook(lambda *args: clip(self.parameters()))

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers().optimizer
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


class ClipsByCallback(Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        clip(pl_module.parameters())


class ClipsAfterBackwardByCallback(Callback):
    def on_after_backward(self, trainer, pl_module):
        clip(pl_module.parameters())


PLAIN = type("Plain", (Small,), {})
WAYS = [
    (ClipsInHook, []),
    (ClipsAfterBackward, []),
    (ClipsInStep, []),
    (ClipsInTheConfiguredHook, []),
    (ClipsData, []),
    (ClipsInAnOptimiserHook, []),
    (PLAIN, [ClipsByCallback]),
    (PLAIN, [ClipsAfterBackwardByCallback]),
]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(("module", "callbacks"), WAYS, ids=lambda x: getattr(x, "__name__", None) or str(len(x)))
def test_norms_around_clipping_wherever_it_takes_place(module, callbacks, before):
    alone = fit_alone(module(SGD), callbacks)
    monitor = StabilityMonitor(sink := Recorder())
    others = [kind() for kind in callbacks]
    seen = module(SGD)
    fit(seen, [*others, monitor] if before else [monitor, *others], 6)
    assert sink.values(CLIPPED) == pytest.approx([0.01] * 6, rel=1e-3)
    moves = [float((b - a).norm()) / 0.1 for a, b in itertools.pairwise(seen.weights)]
    assert sink.values(CLIPPED) == pytest.approx(moves, rel=1e-3)
    free = true_norms_at(seen)
    assert sink.values(names.GRAD_NORM) == pytest.approx(free, rel=1e-4)
    assert torch.equal(torch.stack(alone.weights), torch.stack(seen.weights))


class ClipsByHand(LightningModule):
    """As PtychoPINN's module: spectral weights are complex, and gradients of two batches are clipped together by hand.

    Two optimisers, of which each has a part of the network; ``true`` holds (before, after) of each one's gradient at
    each step, summed up in double precision.
    """

    def __init__(self, clip, *, together):
        super().__init__()
        self.automatic_optimization = False
        torch.manual_seed(0)
        self.spectral = nn.Parameter(torch.randn(4, dtype=torch.cfloat))
        self.local = nn.Linear(3, 4)
        self.clip, self.together = clip, together
        self.true = ([], [])

    def training_step(self, batch, batch_idx):
        loss = (torch.fft.fft(self.local(batch)) * self.spectral).abs().square().mean()
        self.manual_backward(loss / 2)
        if batch_idx % 2 == 0:
            return
        optimizers = self.optimizers()
        parts = [[p for group in optimizer.param_groups for p in group["params"]] for optimizer in optimizers]
        before = [self.by_hand(part) for part in parts]
        for group in [[p for part in parts for p in part]] if self.together else parts:
            clip(group, self.clip)
        for norms, norm, part in zip(self.true, before, parts, strict=True):
            norms.append((norm, self.by_hand(part)))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    @staticmethod
    def by_hand(parameters):
        return math.sqrt(sum(float(p.grad.to(torch.cdouble).abs().square().sum()) for p in parameters))

    def configure_optimizers(self):
        return [torch.optim.Adam([self.spectral], 0.01), torch.optim.Adam(self.local.parameters(), 0.01)]


@pytest.mark.parametrize("together", [True, False])
def test_norms_before_and_after_a_modules_own_clipping_are_those_counted_by_hand(together):
    module = ClipsByHand(0.05, together=together)
    _, sink = watched(module, 16)
    for end, true in zip(("", "/optimizer_1"), module.true, strict=True):
        before, after = zip(*true, strict=True)
        assert sink.curve(names.GRAD_NORM + end) == [(step, pytest.approx(norm)) for step, norm in enumerate(before)]
        assert sink.values(CLIPPED + end) == pytest.approx(after)
        assert min(before) > 2 * max(after) > 0


def fit_alone(module, callbacks):
    fit(module, [kind() for kind in callbacks], 6)
    return module


def true_norms_at(module):
    """Gradient norms of the plain loss at the weights before each step."""
    found = []
    for weights, batch in zip(module.weights, batches(6), strict=False):
        other = Small(SGD)
        nn.utils.vector_to_parameters(weights, other.parameters())
        other.compute_loss(batch).backward()
        found.append(norm_of(other.parameters()))
    return found


# The units are optimiser steps


class Manual(Small):
    def __init__(self, optimizer=SGD, **injected):
        super().__init__(optimizer, **injected)
        self.automatic_optimization = False


def test_the_loss_of_a_manual_accumulation_is_the_sum_of_what_went_backward():
    class Accumulates(Manual):
        def training_step(self, batch, batch_idx):
            self.manual_backward(super().training_step(batch, batch_idx) / 4)
            if batch_idx % 4 == 3:
                self.optimizers().step()
                self.optimizers().zero_grad()

    monitor, sink = watched(module := Accumulates(), 8)
    losses = list(map(float, module.losses))
    assert sink.curve(names.TRAIN_LOSS) == [(k, pytest.approx(sum(losses[4 * k : 4 * k + 4]) / 4)) for k in (0, 1)]
    assert len(sink.values(names.GRAD_NORM)) == 2
    assert monitor.steps_read == 2


def test_two_backwards_a_step():
    class Twice(Manual):
        def training_step(self, batch, batch_idx):
            self.optimizers().zero_grad()
            first = super().training_step(batch, batch_idx)
            self.manual_backward(first, retain_graph=True)
            self.manual_backward(2 * first)
            self.true = [*getattr(self, "true", []), norm_of(self.parameters())]
            self.optimizers().step()

    _, sink = watched(module := Twice(), 5)
    assert sink.values(names.TRAIN_LOSS) == pytest.approx([3 * float(loss) for loss in module.losses])
    assert sink.values(names.GRAD_NORM) == pytest.approx(module.true)


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("factor", [1000, NAN])
def test_a_backward_whose_gradient_was_thrown_away_is_no_part_of_the_loss(to_none, factor):
    class Probes(Manual):
        def training_step(self, batch, batch_idx):
            self.manual_backward(factor * self.compute_loss(batch))
            self.optimizers().zero_grad(set_to_none=to_none)
            self.manual_backward(super().training_step(batch, batch_idx))
            self.optimizers().step()
            self.optimizers().zero_grad(set_to_none=to_none)

    _, sink = watched(module := Probes(), 4)
    assert sink.values(names.TRAIN_LOSS) == list(map(float, module.losses))


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
@pytest.mark.parametrize("manual", [False, True])
def test_lbfgs_makes_one_step_of_many_evaluations(manual, line_search):
    def lbfgs(parameters):
        return torch.optim.LBFGS(parameters, lr=0.1, max_iter=4, line_search_fn=line_search)

    class Closure(Manual):
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()

            def closure():
                optimizer.zero_grad()
                loss = super(Closure, self).training_step(batch, batch_idx)
                self.manual_backward(loss)
                return loss

            optimizer.step(closure=closure)

    module, alone = ((Closure if manual else Small)(lbfgs) for _ in range(2))
    fit(alone, [], 4)
    monitor, sink = watched(module, 4)
    assert torch.equal(torch.stack(alone.weights), torch.stack(module.weights))
    assert [step for step, _ in sink.curve(names.TRAIN_LOSS)] == [0, 1, 2, 3]
    for weights, batch, loss in zip(module.weights, batches(4), sink.values(names.TRAIN_LOSS), strict=False):
        other = Small(SGD)
        nn.utils.vector_to_parameters(weights, other.parameters())
        assert loss == pytest.approx(other.compute_loss(batch).item(), rel=1e-5)  # where the step begins
    assert module.batches > 8
    assert monitor.outcome is Outcome.CONVERGED


@pytest.mark.parametrize(("toggles", "to_none"), [(False, True), (True, True), (False, False)])
def test_two_optimisers_have_each_its_own_loss_and_steps(toggles, to_none):
    module = Gan(toggles=toggles, to_none=to_none)
    monitor, sink = watched(module, 6)
    assert sink.curve(names.TRAIN_LOSS) == [(i, pytest.approx(x)) for i, x in enumerate(module.losses["g"])]
    second = sink.curve(f"{names.TRAIN_LOSS}/optimizer_1")
    assert second == [(i, pytest.approx(x)) for i, x in enumerate(module.losses["d"])]
    assert [curve.steps for curve in monitor.curves] == [6, 12]


@pytest.mark.parametrize("others", [1, 2])
def test_an_optimiser_that_replaces_another_during_the_training_goes_on_in_its_curve(others):
    class Switches(Small):  # as in Lightning's issue 3095
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                parts = [self.parameters()] if others == 1 else [self.net[0].parameters(), self.net[2].parameters()]
                self.trainer.optimizers = [SGD(part) for part in parts]

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if others == 2:
                for optimizer in self.trainer.optimizers:
                    optimizer.zero_grad()
                self.manual_backward(loss)
                for optimizer in self.trainer.optimizers:
                    optimizer.step()
            return loss

    module = Switches(add_to_loss={12: NAN})
    module.automatic_optimization = others == 1
    monitor, sink = watched(module, 5, epochs=3, after_failure="continue")
    assert [curve.steps for curve in monitor.curves] == [15, 10][:others]
    assert sink.values(names.TRAIN_LOSS) == pytest.approx([float(loss) for loss in module.losses], nan_ok=True)
    assert (monitor.outcome, monitor.first_nonfinite_step) == (Outcome.NONFINITE, 12)
    assert torch.isfinite(module.flat()).all()


def test_the_critics_nan_is_not_the_generators():
    module = Gan(toggles=False, spoilt=(2, "d"))
    monitor, sink = watched(module, 6, after_failure="continue")
    assert [curve.first_nonfinite_step for curve in monitor.curves] == [None, 4]
    assert [j.outcome for j in monitor.judgements] == [Outcome.CONVERGED, Outcome.NONFINITE]
    assert all(math.isfinite(value) for value in sink.values(names.TRAIN_LOSS))
    (event,) = [payload for name, payload in sink.events if name == names.NONFINITE_EVENT]
    assert (event["optimizer"], event["batch"]) == (1, 2)
    assert all(torch.isfinite(p).all() for p in module.parameters())


# What ended it


class EndsAt(Small):
    def __init__(self, step, error, **injected):
        super().__init__(**injected)
        self.step, self.error = step, error

    def training_step(self, batch, batch_idx):
        if batch_idx == self.step:
            raise self.error
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ValueError("mine"), torch.OutOfMemoryError("CUDA out of memory")]
)
def test_a_nonfinite_step_that_was_seen_wins(error):
    monitor = StabilityMonitor(sink := Recorder())
    with pytest.raises((type(error), SystemExit)):
        fit(EndsAt(20, error, times_gradient={5: NAN}), monitor, 40)
    assert (monitor.outcome, monitor.failure_step) == (Outcome.NONFINITE, 5)
    assert monitor.judgement.known_good_step == 4
    assert sink.tags()[names.OUTCOME] == "nonfinite"
    assert sink.tags()[names.REASON].startswith(type(error).__name__)


def test_what_detect_anomaly_met_is_a_nonfinite_step():
    class Roots(Small):
        def compute_loss(self, batch):
            loss = super().compute_loss(batch)
            return loss + (loss * 0).sqrt() if self.batches == 4 else loss  # finite, with a gradient of NaN

    monitor = StabilityMonitor(sink := Recorder())
    with pytest.raises(RuntimeError, match="nan values"):
        fit(Roots(), monitor, 10, detect_anomaly=True)
    assert (monitor.outcome, monitor.failure_step) == (Outcome.NONFINITE, 4)
    assert len(sink.values(names.TRAIN_LOSS)) == 4


def test_a_loss_that_was_seen_to_be_nan_before_somebody_raised_is_a_nonfinite_step():
    class Raises(Small):
        def on_after_backward(self):
            if not all(torch.isfinite(p.grad).all() for p in self.parameters()):
                raise ValueError("NaN gradient")

    class Spoilt(Raises):
        def compute_loss(self, batch):
            return super().compute_loss(batch) * (NAN if self.batches == 7 else 1)

    monitor = StabilityMonitor()
    with pytest.raises(ValueError, match="NaN gradient"):
        fit(Spoilt(), monitor, 10)
    assert (monitor.outcome, monitor.failure_step) == (Outcome.NONFINITE, 7)


def test_an_exception_after_the_generators_nan_is_no_failure_of_the_critic():
    """The generator's backward pass reaches the critic too, whose next step would have thrown that away."""

    class Ends(Gan):
        def training_step(self, batch, batch_idx):
            if batch_idx == 4:
                raise ValueError("mine")
            super().training_step(batch, batch_idx)

    monitor = StabilityMonitor(after_failure="continue")
    with pytest.raises(ValueError, match="mine"):
        fit(Ends(toggles=False, spoilt=(3, "g")), monitor, 10)
    assert (monitor.outcome, monitor.failure_step) == (Outcome.NONFINITE, 3)
    assert [curve.first_nonfinite_step for curve in monitor.curves] == [3, None]


@pytest.mark.parametrize("added", [0.0, -100.0, 1e-9])
def test_a_falling_loss_of_any_sign_converges(added):
    class Falls(Small):
        def compute_loss(self, batch):
            return super().compute_loss(batch) + added - 0.01 * self.batches

    assert watched(Falls(), 20, epochs=4)[0].outcome is Outcome.CONVERGED


def test_losses_are_summed_in_float32_whatever_the_weights_are():
    class Half(Small):
        def compute_loss(self, batch):
            return super().compute_loss(batch).half() * 0 + 20007.5

    _, sink = watched(Half(SGD), 4, accumulate_grad_batches=4)
    assert sink.values(names.TRAIN_LOSS) == [pytest.approx(20007.5, rel=1e-3)]

    class Manual16(Half):
        def __init__(self):
            super().__init__(SGD)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.manual_backward(super().training_step(batch, batch_idx))
            if batch_idx == 3:
                self.optimizers().step()

    monitor, sink = watched(Manual16(), 4)
    assert sink.values(names.TRAIN_LOSS) == [pytest.approx(80030, rel=1e-3)]
    assert monitor.outcome is Outcome.CONVERGED


def test_norms_of_half_precision_are_taken_in_float32():
    """bfloat16 has 8 bits: a norm that was summed in it is wrong in the second digit."""

    class Wide(Small):
        def on_after_backward(self):
            grads = [p.grad.double() for p in self.parameters()]
            self.true = [*getattr(self, "true", []), float(nn.utils.get_total_norm(grads))]

    _, sink = watched(module := Wide(SGD), 5, precision="bf16-true")
    assert len(sink.values(names.GRAD_NORM)) == 5
    assert sink.values(names.GRAD_NORM) == pytest.approx(module.true, rel=1e-5)


class Logs(Small):
    def __init__(self, name, losses):
        super().__init__()
        self.name, self.to_log = name, losses

    def validation_step(self, batch, batch_idx):
        self.log(self.name, torch.tensor(self.to_log[self.current_epoch]))


@pytest.mark.parametrize("name", ["val_loss", "val/loss"])
@pytest.mark.parametrize("asked", [{}, {"val_loss_name": "val_loss"}, {"val_loss_name": "val/loss"}])
def test_val_slash_loss_is_as_good_a_name(name, asked):
    monitor = StabilityMonitor(sink := Recorder(), rules=OutcomeRules(baseline=0.1), **asked)
    fit(Logs(name, [3.0, 2.0]), monitor, 3, epochs=2)
    assert [v.loss for v in monitor.validations] == [3.0, 2.0]
    assert monitor.outcome is Outcome.STAGNATED
    assert sink.values("val/loss" if name == "val/loss" else "val/val_loss") == [3.0, 2.0]


def test_a_checkpoint_of_an_epochs_end_holds_the_validation_that_was_logged_there(tmp_path):
    class AtTheEnd(Small):
        def on_train_epoch_end(self):
            self.log_dict({"val_loss": 1.0 / (1 + self.current_epoch), "val_accuracy": 0.5})

    def trained(epochs, **settings):
        saves = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        monitor = StabilityMonitor(sink := Recorder())
        trainer = make_trainer([monitor, saves], max_epochs=epochs, enable_checkpointing=True)
        trainer.fit(AtTheEnd(), batches(5), weights_only=False, **settings)
        return monitor, sink

    _, sink = trained(2)
    assert sink.curve("val/val_loss") == [(4, 1.0), (9, 0.5)]
    assert sink.curve("val/val_accuracy") == [(4, 0.5), (9, 0.5)]
    monitor, sink = trained(3, ckpt_path=tmp_path / "epoch=1.ckpt")
    assert [(v.step, v.loss) for v in monitor.validations] == [(4, 1.0), (9, 0.5), (14, pytest.approx(1 / 3))]
    assert [step for step, _ in sink.curve("val/val_loss")] == [14]


def test_a_resumed_training_whose_cause_was_mended_goes_on(tmp_path):
    first = fit(Small(times_gradient={3: NAN}), monitor := StabilityMonitor(), 10, epochs=3)
    assert (monitor.outcome, first.global_step) == (Outcome.NONFINITE, 10)
    first.save_checkpoint(tmp_path / "after.ckpt")
    again = StabilityMonitor()
    trainer = make_trainer([again], max_epochs=4)
    trainer.fit(Small(), batches(10), ckpt_path=tmp_path / "after.ckpt", weights_only=False)
    assert trainer.global_step == 40
    assert again.steps_read == 40
    assert (again.outcome, again.failure_step) == (Outcome.NONFINITE, 3)  # it did fail


def test_a_checkpoint_of_another_callback_loses_no_step(tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 3:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    fit(Small(), [Save(), StabilityMonitor()], 10)
    monitor = StabilityMonitor(sink := Recorder())
    make_trainer([monitor], max_epochs=1).fit(Small(), batches(10), ckpt_path=tmp_path / "mid.ckpt", weights_only=False)
    assert [step for step, _ in sink.curve(names.TRAIN_LOSS)] == list(range(4, 10))


# Normalisation


class Normalised(LightningModule):
    def __init__(self, spoilt=None):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.spoilt = spoilt

    def training_step(self, batch, batch_idx):
        return self.net(batch * (INF if batch_idx == self.spoilt else 1)).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_nan_is_kept_from_running_statistics():
    """As if the batch had not been: mean, variance and count are those of the others."""
    alone, spoilt = Normalised(), Normalised(spoilt=5)
    fit(alone, [], 6, max_steps=5)
    monitor, _ = watched(spoilt, 6, after_failure="continue")
    assert (monitor.outcome, monitor.failure_step) == (Outcome.NONFINITE, 5)
    for name, value in alone.net[1].state_dict().items():
        assert torch.equal(value, spoilt.net[1].state_dict()[name]), name
    watched_only = Normalised()
    watched(watched_only, 6, max_steps=5)
    assert all(
        torch.equal(a, b) for a, b in zip(alone.state_dict().values(), watched_only.state_dict().values(), strict=True)
    )


class LeavesOut(Normalised):
    """The usual recipe for batches of NaN, whose forward pass has been made by then."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss if torch.isfinite(loss) else None


class Overflows(Normalised):
    """The variance of these is infinite in float32, and what is divided by it is 0: the loss is finite."""

    def training_step(self, batch, batch_idx):
        return self.net(batch * (1e25 if batch_idx == 5 else 1)).square().mean()


@pytest.mark.parametrize("module", [LeavesOut(spoilt=5), Overflows()], ids=lambda module: type(module).__name__)
def test_statistics_that_are_not_finite_though_the_step_is_good_are_restored_and_said(module):
    alone = Normalised()
    fit(alone, [], 6, max_steps=5)
    monitor, sink = watched(module, 6)
    assert monitor.outcome is Outcome.CONVERGED
    for name, value in alone.net[1].named_buffers():
        assert torch.equal(value, module.net[1].get_buffer(name)), name
    (event,) = [payload for name, payload in sink.events if name == "running_statistics_restored"]
    assert event == {"step": 5, "epoch": 0, "batch": 5}


def test_statistics_of_a_layer_that_is_made_by_its_first_batch():
    class Late(Normalised):
        def __init__(self):
            super().__init__(spoilt=3)
            self.net = nn.Sequential(nn.Linear(3, 4), nn.LazyBatchNorm1d(), nn.Linear(4, 1))

    monitor, _ = watched(module := Late(), 6, after_failure="continue")
    assert (monitor.outcome, monitor.failure_step) == (Outcome.NONFINITE, 3)
    assert int(module.net[1].num_batches_tracked) == 5
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())


def test_nan_is_kept_from_the_statistics_of_the_second_optimisers_network():
    class Two(LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.nets = nn.ModuleList(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)) for _ in range(2))

        def training_step(self, batch, batch_idx):
            for i, (net, optimizer) in enumerate(zip(self.nets, self.optimizers(), strict=True)):
                optimizer.zero_grad()
                self.manual_backward(net(batch * (INF if (i, batch_idx) == (1, 3) else 1)).square().mean())
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD(net.parameters(), lr=0.01) for net in self.nets]

    watched(module := Two(), 6, after_failure="continue")
    assert [int(net[0].num_batches_tracked) for net in module.nets] == [6, 5]
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())


def test_metrics_that_are_no_single_numbers_are_left_alone():
    class Odd(Logs):
        def on_validation_epoch_end(self):
            self.trainer.callback_metrics["mine"] = "text"
            self.trainer.callback_metrics["val/vector"] = torch.ones(3)

    monitor = StabilityMonitor(sink := Recorder())
    fit(Odd("val_loss", [3.0, 2.0]), monitor, 3, epochs=2)
    assert len(monitor.validations) == 2
    assert sink.values("val/vector") == []


# Which one


def test_the_parameter_the_module_and_the_batch_of_a_nonfinite_step_are_named():
    class Breaks(Small):
        def compute_loss(self, batch):
            hidden = self.net[1](self.net[0](batch))
            if self.batches == 13:
                hidden.register_hook(lambda g: g * NAN)
            return self.net[2](hidden).square().mean()

    _, sink = watched(Breaks(), 10, epochs=2)
    (event,) = [payload for name, payload in sink.events if name == names.NONFINITE_EVENT]
    assert (event["step"], event["epoch"], event["batch"]) == (13, 1, 3)
    assert (event["parameter"], event["module"], event["parameters"]) == ("net.0.bias", "net.0", 2)
    assert set(event["largest"]) == {"net.2.weight", "net.2.bias"}


def test_the_largest_norms_and_the_batch_of_a_spike_are_named():
    _, sink = watched(Small(times_gradient={30: 1e6}), 60)
    (event,) = [payload for name, payload in sink.events if name == names.SPIKE_EVENT]
    assert (event["step"], event["batch"], event["epoch"]) == (30, 30, 0)
    assert next(iter(event["largest"])) == "net.0.weight"
    assert event["largest"]["net.0.weight"] == pytest.approx(event["norm"], rel=1e-3)


def test_layer_norms_every_k_steps():
    monitor = StabilityMonitor(sink := Recorder(), layer_norms_every=4)
    fit(Small(), monitor, 10)
    first, second = (sink.curve(f"layer_grad_norm/{layer}") for layer in ("net.0", "net.2"))
    assert [step for step, _ in first] == [0, 4, 8]
    total = dict(sink.curve(names.GRAD_NORM))
    for (step, a), (_, b) in zip(first, second, strict=True):
        assert math.hypot(a, b) == pytest.approx(total[step], rel=1e-5)


# Several fits


def test_nothing_of_an_earlier_fit_is_left():
    monitor = StabilityMonitor()
    fit(Small(times_gradient={2: NAN}), monitor, 10)
    assert monitor.outcome is Outcome.NONFINITE
    fit(Small(), monitor, 20)
    assert (monitor.outcome, monitor.first_nonfinite_step, monitor.steps_read) == (Outcome.CONVERGED, None, 20)


def test_a_second_fit_into_the_same_sink_is_refused_and_loses_nothing():
    sink = Recorder()
    fit(Small(), StabilityMonitor(sink), 10)
    before = (len(sink.points), len(sink.events))
    with pytest.raises(ConfigError, match="steps 0 to 9 of another fit already: give each fit a sink of its own"):
        fit(Small(), StabilityMonitor(sink), 10)
    assert (len(sink.points), len(sink.events)) == before


def test_a_fit_that_goes_on_takes_the_same_sink():
    monitor = StabilityMonitor(sink := Recorder())
    trainer = make_trainer([monitor], max_epochs=1)
    trainer.fit(module := Small(), batches(10))
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, batches(10))
    assert [step for step, _ in sink.curve(names.TRAIN_LOSS)] == list(range(20))


@pytest.mark.parametrize("is_same", [True, False])
def test_a_fit_without_a_step_left_does_not_change_the_end_of_the_one_in_the_sink(is_same):
    monitor = StabilityMonitor(sink := Recorder())
    trainer = make_trainer([monitor], max_epochs=1)
    trainer.fit(module := Small(), batches(10))
    before = (len(sink.points), len(sink.events))
    trainer = trainer if is_same else make_trainer([StabilityMonitor(sink)], max_epochs=0)
    trainer.fit(module, batches(10))
    assert (len(sink.points), len(sink.events)) == before
    assert sink.tags()[names.OUTCOME] == Outcome.CONVERGED


def test_a_search_for_the_learning_rate_or_the_batch_size_leaves_nothing():
    class Tuned(Small):
        def __init__(self):
            super().__init__(lambda parameters: torch.optim.SGD(parameters, lr=self.lr))
            self.lr, self.batch_size = 0.1, 2

        def train_dataloader(self):
            return DataLoader(torch.randn(40, 3), batch_size=self.batch_size)

    for search in ("lr_find", "scale_batch_size"):
        monitor, module = StabilityMonitor(sink := Recorder()), Tuned()
        trainer = make_trainer([monitor], max_epochs=1)
        settings = {"num_training": 10} if search == "lr_find" else {"max_trials": 2, "steps_per_trial": 2}
        getattr(Tuner(trainer), search)(module, **settings)
        assert (sink.points, sink.events, monitor.outcome) == ([], [], Outcome.RUNNING)
        trainer.fit(module)
        assert monitor.outcome is Outcome.CONVERGED
        assert [step for step, _ in sink.curve(names.TRAIN_LOSS)] == list(range(40 // module.batch_size))


@pytest.mark.parametrize(
    ("logged", "recorded"),
    [
        ({"val_loss": 1.0, "val_accuracy": 0.5, "lr": 3.0}, {"val/loss": 1.0, "val/accuracy": 0.5}),
        ({"val/loss": 1.0, "val/f1": 0.5}, {"val/loss": 1.0, "val/f1": 0.5}),
        ({"val_accuracy": 0.5}, {"val/accuracy": 0.5}),  # a study's metric need not be a loss
    ],
)
def test_inside_a_study_the_trial_is_found_and_validations_have_the_names_of_a_study_file(
    tmp_path, monkeypatch, logged, recorded
):
    class Validates(Small):
        def validation_step(self, batch, batch_idx):
            self.log_dict(logged)

    with Journal(tmp_path) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@here", ATTEMPT: "first"})
    monkeypatch.setenv("FNOSTAB_JOURNAL", str(tmp_path))
    monkeypatch.setenv("FNOSTAB_TOKEN", "first")
    fit(Validates(), [StabilityMonitor(sink := Recorder())], 3)  # a sink of its own comes first
    assert len(sink.values(names.TRAIN_LOSS)) == 3
    fit(Validates(), StabilityMonitor(), 3)
    points = [record for record, _ in read_journal(tmp_path / FILE_NAME) if isinstance(record, Point)]
    assert [p.step for p in points if names.TRAIN_LOSS in p.values] == [0, 1, 2]
    assert next(dict(p.values) for p in points if recorded.keys() & p.values.keys()) == recorded


@pytest.mark.parametrize(
    ("validations", "options", "announced"),
    [
        ([1.0, 0.5, 9.0, 9.0], {}, None),  # exploded, unless the study's baseline is 10, say
        ([1.0, 0.5, 0.4, 0.3], {}, None),
        ([1.0, 0.5, 9.0, 9.0], {"baseline": 0.1}, "exploded"),
        ([1.0, 0.5, NAN, NAN], {}, "nonfinite"),
    ],
)
def test_in_a_study_its_own_rules_judge(tmp_path, monkeypatch, validations, options, announced):
    class Validates(Small):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", validations[self.current_epoch])

    with Journal(tmp_path) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@here", ATTEMPT: "first"})
    monkeypatch.setenv("FNOSTAB_JOURNAL", str(tmp_path))
    monkeypatch.setenv("FNOSTAB_TOKEN", "first")
    fit(Validates(optimizer=lambda p: torch.optim.SGD(p, lr=1e-9)), StabilityMonitor(**options), 3, epochs=4)
    records = [record for record, _ in read_journal(tmp_path / FILE_NAME)]
    tags = {k: v for record in records if not isinstance(record, Point) for k, v in record.payload.items()}
    assert tags.get(names.OUTCOME) == announced
    assert (names.FAILURE_STEP in tags) is (announced is not None)
    assert not tags.keys() & {names.RULES_HELD, names.NOT_JUDGED}  # or a restart would judge by other rules


def test_inside_a_study_a_training_that_a_signal_ended_is_no_success(tmp_path, monkeypatch):
    class Signalled(Small):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 5:
                signal.raise_signal(signal.SIGTERM)  # Lightning then raises SystemExit, and the exit status is 0

    with Journal(tmp_path) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@here", ATTEMPT: "first"})
    monkeypatch.setenv("FNOSTAB_JOURNAL", str(tmp_path))
    monkeypatch.setenv("FNOSTAB_TOKEN", "first")
    with pytest.raises(SystemExit):
        fit(Signalled(), StabilityMonitor(), 10)
    assert read_recorded(tmp_path).seen == (Outcome.KILLED, "SIGTERMException")


@pytest.mark.parametrize(
    ("error", "seen"),
    [(ValueError("mine"), (Outcome.INFRA_ERROR, "ValueError: mine")), (SystemExit(0), None)],  # its status tells
)
def test_inside_a_study_an_exception_that_ends_the_training_is_named(tmp_path, monkeypatch, error, seen):
    with Journal(tmp_path) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@here", ATTEMPT: "first"})
    monkeypatch.setenv("FNOSTAB_JOURNAL", str(tmp_path))
    monkeypatch.setenv("FNOSTAB_TOKEN", "first")
    with pytest.raises(type(error)):
        fit(EndsAt(5, error), StabilityMonitor(), 10)
    assert read_recorded(tmp_path).seen == seen
    with pytest.raises(JournalError, match="with one Recorder or one StabilityMonitor"):
        fit(Small(), StabilityMonitor(), 10)


def test_a_validation_between_two_steps_of_one_number_is_recorded(tmp_path, monkeypatch):
    class Phases(Small):  # first one optimiser, then another, whose steps count from 0
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()[self.current_epoch // 2]
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", NAN if self.current_epoch == 3 else 1.0 / (1 + self.current_epoch))

        def configure_optimizers(self):
            return [SGD(self.parameters()), SGD(self.parameters())]

    with Journal(tmp_path) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@here", ATTEMPT: "first"})
    monkeypatch.setenv("FNOSTAB_JOURNAL", str(tmp_path))
    monkeypatch.setenv("FNOSTAB_TOKEN", "first")
    module = Phases()
    module.automatic_optimization = False
    fit(module, monitor := StabilityMonitor(after_failure="continue"), 4, epochs=4)
    assert [v.step for v in monitor.validations] == [3, 7, 8, 9]
    records = [record for record, _ in read_journal(tmp_path / FILE_NAME)]
    points = [record for record in records if isinstance(record, Point)]
    seen = [p.step for p in points if "val/loss" in {**p.values, **p.nonfinite}]
    assert seen == [3, 7, 8, 9]
    assert not any(names.RESTARTED in record.payload for record in records if not isinstance(record, Point))


def test_validations_between_two_steps_have_the_step_before_and_are_no_restart(tmp_path, monkeypatch):
    class Validates(Small):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", 1.0)

    with Journal(tmp_path) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@here", ATTEMPT: "first"})
    monkeypatch.setenv("FNOSTAB_JOURNAL", str(tmp_path))
    monkeypatch.setenv("FNOSTAB_TOKEN", "first")
    fit(Validates(), monitor := StabilityMonitor(), 12, epochs=2, accumulate_grad_batches=6, val_check_interval=2)
    assert monitor.curves[0].steps == 4
    assert [v.step for v in monitor.validations] == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    records = [record for record, _ in read_journal(tmp_path / FILE_NAME)]
    assert [p.step for p in records if isinstance(p, Point) and "val/loss" in p.values] == [0, 1, 2, 3]
    assert not any(names.RESTARTED in record.payload for record in records if not isinstance(record, Point))


@pytest.mark.parametrize(
    ("study", "argument", "batches_trained"),
    [("continue", None, 8), ("stop", None, 4), ("continue", "stop", 4), ("stop", "continue", 8), (None, None, 4)],
)
def test_after_a_failure_it_does_what_the_study_says_unless_told_otherwise(
    monkeypatch, study, argument, batches_trained
):
    monkeypatch.delenv("FNOSTAB_AFTER_FAILURE", raising=False)
    if study is not None:
        monkeypatch.setenv("FNOSTAB_AFTER_FAILURE", study)
    module = Small(times_gradient={3: INF})
    fit(module, StabilityMonitor(block_steps=1, after_failure=argument), 8)
    assert module.batches == batches_trained
