"""Facts of a study in a table of trials, stored as constant columns so that pandas and R keep them.

    study.control, study.architecture, study.metric, study.measures, study.margin, study.alpha, ...

They hold everything that the answer needs beside the trials. Lists and mappings are JSON.
"""

import difflib
import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator

from fnostab.errors import DecisionError
from fnostab.record.settings import Frozen, explain, shown, value_text
from fnostab.record.trial import FollowUpCriterion, Measure, Metric

PREFIX = "study."
ABSENT = "study.missing"  # missing seeds of the study, by arm: {"control": [3, 5]}; an empty cell means unknown
REPEATED = "study.same_settings"  # arms with the settings of another: {"twin": "control"}
MISSING = ("", "na", "nan", "<na>")  # missing values as R, pandas and people write them
STRESSED = 'the values of each arm by name, as in {"plain": {"plain_3": 3, "plain_6": 6}}'
STRUCTURED = ("measures", "caveats", "same_for_all", "follow_up_criteria", "arms", "stressed", "next_of")
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
        facts = self.model_dump(mode="json", exclude={"roles", "metric"})
        of_metric = {"metric": self.metric.name, "metric_of": self.metric.of}
        facts |= {**of_metric, "higher_is_better": self.metric.higher_is_better, **self.roles}
        return {PREFIX + name: "" if fact in (None, [], {}) else value_text(fact) for name, fact in facts.items()}

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
        values: dict[str, Any] = {name: text[name] for name in cls.model_fields if name in text}
        values |= {name: parse_json(text[name], f"{where}: {PREFIX}{name}") for name in STRUCTURED if name in text}
        values["metric"] = {"name": text.get("metric", "loss"), "of": text.get("metric_of")}
        if "higher_is_better" in text:
            values["metric"]["higher_is_better"] = text["higher_is_better"]
        values["roles"] = {role: text[role] for role in ROLES if role in text}
        try:
            return cls.model_validate(values, strict=False)
        except DecisionError as error:
            raise DecisionError(f"{where}: {PREFIX}{error}") from None


def parse_json(text: str, what: str) -> Any:
    """Parse a cell with a list or a mapping; an error names it as ``what``.

    Raises:
        DecisionError: the text is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DecisionError(f"{what}={shown(text)} is not accepted: expected JSON as in an export") from None
