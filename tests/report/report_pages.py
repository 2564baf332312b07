"""Whole reports of made-up studies, with every panel that one may have: what a browser shows and prints."""

import re
import zlib
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from report_helpers import case_of, study_spec

from fnostab.figures.fan import Curve
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.report.content import compose
from fnostab.report.evidence import Evidence, Spikes
from fnostab.report.stress import with_stress

ARMS = ("control", "arch_fix", "opt_fix", "cure", "layerscale_small", "warmup_and_clipping", "pre_norm")
STEPS = 60
KNOB = "training.learning_rate"
A4_HEIGHT, MARGIN = 842, 42.5  # points
BROKEN_WORDS = """cells => cells.filter(cell => cell.offsetWidth).flatMap(cell => {
    const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), broken = [];
    while (texts.nextNode()) for (const word of texts.currentNode.data.matchAll(/\\S+/g)) {
        const range = document.createRange();
        range.setStart(texts.currentNode, word.index);
        range.setEnd(texts.currentNode, word.index + word[0].length);
        if (range.getClientRects().length > 1) broken.push(word[0]); }
    return broken; })"""


def page_of(png, arms=2, seeds=4, knob=()):
    """A report on ``arms`` arms, each at every value of the knob where there are values."""
    names = ARMS[:arms]
    if knob:
        stressed = {arm: {f"{arm}@{value:g}": value for value in knob} for arm in names}
        settings = {run: {KNOB: value} for values in stressed.values() for run, value in values.items()}
        spec = study_spec(tuple(settings), roles={}, stressed=stressed, knob=KNOB)
    else:
        spec = study_spec(names)
    of_arms = list(enumerate(spec.arms))
    trials = [_trial(n, arm, seed) for n, arm in of_arms for seed in range(seeds)]
    case = replace(with_stress(case_of(trials, spec=spec)), judged=[f"{len(trials)} trials of study {spec.hash}"])
    runs = [trial.run_id for trial in trials]
    steps, draw = np.arange(STEPS), np.random.default_rng(0)
    evidence = Evidence(
        curves={t.run_id: Curve(t.seed, steps, 1 + draw.random(STEPS), steps[:0]) for t in trials},
        val_losses={run: (steps[9::10], 1 / steps[9::10] + draw.random()) for run in runs},
        spikes={run: Spikes(2, 1) for run in runs},
        pictures=dict.fromkeys(runs, png),
        pages={run: f"http://127.0.0.1:5000/#/experiments/1/runs/{run}?workflowType=machine_learning" for run in runs},
        source="Read at every step.",
    )
    about = {"experiment": "stage_a", "store": "sqlite:///mlflow.db", "verdict_run": "f00d" * 8}
    return compose(case, evidence, made_at=datetime(2026, 11, 23, tzinfo=UTC), **about)


def _trial(number, arm, seed):
    failed = (number + seed) % 3 == 0
    outcome, step = (Outcome.COLLAPSED, 20 + seed) if failed else (Outcome.CONVERGED, None)
    return TrialRow(arm, seed, outcome, 0.1 + seed / 100, step, STEPS - 1, run_id=f"{100 * number + seed:032x}")


def printed(page):
    """Of each page of a report's PDF, distances from its top in points: of lines, and of pictures' lower edges."""
    pdf = page.pdf(prefer_css_page_size=True)
    for contents in re.findall(rb"/Type /Page\b(?!s).*?/Contents (\d+) 0 R", pdf, re.DOTALL):
        stream = re.search(rb"\n" + contents + rb" 0 obj.*?stream\r?\n(.*?)endstream", pdf, re.DOTALL)[1]
        scale, shift, kept, texts, pictures = 1.0, 0.0, [], [], []
        for numbers, operator in re.findall(
            rb"((?:-?[\d.]+\s+){6})?\b(cm|Tm|Do|q|Q)\b", zlib.decompressobj().decompress(stream)
        ):
            if operator == b"q":
                kept.append((scale, shift))
            elif operator == b"Q":
                scale, shift = kept.pop()
            elif operator == b"cm":
                _, _, _, d, _, f = map(float, numbers.split())
                scale, shift = scale * d, shift + scale * f
            elif operator == b"Do":
                pictures.append(A4_HEIGHT - min(shift, shift + scale))
            else:
                texts.append(A4_HEIGHT - (shift + scale * float(numbers.split()[5])))
        yield texts, pictures
