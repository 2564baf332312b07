"""Answers and a verdict as a person and a program read them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from fnostab.decision import ArmSummary, Stage, Stress, Verdict, VerdictName
from fnostab.decision.words import p_text
from fnostab.report.tables import (
    arms_table,
    criteria_table,
    median_and_iqr,
    percent,
    test_text,
    trial_table,
)
from fnostab.show.console import say
from fnostab.show.visible import visible

__all__ = [
    "Case",
    "best_arms",
    "conditions",
    "in_lines",
    "left_out",
    "print_case",
    "remarks",
    "render",
    "render_briefly",
    "scope",
    "to_json",
    "to_markdown",
]

COLOURS = {
    VerdictName.GOLD: "bold yellow",
    VerdictName.SILVER: "bold",
    VerdictName.PIVOT: "bold magenta",
    VerdictName.INCONCLUSIVE: "bold cyan",
}
MOST_SEEDS = 8  # named in a line
TEXT_WIDTH = 100  # columns, where there is no terminal


@dataclass(frozen=True, repr=False)
class Case:
    """A verdict with all that it was made from; a terminal shows it as text, a notebook as a report's first box.

    Attributes:
        studies: by stage, anything with the attributes of a `StudySpec`; empty for a table that does not say.
        judged: a line for each stage: which study, when, how many trials, what else is there.
        command: of the next step, to be pasted; empty if there is none.
        special: what a task's own study says in place of answers, with `render` and `to_json`; None of any other.
    """

    verdict: Verdict
    stages: Sequence[Stage]
    studies: Mapping[str, Any] = field(default_factory=dict)
    judged: Sequence[str] = ()
    command: str = ""
    stress: Stress | None = None
    special: Any = None

    def __repr__(self) -> str:
        text = StringIO()
        console = Console(file=text, width=TEXT_WIDTH, force_jupyter=False, color_system=None)
        print_case(self, console)
        return visible(text.getvalue().rstrip())

    def _repr_html_(self) -> str:
        from fnostab.report.documents import to_box  # which draws: it takes long to import

        return to_box(self)


def print_case(case: Case, console: Console, *, evidence: bool = False) -> None:
    """Print what `render` shows, and the next command, to be pasted."""
    special = case.stress is not None or case.special is not None
    console.print(render(case, evidence=evidence), highlight=False, soft_wrap=special)
    if case.command and not special:
        say(console, f"  {case.command}\n", style="bold")


def scope(studies: Mapping[str, Any]) -> list[str]:
    """What was varied and what was the same for all seeds, in a line; empty if unknown."""
    same = list(dict.fromkeys(what for study in studies.values() for what in getattr(study, "same_for_all", ())))
    if not same:
        return []
    drawn = "Varied: what is drawn from the seed."
    said = f"{drawn} The same for all seeds: {', '.join(same)}. The answer holds only for these."
    one_set = any("validation set" in what for what in same)
    return [f"{said} More seeds do not reduce the sampling error of one validation set." if one_set else said]


def conditions(studies: Mapping[str, Any]) -> list[str]:
    """Conditions under which the verdict holds: study, profile and size of each stage, caveats, what was not varied."""
    lines = []
    for stage, study in studies.items():
        profile = getattr(study, "profile", None)
        parts = [study.name, f"{profile} profile" if profile else "", getattr(study, "size", "")]
        if any(parts):
            where = f"Stage {stage.upper()}: " if study.roles or len(studies) > 1 else ""
            lines.append(f"{where}{', '.join(filter(None, parts))}")
    lines += dict.fromkeys(caveat for study in studies.values() for caveat in getattr(study, "caveats", ()))
    return lines + scope(studies)


def render(case: Case, *, evidence: bool = False) -> RenderableType:
    """Render the judged study, a table of arms, a sentence for each, the verdict and the next command.

    A stress study, and one along a single setting, have tables of their own instead. With ``evidence``, criteria,
    tests, intervals and run ids as well.
    """
    from fnostab.report.stress import render_stress

    verdict = case.verdict
    parts: list[RenderableType] = [Text("\n".join(case.judged), style="dim")] if case.judged else []
    if case.stress is not None or case.special is not None:
        special = case.special.render(case) if case.stress is None else render_stress(case.stress, verdict)
        return Group(*(part for each in parts for part in (each, Text())), special)
    for stage in case.stages:
        parts += [arms_table(stage, verdict), Text("\n".join(_sentences(verdict, stage.name)))]
    if evidence:
        for stage in case.stages:
            parts += [criteria_table(stage.name, verdict), *trial_table(stage, verdict)]
        parts.append(Text("\n".join((*remarks(case), *conditions(case.studies))), style="dim"))
    elif case.studies:
        caveats = dict.fromkeys(caveat for study in case.studies.values() for caveat in getattr(study, "caveats", ()))
        lines = [*caveats, *scope(case.studies)]
        parts += [Text("\n".join(lines), style="dim")] if lines else []
    return Group(*(part for each in (*parts, _conclusion(case)) for part in (each, Text())))


def render_briefly(case: Case) -> RenderableType:
    """Sentences, verdict and next step: for a terminal that has shown the trials already."""
    said = "\n".join(line for stage in case.stages for line in _sentences(case.verdict, stage.name))
    return Group(Text(said), Text(), _conclusion(case))


def in_lines(case: Case) -> list[str]:
    """The verdict and the answer for every arm as plain lines, for a message."""
    verdict = case.verdict
    if case.stress is not None or case.special is not None:
        return [verdict.reason]
    said = verdict.headline if verdict.name is None else f"{verdict.headline}: {verdict.reason}"
    return [said, *verdict.sentences]


def _sentences(verdict: Verdict, stage: str) -> list[str]:
    return [text for answer, text in zip(verdict.answers, verdict.sentences, strict=True) if answer.stage == stage]


def _conclusion(case: Case) -> RenderableType:
    verdict = case.verdict
    lines = []
    if verdict.name is not None:
        lines.append(Text.assemble((verdict.headline, COLOURS[verdict.name]), f": {verdict.reason}"))
    if verdict.rules.level < verdict.rules.alpha:
        lines.append(Text(look_text(verdict)))
    lines.append(Text(f"next: {verdict.next.text}"))
    return Group(*lines)


def look_text(verdict: Verdict) -> str:
    """At which level a later look tests, and why."""
    rules = verdict.rules
    return f"This is look {rules.look} at this study, so it tests at {rules.level:.4g} instead of {rules.alpha:g}."


def to_json(case: Case) -> dict[str, Any]:
    """Everything that `render` shows, JSON-ready."""
    verdict = case.verdict
    return {
        "verdict": None if verdict.name is None else str(verdict.name),
        "headline": verdict.headline,
        "supported": verdict.supported,
        "reason": verdict.reason,
        "next": {**asdict(verdict.next), "kind": str(verdict.next.kind), "command": case.command},
        "next_step": verdict.next.text,
        "winner": verdict.winner,
        "stage_b": list(verdict.stage_b),
        "look": {"number": verdict.rules.look, "level": verdict.rules.level, "planned": verdict.rules.looks_planned},
        "judged": list(case.judged),
        "conditions": conditions(case.studies),
        "studies": {
            stage: {name: getattr(study, name, None) for name in ("name", "hash", "profile")}
            for stage, study in case.studies.items()
        },
        "answers": [
            {**asdict(answer), "name": str(answer.name), "because": str(answer.because), "sentence": text}
            for answer, text in zip(verdict.answers, verdict.sentences, strict=True)
        ],
        "arms": [asdict(summary) for summary in verdict.arms],
        "criteria": [{**asdict(criterion), "state": str(criterion.state)} for criterion in verdict.criteria],
        "stress": None if case.stress is None else asdict(case.stress),
        "special": None if case.special is None else case.special.to_json(),
        "trials": [
            {
                "stage": s.name,
                **{name: value for name, value in vars(t).items() if not name.startswith("_")},
                "outcome": str(t.outcome),
                "measures": dict(t.measures),
                "rules_held": [str(r) for r in t.rules_held],
            }
            for s in case.stages
            for t in s.trials
        ],
    }


def to_markdown(case: Case) -> str:
    """Render the case as Markdown, for the verdict's page in MLflow."""
    verdict = case.verdict
    said = f"**{verdict.headline}**" + (f": {verdict.reason}" if verdict.reason else "")
    lines = [said, "", *(f"- {text}" for text in verdict.sentences), "", f"Next: {verdict.next.text}"]
    lines += ["", f"    {case.command}"] if case.command else []
    lines += ["", *(f"- {line}" for line in (*case.judged, *remarks(case), *conditions(case.studies)))]
    lines += [
        "",
        "| stage | arm | failed | 95 % interval | median [IQR] of those that did not fail |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.stage} | {s.arm} | {s.n_failed}/{s.n} | {percent(s.failure_rate_ci)} | {median_and_iqr(s)} |"
        for s in verdict.arms
    ]
    lines += ["", "| stage | arm | criterion | state | evidence | test |", "|---|---|---|---|---|---|"]
    lines += [f"| {c.stage} | {c.arm} | {c.name} | {c.state} | {c.detail} | {test_text(c)} |" for c in verdict.criteria]
    return "\n".join(lines) + "\n"


