"""Facts of a study in a table of trials, stored as constant columns so that pandas and R keep them.

    study.control, study.architecture, study.metric, study.measures, study.margin, study.alpha, ...

They hold everything that the answer needs beside the trials. Lists are separated by semicolons.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator

from fnostab.errors import DecisionError
from fnostab.record.settings import Frozen, explain
from fnostab.record.trial import FollowUpCriterion, Measure, Metric

PREFIX = "study."
ABSENT = "study.missing"  # missing seeds of the study, by arm: "control 3; control 5-9"
REPEATED = "study.same_settings"  # arms with the settings of another: "twin = control"
NOTHING = "nothing"  # known to be missing; an empty cell means unknown
MISSING = ("", "na", "nan", "<na>")  # missing values as R, pandas and people write them
STRESSED = "an arm, its name at a value, and the value, as in plain plain_3 3; plain plain_6 6"
MOST_MISSING = 100_000  # seeds in a row
DIRECTIONS = {"higher": True, "lower": False}
ROLES = ("architecture", "clipping")
MISSPELT = 0.8  # similarity to a known name from which another column is taken for it


def is_missing(text: str | None) -> bool:
    """Whether a cell holds no value."""
    return (text or "").strip().lower() in MISSING


class TableStudy(Frozen):
    """Facts of a study that its answer needs, named as in `StudySpec`.

    Attributes:
        look: 1 for the first verdict on the study, k if k - 1 were recorded on fewer seeds.
        looks_planned: whether alpha applies to each of several planned looks.
        failure_judged: whether trials were judged for failure at all.
        arms: numeric setting by name, if it is the only difference between the arms; else empty.

    Raises:
        DecisionError: a fact is unknown or has a value that is not accepted.
    """

    name: str = ""
    control: str
    roles: Mapping[str, str] = {}
    metric: Metric = Metric(name="loss", of=None)
    measures: Mapping[str, Measure] = {}
    margin: Annotated[float, Field(ge=0)] | None = None
    smallest_effect: Annotated[float, Field(gt=0, lt=1)] = 0.2
    lengths: Literal["equal", "free"] = "equal"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    caveats: tuple[str, ...] = ()
    same_for_all: tuple[str, ...] = ()
    follow_up: str | None = None
    follow_up_criteria: tuple[FollowUpCriterion, ...] = ()
    look: Annotated[int, Field(ge=1)] = 1
    looks_planned: bool = False
    failure_judged: bool = True
    arms: Mapping[str, Mapping[str, float]] = {}
    knob: str | None = None
    stressed: Mapping[str, Mapping[str, float]] = {}
    next_of: Mapping[str, str] = {}

    @model_validator(mode="after")
    def _check_stressed(self) -> Self:
        if self.knob is None:
            return self
        if not any(self.control in of_name for of_name in self.stressed.values()):
            raise ValueError(f"stressed lacks the control {self.control!r}; expected {STRESSED}")
        rows = [list(of_name.values()) for of_name in self.stressed.values()]
        steps = {(after > before) - (after < before) for row in rows for before, after in pairwise(row)}
        if len(steps) > 1 or 0 in steps or min(value for row in rows for value in row) <= 0:
            raise ValueError(
                f"stressed has {rows}; expected values of {self.knob} above 0, from easy to hard: those of every arm "
                "rise, or those of every arm fall"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Raise the package's own error, as facts are also given in Python."""
        try:
            return validate(values)
        except ValidationError as error:
            raise DecisionError(explain(error, cls)) from None

    @classmethod
    def of(
        cls,
        spec: Any,
        *,
        look: int = 1,
        looks_planned: bool = False,
        arms: Mapping[str, Mapping[str, float]] | None = None,
    ) -> "TableStudy":
        """Take the facts from a `StudySpec`, or from any object with its attributes."""
        kept = {name: getattr(spec, name) for name in cls.model_fields if hasattr(spec, name)}
        return cls(**kept | {"look": look, "looks_planned": looks_planned, "arms": arms or {}})

    def cells(self) -> dict[str, str]:
        """Values by column."""
        along = next((name for values in self.arms.values() for name in values), "")
        values = {
            "name": self.name,
            "control": self.control,
            **dict(sorted(self.roles.items())),
            "metric": self.metric.name,
            "metric_of": self.metric.of or "",
            "higher_is_better": str(self.metric.higher_is_better).lower(),
            "measures": _joined(_measure(name, measure) for name, measure in self.measures.items()),
            "margin": "" if self.margin is None else repr(self.margin),
            "smallest_effect": repr(self.smallest_effect),
            "lengths": self.lengths,
            "alpha": repr(self.alpha),
            "look": str(self.look),
            "looks_planned": str(self.looks_planned).lower(),
            "failure_judged": str(self.failure_judged).lower(),
            "same_for_all": _joined(self.same_for_all),
            "caveats": _joined(self.caveats),
            "follow_up": self.follow_up or "",
            "follow_up_criteria": _joined(self.follow_up_criteria),
            "along": along,
            "along_arms": _joined(f"{arm} {values[along]!r}" for arm, values in self.arms.items()),
            "knob": self.knob or "",
            "stressed": _joined(
                f"{name} {arm} {value!r}" for name, of_name in self.stressed.items() for arm, value in of_name.items()
            ),
            "next_of": _joined(f"{arm} {command}" for arm, command in self.next_of.items()),
        }
        return {PREFIX + name: text for name, text in values.items()}

    @classmethod
    def parse(cls, cells: Mapping[str, str], where: str) -> "TableStudy | None":
        """Parse the study's columns; None if there are none.

        Raises:
            DecisionError: a value is not valid, there is no ``study.control``, or a column seems to be misspelt.
        """
        known = [name.removeprefix(PREFIX) for name in (*cls(control="").cells(), ABSENT, REPEATED)] + [*ROLES]
        for name in (column.removeprefix(PREFIX) for column in cells):
            close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=MISSPELT)
            if close and name not in known:
                raise DecisionError(
                    f"{where}: {PREFIX}{name} is no column of a study (did you mean {PREFIX}{close[0]}?): rename it"
                )
        text = {name.removeprefix(PREFIX): cell.strip() for name, cell in cells.items() if not is_missing(cell)}
        text |= {name: " ".join(text[name].split()) for name in ("control", *ROLES) if name in text}  # as in column arm
        if "control" not in text:
            if known := [PREFIX + name for name in text if PREFIX + name in cls(control="").cells()]:
                raise DecisionError(f"{where} has {known[0]} but no {PREFIX}control: add that, with the control arm")
            return None
        metric: dict[str, Any] = {"name": text.get("metric", "loss"), "of": text.get("metric_of")}
        if "higher_is_better" in text:
            metric["higher_is_better"] = text["higher_is_better"].lower()
        values: dict[str, Any] = {
            "metric": metric,
            "roles": {role: text[role] for role in ROLES if role in text},
            "measures": dict(_parse_measure(part, where) for part in _split(text.get("measures", ""))),
            "same_for_all": _split(text.get("same_for_all", "")),
            "caveats": _split(text.get("caveats", "")),
            "follow_up_criteria": _split(text.get("follow_up_criteria", "")),
            "next_of": dict(part.partition(" ")[::2] for part in _split(text.get("next_of", ""))),
            "stressed": {},
        }
        if "along" in text:
            parts = (_parse_value("along_arms", part, where) for part in _split(text.get("along_arms", "")))
            values["arms"] = {arm: {text["along"]: value} for (arm,), value in parts}
        for part in _split(text.get("stressed", "")):
            (name, arm), value = _parse_value("stressed", part, where, n_names=2)
            values["stressed"].setdefault(name, {})[arm] = value
        plain = ("name", "control", "margin", "smallest_effect", "lengths", "alpha", "follow_up", "knob")
        values |= {name: text[name] for name in plain if name in text}
        if "look" in text:
            values["look"] = text["look"].removesuffix(".0")
        values |= {name: text[name].lower() for name in ("looks_planned", "failure_judged") if name in text}
        try:
            return cls.model_validate(values, strict=False)
        except DecisionError as error:
            raise DecisionError(f"{where}: {PREFIX}{error}") from None


