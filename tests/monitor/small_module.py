"""A LightningModule that knows nothing of fnostab, and a sink that remembers."""

import math
import warnings

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader

NAN, INF = math.nan, math.inf


class Recorder:
    """A sink that keeps everything as it comes."""

    def __init__(self):
        self.points = []
        self.events = []

    def record(self, step, values):
        self.points.append((step, dict(values)))

    def event(self, name, payload):
        self.events.append((name, dict(payload)))

    def curve(self, name):
        """(step, value) of each point of a metric, as recorded."""
        return [(step, values[name]) for step, values in self.points if name in values]

    def values(self, name):
        return [value for _, value in self.curve(name)]

    def tags(self):
        return {key: value for name, payload in self.events if name == "tags" for key, value in payload.items()}


def fused(kind, **options):
    return lambda parameters: kind(parameters, fused=True, **{"lr": 0.01, **options})


FUSED_ADAM = fused(torch.optim.Adam)


class Small(lightning.LightningModule):
    """Three inputs, four hidden units, one output; mean squared error.

    Args:
        optimizer: from parameters to an optimiser.
        add_to_loss: number to add to the loss, by the number of the batch; leaves the gradient alone.
        times_gradient: factor of one gradient, by the number of the batch; leaves the loss alone.

    ``weights`` holds a copy of all weights before each batch, and after the last.
    """

    def __init__(self, optimizer=FUSED_ADAM, *, add_to_loss=None, times_gradient=None):
        super().__init__()
        self.automatic_optimization = True
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.optimizer = optimizer
        self.add_to_loss = add_to_loss or {}
        self.times_gradient = times_gradient or {}
        self.batches = 0
        self.losses = []
        self.weights = []
        self.net[0].weight.register_hook(lambda g: g * self.times_gradient.get(self.batches - 1, 1.0))

    def flat(self):
        return nn.utils.parameters_to_vector(self.parameters()).detach().clone()

    def on_train_batch_start(self, batch, batch_idx):
        self.weights.append(self.flat())

    def on_train_end(self):
        self.weights.append(self.flat())

    def compute_loss(self, batch):
        return (self.net(batch) - batch.prod(dim=1, keepdim=True)).square().mean()

    def training_step(self, batch, batch_idx):
        loss = self.compute_loss(batch)
        if self.batches in self.add_to_loss:
            loss = loss + self.add_to_loss[self.batches]
        self.batches += 1
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


class Gan(lightning.LightningModule):
    """A generator's and a critic's steps, the critic twice as often."""

    def __init__(self, *, toggles=False, to_none=True, spoilt=None):
        super().__init__()
        self.automatic_optimization = False
        torch.manual_seed(0)
        self.g, self.d = nn.Linear(3, 3), nn.Linear(3, 1)
        self.toggles, self.to_none, self.spoilt = toggles, to_none, spoilt
        self.losses = {"g": [], "d": []}

    def training_step(self, batch, batch_idx):
        generator, critic = self.optimizers()
        for _ in range(2):
            loss = self.d(batch).mean() - self.d(self.g(batch).detach()).mean() + self.d.weight.square().sum()
            self.made("d", critic, loss * (NAN if (batch_idx, "d") == self.spoilt else 1))
        loss = self.d(self.g(batch)).square().mean()
        self.made("g", generator, loss * (NAN if (batch_idx, "g") == self.spoilt else 1))

    def made(self, name, optimizer, loss):
        if self.toggles:
            self.toggle_optimizer(optimizer)
        optimizer.zero_grad(set_to_none=self.to_none)
        self.losses[name].append(float(loss.detach()))
        self.manual_backward(loss)
        optimizer.step()
        if self.toggles:
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        return [torch.optim.Adam(self.g.parameters(), 0.01), torch.optim.Adam(self.d.parameters(), 0.01)]


def batches(n, seed=0):
    return DataLoader(torch.randn(2 * n, 3, generator=torch.Generator().manual_seed(seed)), batch_size=2)


def fit(module, monitor, steps, epochs=1, **settings):
    """Train for ``epochs`` of ``steps`` batches; returns the Trainer."""
    callbacks = [monitor] if not isinstance(monitor, list) else monitor
    trainer = make_trainer(callbacks, max_epochs=epochs, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, batches(steps), batches(2, seed=1) if hasattr(module, "validation_step") else None)
    return trainer


def make_trainer(callbacks, **settings):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return lightning.Trainer(accelerator="cpu", callbacks=callbacks, num_sanity_val_steps=0, **quiet | settings)