def remarks(case: Case) -> list[str]:
    """Remarks beside the tables, a line each."""
    verdict = case.verdict
    lines = [_in_stage(verdict, stage.name, ": ") + best_arms(verdict, stage.name) for stage in case.stages]
    lines += [_in_stage(verdict, stage.name, ": ") + line for stage in case.stages for line in _not_judged(stage)]
    lines += [_in_stage(verdict, stage.name, ": ") + line for stage in case.stages for line in _losses_beside(stage)]
    lines += [_in_stage(verdict, s.stage) + line for s in verdict.arms if (line := left_out(s))]
    for s in verdict.arms:
        if s.worst_rank_p is not None and s.n:
            ratio = ""
            if s.matched_ratio is not None:
                seeds = f"{s.matched_pairs} seed{'s' if s.matched_pairs != 1 else ''} at which neither failed"
                ratio = f"{verdict.rules.metric} ratio {s.matched_ratio:.3f} over {seeds}; "
            worst = f"counting a failed run as worst of all, {p_text(s.worst_rank_p)} (one-sided)"
            lines.append(f"{_in_stage(verdict, s.stage)}{s.arm} against control: {ratio}{worst}")
    return lines


def _losses_beside(stage: Stage) -> Iterator[str]:
    """A line on the validation losses to hold a stage's against, where trials recorded them."""
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
    """A line on each outcome rule that could not be judged, whatever the number of trials."""
    judged = [trial for trial in stage.trials if trial.counts]
    for reason, n in Counter(reason for trial in judged for reason in trial.not_judged).items():
        yield f"not judged in {n} of {len(judged)} trials: {reason}"


