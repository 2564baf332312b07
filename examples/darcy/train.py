"""Train neuraloperator's FNO on Darcy flow, to predict the pressure from the permeability."""

import argparse
import math

import torch
from data import darcy_flow
from neuralop import H1Loss, LpLoss
from neuralop.models import FNO
from neuralop.training import AdamW
from torch.utils.data import DataLoader, TensorDataset

from fnostab.recorder import Recorder  # 1 of 2 lines added

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=5e-3)
parser.add_argument("--norm", help="ada_in, group_norm or instance_norm")
parser.add_argument("--stabilizer", help="tanh")
parser.add_argument("--bf16", action="store_true", help="mixed precision")
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--samples", type=int, default=128)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.manual_seed(args.seed)
torch.set_num_threads(1)

training = DataLoader(TensorDataset(*darcy_flow(args.samples, 32, seed=0)), 16, shuffle=True)
held_out = darcy_flow(32, 32, seed=1)
model = FNO(
    n_modes=(12, 12),
    in_channels=1,
    out_channels=1,
    hidden_channels=16,
    n_layers=args.layers,
    norm=args.norm,
    stabilizer=args.stabilizer,
)
loss_of, error_of = H1Loss(d=2, reduction="mean"), LpLoss(d=2, p=2, reduction="mean")
optimizer = AdamW(model.parameters(), lr=args.lr, weight_decay=1e-4)
steps = args.epochs * len(training)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def predict(a):
    """Predict pressures (B, 1, size, size) from permeabilities of the same shape."""
    with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
        return model(a).float()


def train(rec):
    """Train for all epochs, or until a step fails."""
    rec.scheduled(steps)
    step = 0
    for epoch in range(args.epochs):
        for a, u in training:
            loss = loss_of(predict(a), u)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf)
            optimizer.step()
            if not rec.step(step, loss=loss, grad_norm=norm, lr=schedule.get_last_lr()[0]):
                return
            schedule.step()
            step += 1
        with torch.no_grad():
            error = error_of(predict(held_out[0]), held_out[1])
        rec.validation(step - 1, loss=error)
        print(f"epoch {epoch}: loss {loss:.4f}, relative error {error:.4f}")


with Recorder() as rec:  # 2 of 2; train() records the values
    train(rec)
