"""Fourier neural operator (FNO) with refiners: residual blocks at full resolution, then convolutions."""

from collections import OrderedDict

from torch import Tensor, nn

from fnostab.ptychography.models.blocks import (
    channels_last,
    conv_gelu_conv,
    decoder_activation,
    decoder_stage,
    make_block,
    make_head,
)
from fnostab.ptychography.settings import ModelConfig


class FNO(nn.Module):
    """FNO: lifter -> residual blocks at constant width -> two conv-GELU refiners -> head.

    Shapes: measured amplitude (B, 1, N, N) float32 -> object patch (B, 1, N, N) complex64.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.hidden_channels
        self.lifter = conv_gelu_conv(1, channels)
        self.blocks = nn.Sequential(
            *(make_block(config, channels, config.fno_modes, config.N) for _ in range(config.fno_blocks))
        )
        refiner = decoder_stage(config, channels, channels)
        self.refiner = nn.Sequential(OrderedDict([("0", refiner), *decoder_activation(config, channels).items()]))
        self.head = nn.Conv2d(channels, 2, kernel_size=1)
        self.to_patch = make_head(config)

    def forward(self, amplitude: Tensor) -> Tensor:
        """Predict the object patch."""
        x = self.refiner(self.blocks(self.lifter(channels_last(amplitude))))
        return self.to_patch(self.head(x).to(self.head.weight.dtype))
