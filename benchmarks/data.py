"""Time to simulate the data set, and what a constant output scores on it, at full and reduced size."""

import time
from functools import partial

import torch

from fnostab.config import DataConfig
from fnostab.data.grid_lines import simulate
from fnostab.physics.evaluation import constant_scores
from fnostab.physics.losses import constant_output_loss, mae_loss, poisson_loss

CONFIGS = {
    "full": DataConfig(set_phi=True),
    "reduced": DataConfig(N=32, object_size=120, n_lines=120, scan_stride_train=4, scan_stride_test=5, set_phi=True),
}


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    for name, config in CONFIGS.items():
        start = time.perf_counter()
        data = simulate(config, seed=config.seed)
        seconds = time.perf_counter() - start
        amplitudes = data.validation.amplitudes
        mae = partial(mae_loss, mean_amplitude=data.mean_amplitude)
        poisson = partial(poisson_loss, photon_scale=data.photon_scale, mean_count=data.mean_count)
        constant = constant_scores(data.validation.objects[0], set_phi=True)
        print(f"{name}: simulated in {seconds:.2f} s")
        print(f"  patterns: {len(data.train.amplitudes)} train, {len(amplitudes)} validation")
        print(f"  mean amplitude {data.mean_amplitude:.4f}, photon scale {data.photon_scale:.4g}")
        print(
            f"  mean count {data.mean_count:.5g}, largest count "
            f"{data.photon_scale * float(data.train.amplitudes.max()) ** 2:.4g}"
        )
        print(
            f"  constant output: mae {constant_output_loss(mae, data.probe, amplitudes):.4f}, "
            f"poisson {constant_output_loss(poisson, data.probe, amplitudes):.4f}, "
            f"ssim_amp {constant.ssim_amp:.3f}, ssim_phase {constant.ssim_phase:.3f}"
        )


if __name__ == "__main__":
    main()
