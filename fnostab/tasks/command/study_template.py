"""Template of a study of a program, written by `fnostab studies new --program`."""

TEMPLATE = """\
# A study of a program: each arm changes its command line (docs/own.md). Try one trial first: fnostab train {name}.yaml
name: {name}
description: Does clipping keep the training from failing?
command: python {name}.py --lr {{lr}} {{--clip}} --seed {{seed}}    # {{--clip}}: nothing where it is null
metric: {{name: val/loss, of: last}}   # of rec.validation(loss=...); of: best, if you keep the best checkpoint
outcome: {{baseline: 1.0}}             # the loss of having learnt nothing: a trial that is no better has failed
seeds: 8                             # a count, or a list: [0, 3, 5]
defaults: {{lr: 0.2, clip: {{type: float, default: null}}}}    # every setting; its value gives the type
control: control                     # the arm that the others are compared with
arms:                                # each is a set of differences from the defaults
  control: {{}}
  clipped: {{clip: 1.0}}
"""

SCRIPT = '''\
"""Gradient descent on w^4 / 4, in place of a training of your own; it explodes from a start that is too far away."""

import argparse
import random

from fnostab.recorder import Recorder

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.2)
parser.add_argument("--clip", type=float, help="largest gradient norm")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

steps = 60
w = random.Random(args.seed).gauss(0, 4)  # every random number must follow from the seed
with Recorder() as rec:
    rec.scheduled(steps)
    for step in range(steps):
        loss, gradient = w * w * w * w / 4, w * w * w
        if not rec.step(step, loss=loss, grad_norm=abs(gradient)):  # False once the trial has failed
            break
        if args.clip is not None:
            gradient = max(-args.clip, min(args.clip, gradient))
        w -= args.lr * gradient
        if step % 20 == 19:  # at least three times, to tell whether it exploded
            rec.validation(step, loss=w * w * w * w / 4)
            print(f"step {step}: loss {loss:.3g}")
'''
