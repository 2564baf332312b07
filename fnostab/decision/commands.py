"""Write the next step as a command that can be pasted."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fnostab.decision.next_step import NextKind, NextStep
from fnostab.record.settings import seeds_text


@dataclass(frozen=True)
class Place:
    """Study, experiment and options for `fnostab run` to run a stage's trials; without a study there is no command."""

    study: str | None = None
    experiment: str | None = None
    options: tuple[str, ...] = ()  # further options, such as --profile small


@dataclass(frozen=True)
class Source:
    """Origin of the judged trials.

    Attributes:
        places: place of each stage, from which its command is built.
        follow_up: study of Stage B; None if there is none.
        again: command that judges again, if no command runs the trials.
        tracking_uri: address of the store, if commands must name it.
    """

    places: Mapping[str, Place] = field(default_factory=dict)
    follow_up: str | None = None
    again: str = ""
    tracking_uri: str = ""


def as_run(step: NextStep, source: Source) -> NextStep:
    """Adapt the step to `fnostab run`, which gives up trials that broke repeatedly."""
    place = source.places.get(step.stage, Place())
    if not (step.broke and place.study):
        return step
    return replace(step, text=f"{step.text}; trials that were given up need a higher --attempts")


def command_of(step: NextStep, source: Source) -> str:
    """Write a step as a command line; empty if there is no such command."""
    words = _words(step, source)
    if not words:
        return source.again if step.kind in (NextKind.RERUN, NextKind.SEEDS, NextKind.WAIT) else ""
    return shlex.join([*words, *(["--tracking-uri", source.tracking_uri] if source.tracking_uri else [])])


def _words(step: NextStep, source: Source) -> list[str]:
    place = source.places.get(step.stage, Place())
    if step.kind is NextKind.STAGE_B:
        return _stage_b(step, source)
    if step.kind is NextKind.WAIT and place.experiment:
        return ["fnostab", "watch", place.experiment]
    if step.kind in (NextKind.RERUN, NextKind.SEEDS) and place.study:
        words = ["fnostab", "run", place.study]
        words += ["--experiment", place.experiment] if place.experiment else []
        seeds = range(step.seeds) if isinstance(step.seeds, int) else step.seeds
        words += ["--seeds", seeds_text(seeds)] if seeds else []
        words += ["--arms", ",".join(step.arms)]
        words += ["--retry-oom"] if step.retry_oom else []
        return [*words, *place.options]
    return []


def _stage_b(step: NextStep, source: Source) -> list[str]:
    if source.follow_up is None:
        return []
    first = source.places.get("a", Place()).experiment
    words = ["fnostab", "run", source.follow_up]
    return [*words, *(["--from", first] if first else ["--arms", ",".join(step.arms)])]
