"""Hybrid U-NO: a spectral encoder and a convolutional decoder with skip connections."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from fnostab.errors import ModelError
from fnostab.ptychography.models.blocks import channels_last, conv_gelu_conv, decoder_stage, make_block, make_head
from fnostab.ptychography.settings import ModelConfig


class HybridUNO(nn.Module):
    """Hybrid U-NO: lifter -> encoder of residual blocks -> bottleneck block -> decoder -> head.

    Between two encoder blocks the resolution is halved and the width doubled, as long as the resolution is even and
    half of it is at least ``min_resolution``; later blocks have constant size and width. Without ``min_resolution`` it
    is halved between all blocks. If that is impossible, the network's parameters can be counted but it can't be run.
    ``down.i``, ``up.i`` and ``decoder.i`` connect levels i and i + 1, where level 0 is full resolution, so networks of
    different depth share layer names.

    Shapes: measured amplitude (B, 1, N, N) float32 -> object patch (B, 1, N, N) complex64.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        levels = _levels(config)
        channels = [width for width, _ in levels]

        def block(level: int, modes: int) -> nn.Module:
            return make_block(config, levels[level][0], modes, levels[level][1])

        deepest = len(levels) - 1
        self.lifter = conv_gelu_conv(1, channels[0])
        self.encoder = nn.ModuleList(block(min(i, deepest), config.fno_modes) for i in range(config.fno_blocks))
        self.bottleneck = block(deepest, max(config.fno_modes // 2, 1))
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for fine, coarse in pairwise(channels):
            kernel = config.down_kernel
            self.down.append(nn.Conv2d(fine, coarse, kernel, stride=2, padding=(kernel - 1) // 2))
            self.up.append(nn.ConvTranspose2d(coarse, fine, kernel_size=2, stride=2))
            self.decoder.append(decoder_stage(config, 2 * fine, fine))
        self.head = nn.Conv2d(channels[0], 2, kernel_size=1)
        self.to_patch = make_head(config)

    def forward(self, amplitude: Tensor) -> Tensor:
        """Predict the object patch.

        Raises:
            ModelError: N can't be halved as often as the network needs.
        """
        N, halvings = amplitude.shape[-1], len(self.down)
        if N % 2**halvings:
            raise ModelError(
                f"{len(self.encoder)} blocks halve N={N} {halvings} times, which is impossible: lower model.fno_blocks "
                "or raise data.N; model.min_resolution=4 halves no further than that"
            )
        x = self.lifter(channels_last(amplitude))
        skips: list[Tensor] = []
        for i, block in enumerate(self.encoder):
            x = block(x)
            if i < len(self.down):
                skips.append(x)
                x = self.down[i](x)
        x = self.bottleneck(x)
        for i in reversed(range(len(self.up))):
            x = self.decoder[i](torch.cat([self.up[i](x), skips[i]], dim=1))
        return self.to_patch(self.head(x).to(self.head.weight.dtype))


def _levels(config: ModelConfig) -> list[tuple[int, int]]:
    """(channels, resolution) of every level, finest first."""
    channels, resolution = config.hidden_channels, config.N
    levels = [(channels, resolution)]
    floor = config.min_resolution
    while len(levels) < config.fno_blocks and (floor is None or (resolution % 2 == 0 and resolution // 2 >= floor)):
        channels = min(2 * channels, config.max_hidden_channels or 2 * channels)
        resolution //= 2
        levels.append((channels, resolution))
    return levels
