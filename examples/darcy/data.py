"""Darcy flow through a medium of two materials, by finite differences."""

import numpy as np
import torch
from scipy.fft import dctn, idctn
from scipy.sparse import diags
from scipy.sparse.linalg import spsolve


def darcy_flow(n, size, seed):
    """Permeabilities a and pressures u, each (n, 1, size, size) float32, of -div(a grad u) = 1 with u = 0 outside.

    As Li et al. (2021) have it: a is 12 or 3, by the sign of a Gaussian random field. Both are scaled to about 1.
    """
    draw = np.random.default_rng(seed)
    k = np.pi * np.arange(size)
    decay = 1 / (k[:, None] ** 2 + k**2 + 9)
    decay[0, 0] = 0  # its mean is zero
    fields = [np.where(idctn(decay * dctn(draw.normal(size=(size, size)))) > 0, 12.0, 3.0) for _ in range(n)]
    a = np.stack(fields)
    u = np.stack([pressure(field) for field in fields])
    scaled = ((a - 7.5) / 4.5, u / 0.01)
    return tuple(torch.from_numpy(x).float().unsqueeze(1) for x in scaled)


def pressure(a):
    """Pressure (size, size) of a permeability (size, size) on the unit square, five points a cell."""
    size = len(a)
    edged = np.pad(a, 1, mode="edge")

    def between(x, y):  # harmonic mean on a face of two cells
        return 2 * x * y / (x + y)

    up, down = between(edged[:-2, 1:-1], a), between(edged[2:, 1:-1], a)
    left, right = between(edged[1:-1, :-2], a), between(edged[1:-1, 2:], a)
    centre = up + down + left + right
    left[:, 0] = right[:, -1] = 0  # a row's first cell is no neighbour of the last one of the row above
    bands = [centre.ravel(), -left.ravel()[1:], -right.ravel()[:-1], -up.ravel()[size:], -down.ravel()[:-size]]
    matrix = diags(bands, [0, -1, 1, -size, size], format="csc")
    return spsolve(matrix, np.full(size * size, (size + 1.0) ** -2)).reshape(size, size)
