"""Pictures of a study that was run, for make_pictures.py: figures from its journals, and pages in a real browser."""

import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from playwright.sync_api import Page, sync_playwright

from fnostab.figures import (
    LossCurve,
    failure_rate_forest,
    grad_norm_fan,
    kaplan_meier_figure,
    loss_curves,
    loss_strip,
    make_fan,
)
from fnostab.figures.fan import Curve
from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import FILE_NAME, Event
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.record.trial import StudySpec, TrialSpec
from fnostab.stats.rate import Rate
from fnostab.stats.survival import kaplan_meier

WIDE, TALL = 1400, 1050  # pixels of a page
PATIENCE_MS = 600_000  # of a busy machine
SETTLE_MS = 10_000  # curves are drawn one by one
IN_THE_WAY = ("mlflow.assistant.chat_panel.close", "mlflow.experiment_page.shared_view.dismiss")


@dataclass(frozen=True)
class Trial:
    """A trial by its journal: values by step, and the steps at which the loss or a gradient norm was not finite."""

    folder: Path
    row: TrialRow
    norms: dict[int, float]
    validations: dict[int, float]
    nonfinite: list[int]


def gallery(folder: Path) -> dict[str, Figure | Path]:
    """The figures that trials and reports make, of the study in a folder (outputs/EXPERIMENT/HASH)."""
    study = StudySpec.read(folder / "study.json")
    trials = {arm: [_read(path) for path in sorted(folder.glob(f"{arm}-*"))] for arm in study.arms}
    best = min((each for of_arm in trials.values() for each in of_arm if each.row.loss), key=lambda t: t.row.loss)
    return {**_of_arms(trials, study), "reconstruction": best.folder / "artifacts" / "reconstruction_0.png"}


def charts(folder: Path) -> bytes:
    """The first page that `fnostab ui` shows of the study in a folder, once its curves are drawn."""
    with _shown(folder) as address, _browser() as page:
        page.goto(address)
        lines = page.locator(".scatterlayer path.js-line")
        lines.first.wait_for(state="attached")
        for name in IN_THE_WAY:
            button = page.locator(f'[data-component-id="{name}"]')
            if button.count():
                button.first.click()
        drawn = 0
        while lines.count() > drawn:
            drawn = lines.count()
            page.wait_for_timeout(SETTLE_MS)
        return page.screenshot()


def report_page(path: Path) -> bytes:
    """The first screen of a report."""
    with _browser() as page:
        page.goto(path.resolve().as_uri())
        return page.screenshot()


@contextmanager
def _browser() -> Iterator[Page]:
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("error: there is no chromium: install Debian's package `chromium`")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDE, "height": TALL})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


@contextmanager
def _shown(folder: Path) -> Iterator[str]:
    """Address of the study's charts while `fnostab ui` runs."""
    command = [sys.executable, "-m", "fnostab", "ui", "stage_a", "--no-open"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    printed = []
    try:
        for line in server.stdout or ():
            printed.append(line)
            if found := re.match(r"(http\S+)", line):
                yield found[1]
                return
        sys.exit(f"error: `fnostab ui` shows no study:\n{''.join(printed)}")
    finally:
        server.terminate()
        server.wait()


def _read(directory: Path) -> Trial:
    spec = TrialSpec.read(directory / "trial.json")
    values: dict[str, float] = {}
    norms: dict[int, float] = {}
    validations: dict[int, float] = {}
    nonfinite = set[int]()
    end: dict[str, object] = {}
    for record, _ in read_journal(directory / FILE_NAME):
        if isinstance(record, Event):
            end = dict(record.payload) if record.name == names.OUTCOME_EVENT else end
            continue
        values |= record.values
        for name, value in {**record.values, **dict.fromkeys(record.nonfinite, math.nan)}.items():
            if name == names.GRAD_NORM:
                norms[record.step] = value
            elif name.startswith(names.VAL_PREFIX) and name.endswith("_loss"):
                validations[record.step] = value
            elif name not in (names.TRAIN_LOSS, names.GRAD_NORM_CLIPPED):
                continue
            if math.isnan(value):
                nonfinite.add(record.step)
    row = TrialRow(
        spec.arm,
        spec.seed,
        Outcome(end["outcome"]),
        values.get(names.VAL_LOSS_BEST),
        end["failure_step"],
        int(values[names.LAST_STEP]),
    )
    return Trial(directory, row, norms, validations, sorted(nonfinite))


def _of_arms(trials: dict[str, list[Trial]], study: StudySpec) -> dict[str, Figure]:
    rows = {arm: [each.row for each in of_arm] for arm, of_arm in trials.items()}
    failed = {arm: sum(row.failed for row in of_arm) for arm, of_arm in rows.items()}
    ends = {arm: [r.last_step if r.failure_step is None else r.failure_step for r in rows[arm]] for arm in rows}
    survival = {arm: kaplan_meier(ends[arm], [r.failed for r in rows[arm]]) for arm in rows}
    lost = {arm: [r.failure_step for r in rows[arm] if r.outcome is Outcome.NONFINITE] for arm in rows}
    rates = {arm: Rate(failed[arm], len(rows[arm])) for arm in rows}
    control = make_fan([_norms(each) for each in trials[study.control]])
    losses = {arm: [_losses(each) for each in trials[arm]] for arm in rows}
    return {
        "forest": failure_rate_forest(rates),
        "kaplan_meier": kaplan_meier_figure(survival, lost),
        "loss_strip": loss_strip(rows, metric=study.metric.key),
        "loss_curves": loss_curves(losses, metric="validation loss"),
        "fan": grad_norm_fan(control),
    }


def _norms(trial: Trial) -> Curve:
    steps, values = np.array([*trial.norms], dtype=np.int64), np.array([*trial.norms.values()])
    finite = np.isfinite(values)
    return Curve(trial.row.seed, steps[finite], values[finite], np.array(trial.nonfinite, dtype=np.int64))


def _losses(trial: Trial) -> LossCurve:
    steps, values = np.array([*trial.validations]), np.array([*trial.validations.values()])
    epochs, finite = (steps + 1) / (steps[0] + 1), np.isfinite(values)
    lost = [(step + 1) / (steps[0] + 1) for step in trial.nonfinite]
    return LossCurve(trial.row.seed, epochs[finite], values[finite], trial.row.failed, lost)
