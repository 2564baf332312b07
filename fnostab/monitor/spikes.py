"""Detect gradient spikes: their start, their height, and whether the training recovered.

Each gradient norm is compared with the norms before it. Its z-score is

    z = (log(norm) - median) / max(1.4826 MAD, floor)

with the median and the median absolute deviation (MAD) of the log norms in a window of the latest
steps; 1.4826 MAD is the standard deviation if the logarithms are Gaussian (Iglewicz and Hoaglin,
How to Detect and Handle Outliers, 1993). The detector fails only if half of the window are spikes.
docs/outcomes.md explains the choice of the thresholds.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from fnostab.record import names

MAD_TO_STD = 1.4826
SPIKE_Z = 5.0  # z-score above which a norm is a spike
WINDOW_STEPS = 100  # latest steps, which define the normal level
LEAST_HISTORY_STEPS = 2  # fewer steps detect no spike
LEAST_STD = 0.5  # of the log norm: the smallest spike is exp(SPIKE_Z * LEAST_STD) times the median
LOSS_FACTOR = 2.0  # the loss has recovered at or below this multiple of its median before the spike
RECOVERY_STEPS = 50  # within which a spike must recover


@dataclass(frozen=True)
class Spike:
    """One gradient spike.

    Attributes:
        step: 0-based optimiser step at which it began.
        peak_step: step of its largest norm.
        norm: its largest finite norm, before clipping.
        z_score: z-score of that norm, relative to the steps before the spike.
        recovered_step: first step at which norm and loss were normal again; None if not within the limit.
    """

    step: int
    peak_step: int
    norm: float
    z_score: float
    recovered_step: int | None = None


@dataclass(frozen=True)
class _Before:
    """Normal level before a spike: median and scale of the log norms, and the highest loss that counts as recovered."""

    median: float
    scale: float
    loss_limit: float


class SpikeDetector:
    """Detect gradient spikes in a stream of training steps.

    A spike begins at a norm whose z-score is above ``SPIKE_Z``. It has recovered at the first step whose norm is no
    longer above that threshold and whose loss is at most ``LOSS_FACTOR`` times its median before the spike (a negative
    median -m allows the same rise as m). After ``RECOVERY_STEPS`` without recovery it ends as not recovered, and
    its values define the new normal level.

    The normal level is frozen during a spike. The spike's values replace the window if it did not
    recover, and are dropped otherwise.

    A norm of NaN, Inf or 0 has no logarithm: it neither begins a spike nor enters the window. A
    non-finite loss has not recovered.
    """

    def __init__(self) -> None:
        self._log_norms: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._losses: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._spike: Spike | None = None  # the current one
        self._before = _Before(0.0, LEAST_STD, math.inf)
        self._held_log_norms: list[float] = []  # since it began
        self._held_losses: list[float] = []
        self._spikes = 0
        self._unrecovered = 0

    @property
    def lasting(self) -> Spike | None:
        """Current spike; None without one."""
        return self._spike

    def take(self, step: int, norm: float, loss: float | None) -> list[Spike]:
        """Add one optimiser step; return the spikes that ended with it.

        Args:
            step: 0-based; larger than all earlier ones.
            norm: norm of the gradient before clipping.
            loss: training loss of the step; if None (not seen), recovery is judged by the norm alone.
        """
        log_norm = math.log(norm) if 0 < norm < math.inf else None
        if self._spike is None and (log_norm is None or not self._begins(step, norm, log_norm)):
            _append_finite(self._log_norms, log_norm)
            _append_finite(self._losses, loss)
            return []
        return self._go_on(step, norm, log_norm, loss)

    def finish(self) -> list[Spike]:
        """End the training; return an unfinished spike as not recovered."""
        return [] if self._spike is None else [self._end(None)]

    def summary(self) -> dict[str, float]:
        """Number of ended spikes and of unrecovered ones."""
        return {names.SPIKES: float(self._spikes), names.SPIKES_UNRECOVERED: float(self._unrecovered)}

    def state_dict(self) -> dict[str, Any]:
        """State without the settings, JSON-ready."""
        return {
            "log_norms": list(self._log_norms),
            "losses": list(self._losses),
            "spike": None if self._spike is None else asdict(self._spike),
            "median": self._before.median,
            "scale": self._before.scale,
            "loss_limit": self._before.loss_limit if math.isfinite(self._before.loss_limit) else None,
            "held_log_norms": list(self._held_log_norms),
            "held_losses": list(self._held_losses),
            "spikes": self._spikes,
            "unrecovered": self._unrecovered,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        _refill(self._log_norms, state["log_norms"])
        _refill(self._losses, state["losses"])
        self._spike = None if state["spike"] is None else Spike(**state["spike"])
        loss_limit = math.inf if state["loss_limit"] is None else state["loss_limit"]
        self._before = _Before(state["median"], state["scale"], loss_limit)
        self._held_log_norms = list(state["held_log_norms"])
        self._held_losses = list(state["held_losses"])
        self._spikes = state["spikes"]
        self._unrecovered = state["unrecovered"]

    def _begins(self, step: int, norm: float, log_norm: float) -> bool:
        if len(self._log_norms) < LEAST_HISTORY_STEPS:
            return False
        middle = median(self._log_norms)
        if log_norm - middle <= SPIKE_Z * LEAST_STD:
            return False  # no spike whatever the MAD is; saves its cost for most steps
        mad = median(abs(value - middle) for value in self._log_norms)
        scale = max(MAD_TO_STD * mad, LEAST_STD)
        z_score = (log_norm - middle) / scale
        if z_score <= SPIKE_Z:
            return False
        self._spike = Spike(step, step, norm, z_score)
        self._before = _Before(middle, scale, self._loss_limit())
        return True

    def _loss_limit(self) -> float:
        if not self._losses:
            return math.inf
        usual = median(self._losses)
        return usual + (LOSS_FACTOR - 1) * abs(usual)

    def _go_on(self, step: int, norm: float, log_norm: float | None, loss: float | None) -> list[Spike]:
        """Handle a step during a spike, or the first step after it."""
        assert self._spike is not None
        _append_finite(self._held_log_norms, log_norm)
        _append_finite(self._held_losses, loss)
        z_score = -math.inf
        if log_norm is not None:
            z_score = (log_norm - self._before.median) / self._before.scale
            if norm > self._spike.norm:
                self._spike = replace(self._spike, peak_step=step, norm=norm, z_score=z_score)
        is_norm_back = math.isfinite(norm) and z_score <= SPIKE_Z
        is_loss_back = loss is None or (math.isfinite(loss) and loss <= self._before.loss_limit)
        if is_norm_back and is_loss_back:
            _append_finite(self._log_norms, log_norm)
            _append_finite(self._losses, loss)
            return [self._end(step)]
        if step - self._spike.step >= RECOVERY_STEPS:
            return [self._end(None)]
        return []

    def _end(self, recovered_step: int | None) -> Spike:
        assert self._spike is not None
        ended = replace(self._spike, recovered_step=recovered_step)
        if recovered_step is None:
            _refill(self._log_norms, self._held_log_norms)
            _refill(self._losses, self._held_losses)
            self._unrecovered += 1
        self._spikes += 1
        self._spike = None
        self._held_log_norms, self._held_losses = [], []
        return ended


def _append_finite(values: deque[float] | list[float], value: float | None) -> None:
    if value is not None and math.isfinite(value):
        values.append(value)


def _refill(values: deque[float], by: Iterable[float]) -> None:
    values.clear()
    values.extend(by)