def _joined(parts: Any) -> str:
    return "; ".join(part.replace(";", ",") for part in parts)


def _split(text: str) -> Sequence[str]:
    return tuple(part.strip() for part in text.split(";") if part.strip())


def _measure(name: str, measure: Measure) -> str:
    return f"{name} {'higher' if measure.higher_is_better else 'lower'} {measure.margin!r}"


def _parse_measure(text: str, where: str) -> tuple[str, Measure]:
    match text.rsplit(" ", 2):
        case [name, direction, margin] if direction in DIRECTIONS:
            try:
                return name, Measure(higher_is_better=DIRECTIONS[direction], margin=float(margin))
            except ValueError:
                pass
    raise DecisionError(f"{where}: study.measures has {text!r}, expected a name, higher or lower, and a margin")


def _parse_value(column: str, text: str, where: str, n_names: int = 1) -> tuple[list[str], float]:
    """Parse names and a number, as in ``deep 8``."""
    *found, number = text.split()
    try:
        if len(found) == n_names:
            return found, float(number)
    except ValueError:
        pass
    raise DecisionError(
        f"{where}: {PREFIX}{column} has {text!r}, expected {'a name' if n_names == 1 else 'two names'} and a number"
    )


def missing_text(missing: Mapping[str, Sequence[int]] | None) -> str:
    """Format seeds by arm as a cell of the column `ABSENT`; None means unknown."""
    if missing is None:
        return ""
    parts = []
    for arm, seeds in missing.items():
        runs = groupby(enumerate(sorted(seeds)), lambda each: each[1] - each[0])  # of consecutive seeds
        for of_run in ([seed for _, seed in run] for _, run in runs):
            parts.append(f"{arm} {of_run[0]}" + (f"-{of_run[-1]}" if len(of_run) > 1 else ""))
    return "; ".join(parts) or NOTHING


def missing_seeds(text: str, where: str) -> dict[str, tuple[int, ...]]:
    """Parse a cell written by `missing_text` into seeds by arm.

    Raises:
        DecisionError: the cell has another form.
    """
    found: dict[str, tuple[int, ...]] = {}
    for part in _split(text) if text.strip() != NOTHING else ():
        arm, _, seeds = part.rpartition(" ")
        match = re.fullmatch(r"([0-9]{1,39})(?:-([0-9]{1,39}))?", seeds)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not arm or not first <= last < first + MOST_MISSING:
            raise DecisionError(
                f"{where}: {ABSENT} has {part!r}, expected an arm and a seed, or first and last as in 3-9"
            )
        found[arm] = (*found.get(arm, ()), *range(first, last + 1))
    return found


def repeated_text(same_settings: Mapping[str, str]) -> str:
    """Format arms with the settings of another, each with that arm, as a cell of the column `REPEATED`."""
    return _joined(f"{arm} = {other}" for arm, other in same_settings.items())


def repeated_arms(text: str, where: str) -> dict[str, str]:
    """Parse a cell written by `repeated_text`.

    Raises:
        DecisionError: the cell has another form.
    """
    pairs = [(arm.strip(), other.strip()) for arm, _, other in (part.partition("=") for part in _split(text))]
    for arm, other in pairs:
        if not arm or not other:
            raise DecisionError(f"{where}: {REPEATED} has {text!r}, expected two arms, as in twin = control")
    return dict(pairs)
