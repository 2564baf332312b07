"""Networks of a user's own. They import nothing of fnostab, so that both trees can build them."""

import importlib.util
import sys

import torch
from torch import nn

# Into a trial's log, so that it is known which tree it ran on; as a look-up, since nothing is to be imported here.
print("fnostab is", importlib.util.find_spec("fnostab").origin, file=sys.stderr, flush=True)


class Plain(nn.Module):
    """Two convolutions and a dropout, which draws from the stream of the layers."""

    def __init__(self, config):
        super().__init__()
        self.first = nn.Conv2d(1, config.options["width"], 3, padding=1)
        self.dropout = nn.Dropout(config.options["dropout"])
        self.last = nn.Conv2d(config.options["width"], 2, 3, padding=1)

    def forward(self, amplitudes):
        real, imaginary = self.last(self.dropout(torch.nn.functional.gelu(self.first(amplitudes)))).chunk(2, dim=1)
        return torch.complex(real + 1, imaginary)


class Counted(Plain):
    """Its output is not finite from training step ``options.step`` on, which a buffer counts."""

    def __init__(self, config):
        super().__init__(config)
        self.bad_step = config.options["step"]
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, amplitudes):
        if self.training:
            self.steps += 1
        return super().forward(amplitudes) * torch.where(self.steps > self.bad_step, torch.inf, 1.0)
