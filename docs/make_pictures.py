"""Make the pictures of README and docs, and the samples of output that a test can't print again in seconds.

    python -m docs.make_pictures               # what is drawn from the tables in results/: seconds
    python -m docs.make_pictures --folder F    # what shows a study as well: F/outputs and F/mlflow.db hold it

The second runs the study if F lacks it, in ten minutes of two cores; stopped, it goes on where it was. It needs the
extra `dev` and Debian's chromium. Each picture has in it (PNG text) the table that holds its trials, and what it says
of them; tests/test_pictures.py compares that with the tables. Pictures that other commands make are `ELSEWHERE`.
"""

import argparse
import csv
import io
import math
import os
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fnostab.decision import Stage, Stress, compare_stress
from fnostab.figures import COLOURS
from fnostab.figures.stress import stress_figure
from fnostab.figures.style import FAILED, NAMED, legend_below
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.record.table_file import read_table
from fnostab.report.decide_table import decide
from fnostab.stats.rate import Rate

ROOT = Path(__file__).parent.parent
IMAGES, SAMPLES, README = ROOT / "docs" / "images", ROOT / "results" / "samples", ROOT / "README.md"
DOTS_PER_INCH = 130
PALETTE = 128  # colours, which make a picture a quarter as large
LARGEST = 250_000  # bytes

FULL_SIZE, SEARCH, STUDY = (f"results/{name}.csv" for name in ("full_size/stress", "cure/trials", "question/stage_a"))
OF_TABLES = {"claim": FULL_SIZE, "cure": SEARCH}
OF_STUDY = ("forest", "kaplan_meier", "loss_strip", "loss_curves", "fan", "reconstruction", "ui", "report")
DRIFT = "fnostab activations drift.yaml --profile"
ELSEWHERE = {
    "measured_scan": "python -m docs.make_measured FILE",
    "measured_reconstruction": "python -m docs.make_measured FILE",
    "drift_initialisation": f"{DRIFT} full --at initialisation --seeds 5",
    "drift_trained": f"{DRIFT} small --arms hybrid_4,hybrid_8,stable_4,stable_8 --seeds 3 --jobs 1",
}
PRINTED = {  # files of SAMPLES: the command that prints it, in this order; the first makes the trials of STUDY
    "run": "run stage_a --profile small --seeds 6",
    "replay": "replay outputs/stage_a/*/control-1",
    "replay_clipped": "replay outputs/stage_a/*/control-1 --set execution.gradient_clip_val=1.0",
    "crash_hunt": "run crash_hunt --profile small --seeds 2",
}
QUALITY = {"val/ssim_amp": "amplitude SSIM of the validation image (1: the object itself; 0: a constant)"}


