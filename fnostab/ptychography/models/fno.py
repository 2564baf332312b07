"""The FNO with cascaded refiners: residual blocks at full resolution, then convolutions."""

from collections import OrderedDict

from torch import Tensor, nn

from fnostab.ptychography.models.blocks import (
    ResidualBlock,
    channels_last,
    conv_gelu_conv,
    decoder_activation,
    decoder_stage,
    head_to_patch,
)
from fnostab.ptychography.settings import ModelConfig

__all__ = ["FNO"]


class FNO(nn.Module):
    """Lifter -> residual blocks at constant width -> two conv-GELU refiners -> head.

    Shapes: measured amplitude (B, 1, N, N) float32 -> object patch (B, 1, N, N) complex64.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_kind = config.head
        channels = config.hidden_channels
        self.lifter = conv_gelu_conv(1, channels)
        self.blocks = nn.Sequential(
            *(ResidualBlock.of(config, channels, config.fno_modes, config.N) for _ in range(config.fno_blocks))
        )
        refiner = decoder_stage(config, channels, channels)
        self.refiner = nn.Sequential(OrderedDict([("0", refiner), *decoder_activation(config, channels).items()]))
        self.head = nn.Conv2d(channels, 2, kernel_size=1)

    def forward(self, amplitude: Tensor) -> Tensor:
        """Predict the object patch."""
        x = self.refiner(self.blocks(self.lifter(channels_last(amplitude))))
        return head_to_patch(self.head_kind, self.head(x).to(self.head.weight.dtype))
