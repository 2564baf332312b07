import pytest
import torch

from fnostab.ptychography.physics.objects import make_object
from fnostab.ptychography.settings import DataConfig


@pytest.fixture(scope="session")
def lines():
    """An object of lines with a phase, complex64 of shape (80, 80)."""
    config = DataConfig(object_size=80, n_lines=60, set_phi=True)
    return make_object(config, torch.Generator().manual_seed(0))
