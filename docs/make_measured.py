"""Numbers and pictures of docs/measured.md, made from a measured scan.

python -m docs.make_measured siemens-star-small.npz.bz2

It imports the scan, runs stage_a on it, and writes what was printed and recorded between the marks of the page. The
same command goes on after an interruption. The scan is tests/data/siemens-star-small.npz.bz2 of tike
(https://github.com/AdvancedPhotonSource/tike, commit 8e1f937).
"""

import argparse
import re
import statistics
from pathlib import Path

from PIL import Image

from docs.make_pictures import fnostab
from fnostab.ptychography import metric_names
from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import FILE_NAME, Event, Point

DOCS = Path(__file__).parent
PALETTE = 128
LOSS = "val/mae_val_Amp_loss"
COLUMNS = {  # of the table: metric, and which of a trial's values
    "best held-out loss": (LOSS, min),
    "amplitude SSIM, validation": (metric_names.VAL_SSIM_AMP, lambda values: values[-1]),
    "amplitude SSIM, test": (metric_names.SSIM_AMP, lambda values: values[-1]),
    "phase SSIM, test": (metric_names.SSIM_PHASE, lambda values: values[-1]),
}


def main() -> None:
    """Import, run, and fill in the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("outputs/measured"), help="where all is written")
    parser.add_argument("--seeds", default="5")
    given = parser.parse_args()
    scan, folder = given.scan.absolute(), given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    said = fnostab(folder, "data", "import", str(scan), "--out", "star.h5").replace(str(scan), scan.name)
    cropped = fnostab(folder, "data", "import", str(scan), "--crop", "64", "--out", "star64.h5").splitlines()
    run = ("run", "stage_a", "--set", "data.path=star.h5", "--seeds", given.seeds, "--profile", "small")
    fnostab(folder, *run)
    trials = {path.parent: read(path) for path in sorted(folder.glob(f"outputs/stage_a/*/*/{FILE_NAME}"))}
    best = min(trials, key=lambda each: min(trials[each][0].get(LOSS, [float("inf")])))
    page = DOCS / "measured.md"
    text = fill(page.read_text(), "import", code(f"$ fnostab data import {scan.name} --out star.h5\n{said}"))
    lines = [line for line in cropped if line.startswith(("cropped", "reconstructed"))]
    shown = "\n".join([f"$ fnostab data import {scan.name} --crop 64 --out star64.h5", "...", *lines])
    text = fill(text, "crop", code(shown))
    text = fill(text, "trials", table(trials))
    answer = fnostab(folder, "decide", "--experiment", "stage_a").partition("\n\n")[2]  # without where it was judged
    text = fill(text, "answer", code(f"$ fnostab decide --experiment stage_a\n...\n{answer}"))
    page.write_text(text)
    keep(folder / "star.png", DOCS / "images" / "measured_scan.png")
    keep(best / "artifacts" / "reconstruction_0.png", DOCS / "images" / "measured_reconstruction.png")
    print(f"filled in {page}; the picture is of {best.name}")


def read(journal: Path) -> tuple[dict[str, list[float]], str]:
    """Values of every metric of a trial, in order, and its outcome."""
    values: dict[str, list[float]] = {}
    outcome = "running"
    for record, _ in read_journal(journal):
        if isinstance(record, Point):
            for name, value in record.values.items():
                values.setdefault(name, []).append(value)
        elif isinstance(record, Event) and record.name == names.OUTCOME_EVENT:
            outcome = record.payload["outcome"]
    return values, outcome


def table(trials: dict[Path, tuple[dict[str, list[float]], str]]) -> str:
    """A row for each trial, and the losses to hold them against."""
    first = next(iter(trials.values()))[0]
    lines = ["| trial | outcome | " + " | ".join(COLUMNS) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    for path, (values, outcome) in trials.items():
        cells = [f"{take(values[name]):.3f}" if name in values else "none" for name, take in COLUMNS.values()]
        lines.append(f"| {path.name} | {outcome} | " + " | ".join(cells) + " |")
    converged = [min(values[LOSS]) for values, outcome in trials.values() if outcome == "converged"]
    constant, floor = first[names.CONSTANT_LOSS][0], first[names.NOISE_FLOOR_LOSS][0]
    median = f"The median of those that converged is {statistics.median(converged):.3f}. " if converged else ""
    amplitude, phase = (first[each][0] for each in (metric_names.CONSTANT_SSIM_AMP, metric_names.CONSTANT_SSIM_PHASE))
    ssim = f"A constant's SSIM on the test area is {amplitude:.3f} in amplitude, {phase:.3f} in phase."
    return "\n".join(lines) + (
        f"\n\nThe constant output's held-out loss is {constant:.3f}, the noise floor {floor:.3f}.\n{median}{ssim}"
    )


def code(text: str) -> str:
    """A block of what was printed."""
    return "```text\n" + "\n".join(line.rstrip() for line in text.rstrip().splitlines()) + "\n```"


def fill(page: str, mark: str, content: str) -> str:
    """Put content between a mark's two comments."""
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", page)


def keep(figure: Path, image: Path) -> None:
    """Copy a figure with fewer colours."""
    with Image.open(figure) as opened:
        opened.convert("RGB").quantize(PALETTE).save(image, optimize=True)


if __name__ == "__main__":
    main()
