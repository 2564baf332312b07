"""Remarks on a verdict, beside its tables: conditions, what was left out or not judged, which arms did best."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fnostab.decision import ArmSummary, Stage, Verdict
from fnostab.decision.rules import Rules
from fnostab.decision.scale import same
from fnostab.decision.words import p_text
from fnostab.record.plurals import counted

if TYPE_CHECKING:
    from fnostab.report.case import Case

MOST_SEEDS = 8  # named in a line


def scope(studies: Mapping[str, Any]) -> list[str]:
    """Say in a line what was varied and what was the same for all seeds; empty if unknown."""
    same = list(dict.fromkeys(what for study in studies.values() for what in getattr(study, "same_for_all", ())))
    if not same:
        return []
    drawn = "Varied: what is drawn from the seed."
    said = f"{drawn} The same for all seeds: {', '.join(same)}. The answer holds only for these."
    one_set = any("validation set" in what for what in same)
    return [f"{said} More seeds do not reduce the sampling error of one validation set." if one_set else said]


def conditions(studies: Mapping[str, Any]) -> list[str]:
    """List the conditions of a verdict: study, profile and size of each stage, caveats, and what was not varied."""
    lines = []
    for stage, study in studies.items():
        profile = getattr(study, "profile", None)
        parts = [study.name, f"{profile} profile" if profile else "", getattr(study, "size", "")]
        if any(parts[1:]):  # else it says what was judged, which is said already
            where = f"Stage {stage.upper()}: " if study.roles or len(studies) > 1 else ""
            lines.append(f"{where}{', '.join(filter(None, parts))}")
    return lines + limits(studies)


def limits(studies: Mapping[str, Any]) -> list[str]:
    """List the caveats of the studies, and what was not varied."""
    caveats = dict.fromkeys(caveat for study in studies.values() for caveat in getattr(study, "caveats", ()))
    return [*caveats, *scope(studies)]


def look_text(verdict: Verdict) -> str:
    """Say at which level a study tests if that is not 0.05, and why; else empty."""
    rules = verdict.rules
    if rules.level == rules.alpha:
        planned = "each planned look" if rules.looks_planned else "this study"
        return "" if rules.alpha == Rules().alpha else f"Tested at {rules.alpha:.4g}, the level of {planned}."
    return f"This is look {rules.look} at this study, so it tests at {rules.level:.4g} instead of {rules.alpha:g}."


def remarks(case: "Case") -> list[str]:
    """Write the remarks beside the tables, a line each."""
    verdict = case.verdict
    lines = [_in_stage(verdict, stage.name, ": ") + best_arms(verdict, stage.name) for stage in case.stages]
    lines += [_in_stage(verdict, stage.name, ": ") + line for stage in case.stages for line in _not_judged(stage)]
    lines += [_in_stage(verdict, stage.name, ": ") + line for stage in case.stages for line in _losses_beside(stage)]
    lines += [_in_stage(verdict, s.stage) + line for s in verdict.arms if (line := left_out(s))]
    for s in verdict.arms:
        answer = verdict.answer(s.arm, s.stage)
        if answer is not None and s.worst_rank_p is not None and s.n:
            ratio = ""
            if s.matched_ratio is not None:
                seeds = f"{counted(s.matched_pairs, 'seed')} at which neither failed"
                ratio = f"{verdict.rules.metric} {s.matched_ratio:.4g} times as high over {seeds}; "
            worst = f"counting a failed run as worst of all, {p_text(s.worst_rank_p)}"
            against = f"{_in_stage(verdict, s.stage)}{s.arm} against {answer.control_arm}"
            lines.append(f"{against}: {ratio}{worst} (one-sided, not corrected for the number of arms)")
    return lines


def _losses_beside(stage: Stage) -> Iterator[str]:
    """Write a line with reference values for a stage's validation losses, if trials recorded them."""
    kinds = {
        "of the best constant output": [t.constant_loss for t in stage.trials],
        "of a right prediction, by noise alone": [t.noise_floor_loss for t in stage.trials],
    }
    known = {what: [v for v in values if v is not None] for what, values in kinds.items()}
    if said := [f"{_range(values)} {what}" for what, values in known.items() if values]:
        yield f"reference validation losses: {', '.join(said)}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"


def _not_judged(stage: Stage) -> Iterator[str]:
    """Write a line for each reason why an outcome rule was not judged, with the number of trials."""
    judged = [trial for trial in stage.trials if trial.counts]
    for reason, n in Counter(reason for trial in judged for reason in trial.not_judged).items():
        rule, mark, why = reason.partition(": ")
        yield f"{rule} not judged in {n} of {counted(len(judged), 'trial')}{mark}{why}"


def _in_stage(verdict: Verdict, stage: str, mark: str = ", ") -> str:
    title = verdict.stage_title(stage)
    return f"{title}{mark}" if title else ""


def best_arms(verdict: Verdict, stage: str = "a") -> str:
    """Name the arms of a stage with the fewest failures and with the best median; several if they tie."""
    ran = [s for s in verdict.arms if s.stage == stage and s.failure_rate is not None]
    if not ran:
        return "no training outcome"
    said = []
    if verdict.rules.failure_judged:
        least = min(s.failure_rate or 0.0 for s in ran)
        names = [f"{s.arm} ({s.n_failed}/{s.n})" for s in ran if s.failure_rate == least]
        said.append(f"fewest failures{_tied(names)}: {', '.join(names)}")
    higher = verdict.rules.higher_is_better
    if medians := {s.arm: s.median for s in ran if s.median is not None}:
        best = max(medians.values()) if higher else min(medians.values())
        names = [f"{arm} ({median:.4g})" for arm, median in medians.items() if same(median, best)]
        way = "highest" if higher else "lowest"
        said.append(f"{way} median {verdict.rules.metric} of all arms{_tied(names)}: {', '.join(names)}")
    return "; ".join(said)


def _tied(names: Sequence[str]) -> str:
    return " (tied)" if len(names) > 1 else ""


def left_out(s: ArmSummary) -> str:
    """Count the trials of an arm that are not in its failure rate, by outcome; empty if there are none."""
    if not s.left_out:
        return ""
    counts = ", ".join(f"{len(seeds)} {outcome} ({_seeds(seeds)})" for outcome, seeds in s.left_out.items())
    return f"{s.arm}: {counts}: not in the rate of {s.n_failed}/{s.n}"


def _seeds(seeds: Sequence[int]) -> str:
    shown = ", ".join(map(str, seeds[:MOST_SEEDS]))
    return f"seed{'s' if len(seeds) > 1 else ''} {shown}{', ...' if len(seeds) > MOST_SEEDS else ''}"
