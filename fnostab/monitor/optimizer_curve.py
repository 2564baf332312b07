"""Curve of one optimiser: its recorded steps, non-finite steps and spikes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from fnostab.monitor.spikes import Spike, SpikeDetector
from fnostab.monitor.steps import Step
from fnostab.record import names

LAYER_NORM = "layer_grad_norm/"  # + module name
SCALER_SCALE = "grad_scaler/scale"
SCALER_SKIPPED = "grad_scaler/skipped"  # 1 if the loss scaler skipped the step
NOT_MEASURED_EVENT = "not_measured"  # metric, step, reason; once per metric
SCALE_FLOOR = 1e-4  # of a loss scaler: below it, training makes no progress (fairseq's --min-loss-scale)
RESTORED_EVENT = "running_statistics_restored"  # at a good step: step, epoch, batch; once
LARGEST = 5  # number of norms listed when something went wrong

KEPT = (
    "steps",
    "nan_events",
    "inf_events",
    "first_nonfinite_step",
    "failure_place",
    "losses",
    "grad_norms",
    "observed",
    "_window",
    "_epoch_losses",
    "_first_skipped",
    "_said",
)
NORM_REASON = "clipped or otherwise written to before it could be read; call self.manual_backward"
REASONS = {  # why a metric is missing from a step that has a gradient
    names.TRAIN_LOSS: "no single loss went through Lightning's backward",
    names.GRAD_NORM: NORM_REASON,
    names.GRAD_NORM_CLIPPED: "not a torch optimiser, so the clipped gradients can't be read",
}
NO_GRADIENT = "no parameter had a gradient, as when a batch is skipped with None"


class Curve:
    """Steps of one optimiser, counted separately.

    Args:
        index: index of the optimiser; metric names of all but the first include it.
        record: called with a step and its values.
        event: called with a name and a payload.
        parameter_names: names by ``id`` of the parameter.
        window_steps: length of a window; the largest norm of each window forms a curve short enough for the UI.
        layer_norms_every: interval between records of each layer's norm; None for no records.

    Attributes:
        steps: number of steps read so far.
        first_nonfinite_step: first non-finite step of this optimiser, 0-based; None if all were finite.
        losses: loss of each step, (steps,); NaN if none was seen.
        observed: whether anything was measured at any step.
        failure_place: place of the first non-finite step among the steps of all optimisers.
        failed_now: whether a non-finite step was seen since the training began or was resumed.
    """

    def __init__(
        self,
        index: int,
        record: Callable[[int, Mapping[str, float]], None],
        event: Callable[[str, Mapping[str, Any]], None],
        parameter_names: Mapping[int, str],
        window_steps: int,
        layer_norms_every: int | None,
    ) -> None:
        self.index = index
        self.steps = 0
        self.nan_events = 0
        self.inf_events = 0
        self.first_nonfinite_step: int | None = None
        self.failure_place = math.inf
        self.failed_now = False
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self.observed = False
        self.spikes = SpikeDetector()
        self._record = record
        self._event = event
        self._parameter_names = parameter_names
        self._window_steps = window_steps
        self._layer_norms_every = layer_norms_every
        self._window: list[float] = []
        self._epoch_losses: list[float] = []
        self._first_skipped: int | None = None  # of consecutive steps that the loss scaler skipped
        self._said: list[str] = []
        self._peak: dict[str, Any] = {}  # peak of the current spike

    def name(self, metric: str) -> str:
        """Name of a metric of this optimiser."""
        return metric if self.index == 0 else f"{metric}/optimizer_{self.index}"

    def take(self, seen: Step, numbers: Mapping[str, float | None]) -> None:
        """Record the next step."""
        step, skipped = self.steps, bool(numbers["skipped"])
        self.steps += 1
        norm, clipped = (None if skipped else numbers[name] for name in ("norm", "clipped"))
        loss = numbers["loss"] if not skipped or math.isfinite(numbers["loss"] or 0.0) else None
        point = {
            names.GRAD_NORM: norm,
            names.GRAD_NORM_CLIPPED: clipped,
            names.LEARNING_RATE: None if seen.learning_rate is None else float(seen.learning_rate),
            names.TRAIN_LOSS: loss,
            names.CLIP_FRACTION: numbers["fraction"],
            SCALER_SCALE: numbers["scale"],
            SCALER_SKIPPED: 1.0 if skipped else None,
        }
        self._record(step, {self.name(name): value for name, value in point.items() if value is not None})
        if not skipped:
            self._say_missing(step, point, bool(seen.parameters) or clipped is not None)
        self.observed |= loss is not None or norm is not None or clipped is not None
        self.losses.append(math.nan if loss is None else loss)
        if loss is not None:
            self._epoch_losses.append(loss)
        if norm is not None and math.isfinite(norm):
            self.grad_norms.append(norm)
            self._window.append(norm)
        self._take_skipped(step, seen, skipped, numbers["scale"])
        if numbers["restored"] and RESTORED_EVENT not in self._said:
            self._said.append(RESTORED_EVENT)
            self._event(RESTORED_EVENT, {"step": step, "epoch": seen.epoch, "batch": seen.batch})
        if numbers["bad"]:
            self._take_nonfinite(step, seen, {"loss": loss, "gradient": norm, "clipped gradient": clipped})
        self._take_spike(step, seen, math.nan if norm is None else norm, loss)
        self._record_layers(step, seen, skipped)
        if (step + 1) % self._window_steps == 0:
            self._close_window(step)

    def go_on_at(self, step: int) -> None:
        """Continue at a step without data on the steps before it."""
        self.steps, self.losses = step, [math.nan] * step

    def take_failure(self, where: str, about: Mapping[str, Any]) -> None:
        """Record the current step, which the optimiser will not make, as non-finite."""
        self._fail(self.steps, [where], about, math.inf)

    def epoch_loss(self) -> float | None:
        """Mean training loss since the last call; None without a loss."""
        losses, self._epoch_losses = self._epoch_losses, []
        return float(np.mean(losses)) if losses else None

    def finish(self) -> None:
        """Close the last window and the last spike at the end of the training."""
        self._close_window(self.steps - 1)
        self._note(self.spikes.finish())

    def summary(self) -> dict[str, float]:
        """Summary of the whole curve by metric; NaN for missing numbers."""
        late = np.array(self.grad_norms[len(self.grad_norms) // 2 :] or [math.nan])
        return {
            names.NAN_EVENTS: self.nan_events,
            names.INF_EVENTS: self.inf_events,
            **self.spikes.summary(),
            names.LAST_STEP: max(self.steps - 1, 0),
            names.GRAD_P99_LAST_HALF: float(np.quantile(late, 0.99)),
            names.GRAD_MEDIAN_LAST_HALF: float(np.median(late)),
        }

    def state_dict(self) -> dict[str, Any]:
        """State as plain data."""
        kept = {name: getattr(self, name) for name in KEPT}
        kept = {name: value.copy() if isinstance(value, list) else value for name, value in kept.items()}
        return kept | {"spikes": self.spikes.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        for name in KEPT:
            value = state[name]
            setattr(self, name, value.copy() if isinstance(value, list) else value)
        self.spikes.load_state_dict(state["spikes"])

    def _say_missing(self, step: int, point: Mapping[str, float | None], has_gradient: bool) -> None:
        for metric, reason in REASONS.items():
            if point[metric] is not None or metric in self._said:
                continue
            if not has_gradient:
                metric, reason = "gradient", NO_GRADIENT
                if metric in self._said:
                    continue
            self._said.append(metric)
            said = metric if metric == "gradient" else self.name(metric)
            self._event(NOT_MEASURED_EVENT, {"metric": said, "step": step, "reason": reason})

    def _take_skipped(self, step: int, seen: Step, skipped: bool, scale: float | None) -> None:
        if not skipped:
            self._first_skipped = None
            return
        if self._first_skipped is None:
            self._first_skipped = step
        if scale is not None and scale <= SCALE_FLOOR and self.first_nonfinite_step is None:
            about = {"scale": scale, **self._where(seen)}
            self._fail(self._first_skipped, ["loss scale"], about, seen.place)

    def _take_nonfinite(self, step: int, seen: Step, values: Mapping[str, float | None]) -> None:
        measured = {what: value for what, value in values.items() if value is not None}
        self.nan_events += any(math.isnan(value) for value in measured.values())
        self.inf_events += any(math.isinf(value) for value in measured.values())
        if self.first_nonfinite_step is not None:
            self.failed_now = True
            return
        where = [what for what, value in measured.items() if not math.isfinite(value)]
        if len(where) > 1 and where[-1] == "clipped gradient":
            where.pop()  # it only follows from what was non-finite before clipping
        about = {"loss": repr(measured.get("loss")), "norm": repr(measured.get("gradient")), **self._where(seen)}
        self._fail(step, where or ["another process"], about, seen.place)

    def _fail(self, step: int, where: Sequence[str], about: Mapping[str, Any], place: float) -> None:
        self.first_nonfinite_step, self.failed_now, self.failure_place = step, True, place
        optimizer = {} if self.index == 0 else {"optimizer": self.index}
        self._event(names.NONFINITE_EVENT, {"step": step, "where": list(where), **optimizer, **about})

    def _where(self, seen: Step) -> dict[str, Any]:
        """Batch, parameters and module of a non-finite step or a spike."""
        found: dict[str, Any] = {"epoch": seen.epoch, "batch": seen.batch}
        norms = self._norms(seen)
        spoilt = [name for name, norm in norms.items() if not math.isfinite(norm)]
        if spoilt:
            # The backward pass starts at the output and so reaches the last non-finite parameter first
            found |= {"parameter": spoilt[-1], "module": spoilt[-1].rpartition(".")[0], "parameters": len(spoilt)}
        finite = sorted(((norm, name) for name, norm in norms.items() if math.isfinite(norm)), reverse=True)
        return found | {"largest": {name: norm for norm, name in finite[:LARGEST]}}

    def _norms(self, seen: Step) -> dict[str, float]:
        """Gradient norms by parameter; waits for the device."""
        if not seen.tensor_norms:
            return {}
        values = torch.stack(list(seen.tensor_norms)).tolist()
        names_of = [self._parameter_names.get(id(p), f"parameter {i}") for i, p in enumerate(seen.parameters)]
        return dict(zip(names_of, values, strict=True))

    def _take_spike(self, step: int, seen: Step, norm: float, loss: float | None) -> None:
        ended = self.spikes.take(step, norm, loss)
        self._note(ended)
        lasting = self.spikes.lasting
        if lasting is not None and lasting.peak_step == step:
            self._peak = self._where(seen)

    def _note(self, spikes: Sequence[Spike]) -> None:
        for spike in spikes:
            self._event(names.SPIKE_EVENT, asdict(spike) | self._peak)
            self._record(spike.peak_step, {self.name(names.SPIKE): spike.norm})
            self._peak = {}

    def _record_layers(self, step: int, seen: Step, skipped: bool) -> None:
        if self._layer_norms_every is None or step % self._layer_norms_every or skipped:
            return
        squares: dict[str, float] = {}
        for name, norm in self._norms(seen).items():
            layer = name.rpartition(".")[0] or name
            squares[layer] = squares.get(layer, 0.0) + norm * norm
        if squares:
            self._record(step, {LAYER_NORM + layer: math.sqrt(total) for layer, total in squares.items()})

    def _close_window(self, step: int) -> None:
        if self._window:
            self._record(max(step, 0), {self.name(names.GRAD_NORM_WINDOW_MAX): max(self._window)})
            self._window.clear()
