"""Judge the trials of one or two stages, whether they come from a store, a table or runs of another program."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fnostab.decision import NextKind, Roles, Rules, Stage, Verdict, decide
from fnostab.decision.commands import Source, as_run, command_of
from fnostab.decision.next_step import pending_arms, rerun
from fnostab.decision.oversights import (
    ended_early_line,
    margin_as_share,
    margin_in_units,
    odd_failure_step_line,
    same_at_every_seed,
)
from fnostab.decision.verdict import same_trials
from fnostab.record.plurals import counted
from fnostab.record.same_settings import same_settings_line
from fnostab.report.case import Case
from fnostab.report.stress import with_stress
from fnostab.report.sweep import with_along


def make_case(
    stages: Mapping[str, Stage],
    studies: Mapping[str, Any],
    *,
    source: Source,
    judged: list[str] | None = None,
    look: int | None = None,
) -> Case:
    """Judge the trials of one or two stages, and make a case of the verdict.

    Args:
        stages: trials by stage.
        studies: study by stage, anything with the attributes of a `StudySpec`; Stage A's has the roles and rules.
        source: origin of the trials, for the command of the next step.
        judged: lines on what is judged, which the case shows first.
        look: number of this look at the study; None for the number that the study itself holds.

    Raises:
        DecisionError: the trials can't be judged.
    """
    studies = {**studies, "a": _under_control_that_ran(studies["a"], stages["a"])}
    study = studies["a"]
    verdict = decide(Roles.of(study), stages["a"], stages.get("b"), rules=Rules.of(study, look=look))
    step = verdict.next
    if getattr(study, "knob", None) and step.kind is not NextKind.WAIT and (pending := pending_arms(stages["a"])):
        step = rerun(stages["a"], pending)  # the test along the knob counts all of them against an arm
    verdict = replace(verdict, next=as_run(step, source))
    command = command_of(verdict.next, source)
    lines = (*(judged or ()), *_remarks(stages, study, verdict))
    return with_along(with_stress(Case(verdict, tuple(stages.values()), studies, lines, command)))


def _remarks(stages: Mapping[str, Stage], study: Any, verdict: Verdict) -> Iterator[str]:
    """Yield what a reader should know of the trials beside the verdict, a line each."""
    titles = {name: stage_title(name, study) for name in stages}
    for name, stage in stages.items():
        for arm, seeds in stage.gone.items():
            yield f"{titles[name]}{arm} is left out: none of its {counted(len(seeds), 'trial')} has a run"
    repeated = {name: stage.repeated(study.control) for name, stage in stages.items()}
    for name, arms in repeated.items():
        for pair in arms.items():
            yield titles[name] + same_settings_line(*pair)
    for name, stage in stages.items():
        for arm in stage.arms:
            if arm == study.control or arm in repeated[name] or len(stage.arm(arm)) < verdict.rules.least_trials:
                continue
            if same_trials(stage.arm(study.control), stage.arm(arm)):
                yield (
                    f"{titles[name]}{arm} gave the same numbers as {study.control} at every seed: "
                    "does what it changes have an effect?"
                )
    for name, stage in stages.items():
        for arm in stage.arms:
            for line in (
                same_at_every_seed(verdict.rules.metric, arm, stage.arm(arm)),
                ended_early_line(arm, stage.arm(arm)),
                odd_failure_step_line(arm, stage.arm(arm)),
            ):
                if line:
                    yield titles[name] + line
    if any(answer.is_ratio for answer in verdict.answers) and (
        share := margin_as_share(verdict.rules.metric, study.margin)
    ):
        yield share
    for name, stage in stages.items():
        lower_is_better, metric = not verdict.rules.higher_is_better, verdict.rules.metric
        if lower_is_better and (units := margin_in_units(metric, study.margin, stage.trials)):
            yield titles[name] + units


def _under_control_that_ran(study: Any, stage: Stage) -> Any:
    """Return a stress study with its control at the first value that has trials; any other study unchanged."""
    families = getattr(study, "stressed", {}).values()
    family: Mapping[str, float] = next((names for names in families if study.control in names), {})
    ran = next((name for name in family if stage.arm(name)), study.control)
    return study if ran == study.control else study.model_copy(update={"control": ran})


def stage_title(stage: str, study: Any) -> str:
    """Title of a stage, as "Stage A: "; empty for a study that has one stage."""
    return f"Stage {stage.upper()}: " if study.roles or stage != "a" else ""
