"""The p-values and intervals of criteria are those of R, for stages of many kinds.

    pytest tests/stats/test_r.py -s        # prints the largest differences

Boschloo's test is written here in R's terms: the largest probability, over the common rate, of all tables of which
Fisher's p (`phyper`) is no larger.
"""

import csv
import shutil
import subprocess

import numpy as np
import pytest

from fnostab.decision import Roles, Rules, Stage, decide
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow

NEEDED = "library(exactRankTests)"
IN_R = """
suppressMessages(library(exactRankTests))
boschloo <- function(a, m, b, n) {  # failures a of m of control, b of n of the arm
  if (a + b == 0 || a + b == m + n) return(1)
  fisher <- outer(0:m, 0:n, function(x, y) phyper(y, n, m, x + y))
  inside <- fisher <= fisher[a + 1, b + 1] * (1 + 1e-9)
  size <- function(r) sum(outer(dbinom(0:m, m, r), dbinom(0:n, n, r)) * inside)
  rates <- seq(0, 1, length.out = 513)
  sizes <- sapply(rates, size)
  best <- which.max(sizes)
  near <- c(rates[max(best - 1, 1)], rates[min(best + 1, 513)])
  max(sizes, optimize(size, near, maximum = TRUE, tol = 1e-12)$objective)
}
t <- read.csv("trials.csv")
found <- data.frame()
for (s in unique(t$stage)) {
  control <- t[t$stage == s & t$arm == "control", ]
  arm <- t[t$stage == s & t$arm == "arm", ]
  x <- arm$loss[!arm$failed]
  y <- control$loss[!control$failed]
  less <- function(x, y) wilcox.exact(x, y, alternative = "less", exact = TRUE)$p.value
  ci <- if (length(unique(c(x, y))) == length(c(x, y)))
    wilcox.test(log(x), log(y), conf.int = TRUE, exact = TRUE) else list(estimate = NA, conf.int = c(NA, NA))
  wilson <- prop.test(sum(arm$failed), nrow(arm), correct = FALSE)$conf.int
  found <- rbind(found, data.frame(stage = s,
    fewer_failures = boschloo(sum(control$failed), nrow(control), sum(arm$failed), nrow(arm)),
    better_loss = less(x, y), loss_within_margin = less(signif(x / 1.1, 12), signif(y, 12)),
    ratio = exp(ci$estimate), low = exp(ci$conf.int[1]), high = exp(ci$conf.int[2]),
    wilson_low = wilson[1], wilson_high = wilson[2]))
}
write.csv(found, "found.csv", row.names = FALSE)
"""
SIZES = [(3, 3), (5, 5), (8, 12), (10, 10), (20, 20), (3, 50), (40, 4), (12, 7)]
STAGES = [(size, failing, grid) for size in SIZES for failing in (0.0, 0.3, 0.6) for grid in (False, True)]


def stages():
    """Trials of control and an arm: sizes, failure rates, losses with and without ties; at least 3 successes each."""
    rng = np.random.default_rng(5)
    for (m, n), failing, grid in STAGES:
        rows = []
        for arm, size, rate in (("control", m, failing), ("arm", n, failing / 3)):
            n_failed = min(int(rng.binomial(size, rate)), size - 3)
            losses = np.exp(0.1 * rng.standard_normal(size))
            losses = np.round(losses, 1) if grid else losses
            outcomes = [Outcome.COLLAPSED if seed < n_failed else Outcome.CONVERGED for seed in range(size)]
            rows += [TrialRow(arm, seed, outcomes[seed], float(losses[seed])) for seed in range(size)]
        yield rows


def test_p_and_intervals_are_those_of_r(tmp_path):
    if shutil.which("Rscript") is None or subprocess.run(["Rscript", "-e", NEEDED], capture_output=True).returncode:
        pytest.skip("R or its exactRankTests is not installed: apt-get install r-base-core r-cran-exactranktests")
    ours, lines = [], [("stage", "arm", "failed", "loss")]
    for place, rows in enumerate(stages()):
        verdict = decide(Roles("control"), Stage("a", tuple(rows)), rules=Rules())
        judged = {c.name: c for c in verdict.criteria}
        loss, summary = judged["better_loss"], verdict.arms[1]
        low, high = loss.ci or (np.nan, np.nan)
        tied = len({row.loss for row in rows if not row.failed}) < sum(not row.failed for row in rows)
        effect = (np.nan,) * 3 if tied else (loss.effect, low, high)
        p = [1.0 if c.p is None else c.p for c in (judged[name] for name in list(judged)[:3])]
        ours.append([*p, *effect, *summary.failure_rate_ci])
        lines += [(place, row.arm, "TRUE" if row.failed else "FALSE", repr(row.loss)) for row in rows]
    with open(tmp_path / "trials.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)
    subprocess.run(["Rscript", "-e", IN_R], cwd=tmp_path, check=True, capture_output=True)
    with open(tmp_path / "found.csv") as file:
        columns, *found = csv.reader(file)
    theirs = np.array([[np.nan if cell == "NA" else float(cell) for cell in row[1:]] for row in found])
    apart = np.nanmax(np.abs(ours - theirs) / np.fmax(np.abs(theirs), 1e-300), axis=0)
    print(f"largest relative difference of {len(found)} stages:")
    for name, value in zip(columns[1:], apart, strict=True):
        print(f"  {name}: {value:.1e}")
    assert list(judged)[:3] == columns[1:4]
    assert np.abs(apart).max() < 1e-4
