"""Convert a replay to plain data for replay.json and its figure."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fnostab.ptychography.figures.replay import ReplayedSteps
from fnostab.ptychography.training.replay import Replay

SCHEMA = 1


def replay_record(replay: Replay) -> dict[str, Any]:
    """Convert a replay to a JSON-serialisable dict; non-finite numbers become "nan", "inf" and "-inf"."""
    failure, culprit = replay.failure, replay.culprit
    trial = failure.trial
    record = {
        "schema": SCHEMA,
        "trial": {"experiment": trial.experiment, "study_hash": trial.study_hash, "arm": trial.arm, "seed": trial.seed},
        "failure": {
            "outcome": str(failure.outcome),
            "step": failure.failure_step,
            "batch": list(failure.batch),
            "environment": dict(failure.environment),
        },
        "changed": dict(replay.changed),
        "replay": {
            "device": replay.device,
            "first_step": min(replay.losses),
            "last_step": max(replay.losses),
            "outcome": None if replay.outcome is None else str(replay.outcome),
            "failed_at": replay.failed_at,
            "steps_compared": replay.n_compared,
            "steps_equal": replay.n_equal,
            "culprit": None if culprit is None else culprit._asdict(),
            "focus": replay.focus,
        },
        "steps": [
            {
                "step": step,
                "loss": loss,
                "grad_norm": replay.grad_norms[step],
                "modules": {
                    name: {**asdict(state), "update_ratio": state.update_ratio}
                    for name, state in replay.modules.get(step, {}).items()
                },
            }
            for step, loss in replay.losses.items()
        ],
    }
    plain: dict[str, Any] = _plain(record)
    return plain


def replayed_steps(replay: Replay) -> ReplayedSteps:
    """Convert a replay to the arrays for `replay_figure`."""
    steps = sorted(replay.losses)
    names = list(dict.fromkeys(name for step in steps for name in replay.modules.get(step, {})))

    def table(attribute: str) -> NDArray[np.float64]:
        """One attribute of every module at every step, shape (modules, steps); NaN where missing."""
        rows = [[getattr(replay.modules.get(step, {}).get(name), attribute, None) for step in steps] for name in names]
        return np.array(rows, dtype=np.float64).reshape(len(names), len(steps))

    nonfinite = [
        [not getattr(replay.modules.get(step, {}).get(name), "finite", True) for step in steps] for name in names
    ]
    return ReplayedSteps(
        steps=np.array(steps, dtype=np.int64),
        losses=np.array([replay.losses[step] for step in steps]),
        grad_norms=np.array([replay.grad_norms[step] for step in steps]),
        modules=tuple(names),
        output_rms=table("output_rms"),
        dead=table("dead"),
        nonfinite=np.array(nonfinite, dtype=bool).reshape(len(names), len(steps)),
        focus=replay.focus,
        failure_step=replay.failure.failure_step,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
