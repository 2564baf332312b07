"""ZClip: clip gradient norms that are outliers compared with recent norms.

Kumar et al. 2025, "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", algorithm 1, with its factor and warm-up.
The statistics are part of the training state, so that a resumed or replayed training clips identically.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from fnostab.ptychography.settings import TrialConfig

ALPHA = 0.97  # decay of the moving averages
WARMUP_STEPS = 25  # steps without clipping that initialise the statistics


class ZClip:
    """Reduce the z-score z = (g - mean) / std of the gradient norm g to threshold^2 / z if z > threshold.

    Mean and variance are moving averages of the norms after clipping, initialised with the norms of the first 25 steps.
    Norms that are not finite are ignored. There is no synchronisation with the gradients' device.

    Args:
        config: configuration of the trial; ``gradient_clip_val`` is the threshold, 2.5 in the paper.
    """

    def __init__(self, config: TrialConfig) -> None:
        self.threshold = config.execution.gradient_clip_val or 0.0
        self._count = 0
        self._mean = torch.zeros(())
        self._variance = torch.zeros(())

    def __call__(self, parameters: Iterable[Tensor]) -> Tensor:
        """Clip in place; return 1 if that changed the gradients, else 0, a 0-d tensor on their device."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return torch.zeros(())
        with torch.no_grad():
            norm = get_total_norm(gradients)
            self._mean, self._variance = self._mean.to(norm.device), self._variance.to(norm.device)
            if self._count < WARMUP_STEPS:
                self._count += 1
                self._take(norm, 1 / self._count)
                return torch.zeros_like(norm)
            std = self._variance.sqrt()
            z = (norm - self._mean) / std
            stands_out = (z > self.threshold) & torch.isfinite(norm)
            wanted = torch.where(stands_out, self._mean + self.threshold**2 / z * std, norm)
            torch._foreach_mul_(gradients, torch.where(stands_out, wanted / norm, 1))
            self._take(wanted, 1 - ALPHA)
            return stands_out.float()

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics as a dict, without copying tensors."""
        return {"count": self._count, "mean": self._mean, "variance": self._variance}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the statistics from the result of `state_dict`."""
        self._count, self._mean, self._variance = state["count"], state["mean"], state["variance"]

    def _take(self, norm: Tensor, weight: float) -> None:
        """Update mean and variance with a norm; weights 1/n give the mean and variance of all n norms."""
        off = norm - self._mean
        usable = torch.isfinite(off)
        self._mean = torch.where(usable, self._mean + weight * off, self._mean)
        self._variance = torch.where(usable, (1 - weight) * (self._variance + weight * off.square()), self._variance)
