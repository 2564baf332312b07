"""Robustness of answers: whether one different outcome would change them, and what more seeds would show."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fnostab.decision.answers import Answer, AnswerName, Because, harm_p, rules_out_help
from fnostab.decision.chances import more_seeds
from fnostab.decision.criteria import fewer_failures_raw_p
from fnostab.decision.pairs import Pair
from fnostab.stats.proportions import holm


def with_outlook(answers: Sequence[Answer], pairs: Sequence[Pair]) -> list[Answer]:
    """Fill in ``fragile`` for every answer of a stage, and ``more`` for open ones; ``pairs`` match ``answers``."""
    found = []
    for place, (answer, pair) in enumerate(zip(answers, pairs, strict=True)):
        more = None
        if answer.because is Because.LUCK:
            rules = pair.rules
            alpha = rules.next_level / pair.family
            more = more_seeds(answer.control, answer.rate, alpha=alpha, smallest_effect=rules.smallest_effect)
        found.append(replace(answer, fragile=_is_fragile(answer, place, pairs), more=more))
    return found


def _is_fragile(answer: Answer, place: int, pairs: Sequence[Pair]) -> bool:
    """Whether one different outcome of the arm or of control would change an answer based on failures."""
    if answer.because is not Because.FAILURES or answer.name is AnswerName.UNDECIDED:
        return False
    return any(not _still_holds(answer, place, changed) for changed in _one_other_outcome(place, pairs))


def _still_holds(answer: Answer, place: int, pairs: Sequence[Pair]) -> bool:
    level = pairs[place].rules.level
    harms = holm([harm_p(pair) for pair in pairs])[place] <= level
    if answer.name is AnswerName.HARMS:
        return harms
    if answer.name is AnswerName.DOES_NOT_HELP:
        return rules_out_help(pairs[place]) and not harms
    return holm([fewer_failures_raw_p(pair) for pair in pairs])[place] <= level


def _one_other_outcome(place: int, pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Pairs of the stage with one other outcome of an arm, or of control, with which all arms are compared."""
    for side in ("control", "ours"):
        tally = getattr(pairs[place], side)
        for change in (1, -1):
            if tally.failed + change >= 0 and tally.ok - change >= 0:
                changed = {side: replace(tally, failed=tally.failed + change, ok=tally.ok - change)}
                yield [
                    replace(pair, **changed) if side == "control" or other == place else pair
                    for other, pair in enumerate(pairs)
                ]
