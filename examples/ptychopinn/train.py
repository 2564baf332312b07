"""Self-supervised ptychography as in PtychoPINN: manual optimisation and clipping in `training_step`."""

import argparse
import math

import torch
from lightning import LightningModule, Trainer, seed_everything
from physics import N, diffraction, scan
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fnostab.monitor import StabilityMonitor  # 1 of 2 lines added

torch.set_num_threads(1)


class Block(nn.Module):
    """Residual FNO block y = x + GELU(spectral(x) + local(x)): (B, width, N, N) -> the same."""

    def __init__(self, width, modes=8):
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.randn(width, width, 2 * modes, modes, dtype=torch.cfloat) / width)
        self.local = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        k, spectrum = self.modes, torch.fft.rfft2(x)
        low = torch.cat([spectrum[:, :, :k, :k], spectrum[:, :, -k:, :k]], 2)
        low = torch.einsum("bihw,oihw->bohw", low, self.weight)
        kept = torch.zeros_like(spectrum)
        kept[:, :, :k, :k], kept[:, :, -k:, :k] = low[:, :, :k], low[:, :, k:]
        return x + nn.functional.gelu(torch.fft.irfft2(kept, s=(N, N)) + self.local(x))


def clip_by_units(parameters, factor):
    """Limit each unit's gradient norm to ``factor`` times its weight norm (AGC, Brock et al. 2021)."""
    for p in parameters:
        units = list(range(1, p.ndim)) or [0]  # a bias is one unit
        size, change = (torch.linalg.vector_norm(t, dim=units, keepdim=True) for t in (p.detach(), p.grad))
        p.grad.mul_((factor * size.clamp(min=1e-3) / change.clamp(min=1e-6)).clamp(max=1))


class PtychoNet(LightningModule):
    """Network from measured amplitudes to object patches, trained on the amplitudes that the patches give."""

    def __init__(self, lr, clip, algorithm, width=8, blocks=4):
        super().__init__()
        self.automatic_optimization = False
        self.lr, self.clip, self.algorithm = lr, clip, algorithm
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 1), *(Block(width) for _ in range(blocks)), nn.Conv2d(width, 2, 3, padding=1)
        )

    def forward(self, measured):
        amplitude, phase = self.net(measured).chunk(2, 1)
        return torch.polar(amplitude.sigmoid(), math.pi * phase.tanh())

    def loss_of(self, measured):
        """Mean absolute error of the predicted amplitudes, relative to the mean of measured ones (B, 1, N, N)."""
        return (diffraction(self(measured)) - measured).abs().mean() / measured.mean()

    def training_step(self, batch, batch_index):
        optimizer = self.optimizers()
        loss = self.loss_of(batch[0])
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.clip is not None:
            if self.algorithm == "norm":
                nn.utils.clip_grad_norm_(self.parameters(), self.clip)
            elif self.algorithm == "value":
                nn.utils.clip_grad_value_(self.parameters(), self.clip)
            else:
                clip_by_units(self.parameters(), self.clip)
        optimizer.step()

    def validation_step(self, batch, batch_index):
        self.log("mae_val_Amp_loss", self.loss_of(batch[0]), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.lr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--gradient-clip-val", type=float, help="largest norm or value, or AGC's factor")
    parser.add_argument("--gradient-clip-algorithm", choices=["norm", "value", "agc"], default="norm")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    seed_everything(args.seed)
    training = DataLoader(TensorDataset(scan(256, seed=1)), 8, shuffle=True)
    held_out = DataLoader(TensorDataset(scan(64, seed=2)), 64)  # of another object
    Trainer(
        accelerator="cpu",
        max_epochs=args.epochs,
        logger=False,
        enable_checkpointing=False,
        callbacks=[StabilityMonitor(val_loss_name="mae_val_Amp_loss")],  # 2 of 2
    ).fit(PtychoNet(args.lr, args.gradient_clip_val, args.gradient_clip_algorithm), training, held_out)
