"""Map existing runs of any program to trials: arm, seed, metric and failure of each run.

A record is one run: its values by name, such as ``params.model``, ``tags.user``, ``metrics.return`` or
``columns.loss``, and ``status`` and ``run_id`` if known.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fnostab.decision.runs_file import Failed, RunsFile
from fnostab.decision.tally import Stage
from fnostab.errors import DecisionError
from fnostab.record.csv_text import parse_number
from fnostab.record.outcome_rules import Bound
from fnostab.record.outcomes import EXCLUDED, FAILURES, Outcome
from fnostab.record.plurals import counted
from fnostab.record.settings import suggestion
from fnostab.record.table import TrialRow, check_arm_names
from fnostab.record.table_study import TableStudy, is_missing
from fnostab.record.trial import UNLESS_DRAWN, Metric

Record = Mapping[str, str | float | None]
KINDS = ("params.", "tags.", "metrics.", "columns.")
MOST_NAMED = 3  # runs per line
MOST_KNOWN = 20  # existing names or values per line
STATUS = ("status", "columns.State", "columns.Status", "columns.status")  # of MLflow, exports of W&B and MLflow, others
UNFINISHED = ("FAILED", "KILLED", "SCHEDULED", "CRASHED", "RUNNING")
FACTS = ("control", "measures", "margin", "smallest_effect", "lengths", "alpha")  # that the file gives as they are
FLAGS = dict.fromkeys(("true", "t", "yes"), 1.0) | dict.fromkeys(("false", "f", "no"), 0.0)  # as pandas and R write


class RunsStudy(TableStudy):
    """Facts of a mapped study, with what a report asks of a study beyond its answer."""

    description: str = ""
    picture: None = None


@dataclass(frozen=True)
class ExternalRuns:
    """Trials made from runs.

    Attributes:
        lines: lines to print: the number of runs, and the runs that were left out.
    """

    stage: Stage
    study: RunsStudy
    lines: Sequence[str]


def trials_of(
    records: Iterable[Record],
    file: RunsFile,
    *,
    known: Callable[[], Iterable[str]] | None = None,
    places: Sequence[str] = (),
) -> ExternalRuns:
    """Map runs to trials, those of control first.

    Args:
        records: records of the runs.
        file: mapping of runs to trials.
        known: returns the names of all values of the runs, if the records hold only the requested ones.
        places: names of the records without a ``run_id``, as "line 2"; by default, they are numbered.

    Raises:
        DecisionError: there is no run, none has a name that the file uses, two share arm and seed, two arms look
            alike, or a value has the wrong type.
    """
    runs = list(records)
    if not runs:
        raise DecisionError("there is no run to judge: the table has no row, or the experiments have no run")
    _check_names(runs, file, known)
    rows: dict[tuple[str, int], TrialRow] = {}
    judged: dict[tuple[str, int], str] = {}  # those whose run is not excluded
    failures: list[str] = []  # that count, though the file excludes their run
    nameless: list[str] = []
    valueless: dict[str, list[str]] = {}
    unfinished: dict[tuple[str, str], list[str]] = {}
    for run, place in zip(runs, places or [f"row {n}" for n in range(1, len(runs) + 1)], strict=True):
        label = str(run.get("run_id") or place)
        arm, seed = _text(run.get(file.arm)), _seed(run.get(file.seed), file.seed, label)
        if is_missing(arm) or seed is None:
            nameless.append(label)
            continue
        key = (arm, seed)
        row = _row(run, *key, file, label)
        if row.excluded and _is_excluded(run, file, label):
            rows.setdefault(key, row)  # another run of the same seed, such as a retry, takes its place
            continue
        if _is_excluded(run, file, label):
            failures.append(label)
        if key in judged:
            both = judged[key], label
            anyway = [f"{each} failed, which counts though it is excluded" for each in both if each in failures]
            mend = f"{anyway[0]}: remove one of them" if anyway else "exclude one of them"
            raise DecisionError(f"arm {arm}, seed {seed} has two runs, {judged[key]} and {label}: {mend}")
        judged[key] = label
        rows[key] = row
        if row.outcome is Outcome.INFRA_ERROR:
            valueless.setdefault(_lacking(run, file, label), []).append(label)
        for name in STATUS if row.outcome is Outcome.CONVERGED else ():
            if name not in file.outcome and (status := _text(run.get(name))).upper() in UNFINISHED:
                unfinished.setdefault((name, status), []).append(label)
    check_arm_names(arm for arm, _ in rows)
    lines = [counted(len(rows), "run")]
    if nameless:
        take = "takes" if len(nameless) == 1 else "take"
        lines.append(
            f"{counted(len(nameless), 'run')} without {file.arm} or {file.seed} {take} no part: {_named(nameless)}"
        )
    for name, labels in valueless.items():
        count = "counts" if len(labels) == 1 else "count"
        lines.append(
            f"{counted(len(labels), 'run')} without a value of {name} {count} as infra_error: {_named(labels)}"
        )
    for (name, status), labels in unfinished.items():
        count = "counts" if len(labels) == 1 else "count"
        lines.append(
            f"{counted(len(labels), 'run')} with {name} {status} {count} as converged, unless the file says "
            f"excluded: {{{name}: {status}}}: {_named(labels)}"
        )
    lines += _excluding_nothing(runs, file)
    if not file.judges_failure:
        lines.append("failure not judged: the file does not say when a run failed (failed, or outcome)")
    name = file.metric.partition(".")[2] or file.metric
    study = RunsStudy(
        **{fact: getattr(file, fact) for fact in FACTS},
        metric=Metric(name=name, higher_is_better=file.higher_is_better, of=None),
        same_for_all=UNLESS_DRAWN,
        failure_judged=file.judges_failure,
    )
    return ExternalRuns(Stage("a", tuple(_in_order(rows.values(), file.control))), study, lines)


def _named(labels: Sequence[str]) -> str:
    return ", ".join(labels[:MOST_NAMED]) + (", ..." if len(labels) > MOST_NAMED else "")


def _in_order(rows: Collection[TrialRow], control: str) -> list[TrialRow]:
    """Sort rows: control, then the other arms in order of appearance, each by seed."""
    place = {arm: n for n, arm in enumerate(dict.fromkeys((control, *(row.arm for row in rows))))}
    return sorted(rows, key=lambda row: (place[row.arm], row.seed))


def _check_names(runs: Sequence[Record], file: RunsFile, known_names: Callable[[], Iterable[str]] | None) -> None:
    there_are = {name for run in runs for name, value in run.items() if value is not None}
    for name in file.names:
        if name not in there_are:
            there_are |= set(known_names() if known_names else ())
            kind = next((kind for kind in KINDS if name.startswith(kind)), "")
            known = sorted(n for n in there_are if n.startswith(kind)) or sorted(there_are)
            same = next((n for n in sorted(there_are) if n.partition(".")[2] == name.removeprefix(kind)), None)
            meant = f" (did you mean {same!r}?)" if same else suggestion(name, known)
            more = ", ..." if len(known) > MOST_KNOWN else ""
            raise DecisionError(
                f"no run has {name!r}{meant}; there are: {', '.join(map(_text, known[:MOST_KNOWN])) or 'none'}{more}"
            )


def _row(run: Record, arm: str, seed: int, file: RunsFile, label: str) -> TrialRow:
    value = _number(run.get(file.metric), file.metric, label)
    steps = _number(run.get(file.steps), file.steps, label) if file.steps else None
    if steps is not None and steps < 0:
        raise DecisionError(f"{label}: {file.steps}={steps:g} is not a number of steps")
    measures = {name: _number(run.get(name), name, label) for name in file.measures}
    run_id = run.get("run_id")
    return TrialRow(
        arm=arm,
        seed=seed,
        outcome=_outcome(run, value, file, label),
        loss=value if value is not None and math.isfinite(value) else None,
        scheduled_steps=None if steps is None or not math.isfinite(steps) else int(steps),
        measures={name: x for name, x in measures.items() if x is not None and math.isfinite(x)},
        run_id=None if run_id is None else str(run_id),
    )


def _outcome(run: Record, value: float | None, file: RunsFile, label: str) -> Outcome:
    """Judge a run; an observed failure takes precedence over how it ended; unknown without all values of `failed`."""
    failed = file.failed or Failed()
    values = {n: _number(run.get(n), n, label) for n in failed.nonfinite_names}
    values |= {n: _flag_or_number(run.get(n), n, label) for n in (*failed.above, *failed.below)}
    watched = [value, *(values[name] for name in failed.nonfinite_names)]
    if any(x is not None and not math.isfinite(x) for x in watched):
        return Outcome.NONFINITE
    by_words = _outcomes_of_words(run, file, label)
    if failures := [outcome for outcome in by_words.values() if outcome in FAILURES]:
        return failures[0]
    bounds = [(values[n], Bound(above=limit)) for n, limit in failed.above.items()]
    bounds += [(values[n], Bound(below=limit)) for n, limit in failed.below.items()]
    if any(bound.holds(x) for x, bound in bounds):
        return Outcome.STAGNATED
    if ended := [outcome for outcome in by_words.values() if outcome in (*EXCLUDED, Outcome.RUNNING)]:
        return ended[0]
    if _is_excluded(run, file, label):
        return Outcome.INFRA_ERROR
    if run.get("status") == "RUNNING":
        return Outcome.RUNNING
    return Outcome.INFRA_ERROR if None in (value, *values.values(), *by_words.values()) else Outcome.CONVERGED


def _outcomes_of_words(run: Record, file: RunsFile, label: str) -> dict[str, Outcome | None]:
    """Outcomes that the file gives to a run's words, such as those of its status, by name of the value.

    None stands for a value that the run lacks.

    Raises:
        DecisionError: a word has no outcome.
    """
    found = dict[str, Outcome | None]()
    for name, outcomes in file.outcome.items():
        word = _text(run.get(name))
        if word not in outcomes and not is_missing(word):
            known = f"{suggestion(word, outcomes)}; the file gives one to: {', '.join(outcomes) or 'none'}"
            raise DecisionError(f"{label}: {name}={word!r} has no outcome{known}")
        found[name] = outcomes.get(word)
    return found


def _is_excluded(run: Record, file: RunsFile, label: str) -> bool:
    if any(outcome in EXCLUDED for outcome in _outcomes_of_words(run, file, label).values()):
        return True
    return any(_text(run.get(name)) in file.excluded_values(name) for name in file.excluded)


def _excluding_nothing(runs: Sequence[Record], file: RunsFile) -> Iterator[str]:
    """Write a line for each name of ``excluded`` with values that no run has, as they may be misspelt."""
    for name in file.excluded:
        there_are = {_text(run.get(name)) for run in runs}
        if absent := [value for value in file.excluded_values(name) if value not in there_are]:
            known = sorted(there_are - {""})
            which = f"{' or '.join(map(repr, absent))}{suggestion(absent[0], known)}"
            yield f"excluded: no run has {name} {which}; there are: {', '.join(known[:MOST_KNOWN])}"


def _lacking(run: Record, file: RunsFile, label: str) -> str:
    """Name of the first value that the outcome needs and the run lacks."""
    if wordless := [name for name, outcome in _outcomes_of_words(run, file, label).items() if outcome is None]:
        return wordless[0]
    failed = file.failed or Failed()
    names = (file.metric, *failed.nonfinite_names, *failed.above, *failed.below)
    return next(name for name in names if _flag_or_number(run.get(name), name, label) is None)


def _text(value: str | float | None) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else " ".join(str(value).split())  # on one line


def _seed(value: str | float | None, name: str, label: str) -> int | None:
    """Parse a seed; None if there is none."""
    text = _text(value)
    if is_missing(text):
        return None
    if text.isascii() and text.isdecimal():  # a float would hold only 15 digits
        return int(text)
    try:
        number = parse_number(name, text, label)  # pandas writes 3 as 3.0 if a row has none
    except DecisionError:
        number = -1.0
    if number < 0 or not number.is_integer():
        raise DecisionError(f"{label}: {name}={text!r} is not a seed: expected a whole number from 0")
    return int(number)


def _flag_or_number(value: str | float | None, name: str, label: str) -> float | None:
    flag = FLAGS.get(value.strip().lower()) if isinstance(value, str) else None
    try:
        return _number(value, name, label) if flag is None else flag
    except DecisionError:
        raise DecisionError(f"{label}: {name}={value!r} is neither a number nor one of {', '.join(FLAGS)}") from None


def _number(value: str | float | None, name: str, label: str) -> float | None:
    if isinstance(value, str):
        return None if value.strip() in ("", "NA") else parse_number(name, value.strip(), label)
    return value
