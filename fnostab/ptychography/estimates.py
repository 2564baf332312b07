"""Estimates of a trial's memory and time, from what `training.step_cost` measures. Imports no torch."""

import json
import math
from dataclasses import dataclass

from fnostab.ptychography.settings import TrialConfig

PROCESS_BYTES = 500_000_000  # a trial's process without its network: Python, torch, Lightning; or the CUDA context
FORWARD_SHARE = 1 / 3  # share of a step's time; the backward pass takes twice as long
START_AND_END_S = 8.0  # imports, scores and figures of a trial


@dataclass(frozen=True)
class TrainingSize:
    """Number of parameters of a network, and memory of a training step.

    Attributes:
        parameters: number of real parameters; a complex parameter counts as two.
        weight_bytes: size of parameters and buffers.
        gradient_bytes: size of the gradients.
        optimizer_bytes: size of the optimiser's moments.
        activation_bytes: peak size of everything else in a step: tensors kept for the backward pass, and temporaries.
    """

    parameters: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @property
    def state_bytes(self) -> int:
        """Total size of weights, gradients and optimiser moments."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes

    @property
    def total_bytes(self) -> int:
        """Total size of state and activations."""
        return self.state_bytes + self.activation_bytes


@dataclass(frozen=True)
class Estimate:
    """Estimated memory and time of one trial of an arm.

    Attributes:
        config: configuration of the trial.
        size: memory of the network and of a training step; None if a custom network can't run on the meta device.
        copies: copies of weights and optimiser state that are kept in case the trial fails.
        patterns: numbers of training and validation patterns.
        step_s: duration of a training step in seconds; None if not measured.
    """

    config: TrialConfig
    size: TrainingSize | None
    copies: int
    patterns: tuple[int, int]
    step_s: float | None = None

    @property
    def snapshot_bytes(self) -> int:
        """Bytes of the copies."""
        return 0 if self.size is None else self.copies * (self.size.weight_bytes + self.size.optimizer_bytes)

    @property
    def needed_bytes(self) -> int | None:
        """Peak memory of the trial's process in bytes; None if unknown."""
        return None if self.size is None else self.size.total_bytes + self.snapshot_bytes + PROCESS_BYTES

    @property
    def trial_s(self) -> float | None:
        """Duration in seconds of a trial that does not end early, with validations and test; None if not measured."""
        if self.step_s is None:
            return None
        epochs = self.config.training.epochs
        trained, validated = (math.ceil(n / self.config.training.batch_size) for n in self.patterns)
        return START_AND_END_S + self.step_s * (epochs * trained + FORWARD_SHARE * (epochs + 1) * validated)


def network_key(config: TrialConfig) -> str:
    """Key that is equal for configurations whose steps take the same memory and time, clipping aside."""
    model, training = config.model, config.training
    unused = set() if model.own else {"layerscale_init"}
    step = (training.batch_size, training.optimizer, training.options, training.momentum > 0, training.loss)
    return json.dumps([model.model_dump(exclude=unused), *step, config.execution.convolution_precision])
