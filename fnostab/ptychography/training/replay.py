"""Replay a failure from its black box, and find where it began.

The replay uses the same trainer, data order, clipping and outcome rules as the trial, from the saved state to a few
steps past the failing step. On the CPU it is bit-identical. Every module is watched. With a changed setting the replay
is an experiment: does the failure still happen?
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.callbacks import Callback

from fnostab.errors import CheckpointError, ConfigError
from fnostab.monitor import Snapshots, StabilityMonitor
from fnostab.monitor.module_probe import ModuleProbe, ModuleState
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.kept_failure import KeptFailure
from fnostab.ptychography.training.replay_callbacks import ChangedSettings, Curves, ReplayEnd
from fnostab.ptychography.training.setup import choose_device, set_up
from fnostab.record.explosion import exploded_at
from fnostab.record.outcomes import FAILURES, Outcome, looks_failed
from fnostab.record.settings import flatten

OUT_OF_RANGE = 100.0  # ratio of a module's output rms to that at the first replayed step
FIXED = (
    *("data.", "vary", "training.batch_size", "training.epochs"),
    *("training.optimizer", "training.adam_beta2", "training.loss", "training.options"),
)

Modules = Mapping[int, Mapping[str, ModuleState]]


class Culprit(NamedTuple):
    """First module with a value that is not finite or out of range.

    Attributes:
        step: 0-based optimiser step.
        module: name of the module.
        where: "output", or "gradient" with respect to the output.
        what: "not finite", or how far out of range.
    """

    step: int
    module: str
    where: str
    what: str


@dataclass(frozen=True)
class Replay:
    """Result of a replay.

    Attributes:
        failure: the replayed failure.
        changed: settings that differ from the trial's.
        losses: training loss by step.
        grad_norms: gradient norm before clipping by step.
        modules: state of the modules by step and name, in execution order.
        n_compared: number of steps that are in the trial's record too.
        n_equal: number of these steps with bit-identical loss and gradient norm.
        outcome: failure of the replay; None if it did not fail.
        failed_at: 0-based step of that failure.
        culprit: first module whose output or gradient is not finite or out of range; None if there is none.
        focus: step to look at: the culprit's, the failing one, or that of the largest gradient.
        device: type of the device.
    """

    failure: KeptFailure
    changed: Mapping[str, Any]
    losses: Mapping[int, float]
    grad_norms: Mapping[int, float]
    modules: Modules
    n_compared: int
    n_equal: int
    outcome: Outcome | None
    failed_at: int | None
    culprit: Culprit | None
    focus: int
    device: str


def replay(
    failure: KeptFailure,
    settings: Mapping[str, Any] | None = None,
    *,
    data_dir: Path | None = None,
    progress: Callable[[int, int], None] = lambda step, last: None,
) -> Replay:
    """Train again from the saved state to a few steps past the failing step.

    Args:
        failure: failure to replay.
        settings: changed settings by dotted name.
        data_dir: cache of data sets; by default the trial's.
        progress: called after each step with its number and the approximate number of the last step.

    Raises:
        ConfigError: a setting is not known, or can't be changed during a training.
        CheckpointError: the network no longer fits the saved state.
        FnostabError: the data set or the network can't be made.
    """
    changed = dict(settings or {})
    config = _changed(TrialConfig.from_dotted(failure.trial.settings), changed)
    at_every_step = config.monitor.model_copy(update={"block_steps": 1, "after_failure": "continue"})
    config = config.model_copy(update={"monitor": at_every_step})
    spec = failure.trial.model_copy(update={"settings": flatten(config)})
    if data_dir is not None:
        spec = spec.model_copy(update={"shared_dir": str(data_dir)})
    device = choose_device(config.execution.device)
    with _threads(failure.environment.get("threads"), device), tempfile.TemporaryDirectory() as scratch:
        training = set_up(spec)
        curves, probe = Curves(), ModuleProbe()
        monitor = training.monitor(curves)
        callbacks: list[Callback] = [
            monitor,
            ChangedSettings(training.config, changed),
            Snapshots(monitor, Path(scratch)),
            probe,
            ReplayEnd(failure, monitor, bool(changed), progress),
        ]
        with _fitting(changed):
            training.fit(callbacks, device, Path(scratch), failure.state)
    if monitor.judgement is None:  # Lightning swallowed an interrupt
        raise KeyboardInterrupt
    if not curves.losses:
        raise CheckpointError(
            f"the state in {failure.folder} is from after the training's last step: nothing to replay"
        )
    return _conclude(failure, changed, monitor, curves, probe.steps, device)


def _changed(config: TrialConfig, settings: Mapping[str, Any]) -> TrialConfig:
    changed = TrialConfig.from_dotted({**flatten(config), **settings})  # first, since a name may be misspelt
    for name in settings:
        if name.startswith(FIXED) or name in ("data", "training"):
            raise ConfigError(
                f"{name} can't be changed in the middle of a training: "
                "only learning rate, schedule, weight decay, clipping and parts without parameters can"
            )
    return changed


@contextmanager
def _threads(number: Any, device: torch.device) -> Iterator[None]:
    """Context with the trial's number of threads, which affects the rounding of sums on the CPU."""
    before = torch.get_num_threads()
    if isinstance(number, int) and number > 0 and device.type == "cpu":
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _fitting(changed: Mapping[str, Any]) -> Iterator[None]:
    """Context that turns torch's error about a state that does not fit the network into a one-line error."""
    try:
        yield
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        detail = str(error).partition("\n")[2].partition("\n")[0].strip()
        suspects = [f"{name}={value}" for name, value in changed.items() if name.startswith("model.")]
        why = f"with {', '.join(suspects)} it" if suspects else "the code of the network has changed: it"
        raise CheckpointError(
            f"the state of the black box does not fit the network; {why} has other parameters than the one that "
            f"failed ({detail[:200]})"
        ) from error


