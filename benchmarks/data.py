"""Time of simulating a data set, reading it from the cache, and evaluating a reconstruction.

python -m benchmarks --only data
"""

import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks.timing import Row, compared, in_turns, medians
from fnostab.ptychography.data import prepare
from fnostab.ptychography.data.grid_lines import simulate
from fnostab.ptychography.physics.alignment import align
from fnostab.ptychography.physics.evaluation import evaluate
from fnostab.ptychography.physics.losses import constant_output_loss, mae_loss
from fnostab.ptychography.physics.scan import centre_crop, extract_patches, stitch
from fnostab.ptychography.settings import DataConfig

CONFIGS = {
    "full": DataConfig(set_phi=True),
    "small": DataConfig(N=32, object_size=120, n_lines=120, scan_stride_train=4, scan_stride_test=5, set_phi=True),
}


def measure(quick: bool) -> list[Row]:
    """Milliseconds of each part, relative to the simulation; the quick run measures the small profile only."""
    torch.set_num_threads(1)
    rows = []
    for name in ("small",) if quick else CONFIGS:
        with tempfile.TemporaryDirectory(prefix="data-") as folder:
            works = parts(CONFIGS[name], Path(folder))
            rows += compared(f"data, {name} profile", medians(in_turns(works, 3 if quick else 7)), "ms")
    return rows


def parts(config: DataConfig, folder: Path):
    data = prepare(config, config.seed, folder)
    split = data.validation
    truth = split.objects[0]
    patches = extract_patches(truth, split.positions, config.N)
    stitched = stitch(patches, split.positions, centre_crop(config.N, config.scan_stride_test))
    mae = partial(mae_loss, mean_amplitude=data.mean_amplitude)
    return {
        "simulation": lambda: simulate(config, seed=config.seed),
        "reading it again": lambda: prepare(config, config.seed, folder),
        "best constant's loss": lambda: constant_output_loss(mae, data.probe, split.amplitudes),
        "stitching": lambda: stitch(patches, split.positions, centre_crop(config.N, config.scan_stride_test)),
        "scores with SSIM": lambda: evaluate(align(stitched.image, stitched.cut(truth)), set_phi=True),
    }
