"""Why the control collapses: the tests of docs/findings.md that inspect a network during training.

    PYTHONPATH=examples/cure_search python -m benchmarks.mechanism --seeds 10 --output results/cure

Trains the control and the leaky network of examples/cure_search (small profile, 6 epochs, learning rate 2e-2), inspects
every step, and tries to revive collapsed networks. Writes mechanism.csv with a row per seed, and prints a summary.
"""

import argparse
import csv
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from fnostab.monitor import Snapshots, StabilityMonitor
from fnostab.monitor.layer_measures import dead_share
from fnostab.ptychography.models import ResidualBlock, SpectralConv2d
from fnostab.ptychography.physics.far_field import far_field
from fnostab.ptychography.training.setup import Training, set_up
from fnostab.record.outcomes import Outcome
from fnostab.study.study import load_study

CANDIDATES = "examples/cure_search/candidates.yaml"
AS_ASKED_THEN = {"training.epochs": 6, "monitor.stagnated_detail": 1e-9}  # success does not require details
DEAD = 0.95  # share of dead units from which a decoder stage counts as dead
NEAR = 0.02  # relative deviation from the final loss up to which the loss has settled
FLAT = 0.005  # patch variation below which the patches are alike
PROBE_PATTERNS = 64  # validation patterns on which every step is evaluated
REVIVAL_EPOCHS, REVIVAL_RATE = 3, 1e-3
REVIVED = 0.95  # loss below which a network is revived, relative to a constant output's


class Trace(Callback):
    """Evaluate the network on the same patterns after every step.

    Attributes:
        losses: loss by step.
        variation: variation of the predicted amplitude between patches, by step.
        dead: largest dead share of a decoder stage, by step.
        drift: largest |mean| / std of an encoder block's output, by step.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self.losses: list[float] = []
        self.variation: list[float] = []
        self.dead: list[float] = []
        self.drift: list[float] = []

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module, seen = self.training.module, dict[str, Tensor]()
        generator: Any = module.generator
        watched = {f"decoder.{i}": stage[-2] for i, stage in enumerate(generator.decoder)}
        watched |= {f"encoder.{i}": block for i, block in enumerate(generator.encoder)}
        handles = [m.register_forward_hook(_keep(seen, name)) for name, m in watched.items()]
        measured = self.training.data.validation.amplitudes[:PROBE_PATTERNS]
        with torch.no_grad():
            patches = module(measured)
            loss = module.loss(far_field(module.probe * patches).abs(), measured)
        for handle in handles:
            handle.remove()
        amplitude = patches.abs().double()
        self.losses.append(float(loss))
        self.variation.append(float(amplitude.std(dim=0).mean() / amplitude.mean()))
        self.dead.append(max(float(dead_share(v) or 0) for name, v in seen.items() if name.startswith("decoder")))
        blocks = [v.double() for name, v in seen.items() if name.startswith("encoder")]
        self.drift.append(max(float(v.mean().abs() / v.std()) for v in blocks))


def _keep(seen: dict[str, Tensor], name: str) -> Any:
    return lambda module, inputs, output: seen.update({name: output.detach()})


@dataclass(frozen=True)
class Row:
    """Result of one seed; steps are 0-based, None means never.

    Attributes:
        dead_step: first step after which a decoder stage is dead.
        most_dead: largest dead share of a decoder stage.
        flat_step: first step from which the patches stay alike.
        settled_step: first step from which the loss stays within 2 % of its last value.
        drift_before: largest |mean| / std of an encoder block's output at the step before ``dead_step``.
        largest_loss: largest loss of the first 34 steps.
        n_reset: number of reset units.
        revived_loss: loss after resetting dead units and further training, relative to a constant output's.
        waited_loss: loss after further training without a reset, relative to a constant output's.
    """

    arm: str
    seed: int
    outcome: str
    dead_step: int | None
    most_dead: float
    flat_step: int | None
    settled_step: int | None
    drift_before: float | None
    largest_loss: float
    n_reset: int | None = None
    revived_loss: float | None = None
    waited_loss: float | None = None


def trace(arm: str, seed: int, output: Path, *, revive: bool) -> Row:
    """Train one seed of an arm, inspecting every step; with ``revive`` try to revive a collapsed network."""
    (trial,) = load_study(CANDIDATES, "small", AS_ASKED_THEN).trials("mechanism", output, arms=[arm], seeds=[seed])
    training = set_up(trial.spec)
    monitor, seen = training.monitor(None), Trace(training)
    with tempfile.TemporaryDirectory() as scratch:
        training.fit([monitor, Snapshots(monitor, Path(scratch)), seen], torch.device("cpu"), Path(scratch))
    dead = next((step for step, share in enumerate(seen.dead) if share >= DEAD), None)
    row = Row(
        arm,
        seed,
        str(monitor.outcome),
        dead,
        max(seen.dead),
        _from_then_on([v < FLAT for v in seen.variation]),
        _from_then_on([abs(loss / seen.losses[-1] - 1) <= NEAR for loss in seen.losses]),
        seen.drift[dead - 1] if dead else None,
        max(seen.losses[:34]),
    )
    if not revive or monitor.outcome is not Outcome.COLLAPSED:
        return row
    return Row(**{**asdict(row), **_revival(training, monitor, seed)})


def _from_then_on(holds: Sequence[bool]) -> int | None:
    if not holds or not holds[-1]:
        return None
    return max((step + 1 for step, each in enumerate(holds) if not each), default=0)


def _revival(training: Training, monitor: StabilityMonitor, seed: int) -> Mapping[str, Any]:
    """Continue training from the final weights, without and with a reset of dead units."""
    module = training.module
    optimizer = module.trainer.optimizers[0]
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    kept = {p: {k: v.clone() for k, v in state.items()} for p, state in optimizer.state.items()}
    found: dict[str, Any] = {}
    for name in ("waited_loss", "revived_loss"):
        module.load_state_dict(weights)
        for p, state in kept.items():
            optimizer.state[p] = {k: v.clone() for k, v in state.items()}
        if name == "revived_loss":
            found["n_reset"] = _reset_dead_units(training, optimizer, seed)
        found[name] = _go_on(training, optimizer) / training.constant_loss
    return found


def _go_on(training: Training, optimizer: torch.optim.Optimizer) -> float:
    """Train for `REVIVAL_EPOCHS` more epochs; return the validation loss."""
    module, batches = training.module, training.batches
    for group in optimizer.param_groups:
        group["lr"] = REVIVAL_RATE
    module.train()
    loader = batches.train_dataloader()
    for _ in range(REVIVAL_EPOCHS):
        for batch in loader:
            optimizer.zero_grad()
            module.training_step(batch, 0).backward()
            optimizer.step()
    measured = training.data.validation.amplitudes
    with torch.no_grad():
        return float(module.loss(far_field(module.probe * module(measured)).abs(), measured))


@torch.no_grad()
def _reset_dead_units(training: Training, optimizer: torch.optim.Optimizer, seed: int) -> int:
    """Redraw the filters that feed dead units of any GELU, and reset their Adam moments; return the number of units."""
    generator: Any = training.module.generator
    fed_by: dict[nn.Module, list[nn.Module]] = {}
    for part in generator.modules():
        if isinstance(part, ResidualBlock):
            fed_by[part.act] = [part.conv, part.spectral]
        elif isinstance(part, nn.Sequential) and len(part) == 3 and isinstance(part[1], nn.GELU):
            fed_by[part[1]] = [part[0]]
    seen: dict[nn.Module, Tensor] = {}
    handles = [act.register_forward_hook(lambda m, _, output: seen.update({m: output})) for act in fed_by]
    generator(training.data.train.amplitudes[:PROBE_PATTERNS])
    for handle in handles:
        handle.remove()
    n_reset = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for act, layers in fed_by.items():
            std, mean = torch.std_mean(seen[act].transpose(0, 1).flatten(1), dim=1, correction=0)
            dead = std <= 1e-6 * (1 + mean.abs())
            n_reset += int(dead.sum())
            for layer in layers:
                _redraw(layer, dead, optimizer)
    return n_reset


def _redraw(layer: Any, units: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Redraw the weights of some output units of a layer from its initial distribution."""
    before = {name: p.clone() for name, p in layer.named_parameters()}
    layer.reset_parameters()
    for name, p in layer.named_parameters():
        axis = SpectralConv2d.weight_unit_dim if isinstance(layer, SpectralConv2d) else 0
        shape = [1] * p.ndim
        shape[axis] = -1
        chosen = units.view(shape)
        p.copy_(torch.where(chosen, p, before[name]))
        for moment in ("exp_avg", "exp_avg_sq"):
            optimizer.state[p][moment].mul_(~chosen)


