"""The FNO with cascaded refiners: residual blocks at full resolution, then convolutions."""

import torch
from torch import Tensor, nn

from fnostab.config import ModelConfig
from fnostab.models.blocks import ResidualBlock, channels_last, conv_gelu_conv

__all__ = ["FNO"]


class FNO(nn.Module):
    """Lifter -> residual blocks at constant width -> two conv-GELU refiners -> head.

    Shapes: measured amplitude (B, 1, N, N) float32 -> object patch (B, 1, N, N) complex64.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.hidden_channels
        self.lifter = conv_gelu_conv(1, channels)
        self.blocks = nn.Sequential(
            *(ResidualBlock.of(config, channels, config.fno_modes, config.N) for _ in range(config.fno_blocks))
        )
        self.refiner = nn.Sequential(conv_gelu_conv(channels, channels), nn.GELU())
        self.head = nn.Conv2d(channels, 2, kernel_size=1)

    def forward(self, amplitude: Tensor) -> Tensor:
        """Predict the object patch."""
        x = self.refiner(self.blocks(self.lifter(channels_last(amplitude))))
        return torch.complex(*self.head(x).to(self.head.weight.dtype).chunk(2, dim=1))
