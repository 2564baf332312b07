"""AdamW with update clipping."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fnostab.ptychography.settings import TrialConfig


def stable_adamw(network: nn.Module, config: TrialConfig) -> "StableAdamW":
    """The optimiser of a trial."""
    training = config.training
    parameters = [p for p in network.parameters() if p.requires_grad]
    betas = (0.9, training.adam_beta2)
    return StableAdamW(parameters, lr=training.learning_rate, betas=betas, weight_decay=training.weight_decay)


class StableAdamW(Optimizer):
    """AdamW whose step is divided by max(1, rms(g / sqrt(v))), one such number for each tensor.

    v is the moving average of g^2: where it lags behind a gradient that has grown, plain Adam takes a step that is far
    too large. Wortsman et al. 2023, "Stable and low-loss mixed-precision training for large-scale vision-language
    models", algorithm 2, whose update clipping is that of Shazeer and Stern 2018, "Adafactor".

    Args:
        params: to train; complex ones are pairs of real numbers, as for torch's optimisers.
        lr: learning rate.
        betas: of the moving averages of g and of g^2.
        eps: least root of v.
        weight_decay: decoupled, as in AdamW; 0 is Adam with update clipping.
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
        """Take a step; return what ``closure`` returns."""
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
        # Averages that need no correction for their start at 0: the first weight is 1.
        weights = [(1 - beta) / (1 - beta ** state["step"]) for beta in group["betas"]]
        mean, square = state["exp_avg"].lerp_(gradient, weights[0]), state["exp_avg_sq"]
        square.lerp_(gradient.square(), weights[1])
        least = group["eps"]
        rms = (gradient.square() / square.clamp(min=least**2)).mean().sqrt()
        rate = group["lr"] / rms.clamp(min=1)
        parameter.mul_(1 - rate * group["weight_decay"]).sub_(rate * mean / (square.sqrt() + least))
