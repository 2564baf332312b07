"""Answer for every arm, and verdict of a study with roles: GOLD, SILVER, PIVOT or INCONCLUSIVE.

GOLD: the architecture arm meets its criteria in both stages. SILVER: it fails one of them, and the clipping arm
meets its own. PIVOT: control fails in the deep stage, and no candidate fails less often there. INCONCLUSIVE
otherwise. A study without roles has answers only.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fnostab.decision.answers import Answer, AnswerName, Because, stage_answers
from fnostab.decision.conclusion import Conclusion, VerdictName, conclude
from fnostab.decision.criteria import Criterion, stage_criteria
from fnostab.decision.next_step import NextKind, NextStep, next_step, stage_b_step
from fnostab.decision.oversights import all_failed
from fnostab.decision.pairs import pairs_of
from fnostab.decision.robustness import with_outlook
from fnostab.decision.rules import Roles, Rules
from fnostab.decision.secondary_criteria import deep_reports
from fnostab.decision.sentences import sentence
from fnostab.decision.tally import ArmSummary, Stage, summarise
from fnostab.decision.words import and_list
from fnostab.errors import DecisionError
from fnostab.record.settings import suggestion


@dataclass(frozen=True)
class Verdict:
    """Verdict on a study, with all its evidence.

    Attributes:
        name: name of the verdict; None for a study without roles.
        supported: whether the tests support it; None if it is INCONCLUSIVE or there is no verdict.
        reason: reason as text; empty without roles.
        winner: chosen arm; None if there is none.
        stage_b: control and the arms that still have to be run in Stage B; empty if this stage needs more trials
            first.
        arms: summaries of the arms of each stage, in the order in which they were run.
        answers: answers for every arm except control.
        tolerant: arms of a stress study that are shown to tolerate more than control; None for any other study.
    """

    name: VerdictName | None
    supported: bool | None
    reason: str
    next: NextStep
    winner: str | None
    stage_b: tuple[str, ...]
    arms: tuple[ArmSummary, ...]
    criteria: tuple[Criterion, ...]
    answers: tuple[Answer, ...]
    sentences: tuple[str, ...]
    rules: Rules
    tolerant: tuple[str, ...] | None = None

    @property
    def headline(self) -> str:
        """Verdict in a few words: "GOLD", "leaning SILVER (could be luck)", or the arms that help or tolerate more."""
        if self.tolerant is not None:
            if self.tolerant:
                return f"{and_list(self.tolerant)} tolerate{'s' if len(self.tolerant) == 1 else ''} more"
            return "no arm is shown to tolerate more"
        if self.name is None:
            helping = [answer.arm for answer in self.answers if answer.helps]
            if helping:
                return f"{and_list(helping)} help{'s' if len(helping) == 1 else ''}"
            return "no arm is shown to help"
        return f"leaning {self.name} (could be luck)" if self.supported is False else str(self.name)

    @property
    def next_step(self) -> str:
        """Next step as text."""
        return self.next.text

    @property
    def is_look(self) -> bool:
        """Whether anything was tested; only then does a verdict count as a look."""
        return any(criterion.p is not None for criterion in self.criteria)

    @property
    def exit_code(self) -> int:
        """Exit status of `fnostab decide --exit-code`.

        With roles: 0, 10 and 20 for a supported GOLD, SILVER and PIVOT. Without roles: 0 if an arm helps, 10 if one
        helps only at a cost, 20 if all are shown not to help. 30 for anything else. A stress study: 0 if an arm is
        shown to tolerate more, else 30.
        """
        if self.tolerant is not None:
            return 0 if self.tolerant else 30
        if self.name is not None:
            codes = {VerdictName.GOLD: 0, VerdictName.SILVER: 10, VerdictName.PIVOT: 20}
            return codes.get(self.name, 30) if self.supported else 30
        if any(a.name is AnswerName.HELPS for a in self.answers):
            return 0
        if any(a.helps for a in self.answers):
            return 10
        return 20 if self.answers and all(a.is_no for a in self.answers) else 30

    def stage_title(self, stage: str) -> str:
        """Title of a stage, such as "Stage A"; empty in a single-stage study."""
        of_one = self.name is None and all(summary.stage == "a" for summary in self.arms)
        return "" if of_one else f"Stage {stage.upper()}"

    def answer(self, arm: str, stage: str = "a") -> Answer | None:
        """Answer for an arm; None if it was not run."""
        return next((a for a in self.answers if (a.stage, a.arm) == (stage, arm)), None)


def decide(roles: Roles, stage_a: Stage, stage_b: Stage | None = None, *, rules: Rules | None = None) -> Verdict:
    """Answer for every arm of Stage A and, if it was run, of Stage B, and apply the decision logic to both.

    Args:
        roles: roles of the arms.
        stage_a: trials of the study.
        stage_b: trials of the deep stress test; None if it was not run.
        rules: numbers on which the decision is based; by default those of `Rules`.

    Raises:
        DecisionError: a stage has no trial of control or holds a trial twice, or Stage B repeats Stage A.
    """
    rules = rules or Rules()
    stages = {stage.name: stage for stage in (stage_a, stage_b) if stage is not None}
    for stage in stages.values():
        _check(stage, roles)
    repeats = _repeated(stage_a, stage_b, roles.control) if stage_b else {}
    pairs = {name: pairs_of(s, roles.control, rules, repeats if name == "b" else None) for name, s in stages.items()}
    criteria: list[Criterion] = []
    answers: list[Answer] = []
    for each in pairs.values():
        of_stage = stage_criteria(each, rules)
        criteria += of_stage
        answers += with_outlook(stage_answers(each, of_stage, rules), each)
    if all_failed([trial for stage in stages.values() for trial in stage.trials]):
        answers = [replace(answer, more=None) for answer in answers]
    summaries = {
        name: {arm: summarise(s, arm, roles.control, higher_is_better=rules.higher_is_better) for arm in s.arms}
        for name, s in stages.items()
    }
    if stage_b is not None:
        criteria += deep_reports(stage_b, summaries["a"], summaries["b"], rules)
    conclusion = conclude(roles, stages, criteria, answers, rules) if roles.candidates else Conclusion()
    step = next_step(roles, stages, pairs, answers, conclusion)
    too_few = step.kind is NextKind.SEEDS and any(a.because is Because.OBSTACLE for a in answers)
    is_blocked = too_few or step.kind in (NextKind.WAIT, NextKind.RERUN)
    deep = None if is_blocked else stage_b_step(roles, stages, pairs, answers, conclusion)
    return Verdict(
        name=conclusion.name,
        supported=conclusion.supported,
        reason=conclusion.reason,
        next=step,
        winner=conclusion.winner,
        stage_b=deep.arms if deep else (),
        arms=tuple(summary for of_stage in summaries.values() for summary in of_stage.values()),
        criteria=tuple(criteria),
        answers=tuple(answers),
        sentences=tuple(sentence(answer, rules) for answer in answers),
        rules=rules,
    )


def _check(stage: Stage, roles: Roles) -> None:
    which = f"Stage {stage.name.upper()}" if roles.candidates or stage.name != "a" else "the study"
    if not stage.arm(roles.control):
        raise DecisionError(
            f"{which} has no trial of the control arm {roles.control!r}{suggestion(roles.control, stage.arms)}; "
            f"its arms: {', '.join(stage.arms) or 'none'}"
        )
    repeated = [key for key, n in Counter((t.arm, t.seed) for t in stage.trials).items() if n > 1]
    if repeated:
        arm, seed = repeated[0]
        raise DecisionError(f"{which} has arm {arm!r} with seed {seed} twice: keep one of them")


def _repeated(stage_a: Stage, stage_b: Stage, control: str) -> Mapping[str, bool]:
    """Map each arm of Stage B to whether its trials and control's repeat those of Stage A.

    Raises:
        DecisionError: the trials of every arm do, or a run occurs in both stages.
    """
    same = {arm: same_trials(stage_a.arm(arm), stage_b.arm(arm)) for arm in stage_b.arms}
    ran, deep = ({t.run_id for t in stage.trials if t.run_id} for stage in (stage_a, stage_b))
    runs = ran & deep
    if not runs and len(ran) == len(stage_a.trials) and len(deep) == len(stage_b.trials):
        return {}  # different runs, however similar their results
    if runs or (all(same.values()) and set(stage_a.arms) <= set(stage_b.arms)):
        raise DecisionError(
            "Stage B repeats Stage A: the same trials say nothing about a second depth; "
            "leave Stage B out, or give the trials of the deep stage"
        )
    return {arm: same[control] and is_same for arm, is_same in same.items()}


def same_trials(ours: Sequence[object], theirs: Sequence[object]) -> bool:
    """Whether all trials of ``theirs`` are among ``ours``, and at least one has a loss to identify it."""
    seen = {_key(trial) for trial in ours}
    return all(_key(trial) in seen for trial in theirs) and any(_key(trial)[2] is not None for trial in theirs)


def _key(trial: object) -> tuple[object, ...]:
    facts = [getattr(trial, name) for name in ("seed", "outcome", "loss", "failure_step", "last_step")]
    return (*facts, *sorted(getattr(trial, "measures", {}).items()))
