"""Content of a report, before it is rendered as HTML or Markdown: the verdict's evidence as tables and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fnostab import __version__
from fnostab.decision import ArmSummary, Criterion, Stage, Verdict, VerdictName
from fnostab.figures import failure_rate_forest, loss_strip
from fnostab.record.table import TrialRow
from fnostab.record.trial import StudySpec
from fnostab.report import panels
from fnostab.report.evidence import Evidence
from fnostab.report.pictures import Picture, drawing
from fnostab.report.remarks import conditions, remarks
from fnostab.stats.rate import Rate

if TYPE_CHECKING:
    from fnostab.report.case import Case

IN_WORDS: Mapping[VerdictName | None, str] = {
    VerdictName.GOLD: "The change of architecture helps at both depths.",
    VerdictName.SILVER: "The change of architecture is not shown to help, but clipping helps.",
    VerdictName.PIVOT: "No candidate helps in the deep network.",
    VerdictName.INCONCLUSIVE: "These trials do not decide the question yet.",
}


@dataclass(frozen=True)
class StageSection:
    """One stage of a report.

    Fields that are None or empty were not recorded or not judged; a report leaves them out.

    Attributes:
        title: title of the stage, as "Stage A"; empty in a study of one stage.
        prefix: prefix of its pictures' names, as "stage-a-"; empty in a study of one stage.
        parts: part of each arm in the decision, as "control"; empty for an arm without one.
        settings: settings that differ between arms: setting -> value by arm.
        exemplary: arm -> pictures of its best, median and worst trial.
        missing: descriptions of best, median and worst trials that kept no picture.
        excluded: trials without a training outcome, or still running.
        gone: seeds that were asked for and have no trial, by arm.
        stress: failures of a stress study against its knob; None for other studies.
    """

    title: str
    prefix: str
    study: StudySpec
    trials: Sequence[TrialRow]
    parts: Mapping[str, str]
    settings: Mapping[str, Mapping[str, Any]]
    arms: Sequence[ArmSummary]
    criteria: Sequence[Criterion]
    stress: Picture | None
    rates: Picture | None
    losses: Picture
    survival: Picture | None
    curves: Picture | None
    fans: Sequence[Picture]
    exemplary: Mapping[str, Sequence[Picture]]
    missing: Sequence[str]
    excluded: Sequence[TrialRow]
    gone: Mapping[str, Sequence[int]]

    @property
    def heading(self) -> str:
        """Title and name of the study."""
        return ": ".join(filter(None, (self.title, self.study.name))) or "Trials"


@dataclass(frozen=True)
class OnCase:
    """Content of a report's first box, to which reports on a case add."""

    case: "Case"

    @property
    def verdict(self) -> Verdict:
        """The verdict of the case."""
        return self.case.verdict

    @property
    def in_words(self) -> str:
        """The verdict in a sentence, INCONCLUSIVE if its tests do not support it; empty for a study without roles."""
        return IN_WORDS.get(VerdictName.INCONCLUSIVE if self.verdict.supported is False else self.verdict.name, "")

    @property
    def rates(self) -> list[tuple[str, list[ArmSummary]]]:
        """Title of each stage, and its arms in the order of the study."""
        return [(self.verdict.stage_title(stage.name), _summaries(stage, self.case)) for stage in self.case.stages]

    @property
    def conditions(self) -> list[str]:
        """Conditions under which the verdict holds."""
        return conditions(self.case.studies)

    @property
    def remarks(self) -> list[str]:
        """Remarks beside the tables."""
        return remarks(self.case)


