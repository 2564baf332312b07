"""LightningModule of self-supervised ptychography: network, physics and loss.

From a measured diffraction amplitude the network predicts a complex object patch. The physics computes the diffraction
amplitude of this patch, and the loss compares it with the measured one. The true object is only used to evaluate the
reconstruction.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from fnostab.ptychography import metric_names
from fnostab.ptychography.data.grid_lines import GridLines
from fnostab.ptychography.physics.alignment import align
from fnostab.ptychography.physics.detector import amplitude_of, detect
from fnostab.ptychography.physics.evaluation import detail_correlation, evaluate, field_spread, patch_variation
from fnostab.ptychography.physics.far_field import far_field
from fnostab.ptychography.physics.losses import constant_output_loss, mae_loss, poisson_loss
from fnostab.ptychography.physics.twin import twin_share
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.clipping import make_clipper, mark_units_
from fnostab.ptychography.training.precision import convolutions_in
from fnostab.ptychography.training.reconstruction import reconstruct, true_patches
from fnostab.ptychography.training.schedules import make_schedule
from fnostab.ptychography.user_parts import is_own, make_own

CLIPPER = "fnostab.clipper"  # key of the clipper's state in a checkpoint


def can_be_fused(parameters: Iterable[Tensor]) -> bool:
    """Whether torch's fused optimisers support the parameters, that is, none is complex.

    Fused optimisers support ``found_inf``, by which the monitor prevents non-finite updates of the weights.
    """
    return not any(parameter.is_complex() for parameter in parameters)


class PtychoModule(LightningModule):
    """Train a generator on diffraction amplitudes alone.

    Each validation logs the loss as ``training.val_loss_name``, the patch variation, and metrics of the reconstructed
    validation objects: spread and detail correlation of the complex field, share of twin images, and SSIM.

    Args:
        generator: network from measured amplitudes (B, 1, N, N) float32 to object patches (B, 1, N, N) complex64.
        data: data set with patterns, probe and true objects.
        config: configuration of the trial.

    Attributes:
        clip_fraction: share clipped in the last step, a 0-d tensor; None without clipping.
        gradient_clip_val: configured clipping threshold; None without clipping.
        clipper: function that clips the gradients; None without clipping.
    """

    def __init__(self, generator: nn.Module, data: GridLines, config: TrialConfig) -> None:
        super().__init__()
        self.generator = generator
        self.data = data
        self.config = config
        self.gradient_clip_val = config.execution.gradient_clip_val
        self.clipper = None if self.gradient_clip_val is None else make_clipper(config)
        self.clip_fraction: Tensor | None = None
        self._complex = [p for p in generator.parameters() if p.is_complex()]
        self.register_buffer("probe", data.probe, persistent=False)
        seen = None if data.mask is None or data.mask.all() else data.mask.flatten().nonzero()[:, 0]
        self.register_buffer("seen", seen, persistent=False)  # valid pixels; None if all are valid
        self._patches: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._sizes: list[int] = []

    def forward(self, amplitudes: Tensor) -> Tensor:
        """Predict complex object patches (B, 1, N, N) from measured amplitudes (B, 1, N, N)."""
        with convolutions_in(self.config.execution.convolution_precision, amplitudes.device):
            return self.generator(amplitudes)

    def loss(self, predicted_amplitude: Tensor, measured_amplitude: Tensor) -> Tensor:
        """Compute the configured loss over the valid pixels, a scalar."""
        if self.seen is not None:
            seen = self.seen.to(measured_amplitude.device)
            predicted_amplitude, measured_amplitude = (
                amplitude.flatten(-2)[..., seen] for amplitude in (predicted_amplitude, measured_amplitude)
            )
        if self.config.training.loss == "mae":
            return mae_loss(predicted_amplitude, measured_amplitude, self.data.mean_amplitude)
        return poisson_loss(predicted_amplitude, measured_amplitude, self.data.photon_scale, self.data.mean_count)

    def constant_loss(self) -> float:
        """Compute the validation loss of the best constant output."""
        return constant_output_loss(self.loss, self.data.probe, self.data.validation.amplitudes)

    def noise_floor(self) -> float | None:
        """Validation loss caused by photon noise alone, from one draw; None for simulated data or unknown noise.

        The measured counts are used as rates. The estimate is therefore slightly high for ``mae``, and low for
        ``poisson`` if most pixels have no photon.
        """
        if self.data.mask is None or not self.data.noise_known:
            return None
        amplitudes, scale = self.data.validation.amplitudes, self.data.photon_scale
        drawn = detect(amplitudes.double().square(), scale, torch.Generator().manual_seed(0))
        return float(self.loss(amplitudes, amplitude_of(drawn, scale)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        measured, _ = batch
        return self.loss(far_field(self.probe * self(measured)).abs(), measured)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        super().backward(loss, *args, **kwargs)
        for parameter in self._complex:  # Adam and clipping by norm fail on lazily conjugated tensors
            if parameter.grad is not None and parameter.grad.is_conj():
                parameter.grad = parameter.grad.resolve_conj()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        measured, _ = batch
        patches = self(measured)
        self._patches.append(patches)
        self._losses.append(self.loss(far_field(self.probe * patches).abs(), measured))
        self._sizes.append(len(measured))

    def on_validation_epoch_end(self) -> None:
        patches = torch.cat(self._patches)
        weights = torch.tensor(self._sizes, dtype=torch.float32, device=patches.device) / len(patches)
        loss = (torch.stack(self._losses) * weights).sum()
        self._patches, self._losses, self._sizes = [], [], []
        self.log(self.config.training.val_loss_name, loss)
        self.log(metric_names.PATCH_VARIATION, patch_variation(patches))
        if not len(self.data.validation.objects):  # measured data without a reference
            return
        stitched = reconstruct(patches.cpu(), self.data.validation, self.config.data, self.data.probe)
        pairs = [align(*pair) for pair in stitched]
        scores = [evaluate(pair, set_phi=self.config.data.set_phi) for pair in pairs]
        truth = true_patches(self.data.validation, self.config.data.N)
        window = 2 * (self.config.data.N // 4) + 1  # about the probe's diameter
        self.log(metric_names.SPREAD, float(np.mean([field_spread(pair) for pair in pairs])))
        self.log(metric_names.DETAIL_CORRELATION, float(np.mean([detail_correlation(pair, window) for pair in pairs])))
        self.log(metric_names.TWIN_SHARE, twin_share(patches[:, 0].cpu(), truth, self.data.probe))
        self.log(metric_names.VAL_SSIM_AMP, float(np.mean([score.ssim_amp for score in scores])))
        if self.config.data.set_phi:
            self.log(metric_names.VAL_SSIM_PHASE, float(np.mean([score.ssim_phase for score in scores])))

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Build the configured optimiser of the trainable parameters.

        Raises:
            ModelError: a custom optimiser can't be built.
        """
        training = self.config.training
        if is_own(training.optimizer):
            kind: Any = torch.optim.Optimizer
            return make_own("training.optimizer", training.optimizer, kind, self.generator, self.config)
        parameters = [p for p in self.generator.parameters() if p.requires_grad]
        common: dict[str, Any] = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
        common["fused"] = can_be_fused(parameters)
        if training.optimizer == "sgd":
            return torch.optim.SGD(parameters, momentum=training.momentum, **common)
        kind = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, betas=(0.9, training.adam_beta2), **common)

    def configure_optimizers(self) -> Any:
        mark_units_(self.generator, "decoder" if self.config.execution.agc_exempt == "decoder" else "")
        optimizer = self.make_optimizer()
        if self.config.training.schedule == "none":
            return optimizer
        factor = make_schedule(self.config, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # The Trainer does not support AGC, so the module clips.
        if self.clipper is not None:
            self.clip_fraction = self.clipper(list(self.generator.parameters()))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state_dict = getattr(self.clipper, "state_dict", None)
        if state_dict is not None:
            checkpoint[CLIPPER] = state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        load = getattr(self.clipper, "load_state_dict", None)
        if load is not None and CLIPPER in checkpoint:  # absent if a replay changes the clipping
            load(checkpoint[CLIPPER])
