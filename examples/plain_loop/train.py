"""Plain PyTorch training loop: a small network learns to classify points of two spirals."""

import argparse
import math

import torch
from torch import nn

from fnostab.recorder import Recorder  # 1 of 2 lines added

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.5)
parser.add_argument("--clip", type=float, help="largest gradient norm")
parser.add_argument("--norm", action="store_true", help="normalise each hidden layer")
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.manual_seed(args.seed)
torch.set_num_threads(1)


def spirals(n):
    """Random points (n, 2) of two spirals, and their labels (n,)."""
    label = torch.randint(2, (n,))
    angle = 3 * math.pi * torch.rand(n).sqrt()
    radius = angle / (3 * math.pi)
    turn = angle + math.pi * label
    points = torch.stack([radius * turn.cos(), radius * turn.sin()], 1)
    return points + 0.02 * torch.randn(n, 2), label


layers = []
for width_in in (2, 64, 64):
    layers += [nn.Linear(width_in, 64), *([nn.LayerNorm(64)] if args.norm else []), nn.ReLU()]
model = nn.Sequential(*layers, nn.Linear(64, 2))
optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9)
loss_of = nn.CrossEntropyLoss()
held_out = spirals(1000)

with Recorder() as rec:  # 2 of 2; what is recorded follows
    rec.scheduled(args.steps)
    for step in range(args.steps):
        points, label = spirals(128)
        loss = loss_of(model(points), label)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), args.clip or math.inf)
        optimizer.step()
        if not rec.step(step, loss=loss, grad_norm=norm, lr=args.lr):
            break
        if step % 50 == 49:
            with torch.no_grad():
                logits = model(held_out[0])
                val_loss = loss_of(logits, held_out[1])
                accuracy = (logits.argmax(1) == held_out[1]).float().mean()
            rec.validation(step, loss=val_loss, accuracy=accuracy)
            print(f"step {step}: loss {loss:.3f}, validation {val_loss:.3f}, accuracy {accuracy:.2f}")
