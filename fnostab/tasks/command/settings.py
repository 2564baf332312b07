"""Declare and resolve the settings of a command; in `defaults` each setting has the type of its value."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fnostab.errors import ConfigError, UnknownSettingError
from fnostab.record.settings import QUOTE_IT, shown, suggestion
from fnostab.tasks.command.template import RESERVED

Kind = Literal["number", "int", "text", "bool", "list"]
KINDS: dict[str, Kind] = {
    "number": "number",
    "float": "number",
    "int": "int",
    "text": "text",
    "str": "text",
    "bool": "bool",
    "list": "list",
}
EXACT_BELOW = 2**53  # whole numbers that a float holds exactly
EXPECTED = {"number": "a number", "int": "a whole number", "text": "text", "bool": "true or false", "list": "a list"}

Place = Callable[[str], str]


@dataclass(frozen=True)
class Declared:
    """Type and default of a setting, as `defaults` declares them."""

    kind: Kind
    default: Any
    may_be_null: bool = False


def declare(defaults: Mapping[str, Any], place: Place = lambda name: "") -> dict[str, Declared]:
    """Read types and defaults of all settings, each a value or ``{type: float, default: null}``.

    ``place`` maps a name to its place in the study file, with which an error message begins.

    Raises:
        ConfigError: a name is reserved, or a value has no type.
    """
    return {name: _declare(name, value, place(name)) for name, value in defaults.items()}


def resolve(declared: Mapping[str, Declared], layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compute the values of all settings: the defaults, overridden by layers, of which later ones win.

    Raises:
        ConfigError: a name is unknown, or a value has another type than the default.
    """
    values = {name: each.default for name, each in declared.items()}
    for layer in layers:
        for name, value in layer.items():
            if name not in declared:
                known = ", ".join(declared) or "none"
                raise UnknownSettingError(
                    f"unknown setting {shown(name)}{suggestion(name, declared)}; accepted: {known}", name
                )
            values[name] = _checked(name, value, declared[name], "")
    return values


def _declare(name: str, value: Any, where: str) -> Declared:
    if name in RESERVED:
        raise ConfigError(f"{where}{name} is reserved, and can't be the name of a setting", name)
    if isinstance(value, Mapping):
        if value.keys() != {"type", "default"} or value["type"] not in KINDS:
            accepted = ", ".join(KINDS)
            raise ConfigError(
                f"{where}{name}={shown(dict(value))}: expected {{type: float, default: null}}; types: {accepted}", name
            )
        declared = Declared(KINDS[value["type"]], None, may_be_null=value["default"] is None)
        default = _checked(name, value["default"], declared, where)
        return Declared(declared.kind, default, declared.may_be_null)
    if value is None:
        raise ConfigError(f"{where}{name}: null has no type: write {name}: {{type: float, default: null}}", name)
    kind = _kind_of(value)
    if kind is None:
        raise ConfigError(f"{where}{name}={shown(value)}: expected a number, text, true or false, or a list", name)
    return Declared(kind, _checked(name, value, Declared(kind, value), where))


def _kind_of(value: Any) -> Kind | None:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list | tuple) else None


def _checked(name: str, value: Any, declared: Declared, where: str) -> Any:
    if value is None and declared.may_be_null:
        return None
    value = _one_number(value)
    kind = _kind_of(value)
    fits = isinstance(value, int) and kind == "number" if declared.kind == "int" else kind == declared.kind
    fits = fits and _is_finite(value)
    if isinstance(value, str) and not value.isascii() and not _is_utf_8(value):
        raise ConfigError(f"{where}{name}={shown(value)} is not accepted: it can't be written in UTF-8", name)
    if fits and kind == "list":
        fits = all(_kind_of(each) not in (None, "list") and _is_finite(each) for each in value)
        value = list(value)
    if not fits:
        expected = EXPECTED[declared.kind] + (" or null" if declared.may_be_null else "")
        expected += QUOTE_IT if declared.kind == "text" and kind in ("number", "bool") else ""
        raise ConfigError(f"{where}{name}={shown(value)} is not accepted: expected {expected}", name)
    return [_one_number(each) for each in value] if isinstance(value, list) else value


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _is_utf_8(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _one_number(value: Any) -> Any:
    """Convert 1.0 to 1, so that a number has one text and one hash however it was written."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < EXACT_BELOW
    return int(value) if whole else value
