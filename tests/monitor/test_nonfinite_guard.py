"""A non-finite loss or gradient at step k is reported at exactly k, and never reaches the weights."""

import itertools
import math

import pytest
import torch
from small_module import FUSED_ADAM, INF, NAN, Recorder, Small, fit, fused

from fnostab.monitor import StabilityMonitor
from fnostab.record import names
from fnostab.record.outcomes import Outcome

STEPS = 70
FUSED = {
    "adam": FUSED_ADAM,
    "adamw": fused(torch.optim.AdamW, weight_decay=0.1),
    "sgd": fused(torch.optim.SGD, momentum=0.9, weight_decay=0.1),
    "adagrad": fused(torch.optim.Adagrad),
}


def watched(module, *, steps=STEPS, block_steps=32, after_failure="stop", **settings):
    monitor = StabilityMonitor(sink := Recorder(), block_steps=block_steps, after_failure=after_failure)
    fit(module, monitor, steps, **settings)
    return monitor, sink


@pytest.mark.parametrize("step", [0, 1, 31, 32, 50, 69])
def test_the_step_is_exact_for_every_size_of_block(step):
    monitors = [StabilityMonitor(Recorder(), block_steps=size, after_failure="continue") for size in range(1, 65)]
    fit(Small(times_gradient={step: NAN}), monitors, STEPS)
    for monitor in monitors:
        assert (monitor.outcome, monitor.failure_step) == (Outcome.NONFINITE, step)
        assert monitor.judgement.known_good_step == (step - 1 if step else None)
        assert monitor.sink.tags()[names.FAILURE_STEP] == str(step)
        assert bad_steps(monitor.sink, names.GRAD_NORM) == [step]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_every_step_that_is_not_finite_is_recorded(where, value):
    steps = [0, 7, 8, 20, 38, 39]
    injected = {"add_to_loss" if where == "loss" else "times_gradient": dict.fromkeys(steps, value)}
    module = Small(**injected)
    _, sink = watched(module, steps=40, block_steps=8, after_failure="continue")
    assert bad_steps(sink, names.TRAIN_LOSS) == (steps if where == "loss" else [])
    assert bad_steps(sink, names.GRAD_NORM) == (steps if where == "gradient" else [])
    assert sum(sink.values(names.NAN_EVENTS) + sink.values(names.INF_EVENTS)) == len(steps)
    (said,) = [payload for name, payload in sink.events if name == names.NONFINITE_EVENT]
    seen = {"step": 0, "where": [where], "loss": repr(sink.values(names.TRAIN_LOSS)[0]), "norm": repr(norm_at_0(sink))}
    assert said.items() >= seen.items()
    assert (said["epoch"], said["batch"]) == (0, 0)
    assert said.get("parameter") == (None if where == "loss" else "net.0.weight")
    assert said.get("module") == (None if where == "loss" else "net.0")
    assert len(said["largest"]) == (4 if where == "loss" else 3)


def bad_steps(sink, name):
    return [step for step, value in sink.curve(name) if not math.isfinite(value)]


def norm_at_0(sink):
    return sink.values(names.GRAD_NORM)[0]


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("optimizer", FUSED)
def test_a_fused_optimiser_leaves_the_step_out(optimizer, clip):
    injected = {"times_gradient": {0: NAN, 5: INF}, "add_to_loss": {7: NAN, 9: INF}}
    module = Small(FUSED[optimizer], **injected)
    monitor, _ = watched(module, steps=12, after_failure="continue", gradient_clip_val=clip)
    moves = [float((b - a).norm()) for a, b in itertools.pairwise(module.weights)]
    assert [i for i, move in enumerate(moves) if move == 0] == [0, 5, 7, 9]
    assert torch.isfinite(module.weights[-1]).all()
    assert monitor.guard.endswith("leaves out a step whose loss or gradient is not finite.")


@pytest.mark.parametrize("bad", [0, 5])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_step_left_out_is_as_if_its_batch_had_not_been(optimizer, bad):
    """Neither moments nor step count of the optimiser know of it."""

    class Skips(Small):
        """Never takes the step of the bad batch."""

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) if batch_idx != bad else None

        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            if batch_idx == bad:
                optimizer_closure()
            else:
                super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    left_out, never_seen = Small(FUSED[optimizer], times_gradient={bad: NAN}), Skips(FUSED[optimizer])
    watched(left_out, steps=12, after_failure="continue")
    fit(never_seen, [], 12)
    assert torch.equal(torch.stack(left_out.weights), torch.stack(never_seen.weights))


