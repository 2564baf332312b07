"""StableAdamW: AdamW where the gradient is steady, and a bounded step where it jumps."""

import torch
from cure_parts.stable_adamw import StableAdamW
from torch import nn


def trained(optimizer_class, gradients, **settings):
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = optimizer_class([parameter], lr=0.1, betas=(0.9, 0.99), **settings)
    steps = []
    for gradient in gradients:
        before = parameter.detach().clone()
        parameter.grad = gradient.clone()
        optimizer.step()
        steps.append(parameter.detach() - before)
    return torch.stack(steps)


def test_it_is_adamw_while_the_update_is_not_clipped():
    """Shrinking gradients: each is below the average of the squares before it."""
    gradients = [torch.tensor([0.5, -0.1, 2.0]) * 0.9**i for i in range(20)]
    ours = trained(StableAdamW, gradients, weight_decay=0.05)
    torch.testing.assert_close(ours, trained(torch.optim.AdamW, gradients, weight_decay=0.05))


def test_a_gradient_that_jumps_moves_the_weights_less_than_adams_step():
    """From 1 to 1000 after 100 steps, rms(g / sqrt(v)) = 1000 / sqrt(15,700) = 8, and the rate is cut by that."""
    gradients = [torch.ones(3)] * 100 + [torch.full((3,), 1000.0)]
    ours, adams = trained(StableAdamW, gradients), trained(torch.optim.AdamW, gradients, weight_decay=0)
    torch.testing.assert_close(ours[:-1], adams[:-1], atol=1e-5, rtol=1e-4)
    square = (1000**2 - 1) * (1 - 0.99) / (1 - 0.99**101) + 1
    torch.testing.assert_close(ours[-1], adams[-1] / (1000 / square**0.5), rtol=1e-3, atol=0)


def test_it_returns_what_its_closure_does():
    parameter = nn.Parameter(torch.ones(1))
    optimizer = StableAdamW([parameter])

    def closure():
        loss = parameter.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 1
    assert parameter < 1
