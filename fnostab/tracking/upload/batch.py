"""Batches of points, params and tags in MLflow's types, within its limits and under names that it accepts."""

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from mlflow.entities import Metric, Param, RunTag

from fnostab.record import names
from fnostab.record.lines import Event, Point
from fnostab.record.settings import value_text
from fnostab.tracking.store.store import MAX_METRICS

# MLflow's limits: entries in one call, characters in a name
MAX_PARAMS = 100
MAX_TAGS = 99
MAX_NAME_LENGTH = 250
NOT_A_TRIALS = (  # tags by which runs are found; no record may set them
    names.SENT,
    names.LEFT_OUT,
    names.THINNED,
    names.STUDY_RUN,
    names.PROJECT_RUN,
    names.VERDICT,
    names.SEEDS_JUDGED,
    names.PARENT_RUN,
)


class RunNames:
    """Names of one run's metrics, params and tags as MLflow accepts them; names that differ in the journal stay apart.

    Args:
        protected: tags that no record may set, in addition to those by which runs are found.
    """

    def __init__(self, protected: Collection[str] = ()) -> None:
        self.left_out: dict[str, None] = {}  # messages about records that are not sent, in order, each once
        self._protected = {*protected, *NOT_A_TRIALS}
        self._given: dict[tuple[str, str], str] = {}
        self._taken: set[tuple[str, str]] = set()

    def leave_out(self, line: str) -> None:
        """Keep a message about a record, or a part of one, that is not sent."""
        self.left_out[line] = None

    def of(self, kind: str, name: str) -> str:
        """Accepted name of a metric, param or tag, with a number at its end if another one has that name already."""
        given = self._given.get((kind, name))
        if given is None:
            given = whole = accepted_name(name)
            number = 1
            while (kind, given) in self._taken:
                number += 1
                given = f"{whole[: MAX_NAME_LENGTH - len(str(number)) - 1]}-{number}"
            self._given[kind, name] = given
            self._taken.add((kind, given))
        return given

    def tags(self, payload: Mapping[str, Any]) -> dict[str, str]:
        """Tags that a record may set, under accepted names; the others are left out with a message."""
        allowed = {name: value for name, value in payload.items() if self._may_set(name)}
        for name in (name for name in payload if name not in allowed):
            self.leave_out(f"tag {name[:80]!r}: no record may set it")
        return {self.of("tag", name): clean(value_text(value)) for name, value in allowed.items()}

    def _may_set(self, tag: str) -> bool:
        """Whether a record may set a tag; fnostab's and MLflow's own tags only under their exact names."""
        given = accepted_name(tag)
        return given not in self._protected and (given == tag or not given.startswith(("fnostab.", "mlflow.")))

    def note(self, record: Point | Event) -> None:
        """Reserve the names in a record that was sent earlier, so that later records get the same names as before."""
        if isinstance(record, Point):
            for name in record.values:
                self.of("metric", name)
        elif record.name == names.PARAMS_EVENT:
            for name in record.payload:
                self.of("param", name)
        elif record.name == names.TAGS_EVENT:
            for name in filter(self._may_set, record.payload):
                self.of("tag", name)


class Batch:
    """Points, params and tags to be sent together, under the accepted names of their run."""

    def __init__(self, run_names: RunNames) -> None:
        self.metrics: list[Metric] = []
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self._names = run_names

    def __bool__(self) -> bool:
        return bool(self.metrics or self.params or self.tags)

    def has_room_for(self, record: Point | Event) -> bool:
        """Whether ``record`` still fits into one call; a batch without points takes any."""
        values = len(record.values) if isinstance(record, Point) else 0
        return not self.metrics or len(self.metrics) + values <= MAX_METRICS

    def add(self, record: Point | Event) -> None:
        """Add the values of a point, or the params or tags of an event; other events are ignored."""
        if isinstance(record, Point):
            self.metrics += [
                Metric(self._names.of("metric", name), float(value), record.time_ms, record.step)
                for name, value in record.values.items()
            ]
        elif record.name == names.PARAMS_EVENT:
            for name, value in record.payload.items():  # the first value stays, since MLflow can't change a param
                self.params.setdefault(self._names.of("param", name), clean(value_text(value)))
        elif record.name == names.TAGS_EVENT:
            self.tags |= self._names.tags(record.payload)
        elif record.name == names.STARTED_EVENT and record.payload.get("scheduled_steps") is not None:
            self.tags[names.SCHEDULED_STEPS] = value_text(record.payload["scheduled_steps"])

    def calls(self, known_params: Collection[str], mark: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the arguments of each log_batch call, without params that the run has: MLflow can't change them.

        ``mark``, the tag that says how much of the journal was sent, goes with the last call.
        """
        params = [Param(name, value) for name, value in self.params.items() if name not in known_params]
        tags = [RunTag(name, value) for name, value in self.tags.items()]
        calls = [
            {"metrics": (), "params": some_params, "tags": some_tags}
            for some_params, some_tags in zip_longest(_split(params, MAX_PARAMS), _split(tags, MAX_TAGS), fillvalue=())
        ]
        calls += [{"metrics": some, "params": (), "tags": ()} for some in _split(self.metrics, MAX_METRICS)]
        if mark is not None:
            last = calls.pop() if calls else {"metrics": (), "params": (), "tags": ()}
            calls.append(last | {"tags": (*last["tags"], RunTag(names.SENT, mark))})
        yield from calls


def accepted_name(name: str) -> str:
    """``name`` as MLflow accepts it: ``blocks[0]/gain`` becomes ``blocks_0_/gain``."""
    return posixpath.normpath(re.sub(r"[^\w\-. :/]", "_", name)).lstrip("./")[:MAX_NAME_LENGTH].rstrip("/") or "_"


def clean(text: str) -> str:
    """``text`` with NUL characters replaced, which not every database accepts."""
    return text.replace("\0", "\ufffd")


def _split(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
