"""Draw and save the figures of a trial: reconstructions beside the truth, and the training history."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from fnostab.figures.decimation import Series
from fnostab.ptychography.figures.trial import Panel, history_figure, reconstruction_figure
from fnostab.ptychography.physics.alignment import align
from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import Point

LOSSES = {names.TRAIN_LOSS: "training loss"}
GRADIENTS = {names.GRAD_NORM: "before clipping", names.GRAD_NORM_CLIPPED: "after clipping"}
VALIDATION = "validation loss"
SPIKE = "spike"


@dataclass(frozen=True)
class History:
    """Curves of a trial for `history_figure`.

    Attributes:
        panels: panels by file name: "loss" with validations, "grad_norm" with spikes.
        nonfinite_steps: steps with a non-finite loss or gradient norm, increasing.
    """

    panels: dict[str, Panel] = field(default_factory=dict)
    nonfinite_steps: list[int] = field(default_factory=list)


def draw_reconstructions(
    folder: Path, pairs: list[tuple[Tensor, Tensor]], *, phase: bool, named: tuple[str, str] = ("predicted", "true")
) -> list[Path]:
    """Save one figure for each (stitched prediction, truth), with titles ``named``; return the files."""
    paths = []
    for index, (prediction, truth) in enumerate(pairs):
        pair = align(prediction, truth)
        predicted = pair.amplitude * np.exp(1j * pair.phase)
        true = pair.true_amplitude * np.exp(1j * pair.true_phase)
        paths.append(
            _save(reconstruction_figure(predicted, true, phase, named), folder / f"reconstruction_{index}.png")
        )
    return paths


def draw_history(folder: Path, journal: Path, failure_step: int | None) -> list[Path]:
    """Save figures of the loss and gradient norm at every step of a journal; return the files."""
    history = read_history(journal)
    lost = history.nonfinite_steps
    return [
        _save(history_figure([panel], nonfinite_steps=lost, failure_step=failure_step), folder / f"{stem}.png")
        for stem, panel in history.panels.items()
    ]


def read_history(journal: Path) -> History:
    """Read losses, validations, gradient norms, spikes and non-finite steps from a trial's journal."""
    curves: dict[str, dict[int, float]] = {}
    nonfinite = set[int]()
    for record, _ in read_journal(journal):
        if isinstance(record, Point):
            lost = dict.fromkeys(record.nonfinite, math.nan)
            for name, value in {**record.values, **lost}.items():
                if label := _label(name):
                    curves.setdefault(label, {})[record.step] = value
            if any(_label(name) for name in lost):
                nonfinite.add(record.step)
    series = {label: _series(curves[label]) for label in curves}
    marks = {label: series[label] for label in (VALIDATION, SPIKE) if label in series}
    if _same(series, *GRADIENTS.values()):  # nothing was clipped, and the second curve would hide the first
        series["gradient norm"] = series.pop(GRADIENTS[names.GRAD_NORM])
        series.pop(GRADIENTS[names.GRAD_NORM_CLIPPED])
    return History(
        {
            "loss": _panel("loss", series, marks, [*LOSSES.values()], VALIDATION),
            "grad_norm": _panel("gradient norm", series, marks, ["gradient norm", *GRADIENTS.values()], SPIKE),
        },
        sorted(nonfinite),
    )


def _label(name: str) -> str | None:
    if name.startswith(names.VAL_PREFIX) and name.endswith("_loss"):
        return VALIDATION
    return {**LOSSES, **GRADIENTS, names.SPIKE: SPIKE}.get(name)


def _series(points: dict[int, float]) -> Series:
    steps = sorted(points)
    return np.array(steps, dtype=np.int64), np.array([points[step] for step in steps], dtype=np.float64)


def _same(series: dict[str, Series], one: str, other: str) -> bool:
    if one not in series or other not in series:
        return False
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(series[one], series[other], strict=True))


def _panel(ylabel: str, series: dict[str, Series], marks: dict[str, Series], labels: list[str], mark: str) -> Panel:
    curves = {label: series[label] for label in labels if label in series}
    return Panel(ylabel, curves, {mark: marks[mark]} if mark in marks else {})


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
