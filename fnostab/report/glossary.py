"""Glossary at the end of a report: a few plain words on each term, only for terms that the report contains."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fnostab.decision.words import percent
from fnostab.report.remarks import look_text
from fnostab.report.tables import outcomes_text

if TYPE_CHECKING:
    from fnostab.report.content import Report

TERMS = (  # term, pattern of the text that contains it, meaning
    ("Converged", "converged", "no rule of the study found a failure; the metric says how good the result is"),
    ("Collapsed", "collapsed", "a failure: the output became constant, or a measure passed the study's limit for that"),
    ("Exploded", "exploded", "a failure: the loss ended far above that of a constant output, or above its own best"),
    ("Nonfinite", "nonfinite", "a failure: the loss or a gradient became NaN or infinite"),
    (
        "Stagnated",
        "stagnated",
        "a failure: it ended no better than a constant output, or beyond a limit that the study sets",
    ),
    (
        "Out of memory (oom), killed, infra error",
        "oom|killed|infra.error",
        "the trial ended without a result: out of memory, by a signal, or by another error; listed, never counted as a "
        "failure of training",
    ),
    (
        "95 % interval",
        "95 %",
        "where the true value may lie, as far as these trials can tell; 19 of 20 such intervals contain it",
    ),
    ("Quartiles", "quartiles", "the middle half of the values lies between them"),
    ("Untestable", "untestable", "the trials do not suffice to compare; the observed numbers say why"),
    ("Boschloo", "Boschloo", "a test of two failure rates, exact also for few trials"),
    (
        "Mann-Whitney",
        "Mann-Whitney",
        "a test of whether the values of one arm tend to be better than those of another; it uses only their order",
    ),
    (
        "Kaplan-Meier",
        "Kaplan-Meier",
        "an estimate of the share of trials that have not failed by each step, also from trials that ended early",
    ),
    (
        "Fragile",
        "fragile",
        "if one trial of the arm, or of the arm it is compared with, had ended otherwise, the answer would differ",
    ),
    ("p99", "p99", "99 of 100 gradient norms are no larger"),
    (
        "Spike",
        "spikes?",
        "a step whose gradient norm stands out from those before it; spikes are counted, and decide nothing",
    ),
)


def glossary(report: "Report") -> list[tuple[str, str]]:
    """List the terms that a report contains, each with its meaning as a sentence."""
    text = "\n".join(_texts(report))
    found = [(term, meaning) for term, pattern, meaning in TERMS if re.search(rf"\b({pattern})(?!\w)", text)]
    for terms in (_stages(report), _metric(report), _margin(report, text), _p(report, text), _knob(report)):
        found += terms
    return [(term, f"{meaning}.") for term, meaning in found]


def _texts(report: "Report") -> Iterator[str]:
    """Texts of a report that may contain terms."""
    verdict = report.verdict
    yield from (*report.case.sentences, verdict.reason, *report.case.judged, *report.remarks)
    yield from (picture.caption for picture in report.pictures)
    for criterion in verdict.criteria:
        yield from (criterion.state, criterion.detail, criterion.test or "")
    for section in report.sections:
        yield from (outcomes_text(arm, verdict.rules.failure_judged) for arm in section.arms)
        yield from ("95 %",) if section.rates else ()
        yield from ("quartiles",) if section.fans or any(arm.iqr for arm in section.arms) else ()
    yield "spikes" if report.evidence.spikes else ""


def _stages(report: "Report") -> Iterator[tuple[str, str]]:
    if report.sections[0].title:
        yield "Stage A, Stage B", "the same arms in a network of normal depth, and in a deeper one"


def _metric(report: "Report") -> Iterator[tuple[str, str]]:
    metric, word = report.sections[0].study.metric, report.verdict.rules.metric
    of = f", of the {metric.of} validation of each trial" if metric.of else ""
    way = "higher" if metric.higher_is_better else "lower"
    meaning = f"{metric.key}, by which trials that did not fail are compared{of}; {way} is better"
    yield word[0].upper() + word[1:], meaning


def _margin(report: "Report", text: str) -> Iterator[tuple[str, str]]:
    margin = report.verdict.rules.margin
    if margin is None or not re.search(r"\bmargin\b", text):
        return
    is_share = any(answer.is_ratio for answer in report.verdict.answers)
    much = percent(margin) if is_share else f"{margin:g}"
    control = report.sections[0].study.control
    yield "Margin", f"how much worse than {control}'s a median may be and still count as no worse, {much} here"


def _p(report: "Report", text: str) -> Iterator[tuple[str, str]]:
    if not re.search(r"\bp [=<]", text) and all(criterion.p is None for criterion in report.verdict.criteria):
        return
    level = look_text(report.verdict)
    yield (
        "p",
        "how often luck alone would give a difference at least as clear, if there were none in truth; "
        f"at most {report.verdict.rules.level:.4g} is called significant, anything else could be luck. "
        "One-sided: only a difference in the direction that is asked for counts. "
        "Corrected for the number of arms (by Holm's method): of several arms one looks better by luck more easily"
        f"{f'. {level[:-1]}' if level else ''}",
    )


def _knob(report: "Report") -> Iterator[tuple[str, str]]:
    if (stress := report.case.stress) is not None:
        yield (
            "Half of the trials fail at",
            f"the value of {stress.knob} beyond which more than half would fail, estimated from all values that were "
            "tried; in brackets its 95 % interval, 'anywhere' if the trials do not narrow it down. The p beside it "
            "is of one test over all values, which compares arms at the same value and seed (paired by seed)",
        )
