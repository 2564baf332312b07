"""Read the recorded failure of a black box, without unpickling."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from fnostab.errors import CheckpointError
from fnostab.monitor.black_box import HISTORY_FILE, SCHEMA, STATE_FILE
from fnostab.record.names import BLACK_BOX_FILE
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import TrialSpec


@dataclass(frozen=True)
class KeptFailure:
    """Failure recorded in a black box.

    Attributes:
        folder: folder of the black box.
        trial: specification of the trial.
        outcome: the failure.
        failure_step: 0-based optimiser step of the failure.
        batch: indices of the training patterns of that step.
        losses: training loss by step, as far back as recorded.
        grad_norms: gradient norm before clipping by step, as far back as recorded.
        environment: packages, device and threads, see `fnostab.ptychography.training.environment`.
    """

    folder: Path
    trial: TrialSpec
    outcome: Outcome
    failure_step: int
    batch: tuple[int, ...]
    losses: Mapping[int, float]
    grad_norms: Mapping[int, float]
    environment: Mapping[str, Any]

    @property
    def state(self) -> Path:
        """File with the training state from before the failure."""
        return self.folder / STATE_FILE

    @classmethod
    def read(cls, folder: Path) -> "KeptFailure":
        """Read a black box written by `fnostab.monitor.black_box`.

        Raises:
            CheckpointError: the black box is damaged or incomplete, or was written by another version.
        """
        try:
            about = json.loads((folder / BLACK_BOX_FILE).read_text())
            if about["schema"] != SCHEMA:
                raise ValueError(f"it has schema {about['schema']!r}, this version of fnostab reads {SCHEMA}")
            history = load_file(folder / HISTORY_FILE)
            steps = history["step"].tolist()
            kept = cls(
                folder,
                TrialSpec.model_validate(about["trial"]),
                Outcome(about["outcome"]),
                int(about["failure_step"]),
                tuple(map(int, about["batch"])),
                dict(zip(steps, history["loss"].tolist(), strict=True)),
                dict(zip(steps, history["grad_norm"].tolist(), strict=True)),
                dict(about["environment"]),
            )
            if not kept.state.is_file():
                raise ValueError(f"{STATE_FILE} is missing")
            return kept
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, ValidationError) as error:
            what = " ".join(str(error).split())
            raise CheckpointError(f"{folder} is not a readable black box: {what}") from error
