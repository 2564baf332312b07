"""Simulate the diffraction patterns of a scan: object of random lines, probe, far field and photon noise."""

import math

import torch
from torch.nn.functional import avg_pool2d

N = 32  # pixels along a side of a pattern


def probe():
    """Smooth disk with a quadratic phase, complex of shape (N, N)."""
    x = torch.arange(N) - (N - 1) / 2
    r = torch.hypot(x[:, None], x) / N
    return torch.polar(torch.special.ndtr((0.25 - r) * 32), 2 * (r / 0.25) ** 2)


def diffraction(patches):
    """Far-field amplitudes (B, 1, N, N) of complex object patches (B, 1, N, N) illuminated by the probe."""
    return torch.fft.fftshift(torch.fft.fft2(patches * probe(), norm="ortho"), dim=(-2, -1)).abs()


def lines(size, generator):
    """Object of 60 straight lines with amplitude 0.4 to 1 and phase 0 to pi / 2, complex of shape (size, size)."""
    along = torch.linspace(-size, size, 4 * size)
    marks = torch.zeros(size, size)
    for x, y, angle in torch.rand(60, 3, generator=generator).tolist():
        rows = (size * x + along * math.sin(math.pi * angle)).long()
        columns = (size * y + along * math.cos(math.pi * angle)).long()
        inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
        marks[rows[inside], columns[inside]] = 1
    marks = avg_pool2d(marks[None, None], 3, stride=1, padding=1)[0, 0]
    return torch.polar(1 - 0.6 * marks, math.pi / 2 * marks)


def scan(patterns, seed, size=128, photons=1e6):
    """Measured amplitudes (patterns, 1, N, N) at random positions of the object given by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    whole = lines(size, generator)
    corners = torch.randint(size - N + 1, (patterns, 2), generator=generator).tolist()
    patches = torch.stack([whole[i : i + N, j : j + N] for i, j in corners])[:, None]
    unit = photons / diffraction(torch.ones(1, 1, N, N)).square().sum()  # photons per unit of intensity
    return (torch.poisson(unit * diffraction(patches).square(), generator=generator) / unit).sqrt()
