"""Settings of a program: ``defaults`` declares each with its type."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fnostab.errors import ConfigError
from fnostab.record.settings import shown, suggestion
from fnostab.tasks.command.template import RESERVED

__all__ = ["Declared", "declare", "resolve"]

TYPES = {"float": "number", "number": "number", "int": "whole number", "str": "text", "text": "text"}
TYPES |= {"bool": "true or false", "list": "list"}


@dataclass(frozen=True)
class Declared:
    """A setting's kind, and its value where an arm says nothing."""

    kind: str
    default: Any
    nullable: bool = False

    def accept(self, name: str, value: Any) -> Any:
        """The value, as its kind has it.

        Raises:
            ConfigError: it is of another kind.
        """
        if value is None and self.nullable:
            return None
        if (value is None or not _is(self.kind, value)) or (isinstance(value, float) and not math.isfinite(value)):
            null = " or null" if self.nullable else ""
            raise ConfigError(f"{name}={shown(value)} is not accepted: expected {self.kind}{null}", setting=name)
        return float(value) if self.kind == "number" and not isinstance(value, int) else value


def declare(defaults: Mapping[str, Any]) -> dict[str, Declared]:
    """Kinds of the settings in ``defaults``: that of the value, or ``name.type`` and ``name.default``.

    Args:
        defaults: flat.

    Raises:
        ConfigError: a name is reserved, a kind is not known, or null has no type.
    """
    typed = {name.removesuffix(".type") for name in defaults if name.endswith(".type")}
    found = {}
    for name, value in defaults.items():
        base, _, last = name.rpartition(".")
        if base in typed and last in ("type", "default"):
            if last == "type":
                found[base] = _typed(base, value, defaults.get(f"{base}.default"))
            continue
        if value is None:
            raise ConfigError(f"{name}: null has no type: write {{type: float, default: null}}", setting=name)
        found[name] = Declared(_kind(name, value), value)
    for name in found:
        if name in RESERVED:
            raise ConfigError(f"{name} can't be a setting: {', '.join(RESERVED)} have a meaning already", setting=name)
    return found


def resolve(declared: Mapping[str, Declared], layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings of an arm; later layers win.

    Raises:
        ConfigError: a name is not declared, or a value is of another kind.
    """
    settings = {name: each.default for name, each in declared.items()}
    for layer in layers:
        for name, value in layer.items():
            if name not in declared:
                known = ", ".join(declared) or "none"
                hint = suggestion(name, declared)
                raise ConfigError(f"unknown setting {shown(name)}{hint}; declared in defaults: {known}", setting=name)
            settings[name] = declared[name].accept(name, value)
    return settings


def _typed(name: str, kind: Any, default: Any) -> Declared:
    if kind not in TYPES:
        raise ConfigError(f"{name}: type={shown(kind)} is not known; accepted: {', '.join(TYPES)}", setting=name)
    made = Declared(TYPES[kind], default, nullable=default is None)
    return Declared(made.kind, made.accept(name, default), made.nullable)


def _kind(name: str, value: Any) -> str:
    kinds = ("true or false", "number", "text", "list")
    kind = next((kind for kind in kinds if _is(kind, value)), None)
    if kind is None:
        raise ConfigError(f"{name}={shown(value)} is not accepted: expected number, text, bool or list", setting=name)
    return kind


def _is(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "true or false"
    accepted = {"number": int | float, "whole number": int, "text": str, "list": list | tuple}
    return kind in accepted and isinstance(value, accepted[kind])
