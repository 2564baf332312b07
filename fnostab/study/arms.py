"""Write out the arms of a study file: what they inherit from one another, grids, and the values of a stress study."""

from collections.abc import Mapping
from itertools import product
from math import prod
from typing import Any

from fnostab.record.settings import flatten, shown
from fnostab.record.table_study import is_missing
from fnostab.study.limits import MOST_ARMS, MOST_INHERITED

Settings = dict[str, Any]  # by dotted name


class NotAcceptedError(Exception):
    """An arm can't be written out; ``place`` is its dotted place in the file."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


def knob_of(stress: Any) -> dict[str, list[float]]:
    """Check the knob of a stress study and its values; return an empty mapping without one."""
    if stress is None or stress == {}:
        return {}
    values = next(iter(stress.values())) if isinstance(stress, dict) and len(stress) == 1 else None
    numbers = [v for v in values if isinstance(v, int | float) and v > 0] if isinstance(values, list) else []
    if len(numbers) < 2 or numbers != values or numbers not in (sorted(set(numbers)), sorted(set(numbers))[::-1]):
        what = "it is one setting with two or more numbers above 0, rising or falling, each harder than the one before"
        message = f"stress={stress!r} is not accepted: {what}"
        raise NotAcceptedError("stress", message)
    return {next(iter(stress)): numbers}


def expanded(
    arms: Mapping[str, Any], stress: Mapping[str, list[float]]
) -> tuple[dict[str, Settings], dict[str, tuple[str, ...]], dict[str, dict[str, float]]]:
    """Write out ``inherits``, ``grid`` and the values of a stress study's knob.

    Returns:
        Settings by arm; the names of the arms in the file that an arm's settings come from, itself first; and for each
        arm of a stress study, without the knob: its name at each value -> the value.
    """
    expanded: dict[str, Settings] = {}
    written: dict[str, tuple[str, ...]] = {}
    stressed: dict[str, dict[str, float]] = {}
    folded: dict[str, str] = {}
    if len(arms) > MOST_ARMS:
        raise NotAcceptedError("arms", f"{len(arms):,} arms are not accepted; a study has at most {MOST_ARMS:,}")
    for arm in arms:
        settings, grid, chain = _inherited(arms, arm, ())
        count = prod(len(values) for values in (*grid.values(), *stress.values()))
        if count + len(expanded) > MOST_ARMS:
            what = f"written out, arm {arm!r} is {count:,} arms, beside {len(expanded):,} before it"
            raise NotAcceptedError(f"arms.{arm}", f"{what}; a study has at most {MOST_ARMS:,}: shorten its lists")
        for values in product(*grid.values(), *stress.values()):
            parts = [f"_{_short(value)}" for value in values]
            name = f"{arm}{''.join(parts)}"
            if name in expanded:
                raise NotAcceptedError(f"arms.{arm}", f"two arms are named {name!r}: rename one of them")
            if is_missing(name):
                raise NotAcceptedError(f"arms.{arm}", f"the arm {name!r} would be missing in a table: rename it")
            if (other := folded.setdefault(name.casefold(), name)) != name:
                what = f"arms {other!r} and {name!r} differ by capitals alone, and would share folders on some disks"
                raise NotAcceptedError(f"arms.{arm}", f"{what}: rename one of them")
            expanded[name], written[name] = settings | dict(zip((*grid, *stress), values, strict=True)), chain
            if stress:
                stressed.setdefault(f"{arm}{''.join(parts[:-1])}", {})[name] = float(values[-1])
    return expanded, written, stressed


def _inherited(
    arms: Mapping[str, Any], arm: str, below: tuple[str, ...]
) -> tuple[Settings, dict[str, list[Any]], tuple[str, ...]]:
    """Collect the settings and grid of an arm, inherited ones too, and the names of the arms they come from."""
    own = {} if arms[arm] is None else arms[arm]
    if not isinstance(own, dict):
        raise NotAcceptedError(f"arms.{arm}", f"arms.{arm}={shown(own)} is not accepted: it is a mapping of settings")
    parent, chain = own.get("inherits"), (*below, arm)
    settings = flatten({key: value for key, value in own.items() if key not in ("inherits", "grid")})
    grid = _grid(arm, own)
    if parent is None:
        return settings, grid or {}, (arm,)
    if not isinstance(parent, str) or parent not in arms:
        raise NotAcceptedError(f"arms.{arm}.inherits", f"no arm {shown(parent)} to inherit from: {', '.join(arms)}")
    if parent in chain:
        circle = " -> ".join((*chain[chain.index(parent) :], parent))
        raise NotAcceptedError(f"arms.{arm}.inherits", f"arms inherit from one another in a circle: {circle}")
    if len(chain) > MOST_INHERITED:
        raise NotAcceptedError(
            f"arms.{below[0]}.inherits",
            f"arm {below[0]!r} inherits from more than {MOST_INHERITED} arms in a row: write its settings out",
        )
    inherited, inherited_grid, ancestors = _inherited(arms, parent, chain)
    return inherited | settings, inherited_grid if grid is None else grid, (arm, *ancestors)


def _grid(arm: str, own: Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """Check the grid of an arm itself; None if it has none."""
    grid = own.get("grid")
    if grid is None:
        return None
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        message = f"grid={grid!r} is not accepted: it is a mapping of settings, each with a list of values"
        raise NotAcceptedError(f"arms.{arm}.grid", message)
    return grid


def _short(value: Any) -> str:
    """Write a setting's value as a part of an arm's name: 10, 0.01, 1e-5, none."""
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