def _conclude(
    failure: KeptFailure,
    changed: Mapping[str, Any],
    monitor: StabilityMonitor,
    curves: Curves,
    modules: Modules,
    device: torch.device,
) -> Replay:
    compared = [step for step in failure.losses if step in curves.losses]
    equal = [
        _same(curves.losses[step], failure.losses[step]) and _same(curves.grad_norms[step], failure.grad_norms[step])
        for step in compared
    ]
    outcome = _outcome(failure, monitor)
    failed_at = None
    if outcome is not None:
        seen = monitor.first_nonfinite_step
        failed_at = monitor.validations[-1].step if seen is None or outcome is not Outcome.NONFINITE else seen
    culprit = _first_out_of_range(modules)
    return Replay(
        failure=failure,
        changed=changed,
        losses=curves.losses,
        grad_norms=curves.grad_norms,
        modules=modules,
        n_compared=len(compared),
        n_equal=sum(equal),
        outcome=outcome,
        failed_at=failed_at,
        culprit=culprit,
        focus=_focus(failure, culprit, curves.grad_norms),
        device=device.type,
    )


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _outcome(failure: KeptFailure, monitor: StabilityMonitor) -> Outcome | None:
    """Failure of the replay, or None; rules about a whole training apply only if it ran to the end."""
    validations = monitor.validations
    if monitor.first_nonfinite_step is not None or not all(math.isfinite(v.loss) for v in validations):
        return Outcome.NONFINITE
    if failure.outcome is Outcome.NONFINITE:  # it may end within an epoch, too early to judge other rules
        return None
    if failure.outcome is Outcome.STAGNATED:  # the replay ran to the end
        return monitor.outcome if monitor.outcome in FAILURES else None
    if looks_failed(validations[-1:], None, monitor.rules):
        return Outcome.COLLAPSED
    if any(exploded_at(validations, monitor.baseline, monitor.rules)[-1:]):
        return Outcome.EXPLODED
    return None


def _focus(failure: KeptFailure, culprit: Culprit | None, grad_norms: Mapping[int, float]) -> int:
    if culprit is not None:
        return culprit.step
    if failure.outcome is Outcome.NONFINITE and failure.failure_step in grad_norms:
        return failure.failure_step
    finite = {step: norm for step, norm in grad_norms.items() if math.isfinite(norm)}
    return max(finite or grad_norms, key=lambda step: finite.get(step, 0.0))


def _first_out_of_range(modules: Modules) -> Culprit | None:
    start = min(modules)
    for step in sorted(modules):
        for name, state in modules[step].items():  # in forward order
            if state.output_max is not None and not math.isfinite(state.output_max):
                return Culprit(step, name, "output", "not finite")
            usual = getattr(modules[start].get(name), "output_rms", None) or math.inf
            if state.output_rms is not None and state.output_rms > OUT_OF_RANGE * usual:
                return Culprit(step, name, "output", f"{state.output_rms / usual:.3g} times that of step {start}")
        for name, state in reversed(list(modules[step].items())):  # in backward order
            if state.gradient is not None and not math.isfinite(state.gradient):
                return Culprit(step, name, "gradient", "not finite")
    return None
