"""Networks that a user might bring, by dotted path: each is built with a ModelConfig."""

import os
import signal
import time

import torch
from torch import nn


class Plain(nn.Module):
    """Two convolutions, the patch's real and imaginary part."""

    def __init__(self, config):
        super().__init__()
        width = config.options.get("width", 4)
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.last = nn.Conv2d(width, 2, 3, padding=1)

    def features(self, amplitudes):
        return torch.nn.functional.gelu(self.first(amplitudes))

    def forward(self, amplitudes):
        real, imaginary = self.last(self.features(amplitudes)).chunk(2, dim=1)
        return torch.complex(real + 1, imaginary)


class WithDecoder(Plain):
    """A part of it is called `decoder`."""

    def __init__(self, config):
        super().__init__(config)
        self.decoder = nn.Conv2d(2, 2, 1)
        self.head = nn.Conv2d(2, 2, 1)

    def forward(self, amplitudes):
        real, imaginary = self.head(self.decoder(self.last(self.features(amplitudes)))).chunk(2, dim=1)
        return torch.complex(real + 1, imaginary)


class NoHybrid(Plain):
    """Its name ends as those of the built-in hybrids, but it has no decoder."""


class Constant(nn.Module):
    """Whatever it sees, one complex number in every pixel."""

    def __init__(self, config):
        super().__init__()
        self.value = nn.Parameter(torch.tensor([1.0, 0.1]))

    def forward(self, amplitudes):
        return torch.complex(*self.value).expand(amplitudes.shape)


class NotFinite(Plain):
    """Its gradient is not finite at step ``options.step``."""

    def __init__(self, config):
        super().__init__(config)
        self.steps = 0
        self.first.weight.register_hook(lambda g: g * self.factor(config.options["step"]))

    def factor(self, bad_step):
        self.steps += 1
        return float("inf") if bad_step is not None and self.steps == bad_step + 1 else 1.0


class Raises(Plain):
    """Raises ``options.error`` at its third training step."""

    ERRORS = {  # noqa: RUF012
        "ValueError": ValueError("the third batch\nis one too many"),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "SystemExit": SystemExit("ended by SIGTERM"),
        "OutOfMemoryError": torch.OutOfMemoryError("CUDA out of memory"),
        "alloc_cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    }

    def __init__(self, config):
        super().__init__(config)
        self.error = config.options["error"]
        self.steps = 0

    def forward(self, amplitudes):
        self.steps += self.training
        if self.steps == 3:
            raise self.ERRORS[self.error]
        return super().forward(amplitudes)


class FailsAndRaises(Raises):
    """Not finite at its second training step; raises ``options.error`` at its third, or sends that signal."""

    ERRORS = {**Raises.ERRORS, "SIGTERM": None, "SIGKILL": None}  # noqa: RUF012

    def forward(self, amplitudes):
        if self.training and self.steps == 2 and self.error.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self.error))
            time.sleep(10)  # the signal ends it
        return super().forward(amplitudes) * (float("inf") if self.training and self.steps == 2 else 1)


class Spectral(Plain):
    """Complex weights as neuraloperator's FNO and PtychoPINN's have them: of every Fourier mode, and one conjugated.

    Its gradient is not finite at step ``options.step``.
    """

    def __init__(self, config):
        super().__init__(config)
        self.modes = nn.Parameter(torch.randn(4, 4, 3, 3, dtype=torch.cfloat) / 4)
        self.gain = nn.Parameter(torch.ones(4, dtype=torch.cfloat))
        self.steps = 0
        bad = config.options.get("step")
        self.modes.register_hook(lambda g: g * self.factor(bad))

    factor = NotFinite.factor

    def features(self, amplitudes):
        x = self.first(amplitudes)
        spectrum = torch.fft.rfft2(x)
        mixed = torch.zeros_like(spectrum)
        low = torch.einsum("bixy,ioxy->boxy", spectrum[..., :3, :3], self.modes)
        mixed[..., :3, :3] = low * self.gain.conj()[:, None, None]
        return torch.nn.functional.gelu(x + torch.fft.irfft2(mixed, s=x.shape[-2:]))


class TooLarge(nn.Module):
    """More weights than any memory holds."""

    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(10**15))


class Untidy(Plain):
    """What tidy networks do not have: dropout, tied and lazy weights, parts with several or complex outputs."""

    def __init__(self, config):
        super().__init__(config)
        self.dropout = nn.Dropout(0.2)
        self.columns = nn.LSTM(config.N, config.N, batch_first=True)
        self.same = nn.Conv2d(4, 4, 3, padding=1)
        self.tied = nn.Conv2d(4, 4, 3, padding=1)
        self.tied.weight = self.same.weight
        self.lazy = nn.LazyConv2d(4, 1)
        self.phase = Phase()

    def features(self, amplitudes):
        rows, _ = self.columns(amplitudes[:, 0])
        return self.lazy(self.tied(self.same(self.dropout(super().features(rows[:, None])))))

    def forward(self, amplitudes):
        return self.phase(super().forward(amplitudes))


class Phase(nn.Module):
    def forward(self, patches):
        return patches * 1j