def _in_stage(verdict: Verdict, stage: str, mark: str = ", ") -> str:
    title = verdict.stage_title(stage)
    return f"{title}{mark}" if title else ""


def best_arms(verdict: Verdict, stage: str = "a") -> str:
    """The arms that failed least in a stage, and the arm of the best median of all; several where they tie."""
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
        names = [f"{arm} ({median:.4g})" for arm, median in medians.items() if median == best]
        way = "highest" if higher else "lowest"
        said.append(f"{way} median {verdict.rules.metric} of all arms{_tied(names)}: {', '.join(names)}")
    return "; ".join(said)


def _tied(names: Sequence[str]) -> str:
    return " (tied)" if len(names) > 1 else ""


def left_out(s: ArmSummary) -> str:
    """The trials that took no part; empty if all did."""
    if not s.left_out:
        return ""
    counts = ", ".join(f"{len(seeds)} {outcome} ({_seeds(seeds)})" for outcome, seeds in s.left_out.items())
    return f"{s.arm}: {counts}: not in the rate of {s.n_failed}/{s.n}"


def _seeds(seeds: Sequence[int]) -> str:
    shown = ", ".join(map(str, seeds[:MOST_SEEDS]))
    return f"seed{'s' if len(seeds) > 1 else ''} {shown}{', ...' if len(seeds) > MOST_SEEDS else ''}"
