"""Draw and save the figures of a trial: its reconstructions beside the truth."""

from pathlib import Path

import numpy as np
from torch import Tensor

from fnostab.ptychography.figures.trial import reconstruction_figure
from fnostab.ptychography.physics.alignment import align


def draw_reconstructions(
    folder: Path, pairs: list[tuple[Tensor, Tensor]], *, phase: bool, named: tuple[str, str]
) -> list[Path]:
    """Save one figure for each (stitched prediction, truth), with titles ``named``; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, (prediction, truth) in enumerate(pairs):
        pair = align(prediction, truth)
        predicted = pair.amplitude * np.exp(1j * pair.phase)
        true = pair.true_amplitude * np.exp(1j * pair.true_phase)
        paths.append(folder / f"reconstruction_{index}.png")
        reconstruction_figure(predicted, true, phase, named).savefig(paths[-1])
    return paths
