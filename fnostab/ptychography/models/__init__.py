"""Neural networks that predict complex object patches from measured amplitudes."""

from fnostab.ptychography.models.blocks import ResidualBlock, residual_blocks
from fnostab.ptychography.models.fno import FNO
from fnostab.ptychography.models.generators import build_generator, check_generator
from fnostab.ptychography.models.hybrid import HybridUNO
from fnostab.ptychography.models.initialisation import build_initialised, initialise_
from fnostab.ptychography.models.size import parameter_count, training_size
from fnostab.ptychography.models.spectral import SpectralConv2d

__all__ = [
    "FNO",
    "HybridUNO",
    "ResidualBlock",
    "SpectralConv2d",
    "build_generator",
    "build_initialised",
    "check_generator",
    "initialise_",
    "parameter_count",
    "residual_blocks",
    "training_size",
]
