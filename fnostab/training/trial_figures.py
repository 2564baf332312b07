"""The figures that a trial keeps: reconstructions beside the truth, and its history."""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from fnostab import names
from fnostab.figures import history_figure, reconstruction_figure
from fnostab.journal import Point, read_journal
from fnostab.physics.alignment import align

__all__ = ["draw_history", "draw_reconstructions"]

LOSS = {names.TRAIN_LOSS: "training loss"}
GRADIENTS = {names.GRAD_NORM: "before clipping", names.GRAD_NORM_CLIPPED: "after clipping"}


def draw_reconstructions(folder: Path, pairs: list[tuple[Tensor, Tensor]], *, phase: bool) -> list[Path]:
    """One figure for each (stitched prediction, truth); returns the files."""
    paths = []
    for index, (prediction, truth) in enumerate(pairs):
        pair = align(prediction, truth)
        predicted = pair.amplitude * np.exp(1j * pair.phase)
        true = pair.true_amplitude * np.exp(1j * pair.true_phase)
        paths.append(_save(reconstruction_figure(predicted, true, phase), folder / f"reconstruction_{index}.png"))
    return paths


def draw_history(folder: Path, journal: Path, failure_step: int | None) -> list[Path]:
    """Loss and gradient norm at every step, from the journal; returns the files."""
    paths = []
    for stem, ylabel, curves in (("loss", "loss", LOSS), ("grad_norm", "gradient norm", GRADIENTS)):
        rows: dict[int, dict[str, float]] = {}
        nonfinite = set()
        for record, _ in read_journal(journal):
            if isinstance(record, Point):
                rows.setdefault(record.step, {}).update(record.values)
                if record.nonfinite.keys() & curves.keys():
                    nonfinite.add(record.step)
        steps = [step for step in sorted(rows) if rows[step].keys() & curves.keys() or step in nonfinite]
        values = {label: [rows[s].get(name, math.nan) for s in steps] for name, label in curves.items()}
        figure = history_figure(
            steps, values, ylabel=ylabel, nonfinite_steps=sorted(nonfinite), failure_step=failure_step
        )
        paths.append(_save(figure, folder / f"{stem}.png"))
    return paths


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
