"""16-mixed: the loss is scaled so that gradients do not underflow, and a step that overflows is left out."""

import math

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from small_module import INF, NAN, Recorder, Small, fit, fused
from torch import nn

from fnostab.monitor import StabilityMonitor
from fnostab.record import names
from fnostab.record.outcomes import Outcome

SCALE, SKIPPED = "grad_scaler/scale", "grad_scaler/skipped"


class Scaled(Small):
    """In float32 and at the scaler's scale: what overflows is what is told to."""

    def on_before_optimizer_step(self, optimizer):
        self.true = [*getattr(self, "true", []), float(nn.utils.get_total_norm([p.grad for p in self.parameters()]))]


def watched(module, steps, scale=2.0**10, **settings):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    monitor = StabilityMonitor(sink := Recorder(), block_steps=4)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler=scaler)]
    fit(module, monitor, steps, plugins=plugins, **settings)
    return monitor, sink


OPTIMIZERS = {"plain": lambda p: torch.optim.SGD(p, lr=0.1), "fused": fused(torch.optim.Adam)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_losses_and_norms_are_unscaled(optimizer):
    module = Scaled(OPTIMIZERS[optimizer])
    monitor, sink = watched(module, 8)
    assert sink.values(names.TRAIN_LOSS) == pytest.approx([float(loss) for loss in module.losses], rel=1e-3)
    divisor = 2.0**10 if optimizer == "fused" else 1.0  # it unscales by itself, in its step
    true = [norm / divisor for norm in module.true]
    assert sink.values(names.GRAD_NORM) == pytest.approx(true, rel=1e-5)
    assert sink.values(names.GRAD_NORM_CLIPPED) == pytest.approx(true, rel=1e-5)
    assert sink.values(SCALE) == [2.0**10] * 8
    assert sink.values(SKIPPED) == []
    assert monitor.outcome is Outcome.CONVERGED


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_that_the_scaler_leaves_out_is_marked_and_is_no_failure(optimizer):
    module = Small(OPTIMIZERS[optimizer], times_gradient={0: INF, 5: NAN})
    alone = Small(OPTIMIZERS[optimizer], times_gradient={0: INF, 5: NAN})
    fit(
        alone,
        [],
        12,
        plugins=[MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))],
    )
    monitor, sink = watched(module, 12)
    assert torch.equal(torch.stack(alone.weights), torch.stack(module.weights))
    assert sink.curve(SKIPPED) == [(0, 1.0), (5, 1.0)]
    assert [step for step, _ in sink.curve(names.GRAD_NORM)] == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert all(math.isfinite(value) for _, values in sink.points for value in values.values())
    assert sink.values(SCALE) == [1024.0, *[512.0] * 5, *[256.0] * 6]
    assert (monitor.outcome, monitor.first_nonfinite_step, monitor.steps_read) == (Outcome.CONVERGED, None, 12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_scale_at_the_floor_is_a_failure_since_the_row_of_overflows_began(optimizer):
    module = Small(OPTIMIZERS[optimizer], times_gradient=dict.fromkeys([3, *range(10, 60)], INF))
    monitor, sink = watched(module, 60)
    assert (monitor.outcome, monitor.failure_step) == (Outcome.NONFINITE, 10)
    (event,) = [payload for name, payload in sink.events if name == names.NONFINITE_EVENT]
    assert event["where"] == ["loss scale"]
    assert event["scale"] <= 1e-4
    assert monitor.steps_read < 60  # it was ended


def test_manual_optimisation_and_clipping_under_a_scaler():
    class Manual(Small):
        def __init__(self):
            super().__init__(OPTIMIZERS["plain"], times_gradient={2: INF})
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

        def on_before_optimizer_step(self, optimizer):
            self.before = [*getattr(self, "before", []), float(nn.utils.clip_grad_norm_(self.parameters(), 0.05))]

    monitor, sink = watched(module := Manual(), 6)
    kept = [i for i in range(6) if i != 2]
    assert sink.values(names.GRAD_NORM) == pytest.approx([module.before[i] for i in kept], rel=1e-5)
    assert sink.values(names.GRAD_NORM_CLIPPED) == pytest.approx([0.05] * 5, rel=1e-3)
    assert sink.curve(SKIPPED) == [(2, 1.0)]
    assert monitor.outcome is Outcome.CONVERGED


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("spoils", ["gradient", "batch"])
def test_statistics_of_a_step_left_out_are_those_of_a_training_alone_unless_not_finite(optimizer, spoils):
    """The batch whose gradient overflowed was seen; only infinities are kept out."""

    class Normalised(Small):
        def __init__(self):
            super().__init__(OPTIMIZERS[optimizer], times_gradient={5: INF} if spoils == "gradient" else {})
            self.norm = nn.BatchNorm1d(3, affine=False)

        def compute_loss(self, batch):
            return super().compute_loss(self.norm(batch * (INF if spoils == "batch" and self.batches == 5 else 1)))

    alone, module = Normalised(), Normalised()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    fit(alone, [], 8, plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)])
    monitor, sink = watched(module, 8)
    assert sink.curve(SKIPPED) == [(5, 1.0)]
    assert torch.isfinite(module.norm.running_var).all()
    assert torch.equal(alone.norm.running_var, module.norm.running_var) == (spoils == "gradient")
    assert int(module.norm.num_batches_tracked) == 8 - (spoils == "batch")
    assert monitor.outcome is Outcome.CONVERGED


def test_real_overflows_of_float16_are_steps_left_out_until_the_scale_fits():
    monitor, sink = watched(Small(OPTIMIZERS["plain"]), 60, scale=2.0**40)
    skipped = [step for step, _ in sink.curve(SKIPPED)]
    assert skipped[:15] == list(range(15))
    assert [step for step, _ in sink.curve(names.GRAD_NORM)] == [step for step in range(60) if step not in skipped]
    assert len(sink.values(names.TRAIN_LOSS)) == 60
    assert max(sink.values(names.GRAD_NORM)) < 100
    assert monitor.outcome is Outcome.CONVERGED
