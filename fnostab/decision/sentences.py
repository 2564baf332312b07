"""Write an answer as one sentence."""

from collections.abc import Iterable
from itertools import groupby

from fnostab.decision.answers import Answer, AnswerName, Because
from fnostab.decision.differences import Difference
from fnostab.decision.rules import Rules
from fnostab.decision.words import and_list, failures, p_text, percent, points


def sentence(answer: Answer, rules: Rules) -> str:
    """Write an answer as one sentence."""
    if answer.because in (Because.OBSTACLE, Because.PENDING):
        said = f"{answer.arm}: undecided, {answer.obstacle}"
        return f"{said}: {_counts(answer, rules)}." if answer.because is Because.PENDING else f"{said}."
    if answer.because is Because.LOSS:
        said = _on_the_loss(answer, rules)
    else:
        said = {
            AnswerName.HELPS: _helps,
            AnswerName.AT_A_COST: _helps,
            AnswerName.HARMS: _harms,
            AnswerName.DOES_NOT_HELP: _does_not_help,
            AnswerName.UNDECIDED: _undecided,
        }[answer.name](answer, rules)
    notes = [said, *([] if answer.helps else _costs(_further(answer))), *_gain(answer, rules)]
    if answer.lengths:
        notes.append(f"it ran {answer.lengths}")
    if answer.fragile:
        notes.append("fragile: one other outcome would change this")
    return f"{'; '.join(notes)}."


def _counts(answer: Answer, rules: Rules) -> str:
    if not rules.failure_judged and not (answer.rate.failed or answer.control.failed):
        return "failure not judged"
    failed = "failed" if rules.failure_judged else "nonfinite"  # the only failure detected without a rule
    return f"{failures(answer.rate)} {failed}, {failures(answer.control)} of {answer.control_arm}"


def _reduction(answer: Answer) -> float:
    return answer.control.value - answer.rate.value


def _helps(answer: Answer, rules: Rules) -> str:
    """Sentence for an arm that helps, with its cost."""
    reduction = points(_reduction(answer), answer.interval)
    said = f"{answer.arm} {answer.name}: {_counts(answer, rules)} ({_p(answer, rules)}); it {reduction}"
    if round(100 * _reduction(answer)) < 100 * rules.smallest_effect:  # as it is shown
        said += f", fewer than the {100 * rules.smallest_effect:g} that the study asks for"
    return "; ".join([said, *_costs(answer.differences)])


def _costs(differences: Iterable[Difference]) -> Iterable[str]:
    """Clauses on worse values, and on values that were not compared."""
    for reason, alike in groupby(differences, lambda d: d.not_compared):
        if reason:
            yield f"{and_list([d.name for d in alike])} not compared, {reason}"
            continue
        for d in alike:
            if d.beyond and d.p_worse is not None:
                luck = f" ({p_text(d.p_worse)})" if d.shown else ", which could be luck"
                yield f"its {d.name} was {d.text}{luck}"


def _gain(answer: Answer, rules: Rules) -> Iterable[str]:
    """Clause on a better loss, where failures leave the answer open or say no help."""
    loss = answer.differences[0]
    no_help = answer.name in (AnswerName.UNDECIDED, AnswerName.DOES_NOT_HELP) and answer.because is not Because.LOSS
    if no_help and answer.supported_loss and answer.loss_p is not None and not loss.not_compared:
        yield f"its {loss.name} was {loss.text} ({p_text(answer.loss_p, rules.level)})"


def _further(answer: Answer) -> Iterable[Difference]:
    """Differences that are shown to be worse, without the loss where the answer is about it."""
    return (d for d in answer.worse if not (answer.because is Because.LOSS and d is answer.differences[0]))


def _harms(answer: Answer, rules: Rules) -> str:
    reduction = points(_reduction(answer), answer.interval)
    return f"{answer.arm} harms, it fails more often: {_counts(answer, rules)} ({_p(answer, rules)}); it {reduction}"


def _does_not_help(answer: Answer, rules: Rules) -> str:
    worth = f"{100 * rules.smallest_effect:g} points"
    return f"{answer.arm} does not help: {_counts(answer, rules)}; a reduction of {worth} or more is ruled out"


def _undecided(answer: Answer, rules: Rules) -> str:
    said = f"{answer.arm}: undecided, {_counts(answer, rules)}"
    reduction = _reduction(answer)
    if reduction > 0:
        said += f"; fewer failures, but could be luck ({_p(answer, rules)})"
    elif reduction < 0:
        said += "; more failures, but could be luck"
    if answer.more is None:
        return said
    if answer.more.extra is None and answer.control.value < rules.smallest_effect:
        said += f"; {answer.control_arm} fails seldom ({percent(answer.control.value)})"
    return f"{said}; {answer.more}"


def _on_the_loss(answer: Answer, rules: Rules) -> str:
    """Sentence for an arm where no trial failed, about the metric alone."""
    loss, *quality = answer.differences
    nothing = "nothing failed" if rules.failure_judged else "failure not judged"
    start = f"{nothing}; on the {loss.name} alone"
    if answer.name is AnswerName.HELPS:
        return "; ".join([f"{answer.arm} helps: {start}: {loss.text} ({_p(answer, rules)})", *_costs(quality)])
    if answer.name is AnswerName.HARMS:
        return f"{answer.arm} harms: {start}: {loss.text} ({_p(answer, rules)})"
    if answer.name is AnswerName.DOES_NOT_HELP:
        gain = "any gain"
        if rules.margin and not (answer.is_ratio and rules.margin >= 1):
            by = percent(rules.margin) if answer.is_ratio else f"{rules.margin:g}"
            gain = f"a gain of {by}"
        return f"{answer.arm} does not help: {start}: {loss.text}, and {gain} is ruled out"
    said = f"{answer.arm}: undecided, {nothing}"
    if loss.not_compared:
        return f"{said}; {loss.name} not compared, {loss.not_compared}"
    if loss.better and answer.supported_loss:
        return f"{said}; {rules.better} {loss.name} ({_p(answer, rules)})"
    if loss.better:
        return f"{said}; {rules.better} {loss.name}, but could be luck ({_p(answer, rules)})"
    if not loss.beyond:
        within = "" if loss.is_same else ", within the margin"
        return f"{said}; {loss.name} {loss.text}{within}"
    return f"{said}; {loss.name} {loss.text}, which could be luck"


def _p(answer: Answer, rules: Rules) -> str:
    return p_text(1.0 if answer.p is None else answer.p, rules.level)
