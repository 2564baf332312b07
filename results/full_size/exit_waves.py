"""Print how near each network's exit waves are to the true ones, from its weights of the best validation.

python results/full_size/exit_waves.py outputs/full_size_stress
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from fnostab.ptychography.data import GridLines, prepare
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.checkpoint import load_checkpoint
from fnostab.ptychography.training.reconstruction import predict, true_patches
from fnostab.record.attempt import last_attempt
from fnostab.record.lines import FILE_NAME

CHECKPOINT = "artifacts/best.safetensors"


def twin(waves: Tensor) -> Tensor:
    """Waves that give the same diffraction patterns, of shape (n, N, N) as ``waves``."""
    return waves.conj().flip(-2, -1)


def overlap(waves: Tensor, others: Tensor) -> float:
    """Modulus of the normalised inner product, averaged over the patterns."""
    inner = (waves * others.conj()).sum(dim=(-2, -1)).abs()
    norms = [wave.abs().square().sum(dim=(-2, -1)).sqrt() for wave in (waves, others)]
    return float((inner / (norms[0] * norms[1])).mean())


def radius(waves: Tensor) -> float:
    """Root mean square distance of the intensity from the centre, in pixels, averaged over the patterns."""
    line = torch.arange(waves.shape[-1]) - (waves.shape[-1] - 1) / 2
    squares = line.square()[:, None] + line.square()
    intensity = waves.abs().square()
    return float(((intensity * squares).sum(dim=(-2, -1)) / intensity.sum(dim=(-2, -1))).sqrt().mean())


def measures(waves: Tensor, true: Tensor) -> list[str]:
    """Cells of one network, or of the truth compared with itself."""
    return [f"{overlap(waves, true):.2f}", f"{overlap(waves, twin(waves)):.2f}", f"{radius(waves):.1f}"]


def main(folder: Path) -> None:
    """Print the table."""
    data: GridLines | None = None
    rows = []
    for path in sorted(folder.glob(f"*/*/{CHECKPOINT}")):
        directory = path.parents[1]
        end = last_attempt(directory / FILE_NAME).end
        if end is None or end.payload["outcome"] in ("collapsed", "killed"):  # a constant is told by its spread
            continue
        network, spec = load_checkpoint(path)
        config = TrialConfig.from_dotted(spec.settings)
        if data is None:  # the same for all trials of the study
            data = prepare(config.data, config.data_seed(spec.seed), folder.parent / "datasets")
            true = data.probe * true_patches(data.validation, config.data.N)
            rows.append(["truth", "", "", *measures(true, true)])
        waves = data.probe * predict(network, data.validation, torch.device("cpu"))[:, 0]
        rows.append([spec.arm, str(spec.seed), end.payload["outcome"], *measures(waves, true)])
    table = [
        ["arm", "seed", "outcome", "overlap with the true wave", "with its own twin", "radius"],
        ["---"] * 6,
        *rows,
    ]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in table))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
