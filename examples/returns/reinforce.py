"""REINFORCE on cart-pole, in NumPy; writes a row of returns.csv for each variant and seed.

The cart-pole is that of Barto, Sutton and Anderson (1983): a force of 10 N to the left or right at each of at most 200
steps. An episode ends when the pole leans by 12 degrees or the cart has moved by 2.4 m; its return is the number of
steps.
"""

import argparse
import csv

import numpy as np

EPISODES, STEPS, RATE, DISCOUNT = 8, 200, 400.0, 0.99
VARIANTS = {"plain": {}, "baseline": {"baseline": True}, "clipped": {"clip": 0.1}}


def move(state, push):
    """Advance by 20 ms; state (episodes, 4): position, speed, angle, angular speed; push (episodes,): -1 or 1."""
    _, v, angle, turn = state.T
    sine, cosine = np.sin(angle), np.cos(angle)
    pull = (10.0 * push + 0.05 * turn**2 * sine) / 1.1
    bend = (9.8 * sine - cosine * pull) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
    speeds = np.stack([v, pull - 0.05 * bend * cosine / 1.1, turn, bend], 1)
    return state + 0.02 * speeds


def play(weights, draw):
    """Play episodes in parallel.

    Returns:
        States (steps, episodes, 4), whether pushed right, probability of that, and a mask of valid steps; all others
        (steps, episodes).
    """
    state, alive = draw.uniform(-0.05, 0.05, (EPISODES, 4)), np.ones(EPISODES, bool)
    seen = []
    for _ in range(STEPS):
        right = 1 / (1 + np.exp(-np.clip(state @ weights, -30, 30)))
        pushed = draw.random(EPISODES) < right
        seen.append((state, pushed, right, alive))
        state = move(state, 2.0 * pushed - 1)
        alive = alive & (np.abs(state[:, 0]) < 2.4) & (np.abs(state[:, 2]) < np.radians(12))
        if not alive.any():
            break
    return [np.array(part) for part in zip(*seen, strict=True)]


def train(seed, iterations, baseline=False, clip=np.inf):
    """Train a policy; return (mean return over the last tenth of the iterations, largest gradient norm)."""
    draw = np.random.default_rng(seed)
    weights, returns, norms = np.zeros(4), [], []
    for _ in range(iterations):
        states, pushed, right, counts = play(weights, draw)
        to_go = np.zeros((len(states) + 1, EPISODES))
        for t in reversed(range(len(states))):
            to_go[t] = counts[t] * (1 + DISCOUNT * to_go[t + 1])
        gain = to_go[:-1]
        if baseline:
            mean = gain.sum(1, keepdims=True) / counts.sum(1, keepdims=True).clip(1)
            gain = (gain - mean) / (gain[counts].std() + 1e-8)
        gradient = ((counts * gain * (pushed - right))[..., None] * states).sum((0, 1)) / counts.sum()
        norms.append(np.linalg.norm(gradient))
        weights = weights + RATE * gradient * min(1.0, clip / max(norms[-1], 1e-12))
        returns.append(counts.sum() / EPISODES)
    return np.mean(returns[-max(iterations // 10, 1) :]), max(norms)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seeds", type=int, default=10)
parser.add_argument("--iterations", type=int, default=100)
args = parser.parse_args()
with open("returns.csv", "w", newline="") as file:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["variant", "seed", "return", "gradient", "iterations"])
    for variant, options in VARIANTS.items():
        for seed in range(args.seeds):
            value, norm = train(seed, args.iterations, **options)
            table.writerow([variant, seed, f"{value:.2f}", f"{norm:.4g}", args.iterations])
