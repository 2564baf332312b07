"""Networks that fail by themselves, and do so again from a state of theirs."""

import own_networks
import torch


class Counted(own_networks.Plain):
    """Its output is not finite from training step ``options.step``, which a buffer counts."""

    def __init__(self, config):
        super().__init__(config)
        self.bad_step = config.options["step"]
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, amplitudes):
        if self.training:
            self.steps += 1
        return super().forward(amplitudes) * torch.where(self.steps > self.bad_step, torch.inf, 1.0)