@dataclass(frozen=True)
class Report(OnCase):
    """Everything that a report shows.

    Attributes:
        case: verdict on one or two experiments in MLflow, or on runs of other programs.
        experiment: name of Stage A's experiment, or of the file that describes runs of other programs.
        store: address of the store, with its password masked, or path of a table.
        verdict_run: run id of the verdict; None if it was not recorded.
    """

    experiment: str
    evidence: Evidence
    sections: Sequence[StageSection]
    store: str
    verdict_run: str | None
    made_at: datetime
    version: str = __version__

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, in the order in which they are shown."""
        found = []
        for each in self.sections:
            found += [] if each.stress is None else [each.stress]
            drawn = (each.rates, each.survival, each.losses, each.curves, *each.fans)
            found += [picture for picture in drawn if picture is not None]
            found += [picture for pictures in each.exemplary.values() for picture in pictures]
        return found


def compose(
    case: "Case", evidence: Evidence, *, experiment: str, store: str, verdict_run: str | None = None, made_at: datetime
) -> Report:
    """Make a report and draw its pictures; the arguments are attributes of `Report`."""
    sections = [_section(stage, case, evidence) for stage in case.stages]
    return Report(case, experiment, evidence, sections, store, verdict_run, made_at)


def _section(stage: Stage, case: "Case", evidence: Evidence) -> StageSection:
    study, judged = case.studies[stage.name], case.verdict.rules.failure_judged
    summaries = _summaries(stage, case)
    arms = [s.arm for s in summaries]
    trials = {arm: stage.arm(arm) for arm in arms}
    title = case.verdict.stage_title(stage.name)
    prefix = f"stage-{stage.name}-" if title else ""
    exemplary, missing = panels.exemplary(prefix, trials, study, evidence)
    return StageSection(
        title=title,
        prefix=prefix,
        study=study,
        trials=stage.trials,
        parts={arm: _part(arm, study) for arm in arms},
        settings=differences(study, arms),
        arms=summaries,
        stress=None if case.stress is None else panels.stress_picture(case.stress, f"{prefix}stress"),
        criteria=[c for c in case.verdict.criteria if c.stage == stage.name],
        rates=failure_rates(summaries, prefix) if judged else None,
        losses=drawing(
            loss_strip(trials, metric=study.metric.key, judged=judged),
            f"{prefix}losses",
            alt=f"{study.metric.key} of every seed of each arm"
            f"{', successes as dots, failures as triangles' if judged else ''}",
            caption="Every seed is a point, at the same place from top to bottom in each arm.",
        ),
        survival=panels.survival(prefix, trials, evidence),
        curves=panels.validation_losses(prefix, trials, study, evidence)
        if evidence.epochs
        else panels.recorded_values(prefix, trials, study.metric.key, evidence, judged=judged),
        fans=panels.fans(prefix, trials, evidence),
        exemplary=exemplary,
        missing=missing,
        excluded=[t for t in stage.trials if not t.counts],
        gone=stage.all_missing,
    )


def _summaries(stage: Stage, case: "Case") -> list[ArmSummary]:
    study = case.studies[stage.name]
    arms = [arm for arm in study.arms if arm in stage.arms] + [arm for arm in stage.arms if arm not in study.arms]
    summaries = {s.arm: s for s in case.verdict.arms if s.stage == stage.name}
    return [summaries[arm] for arm in arms]


def failure_rates(summaries: Sequence[ArmSummary], prefix: str, about: str = "") -> Picture:
    """Draw the failure rates of the arms; ``about`` precedes the picture's alternative text."""
    return drawing(
        failure_rate_forest({s.arm: Rate(s.n_failed, s.n) for s in summaries}),
        f"{prefix}failure-rates",
        alt=f"{about}Failure rate of each arm with its 95 % interval",
    )


def _part(arm: str, study: StudySpec) -> str:
    parts = ["control"] if arm == study.control else [part for part, name in study.roles.items() if name == arm]
    return ", ".join(part for part in parts if part != arm)


def differences(study: StudySpec, arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Find the settings in which ``arms`` differ from control: setting -> value by arm."""
    settings = {arm: study.arms[arm] for arm in arms if arm in study.arms}
    names = dict.fromkeys(name for values in settings.values() for name in values)
    table = {name: {arm: values.get(name) for arm, values in settings.items()} for name in names}
    return {name: values for name, values in table.items() if any(v != values[study.control] for v in values.values())}
