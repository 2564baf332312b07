"""Sizes computed without memory are those of a real step."""

import pytest
import torch
from torch import nn

from fnostab.ptychography.models import build_generator, training_size
from fnostab.ptychography.physics.far_field import far_field
from fnostab.ptychography.settings import ModelConfig

BATCH = 4


def size_on(device: str, generator: nn.Module, N: int):
    patterns = torch.rand(BATCH, 1, N, N, device=device)
    return training_size(generator, lambda: loss_of(generator, patterns), moments=2)


def loss_of(generator: nn.Module, patterns: torch.Tensor) -> torch.Tensor:
    return (far_field(generator(patterns)).abs() - patterns).abs().mean()


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(("architecture", "residual"), [("hybrid", "plain"), ("fno", "layerscale")])
def test_a_step_on_the_meta_device_is_as_large_as_a_real_one(architecture, residual, checkpointed) -> None:
    settings = {"architecture": architecture, "residual": residual, "checkpoint_blocks": checkpointed}
    sizes = []
    for device in ("meta", "cpu"):
        with torch.device(device):
            generator = build_generator(ModelConfig(N=32, hidden_channels=8, fno_blocks=5, fno_modes=8, **settings))
        sizes.append(size_on(device, generator, 32))
    assert sizes[0].activation_bytes == pytest.approx(sizes[1].activation_bytes, rel=0.02)
    assert sizes[0].state_bytes == sizes[1].state_bytes


def test_activations_are_what_autograd_keeps_and_a_little_more() -> None:
    generator = build_generator(ModelConfig(N=32, hidden_channels=8, fno_blocks=4, fno_modes=8))
    own = {id(p.untyped_storage()): p.untyped_storage() for p in [*generator.parameters(), *generator.buffers()]}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[id(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(generator, torch.rand(BATCH, 1, 32, 32))
    saved = sum(storage.nbytes() for key, storage in kept.items() if key not in own)
    loss.backward()
    assert saved <= size_on("cpu", generator, 32).activation_bytes < 1.15 * saved


def test_the_state_is_what_weights_gradients_and_adam_hold() -> None:
    generator = build_generator(ModelConfig(N=16, hidden_channels=4, fno_blocks=2, fno_modes=4))
    size = size_on("cpu", generator, 16)
    assert all(parameter.grad is None for parameter in generator.parameters())
    optimizer = torch.optim.Adam(generator.parameters(), fused=True)
    loss_of(generator, torch.rand(BATCH, 1, 16, 16)).backward()
    optimizer.step()
    moments = [t for state in optimizer.state.values() for name, t in state.items() if name != "step"]
    assert size.gradient_bytes == sum(p.grad.nbytes for p in generator.parameters())
    assert size.optimizer_bytes == sum(t.nbytes for t in moments)
    buffers = sum(b.nbytes for b in generator.buffers())
    assert size.weight_bytes == size.parameters * 4 + buffers
    assert size.total_bytes == size.weight_bytes + size.gradient_bytes + size.optimizer_bytes + size.activation_bytes


def test_a_complex_parameter_counts_as_two_numbers_and_a_tied_one_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones(8, 8, dtype=torch.complex64))
            self.frozen = nn.Parameter(torch.ones(8), requires_grad=False)
            self.register_buffer("view", self.one.detach()[0])

    module = Tied()
    size = training_size(module, lambda: (module.one.abs() * module.frozen).sum(), moments=1)
    assert size.parameters == 2 * 64 + 8
    assert size.weight_bytes == 64 * 8 + 8 * 4
    assert size.gradient_bytes == size.optimizer_bytes == 64 * 8
