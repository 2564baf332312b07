"""Print each validation of the published setting, and how well its best network reconstructs the test objects.

It needs the trial's folder, ended or not, and the weights of its best validation there.

python results/full_size/published.py outputs/full_size_published
"""

import sys
from pathlib import Path

import torch

from fnostab.ptychography import metric_names
from fnostab.ptychography.data import prepare
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.checkpoint import load_checkpoint
from fnostab.ptychography.training.reconstruction import predict, reconstruct, score
from fnostab.record.journal_outcomes import read_recorded

CHECKPOINT = "artifacts/best.safetensors"
SCORES = {
    "amplitude SSIM": metric_names.SSIM_AMP,
    "of a constant": metric_names.CONSTANT_SSIM_AMP,
    "amplitude MAE": metric_names.MAE_AMP,
}


def main(folder: Path) -> None:
    """Print the validations, then the scores."""
    (path,) = folder.glob(f"*/*/{CHECKPOINT}")
    directory = path.parents[1]
    network, spec = load_checkpoint(path)
    config = TrialConfig.from_dotted(spec.settings)
    data = prepare(config.data, config.data_seed(spec.seed), folder.parent / "datasets")
    curves = read_recorded(directory).curves
    print("| epochs | step | validation loss | times the mean amplitude | SSIM of the validation objects |")
    print("| --- | --- | --- | --- | --- |")
    for epoch, (step, loss) in enumerate(sorted(curves[spec.judged].items()), 1):
        ssim = curves[metric_names.VAL_SSIM_AMP][step]
        print(f"| {epoch} | {step + 1} | {loss:.4f} | {loss * data.mean_amplitude:.5f} | {ssim:.3f} |")
    patches = predict(network, data.test, torch.device("cpu"))
    scores = score(reconstruct(patches, data.test, config.data), config.data)
    print("test objects: " + ", ".join(f"{name} {scores[metric]:.3f}" for name, metric in SCORES.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
