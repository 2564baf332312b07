"""The commands that run the rest of a study, or judge it."""

import json
from collections.abc import Collection, Sequence

from fnostab.record.settings import seeds_text
from fnostab.record.trial import StudySpec


def judge_or_run(spec: StudySpec, arms: Collection[str]) -> list[str]:
    """Write the arguments of `fnostab` that judge a study; those that run it if it can't be judged yet.

    Args:
        spec: study as it was run; if one seed was asked for, the command names none, and so runs all of them.
        arms: arms that have trials. To be judged, control and another need one.
    """
    if spec.control in arms and (len(arms) > 1 or len(spec.arms) == 1):
        return ["decide", "--experiment", spec.experiment]
    seeds = sorted({seed for of_arm in spec.seeds.values() for seed in of_arm})
    return run_words(spec, seeds=seeds if len(seeds) > 1 else ())


def run_words(spec: StudySpec, *, arms: Collection[str] = (), seeds: Sequence[int] = ()) -> list[str]:
    """Write the arguments of `fnostab` that run a study again: these arms, by default all, at these seeds."""
    words = ["run", spec.asked_as or spec.name]
    words += ["--experiment", spec.experiment] if spec.experiment != spec.name else []
    words += ["--arms", ",".join(arms)] if arms and len(arms) < len(spec.arms) else []
    words += ["--seeds", seeds_text(seeds)] if seeds else []
    words += ["--profile", spec.profile] if spec.profile else []
    for name, value in spec.overrides.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    return words
