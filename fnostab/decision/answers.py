"""Answer for each arm of one stage: it helps, harms, does not help, or is undecided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fnostab.decision.chances import MoreSeeds
from fnostab.decision.criteria import Criterion, State, stage_criteria
from fnostab.decision.differences import Difference, differences
from fnostab.decision.pairs import Pair
from fnostab.decision.rules import Rules
from fnostab.record.plurals import counted
from fnostab.stats.interval import Interval
from fnostab.stats.proportions import fewer_failures_p, holm, newcombe_difference
from fnostab.stats.rate import Rate


class AnswerName(StrEnum):
    """Answer for an arm."""

    HELPS = "helps"
    AT_A_COST = "helps, at a cost"
    HARMS = "harms"
    DOES_NOT_HELP = "does not help"
    UNDECIDED = "undecided"


class Because(StrEnum):
    """Reason for an answer, or for leaving it open."""

    FAILURES = "failures"
    LOSS = "loss"  # nothing failed
    OBSTACLE = "obstacle"  # too few seeds, unequal lengths
    PENDING = "pending"  # trials without an outcome could change it
    LUCK = "luck"


@dataclass(frozen=True)
class Answer:
    """Answer for an arm, with its evidence.

    An answer is open while it is undecided.

    Attributes:
        p: p-value of the deciding test, after Holm; for an open answer, that of `fewer_failures`.
        interval: 95 % interval of the reduction of the failure rate.
        differences: differences from control in the metric, then in each measure of quality.
        more: forecast for more seeds of an open answer; None if there is none.
        fragile: whether a single different outcome would change the answer.
        obstacle: reason why the two arms can't be compared, as text.
        lengths: lengths of both arms as text, if they differ and the study allows it.
        is_ratio: whether the metric is compared by ratios.
        supported_loss: whether a better metric is statistically significant.
        loss_p: p-value for a better metric, after Holm; None if it can't be tested.
    """

    stage: str
    arm: str
    control_arm: str
    name: AnswerName
    because: Because
    rate: Rate
    control: Rate
    p: float | None = None
    interval: Interval | None = None
    differences: tuple[Difference, ...] = ()
    more: MoreSeeds | None = None
    fragile: bool = False
    obstacle: str = ""
    lengths: str = ""
    is_ratio: bool = True
    supported_loss: bool = False
    loss_p: float | None = None

    @property
    def helps(self) -> bool:
        """Whether the arm helps, with or without a cost."""
        return self.name in (AnswerName.HELPS, AnswerName.AT_A_COST)

    @property
    def is_no(self) -> bool:
        """Whether the arm is shown to harm or not to help."""
        return self.name in (AnswerName.HARMS, AnswerName.DOES_NOT_HELP)

    @property
    def worse(self) -> tuple[Difference, ...]:
        """Differences beyond their margin that are unlikely to be luck."""
        return tuple(d for d in self.differences if d.beyond and d.shown)


def stage_answers(pairs: Sequence[Pair], criteria: Sequence[Criterion], rules: Rules) -> list[Answer]:
    """Answer for every arm of a stage except control, by the `stage_criteria` of the same pairs."""
    answers = _answers(pairs, criteria)
    if not any(pair.pending for pair in pairs):
        return answers
    as_if_all_known = [
        replace(pair, control=replace(pair.control, pending=0), ours=replace(pair.ours, pending=0)) for pair in pairs
    ]
    plain = _answers(as_if_all_known, stage_criteria(as_if_all_known, rules))
    blocked = {c.arm for c in criteria if c.name == "fewer_failures" and c.state is State.UNTESTABLE}
    return [
        replace(answer, name=AnswerName.UNDECIDED, because=Because.PENDING, obstacle=_without_outcome(pair))
        if pair.pending and _pending_matters(pair, answer, known, pair.arm in blocked)
        else answer
        for answer, known, pair in zip(answers, plain, pairs, strict=True)
    ]


def _pending_matters(pair: Pair, answer: Answer, known: Answer, blocked: bool) -> bool:
    """Whether trials without an outcome leave an answer open or could change one based on "nothing failed"."""
    if answer.name is not AnswerName.UNDECIDED:
        worst, best, level = pair.worst, pair.best, pair.rules.level
        turned = worst.ours.rate, worst.control.rate
        if not answer.helps:
            turned = best.control.rate, best.ours.rate
        return answer.because is Because.LOSS and fewer_failures_p(*turned) <= level
    if answer.because is Because.OBSTACLE:
        least = pair.rules.least_trials
        enough = min(tally.n + tally.pending for tally in (pair.ours, pair.control)) >= least
        return min(pair.ours.n, pair.control.n) < least and enough
    return known.name is not answer.name or (blocked and not pair.nothing_failed)


def _without_outcome(pair: Pair) -> str:
    parts = [
        f"{counted(tally.pending, 'trial')} of {name}"
        for name, tally in ((pair.control_arm, pair.control), (pair.arm, pair.ours))
        if tally.pending
    ]
    return f"{' and '.join(parts)} without an outcome could change it"


def _answers(pairs: Sequence[Pair], criteria: Sequence[Criterion]) -> list[Answer]:
    by_name: Mapping[tuple[str, str], Criterion] = {(c.arm, c.name): c for c in criteria}
    harm = holm([harm_p(pair) for pair in pairs])
    compared = [differences(pair) for pair in pairs]
    loss_harm = holm([_loss_harm_p(pair, found[0]) for pair, found in zip(pairs, compared, strict=True)])
    answers = []
    for place, pair in enumerate(pairs):
        fewer, lower = by_name[pair.arm, "fewer_failures"], by_name[pair.arm, "better_loss"]
        bare = Answer(
            stage=pair.stage,
            arm=pair.arm,
            control_arm=pair.control_arm,
            name=AnswerName.UNDECIDED,
            because=Because.LUCK,
            rate=pair.ours.rate,
            control=pair.control.rate,
            interval=newcombe_difference(pair.control.rate, pair.ours.rate),
            differences=compared[place],
            lengths=pair.lengths_text,
            is_ratio=pair.scale.is_ratio,
            supported_loss=bool(lower.supported),
            loss_p=lower.p,
        )
        answers.append(_answer(bare, pair, fewer, lower, harm[place], loss_harm[place]))
    return answers


def _answer(bare: Answer, pair: Pair, fewer: Criterion, lower: Criterion, harm: float, loss_harm: float) -> Answer:
    """Return the first answer that applies, in the order of docs/verdict.md."""
    level = pair.rules.level
    if pair.obstacle:
        return replace(bare, because=Because.OBSTACLE, obstacle=pair.obstacle)
    if harm <= level:
        return replace(bare, name=AnswerName.HARMS, because=Because.FAILURES, p=harm)
    if fewer.supported:
        name = AnswerName.AT_A_COST if bare.worse else AnswerName.HELPS
        return replace(bare, name=name, because=Because.FAILURES, p=fewer.p)
    if pair.nothing_failed:
        return _on_the_loss(bare, pair, lower, loss_harm)
    if rules_out_help(pair):
        return replace(bare, name=AnswerName.DOES_NOT_HELP, because=Because.FAILURES, p=fewer.p)
    return replace(bare, p=fewer.p)


def _on_the_loss(bare: Answer, pair: Pair, lower: Criterion, loss_harm: float) -> Answer:
    """Answer on the metric alone, since no trial failed."""
    loss, *quality = bare.differences
    bare = replace(bare, because=Because.LOSS, p=lower.p)
    if lower.supported and not any(d.beyond and d.shown for d in quality):
        return replace(bare, name=AnswerName.HELPS)
    if loss_harm <= pair.rules.level:
        return replace(bare, name=AnswerName.HARMS, p=loss_harm)
    if not loss.not_compared and pair.scale.excludes_gain(loss.effect):
        return replace(bare, name=AnswerName.DOES_NOT_HELP)
    return bare


def harm_p(pair: Pair) -> float:
    """p-value for more failures than control, before Holm: the larger of the observed and the best case."""
    if pair.obstacle:
        return 1.0
    best = pair.best
    return max(fewer_failures_p(pair.ours.rate, pair.control.rate), fewer_failures_p(best.ours.rate, best.control.rate))


def _loss_harm_p(pair: Pair, loss: Difference) -> float:
    """p-value for a worse metric than control's if nothing failed, before Holm."""
    applies = not pair.obstacle and pair.nothing_failed and loss.beyond
    return loss.p_worse if applies and loss.p_worse is not None else 1.0


def rules_out_help(pair: Pair) -> bool:
    """Whether a reduction by `smallest_effect` is excluded, and control fails at least that often."""
    worth = pair.rules.smallest_effect
    intervals = [newcombe_difference(each.control.rate, each.ours.rate) for each in (pair, pair.best)]
    return pair.control.rate.value >= worth and all(ci is not None and ci.high < worth for ci in intervals)
