"""Batches of points for MLflow: one call each, within MLflow's limits and in its types."""

import posixpath
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from mlflow.entities import Metric, Param, RunTag

from fnostab.record import names
from fnostab.record.journal import Event, Point
from fnostab.record.settings import value_text

__all__ = ["Batch", "metric_name"]

# MLflow's limits: entries in one call, characters in a name
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_TAGS = 100
MAX_NAME_LENGTH = 250


class Batch:
    """Points, params and tags that wait to be sent together."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}

    def has_room_for(self, record: Point | Event) -> bool:
        """Whether ``record`` still fits into one call; an empty batch takes any."""
        values = len(record.values) if isinstance(record, Point) else 0
        return not self.metrics or len(self.metrics) + values <= MAX_METRICS

    def add(self, record: Point | Event) -> None:
        """Add a point, params or tags; other events hold nothing that goes in a batch."""
        if isinstance(record, Point):
            self.metrics += [
                Metric(metric_name(name), value, record.time_ms, record.step) for name, value in record.values.items()
            ]
        elif record.name == names.PARAMS_EVENT:
            self.params |= {name: value_text(value) for name, value in record.payload.items()}
        elif record.name == names.TAGS_EVENT:
            self.tags |= {name: value_text(value) for name, value in record.payload.items()}
        elif record.name == names.STARTED_EVENT and record.payload.get("scheduled_steps") is not None:
            self.tags[names.SCHEDULED_STEPS] = value_text(record.payload["scheduled_steps"])

    def calls(self, known_params: set[str]) -> Iterator[dict[str, Any]]:
        """Arguments of each call of log_batch, without params that the run has: MLflow never changes one."""
        params = [Param(name, value) for name, value in self.params.items() if name not in known_params]
        tags = [RunTag(name, value) for name, value in self.tags.items()]
        parts = _split(self.metrics, MAX_METRICS), _split(params, MAX_PARAMS), _split(tags, MAX_TAGS)
        for metrics, some_params, some_tags in zip_longest(*parts, fillvalue=()):
            yield {"metrics": metrics, "params": some_params, "tags": some_tags}


def metric_name(name: str) -> str:
    """``name`` as MLflow accepts it: ``blocks[0]/gain`` becomes ``blocks_0_/gain``."""
    return posixpath.normpath(re.sub(r"[^\w\-. :/]", "_", name)).lstrip("./")[:MAX_NAME_LENGTH]


def _split(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
