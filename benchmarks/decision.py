"""Error rate and power of the decision, from simulated studies.

    python -m benchmarks.decision [--studies 2000]

Every study has one stage. Losses of successful trials are log-normal with the spread of the cure's confirmation.
Nothing is trained; the simulated trials are judged as by `fnostab decide`.
"""

import argparse
from collections import Counter
from itertools import product

import numpy as np

from fnostab.decision import Rules, Stage
from fnostab.decision.answers import stage_answers
from fnostab.decision.criteria import stage_criteria
from fnostab.decision.pairs import pairs_of
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow

LOG_SD = 0.14  # of losses over seeds; 0.11 to 0.14 for the arms in results/cure/trials.csv, step confirm
RATES, SEEDS, CANDIDATES = (0.1, 0.3, 0.5), (5, 10, 20), (2, 4)
LOOKS = (10, 20, 40)


def trials(rng, arm, rate, n):
    """Simulate n trials of an arm with the given failure rate."""
    failed, losses = rng.random(n) < rate, 0.1 * np.exp(LOG_SD * rng.standard_normal(n))
    return [
        TrialRow(arm, seed, Outcome.COLLAPSED if failed[seed] else Outcome.CONVERGED, float(losses[seed]))
        for seed in range(n)
    ]


def names(rows, rules):
    """Names of the answers for all arms."""
    pairs = pairs_of(Stage("a", tuple(rows)), "control", rules)
    return [str(answer.name) for answer in stage_answers(pairs, stage_criteria(pairs, rules), rules)]


def study(rng, control_rate, arm_rate, n, candidates):
    """Simulate trials of the control, and of candidates that all have the same failure rate."""
    arms = [(f"arm{i}", arm_rate) for i in range(candidates)]
    return [trial for arm, rate in [("control", control_rate), *arms] for trial in trials(rng, arm, rate, n)]


def shares(studies, *, control_rate, arm_rate, n, candidates, seed=0):
    """Shares of studies in which any arm helps (at a cost or not), harms, or does not help."""
    rng, found = np.random.default_rng(seed), Counter()
    for _ in range(studies):
        said = set(names(study(rng, control_rate, arm_rate, n, candidates), Rules()))
        found["helps"] += bool(said & {"helps", "helps, at a cost"})
        found.update(said & {"harms", "does not help"})
    return {name: found[name] / studies for name in ("helps", "harms", "does not help")}


def shares_over_looks(studies, rate, candidates=2, looks=LOOKS, seed=0):
    """Shares of studies in which any arm helps or harms at any of several unplanned looks."""
    rng, found = np.random.default_rng(seed), Counter()
    for _ in range(studies):
        rows = study(rng, rate, rate, looks[-1], candidates)
        said = set()
        for look, n in enumerate(looks, start=1):
            said |= set(names([row for row in rows if row.seed < n], Rules(look=look)))
        found["helps"] += bool(said & {"helps", "helps, at a cost"})
        found["harms"] += "harms" in said
    return {name: found[name] / studies for name in ("helps", "harms")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    n_studies = parser.parse_args().studies
    print(f"{n_studies} studies a line; shares in which any arm ...\n")
    print("| all fail at | seeds | candidates | helps | harms | does not help |\n|---|---|---|---|---|---|")
    for rate, n, candidates in product(RATES, SEEDS, CANDIDATES):
        found = shares(n_studies, control_rate=rate, arm_rate=rate, n=n, candidates=candidates)
        print(f"| {rate} | {n} | {candidates} | {' | '.join(f'{x:.3f}' for x in found.values())} |", flush=True)
    print(f"\n| all fail at | looks at {LOOKS}, unplanned | helps | harms |\n|---|---|---|---|")
    for rate in RATES:
        found = shares_over_looks(n_studies, rate)
        print(f"| {rate} | 2 candidates | {found['helps']:.3f} | {found['harms']:.3f} |", flush=True)
    print("\n| control fails at | the arm at | seeds | helps |\n|---|---|---|---|")
    for control_rate, n in product((0.3, 0.5), (10, 20)):
        found = shares(n_studies, control_rate=control_rate, arm_rate=0.0, n=n, candidates=1)
        print(f"| {control_rate} | 0 | {n} | {found['helps']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
