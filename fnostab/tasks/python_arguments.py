"""Check what Python callers give to `Study`, `load_study` and `run_study`, and convert it to values of a study file."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fnostab.errors import ConfigError
from fnostab.record.settings import shown

CONTROL = "control"  # name of control's arm


def study_values(
    source: str,
    name: str,
    control: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]],
    seeds: int | Sequence[int],
    metric: str | Mapping[str, Any],
    baseline: float | None,
    outcome: Mapping[str, Any] | None,
    margin: float | None,
    description: str,
) -> dict[str, Any]:
    """Convert the arguments of `fnostab.Study` to the sections of a study file; errors begin with ``source``.

    Raises:
        ConfigError: an argument has the wrong type, or two arguments set the same thing.
    """
    control = settings_of(source, "control", control)
    if not isinstance(arms, Mapping):
        raise not_accepted(source, "arms", arms, "a mapping of settings by arm, as {'clipped': {'clip': 1.0}}")
    arms = {arm: settings_of(source, arm, settings) for arm, settings in arms.items()}
    if CONTROL in arms:
        raise ConfigError(
            f"{source}: arms={list(arms)}: {CONTROL!r} is the arm of control=...; name this one otherwise"
        )
    if not isinstance(metric, str | Mapping):
        raise not_accepted(source, "metric", metric, "a name, as 'val/loss', or {'name': 'val/loss', 'of': 'last'}")
    if not isinstance(outcome, Mapping | None):
        raise not_accepted(source, "outcome", outcome, "rules of failures, as {'failed': {'above': 3.5}}")
    rules = dict(outcome or {}) | ({} if baseline is None else {"baseline": baseline})
    if baseline is not None and outcome and "baseline" in outcome:
        raise ConfigError(f"{source}: baseline={baseline!r} and outcome={shown(outcome)} both name it: leave one out")
    return {
        "name": name,
        "description": description,
        "control": CONTROL,
        "defaults": {setting: _typed(setting, value, arms) for setting, value in control.items()},
        "arms": {CONTROL: {}, **{arm: dict(settings) for arm, settings in arms.items()}},
        "seeds": seeds_of(source, seeds),
        "metric": {"name": metric} if isinstance(metric, str) else dict(metric),
        "outcome": rules or None,
        "margin": margin,
    }


def not_accepted(source: str, what: str, given: Any, expected: str) -> ConfigError:
    """Make the error for an argument that is not accepted, with its value and what was expected."""
    return ConfigError(f"{source}: {what}={shown(given)} is not accepted: expected {expected}")


def settings_of(source: str, what: str, given: Any) -> dict[str, Any]:
    """Check settings by name, and convert scalars of array libraries to Python numbers.

    Raises:
        ConfigError: they are no mapping, or a name is not text.
    """
    if not isinstance(given, Mapping):
        raise not_accepted(source, what, given, "a mapping, as {'lr': 0.1}")
    if names := [name for name in given if not isinstance(name, str)]:
        raise ConfigError(f"{source}: {what}: the name {shown(names[0])} of a setting is not text")
    return {name: _plain(value) for name, value in given.items()}


def seeds_of(source: str, given: Any) -> int | list[int]:
    """Convert seeds to the form of a study file: the number of seeds, or a list of them.

    Raises:
        ConfigError: they are neither, or a seed is repeated or negative.
    """
    several = isinstance(given, Iterable) and not isinstance(given, int | str | Mapping)
    found: int | list[int] = _plain(list(given) if several else given)
    each = found if isinstance(found, list) else [found]
    least = 0 if isinstance(found, list) else 1
    if not each or len(set(map(repr, each))) < len(each) or any(type(n) is not int or n < least for n in each):
        expected = "their number, as 10, or a list of whole numbers without repetition, as [0, 3, 5]"
        raise not_accepted(source, "seeds", given, expected)
    return each if isinstance(found, list) else int(found)


def _plain(value: Any) -> Any:
    """Convert an array or tensor of shape () to a Python number, in lists too; return any other value unchanged."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _typed(setting: str, value: Any, arms: Mapping[str, Mapping[str, Any]]) -> Any:
    """Declare a setting as in ``defaults`` of a study file: control's value, or for None the type of an arm's value."""
    values = [settings[setting] for settings in arms.values() if settings.get(setting) is not None]
    kinds = {bool: "bool", int: "number", float: "number", str: "text", list: "list"}
    if value is not None or not values or type(values[0]) not in kinds:
        return values[0] if value is None and values else value  # None without a type is refused later
    return {"type": kinds[type(values[0])], "default": None}
