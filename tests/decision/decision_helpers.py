"""Trials in shorthand: what each arm's seeds did, as a stage."""

from dataclasses import replace

from fnostab.decision import Roles, Stage, VerdictName, decide
from fnostab.record.outcomes import FAILURES, Outcome
from fnostab.record.table import TrialRow

ROLES = Roles("control", "arch", "clip")


def arm(name, ok=0, failed=0, *, loss=1.0, spread=0.01, kind="collapsed", oom=0, running=0, **fields):
    """``ok`` successes with losses evenly around ``loss``, then ``failed`` failures, and those that count nowhere."""
    losses = [loss * (1 + spread * (i - (ok - 1) / 2)) for i in range(ok)]
    outcomes = [Outcome.CONVERGED] * ok + [Outcome(kind)] * failed + [Outcome.OOM] * oom + [Outcome.RUNNING] * running
    return [
        TrialRow(
            name,
            seed,
            outcome,
            loss=losses[seed] if seed < ok else None,
            failure_step=10 if outcome in FAILURES else None,
            last_step=99,
            **fields,
        )
        for seed, outcome in enumerate(outcomes)
    ]


def stage(name, *arms):
    """Those of Stage B are other trials than those of Stage A: their losses differ in the seventh digit."""
    rows = [trial for trials in arms for trial in trials]
    if name == "b":
        rows = [replace(t, loss=t.loss and t.loss * (1 + 1e-7)) for t in rows]
    return Stage(name, tuple(rows))


def verdict_of(a, b=None, roles=ROLES, **options):
    return decide(roles, a, b, **options)


def criterion(verdict, stage, arm, name):
    (found,) = [c for c in verdict.criteria if (c.stage, c.arm, c.name) == (stage, arm, name)]
    return found


def answer(verdict, arm, stage="a"):
    return verdict.answer(arm, stage)


GOLD, SILVER, PIVOT, INCONCLUSIVE = (
    VerdictName.GOLD,
    VerdictName.SILVER,
    VerdictName.PIVOT,
    VerdictName.INCONCLUSIVE,
)
