"""AdamW with update clipping."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fnostab.ptychography.settings import TrialConfig


def stable_adamw(network: nn.Module, config: TrialConfig) -> "StableAdamW":
    """Build `StableAdamW` for a trial."""
    training = config.training
    parameters = [p for p in network.parameters() if p.requires_grad]
    betas = (0.9, training.adam_beta2)
    return StableAdamW(parameters, lr=training.learning_rate, betas=betas, weight_decay=training.weight_decay)


class StableAdamW(Optimizer):
    """AdamW with the step of each tensor divided by max(1, rms(g / sqrt(v))).

    v is the moving average of g^2. If v lags behind a growing gradient, the steps of plain Adam are far too large.
    Wortsman et al. 2023, "Stable and low-loss mixed-precision training for large-scale vision-language models",
    algorithm 2; the update clipping is that of Shazeer and Stern 2018, "Adafactor".

    Args:
        params: parameters to train; complex ones are treated as pairs of real numbers, as in torch's optimisers.
        lr: learning rate.
        betas: decay rates of the moving averages of g and g^2.
        eps: minimum of sqrt(v).
        weight_decay: decoupled weight decay as in AdamW; 0 gives Adam with update clipping.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Make an optimiser step; return the result of ``closure``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if parameter.is_complex():
            parameter, gradient = torch.view_as_real(parameter), torch.view_as_real(gradient.resolve_conj())
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(parameter), exp_avg_sq=torch.zeros_like(parameter))
        state["step"] += 1
        # These weights include the bias correction: the first is 1.
        weights = [(1 - beta) / (1 - beta ** state["step"]) for beta in group["betas"]]
        mean, square = state["exp_avg"].lerp_(gradient, weights[0]), state["exp_avg_sq"]
        square.lerp_(gradient.square(), weights[1])
        least = group["eps"]
        rms = (gradient.square() / square.clamp(min=least**2)).mean().sqrt()
        rate = group["lr"] / rms.clamp(min=1)
        parameter.mul_(1 - rate * group["weight_decay"]).sub_(rate * mean / (square.sqrt() + least))