def test_without_the_guard_the_weights_would_be_lost():
    """What the tests above rest on: the injected value does harm."""
    for where in ("add_to_loss", "times_gradient"):
        module = Small(**{where: {3: NAN}})
        fit(module, [], 10)
        spoilt = not bool(torch.isfinite(module.weights[-1]).all())
        assert spoilt == (where == "times_gradient")


def test_another_optimiser_gets_gradients_of_zero():
    seen = []

    class Sees(Small):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            seen.append([bool((p.grad == 0).all()) for p in self.parameters()])

    module = Sees(lambda p: torch.optim.SGD(p, lr=0.01), times_gradient={4: NAN})
    monitor, _ = watched(module, steps=10, after_failure="continue")
    assert [step for step, zero in enumerate(seen) if all(zero)] == [4]
    assert torch.equal(module.weights[4], module.weights[5])
    assert "not fused" in monitor.guard


def test_damped_momentum_is_no_different_for_being_watched():
    damped = fused(torch.optim.SGD, momentum=0.9, dampening=0.5)
    alone, seen = Small(damped), Small(damped)
    fit(alone, [], 6)
    monitor, _ = watched(seen, steps=6)
    assert torch.equal(torch.stack(alone.weights), torch.stack(seen.weights))
    assert "momentum" in monitor.guard


def test_momentum_still_moves_the_weights_of_another_optimiser_and_is_named():
    module = Small(lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), times_gradient={4: NAN})
    monitor, _ = watched(module, steps=10, after_failure="continue")
    coasting = module.weights[5] - module.weights[4]
    torch.testing.assert_close(coasting, 0.9 * (module.weights[4] - module.weights[3]), rtol=1e-3, atol=1e-7)
    assert torch.isfinite(module.weights[-1]).all()
    assert "SGD" in monitor.guard
    assert "momentum" in monitor.guard


@pytest.mark.parametrize(
    ("after_failure", "block_steps", "steps"),
    [("stop", 1, 21), ("stop", 16, 32), ("stop", 64, 40), ("continue", 16, 80)],  # with 64, at the epoch's end
)
def test_a_failure_ends_the_training_within_a_block_or_not_at_all(after_failure, block_steps, steps):
    module = Small(times_gradient={20: NAN})
    monitor, sink = watched(module, steps=40, epochs=2, block_steps=block_steps, after_failure=after_failure)
    assert module.batches == steps
    assert len(sink.values(names.TRAIN_LOSS)) == module.batches
    assert (monitor.outcome, monitor.failure_step) == (Outcome.NONFINITE, 20)
    assert sink.values(names.TIME_TO_FAILURE) == [20]


def test_events_are_counted_by_kind():
    module = Small(times_gradient={3: NAN, 5: INF, 6: NAN}, add_to_loss={3: NAN, 8: INF, 9: -INF, 5: NAN})
    monitor, sink = watched(module, steps=20, after_failure="continue")
    counts = (sink.values(names.NAN_EVENTS), sink.values(names.INF_EVENTS))
    assert counts == ([3], [3])  # one a step and kind: step 5 has both
    assert monitor.failure_step == 3
    assert len([name for name, _ in sink.events if name == names.NONFINITE_EVENT]) == 1


def test_the_outcome_is_announced_before_the_training_ends():
    """The process may die of it."""

    class Dies(Small):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 30:
                raise SystemExit("killed")

    module = Dies(times_gradient={3: NAN})
    monitor = StabilityMonitor(sink := Recorder(), block_steps=8, after_failure="continue")
    with pytest.raises(SystemExit):
        fit(module, monitor, 40)
    first = next(payload for name, payload in sink.events if name == "tags")
    assert first == {names.OUTCOME: "nonfinite", names.FAILURE_STEP: "3"}


def test_an_optimiser_that_is_used_on_without_the_monitor_steps_again():
    module = Small(times_gradient={9: NAN})
    (optimizer,) = fit(module, StabilityMonitor(), 10).optimizers
    before = module.flat()
    module.net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(module.flat(), before)