def summary(rows: Sequence[Row]) -> list[str]:
    """Results for the numbered predictions of docs/findings.md, one line each."""
    control = [row for row in rows if row.arm == "control"]
    leaky = [row for row in rows if row.arm == "leaky_both"]
    collapsed = [row for row in control if row.outcome == Outcome.COLLAPSED]
    others = [row for row in control if row.outcome == Outcome.CONVERGED]
    n = len(collapsed)
    before = sum(r.dead_step is not None and r.dead_step <= _or_never(r.settled_step) for r in collapsed)
    flat = sum(r.dead_step is not None and r.dead_step <= _or_never(r.flat_step) for r in collapsed)
    ever = sum(r.dead_step is not None for r in others)
    revived = sum(r.revived_loss is not None and r.revived_loss < REVIVED for r in collapsed)
    waited = sum(r.waited_loss is not None and r.waited_loss < REVIVED for r in collapsed)
    drifted = sum(r.drift_before is not None and r.drift_before > 1 for r in collapsed)
    known = sum(r.drift_before is not None for r in collapsed)
    return [
        f"control: {n} of {len(control)} collapsed, {len(others)} converged",
        f"1: a decoder stage was dead by the step at which the loss settled in {before} of {n} collapsed trials, "
        f"by the step from which the patches were alike in {flat}; in {ever} of {len(others)} that converged, ever",
        f"3: revived by resetting dead units: {revived} of {n}; by waiting as long: {waited} of {n}",
        f"4: leaky_both: {_outcomes(leaky)}; control: {_outcomes(control)}; "
        f"largest loss of the first 34 steps, median: {_median(leaky)} and {_median(control)}",
        f"5: the mean of an encoder block exceeded its standard deviation before that in {drifted} of {known}",
    ]


def _or_never(step: int | None) -> float:
    return float("inf") if step is None else step


def _outcomes(rows: Sequence[Row]) -> str:
    names = dict.fromkeys(row.outcome for row in rows)
    return ", ".join(f"{sum(row.outcome == name for row in rows)} {name}" for name in names)


def _median(rows: Sequence[Row]) -> str:
    return f"{torch.tensor([row.largest_loss for row in rows]).median():.3g}" if rows else "-"


def main() -> None:
    """Train all seeds, write mechanism.csv and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("results/cure"))
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as data:
        for seed in range(arguments.seeds):
            for arm in ("control", "leaky_both"):
                rows.append(trace(arm, seed, Path(data), revive=arm == "control"))
                print(rows[-1], flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with open(arguments.output / "mechanism.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    print(*summary(rows), sep="\n")


if __name__ == "__main__":
    main()
