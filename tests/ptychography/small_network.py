"""The built-in networks, a small size of them, and what every part promises that a network can be given."""

import torch

from fnostab.ptychography.models import build_initialised, check_generator
from fnostab.ptychography.settings import ARCHITECTURES, ModelConfig

BUILT_IN = [(architecture, residual) for architecture, accepted in ARCHITECTURES.items() for residual in accepted]
SMALL = {"N": 16, "hidden_channels": 4, "fno_blocks": 3, "fno_modes": 4}


def assert_only_its_own_weights_differ(architecture, **part):
    """A part changes what the network computes, and no weight that it shares with the plain one."""
    plain = build_initialised(ModelConfig(architecture=architecture, **SMALL), 3)
    other = build_initialised(ModelConfig(architecture=architecture, **SMALL, **part), 3)
    check_generator(other, 16)
    weights, others = plain.state_dict(), other.state_dict()
    assert weights.keys() <= others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    x = 20 * torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(plain(x), other(x), rtol=1e-3)