def main() -> None:
    """Draw, and write what each picture is made from into it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the study is, or is run")
    folder = parser.parse_args().folder
    IMAGES.mkdir(exist_ok=True)
    for name in OF_TABLES:
        keep(name, claim_figure() if name == "claim" else cure_figure())
    alt = re.compile(r"!\[[^\]]*\]\(docs/images/claim\.png\)")
    README.write_text(alt.sub(f"![{shows('claim')}](docs/images/claim.png)", README.read_text()))
    if folder is not None:
        of_study(folder.resolve())


def shows(name: str) -> str:
    """Text of a picture on the trials of its table."""
    if name == "claim":
        return claim()[0]
    if name == "cure":
        return search_stress().finding
    stage = stage_of(STUDY)
    counts = (f"{sum(t.failed for t in stage.arm(arm))} of {len(stage.arm(arm))} of {arm}" for arm in stage.arms)
    return f"{table_study(STUDY).name}: failed {', '.join(counts)}"


def stage_of(table: str) -> Stage:
    """Trials of a table, whose study has one stage."""
    read = read_table(ROOT / table)
    return Stage("a", tuple(read.stages["a"]), read.missing.get("a"))


def table_study(table: str) -> Any:
    """The study of a table."""
    return read_table(ROOT / table).study


@dataclass(frozen=True)
class Row:
    """Trials of an arm at one value of the knob."""

    arm: str
    value: float
    trials: list[TrialRow]

    @property
    def failed(self) -> str:
        """Number of failed trials, in words."""
        return f"{sum(t.failed for t in self.trials)} of {len(self.trials)}"


def claim() -> tuple[str, list[Row]]:
    """The sentence of the full-size study, and what it is about: control and one arm, the hardest value first.

    The arm is the one with the lowest p against control, over all values of the knob and corrected for the number of
    arms. Every value at which both have outcomes is said.
    """
    case = decide(read_table(ROOT / FULL_SIZE))  # what `fnostab decide --table` prints
    (stage,), study, stress = case.stages, case.studies["a"], case.stress
    assert stress is not None
    control, *others = stress.arms
    arm = min(others, key=lambda each: 1.0 if each.p is None else each.p)
    values = [{p.value for p in each.points if p.n} for each in (control, arm)]
    names = {(each.name, value): name for each in (control, arm) for name, value in study.stressed[each.name].items()}
    rows = [
        Row(each.name, value, [t for t in stage.arm(names[each.name, value]) if t.counts])
        for value in sorted(values[0] & values[1], reverse=True)
        for each in (control, arm)
    ]
    knob = stress.knob.rpartition(".")[2].replace("_", " ")
    said = "; ".join(
        f"at {knob} {first.value:g} {first.arm} failed in {first.failed} seeds, {other.arm} in {other.failed}"
        for first, other in zip(rows[::2], rows[1::2], strict=True)
    )
    return f"{said[0].upper()}{said[1:]} (p = {arm.p:.2g})", rows


def claim_figure() -> Figure:
    """Each trial by the quality of its image, control above the arm, at each value of the knob."""
    sentence, rows = claim()
    measure = next(iter(table_study(FULL_SIZE).measures))
    seeds = sorted({t.seed for row in rows for t in row.trials})
    offsets = dict(zip(seeds, np.linspace(-0.3, 0.3, len(seeds)).tolist(), strict=True))
    kinds: dict[bool, Any] = {
        True: {**FAILED, "markersize": 7, "color": COLOURS[1], "label": "a seed that failed"},
        False: {"marker": "o", "markersize": 6.5, "color": COLOURS[0], "label": "a seed that did not"},
    }
    with matplotlib.rc_context({**NAMED, "font.size": 10}):
        figure = Figure(figsize=(7.2, 1.5 + 0.62 * len(rows)), layout="constrained")
        ax = figure.subplots()
        for place, row in enumerate(rows):
            for failed, look in kinds.items():
                trials = [t for t in row.trials if t.failed == failed]
                places = [place + offsets[t.seed] for t in trials]
                ax.plot([quality(t, measure) for t in trials], places, linestyle="", **look)
            ax.text(1.02, place, f"{row.failed} failed", va="center", transform=ax.get_yaxis_transform())
        labels = [row.arm if len(rows) == 2 else f"{row.arm}, {row.value:g}" for row in rows]
        ax.set(xlim=(-0.03, 1.0), ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)), yticklabels=labels)
        ax.set_xlabel(QUALITY.get(measure, measure))
        ax.tick_params(axis="y", length=0)
        ax.grid(False, axis="y")
        figure.suptitle(sentence.replace("; ", ";\n"), fontsize=10.5, fontweight="bold")
        legend_below(figure, ax.get_legend_handles_labels()[0])
    return figure


def quality(trial: TrialRow, measure: str) -> float:
    """Of its last validation; 0, as of a constant, where there is none."""
    value = trial.measures.get(measure, math.nan)
    return value if math.isfinite(value) else 0.0


def search_stress() -> Stress:
    """The stress study of the search for a cure, judged again from its trials."""
    rows, families = [], defaultdict[str, dict[str, float]](dict)
    with (ROOT / SEARCH).open(newline="") as table:
        for row in csv.DictReader(table):
            if row["step"] == "stress":
                arm, _, value = row["arm"].rpartition("_")
                families[arm][row["arm"]] = float(value)
                rows.append(TrialRow(row["arm"], int(row["seed"]), Outcome(row["outcome"])))
    return compare_stress(Stage("a", tuple(rows)), families, "training.learning_rate", "control")


def cure_figure() -> Figure:
    """Draw the learning rates that each arm of the search tolerates."""
    stress = search_stress()
    arms = {arm.name: [(p.value, Rate(p.failed, p.n)) for p in arm.points] for arm in stress.arms}
    return stress_figure(arms, stress.knob)


def of_study(folder: Path) -> None:
    """Run what is missing of the study, and make its pictures and samples."""
    from docs.study_pictures import charts, gallery, report_page

    folder.mkdir(parents=True, exist_ok=True)
    for command in PRINTED.values():
        if command.startswith("run "):
            fnostab(folder, *command.split())  # printed again below, without its progress
    fnostab(folder, "export", "stage_a.csv", "--experiment", "stage_a")
    if outcomes(folder / "stage_a.csv") != outcomes(ROOT / STUDY):
        (ROOT / STUDY).write_bytes((folder / "stage_a.csv").read_bytes())
        print(f"{STUDY} is new: the samples that are printed from it have changed")
    (of_arms,) = folder.glob("outputs/stage_a/*/study.json")
    for name, picture in gallery(of_arms.parent).items():
        keep(name, picture)
    keep("ui", charts(folder))
    fnostab(folder, "report", "--experiment", "stage_a")
    keep("report", report_page(folder / "reports" / "stage_a" / "report.html"))
    SAMPLES.mkdir(exist_ok=True)
    for name, command in PRINTED.items():
        words = [each for word in command.split() for each in sorted(map(str, folder.glob(word))) or [word]]
        said = fnostab(folder, *words).replace(f"{folder}/", "")
        (SAMPLES / f"{name}.txt").write_text(f"$ fnostab {command}\n{said}")
    fnostab(folder, "export", str(ROOT / "results" / "question" / "crash_hunt.csv"), "--experiment", "crash_hunt")


def outcomes(table: Path) -> list[tuple[Any, ...]]:
    """End of each trial of a table."""
    return [(t.arm, t.seed, t.outcome, t.failure_step, t.loss) for t in read_table(table).stages["a"]]


def fnostab(folder: Path, *arguments: str) -> str:
    """Standard output of a command, which has to succeed, as 80 columns take it."""
    environment = os.environ | {"COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fnostab", *arguments]
    out = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return "".join(f"{line.rstrip()}\n" for line in out.replace("\xa0", " ").splitlines())


def keep(name: str, drawn: Figure | bytes | Path) -> None:
    """Write a picture with few colours, and with what it is made from."""
    if isinstance(drawn, Figure):
        png = io.BytesIO()
        drawn.savefig(png, dpi=DOTS_PER_INCH)
    else:
        png = io.BytesIO(drawn if isinstance(drawn, bytes) else drawn.read_bytes())
    text = PngInfo()
    text.add_itxt("Source", OF_TABLES.get(name, STUDY))
    text.add_itxt("Shows", shows(name))
    path = IMAGES / f"{name}.png"
    Image.open(png).convert("RGB").quantize(PALETTE).save(path, optimize=True, pnginfo=text)
    if path.stat().st_size > LARGEST:
        sys.exit(f"error: {path} has {path.stat().st_size} bytes, more than {LARGEST}: make it smaller")
    print(f"{path} ({path.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()
