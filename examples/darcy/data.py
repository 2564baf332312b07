"""Simulate Darcy flow through a medium of two materials by finite differences."""

import numpy as np
import torch
from scipy.fft import dctn, idctn
from scipy.sparse import diags
from scipy.sparse.linalg import spsolve


def darcy_flow(n, size, seed):
    """Permeabilities a and pressures u of -div(a grad u) = 1 with u = 0 at the boundary.

    As in Li et al. (2021), a is 12 or 3, depending on the sign of a Gaussian random field.

    Returns:
        a and u, each float32 of shape (n, 1, size, size), scaled to a magnitude of about 1.
    """
    draw = np.random.default_rng(seed)
    k = np.pi * np.arange(size)
    decay = 1 / (k[:, None] ** 2 + k**2 + 9)
    decay[0, 0] = 0  # zero mean
    fields = [np.where(idctn(decay * dctn(draw.normal(size=(size, size)))) > 0, 12.0, 3.0) for _ in range(n)]
    a = np.stack(fields)
    u = np.stack([pressure(field) for field in fields])
    scaled = ((a - 7.5) / 4.5, u / 0.01)
    return tuple(torch.from_numpy(x).float().unsqueeze(1) for x in scaled)


def pressure(a):
    """Pressure (size, size) for a permeability (size, size) on the unit square, with a five-point stencil."""
    size = len(a)
    edged = np.pad(a, 1, mode="edge")

    def between(x, y):  # harmonic mean on the face between two cells
        return 2 * x * y / (x + y)

    up, down = between(edged[:-2, 1:-1], a), between(edged[2:, 1:-1], a)
    left, right = between(edged[1:-1, :-2], a), between(edged[1:-1, 2:], a)
    centre = up + down + left + right
    left[:, 0] = right[:, -1] = 0  # the first cell of a row is not a neighbour of the last cell of the row above
    bands = [centre.ravel(), -left.ravel()[1:], -right.ravel()[:-1], -up.ravel()[size:], -down.ravel()[:-size]]
    matrix = diags(bands, [0, -1, 1, -size, size], format="csc")
    return spsolve(matrix, np.full(size * size, (size + 1.0) ** -2)).reshape(size, size)
