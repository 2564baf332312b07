"""Records of trials, read by neither tree: journals, tensors, and JSON as far as it is comparable."""

import csv
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from same_as.differences import (
    ADDED,
    CHANGED,
    CHANGED_METRICS,
    EVENTS,
    MACHINE_METRICS,
    REMOVED,
    RENAMED,
    RENAMED_METRICS,
    RENAMED_TENSORS,
)

Point = tuple[str, int, str]
MOST_LINES = 10


@dataclass(frozen=True)
class Trial:
    """A trial's folder.

    Attributes:
        of_baseline: whether the baseline wrote it, so that names are to be translated.
    """

    folder: Path
    of_baseline: bool

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Records of the journal, each as its JSON object."""
        return list(read_lines(self.folder / "journal.jsonl"))

    @property
    def points(self) -> list[Point]:
        """(metric, step, value to the last bit) of all points that can be compared, in a fixed order."""
        renamed = RENAMED_METRICS if self.of_baseline else {}
        return sorted(
            (renamed.get(name, name), line["s"], value if isinstance(value, str) else float(value).hex())
            for line in self.lines
            if "s" in line
            for name, value in [*line["v"].items(), *line.get("x", {}).items()]
            if name not in CHANGED_METRICS
            if not any(name == m or (m.endswith("/") and name.startswith(m)) for m in MACHINE_METRICS)
        )

    @property
    def events(self) -> list[tuple[str, Any]]:
        """Name and payload of the events that are compared, in order."""
        found = [(line["e"], line["p"]) for line in self.lines if line.get("e") in EVENTS]
        return [(name, self._payload(name, payload)) for name, payload in found]

    def _payload(self, name: str, payload: Mapping[str, Any]) -> Any:
        keys = EVENTS[name]
        wanted = {key: value for key, value in payload.items() if keys is None or key in keys}
        return comparable("events", {name: wanted}, of_baseline=self.of_baseline)

    @property
    def outcome(self) -> str:
        """What the last outcome event says."""
        return [line["p"]["outcome"] for line in self.lines if line.get("e") == "outcome"][-1]

    @property
    def tensors(self) -> dict[str, tuple[Any, ...]]:
        """The best checkpoint's tensors by name: type, shape, and a digest of the bytes. Empty if there is none."""
        path = self.folder / "artifacts" / "best.safetensors"
        found = dict(read_tensors(path)) if path.exists() else {}
        return {_renamed_tensor(name): value for name, value in found.items()} if self.of_baseline else found


def read_trials(output: Path, *, of_baseline: bool) -> dict[tuple[str, int], Trial]:
    """The trials below a folder by arm and seed, whatever folders they are in."""
    records = [(path, json.loads(path.read_text())) for path in sorted(output.rglob("trial.json"))]
    trials = {(about["arm"], about["seed"]): Trial(path.parent, of_baseline) for path, about in records}
    assert len(trials) == len(records), f"two trials below {output} have the same arm and seed"
    return trials


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a journal: ``crc32 json`` in each line."""
    for line in path.read_bytes().split(b"\n")[:-1]:  # the last may be torn
        check, _, text = line.partition(b" ")
        assert int(check, 16) == zlib.crc32(text), f"{path}: {line[:60]!r}"
        yield json.loads(text)


def read_tensors(path: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Name, type, shape and digest of each tensor in a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    body = data[8 + length :]
    for name, about in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = about["data_offsets"]
            digest = hashlib.sha256(body[start:end]).hexdigest()
            yield name, (about["dtype"], tuple(about["shape"]), digest)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a table."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def comparable(output: str, value: Any, *, of_baseline: bool) -> Any:
    """What is to be equal of one of the outputs in `differences`, with the working tree's names.

    Args:
        output: "decide", "export", "replay", "events" or "settings".
        value: it, as JSON has it; numbers become their hexadecimal digits, so that all bits count.
        of_baseline: whether it is the baseline's.
    """
    left_out = (*CHANGED[output], *(REMOVED if of_baseline else ADDED)[output])
    return _kept(value, "", left_out, RENAMED[output] if of_baseline else {})


def _kept(value: Any, path: str, left_out: Sequence[str], renamed: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        places = {key: f"{path}.{key}".removeprefix(".") for key in value}
        return {
            renamed.get(place, key): _kept(value[key], place, left_out, renamed)
            for key, place in places.items()
            if place not in left_out
        }
    if isinstance(value, list | tuple):
        return [_kept(item, path, left_out, renamed) for item in value]
    return value.hex() if isinstance(value, float) else value


def _renamed_tensor(name: str) -> str:
    for old, new in RENAMED_TENSORS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def insist_same(baseline: Any, head: Any) -> None:
    """Fail with the first differences between two values."""
    lines = unlike(baseline, head)
    assert not lines, "\n".join(["not the same:", *lines])


def unlike(baseline: Any, head: Any) -> list[str]:
    """The first differences between two values, a line each, for a message that can be read."""
    if isinstance(baseline, list) and baseline and isinstance(baseline[0], tuple):
        return _unlike_points(baseline, head)
    old, new = dict(_leaves(baseline)), dict(_leaves(head))
    places = [*old, *(place for place in new if place not in old)]
    pairs = [(place, old.get(place, "nothing"), new.get(place, "nothing")) for place in places]
    lines = [f"{place}: {before!r} in the baseline, {now!r} in head" for place, before, now in pairs if before != now]
    return lines[:MOST_LINES] or (
        [] if baseline == head else [f"{baseline!r:.300} in the baseline, {head!r:.300} in head"]
    )


def _unlike_points(baseline: list[Any], head: list[Any]) -> list[str]:
    """The same for points or events, of which one may be missing without moving the others."""
    gone, come = [one for one in baseline if one not in head], [one for one in head if one not in baseline]
    lines = [f"only in the baseline: {one}" for one in gone] + [f"only in head: {one}" for one in come]
    return lines[:MOST_LINES] or ([] if baseline == head else ["the same, but in another order or number"])


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in parts:
            yield from _leaves(part, f"{place}.{key}".removeprefix("."))
    else:
        yield place, value
