"""Growth of step time with depth, pattern size and batch size, at full size on one thread.

    python -m benchmarks --only growth

One size is varied at a time, from the full profile: hybrid network of 4 blocks, N = 64, batch 16. Networks have at
most 512 channels. Each measurement is a separate process.
"""

from statistics import median

from benchmarks.step import OURS, prepare, step
from benchmarks.timing import Row, compared, own_process

BASE = {"blocks": 4, "N": 64, "batch": 16}
SETTINGS = {"blocks": "model.fno_blocks", "N": "data.N", "batch": "training.batch_size"}
SIZES = {
    True: {"blocks": (2, 4, 8), "N": (32, 64, 128), "batch": (1, 4, 16, 64)},  # quick or not
    False: {"blocks": (2, 4, 6, 8, 12, 16), "N": (32, 64, 128, 256), "batch": (1, 2, 4, 8, 16, 32, 64)},
}
ROUNDS = {True: 2, False: 5}


def measure(quick: bool) -> list[Row]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for what, sizes in SIZES[quick].items():
        times = {f"{what} {size}": seconds(what, size, device, ROUNDS[quick]) * 1e3 for size in sizes}
        rows += compared(f"step by {what}", times, "ms", f"{what} {BASE[what]}")
    return rows


def seconds(what: str, size: int, device: str, rounds: int) -> float:
    settings = {"model.max_hidden_channels": 512, SETTINGS[what]: size}
    if what == "N":  # the object must be larger than a pattern
        settings["data.object_size"] = 2 * size
    with own_process(prepare, settings, device, OURS, "kept") as process:
        return median([process.submit(step).result() for _ in range(rounds + 1)][1:])
