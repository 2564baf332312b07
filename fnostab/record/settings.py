"""Read and check settings: dotted names, unambiguous YAML, one-line errors."""

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from fnostab.errors import ConfigError
from fnostab.record.safe_files import open_regular

LARGEST_BYTES = 1_000_000  # of a settings file
MOST_VALUES = 20_000  # in a settings file, with references expanded
PYDANTIC_TYPES = ("list", "tuple", "int", "float", "str", "bool")
QUOTE_IT = ": in YAML, quote text that looks like a number, a date, true or false, as '1e5'"
NAME_RULE = (
    "it names a folder too, so start it with a letter of a to z or a digit and use only these, dots, hyphens and "
    "underscores"
)
LONGEST_SHOWN = 200  # characters of a value in an error
M = TypeVar("M", bound=BaseModel)


class Frozen(BaseModel):
    """Immutable settings that refuse unknown names, infinities, and true or false in place of a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name] if info.field_name else None
        if isinstance(value, bool) and field is not None and field.annotation is not bool:
            quote = "in YAML, quote a name such as 'no' or 'true'"
            raise ValueError(f"{value} is not accepted: expected a number or a name; {quote}")
        return value


def value_text(value: Any) -> str:
    """Format a setting's value as in YAML and on the command line: ``null``, ``true``, ``0.001``."""
    return value if isinstance(value, str) else json.dumps(value)


def digest(values: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of ``values`` as canonical JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_of(path: str | Path, *, record: bool = False) -> str:
    """Read the text of a settings file; a ``record`` of this program must be a regular file, not a FIFO.

    Raises:
        OSError: the file can't be read.
        ConfigError: it is not UTF-8 text, or too large.
    """
    with open_regular(path) if record else open(path, "rb") as file:
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise ConfigError(f"it is larger than {LARGEST_BYTES // 1_000_000} MB, too large for a settings file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("it is not UTF-8 text") from None


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses names that are not text, and duplicate names, of which PyYAML keeps the last.

    ``1e-3`` is a number, as in YAML 1.2; PyYAML follows YAML 1.1, where it is text.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.YAMLError(f"the name {shown(key.value)} in line {line} is not text: quote it")
            if key.value in seen:
                raise yaml.YAMLError(f"{shown(key.value)} is given twice, the second time in line {line}")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_finite(self, node: yaml.ScalarNode) -> float:
        """Construct a number; one that overflows, such as 12e4567 (part of a hash?), does not become infinite."""
        number = self.construct_yaml_float(node)
        if math.isinf(number) and "inf" not in node.value.lower():
            line = node.start_mark.line + 1
            raise yaml.YAMLError(
                f"{shown(node.value)} in line {line} is too large for a number: quote it if it is text"
            )
        return number


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_finite)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$", re.ASCII), list("-+.0123456789")
)


def read_yaml(text: str) -> Any:
    """Parse YAML text into plain values, without Python tags.

    Raises:
        ConfigError: the text is not YAML, repeats a name, or is endless or huge once its references are expanded.
    """
    try:
        values = yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(" ".join(str(error).replace(' in "<unicode string>",', " at").split())) from error
    except (ValueError, OverflowError, RecursionError) as error:  # an invalid date, 5000 digits, 5000 brackets
        raise ConfigError(f"a value in it can't be read: {' '.join(str(error).split())}") from None
    waiting, count = [values], 0
    while waiting:
        value = waiting.pop()
        count += 1
        if count > MOST_VALUES:
            raise ConfigError(f"it holds more than {MOST_VALUES} values")
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
    return values


def read_yaml_file(path: str | Path, kind: str, model: type[M], example: str) -> M:
    """Read and validate a YAML file that holds one model; errors name its ``kind`` and an ``example``.

    Raises:
        ConfigError: the file can't be read or is not valid.
    """
    try:
        values = read_yaml(text_of(path))
    except OSError as error:
        raise ConfigError(f"can't read the {kind} {path}: {error.strerror or error}") from error
    except ConfigError as error:
        raise ConfigError(f"the {kind} {path} can't be read: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a {kind}: expected a mapping, as {example}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, model)}") from None


def flatten(config: BaseModel | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to ``{"model.fno_blocks": 4, ...}``."""
    values = config.model_dump(mode="json") if isinstance(config, BaseModel) else config
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nest dotted settings; the inverse of `flatten`.

    Raises:
        ConfigError: a name is both a setting and a group of settings.
    """
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        *groups, key = name.split(".")
        group = nested
        for part in groups:
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                raise ConfigError(f"{name}: {part} is a setting, not a group of settings")
        if isinstance(value, Mapping):
            value = nest(value)  # a copy, so that the caller's group is not changed
        if isinstance(group.get(key), dict):
            if not isinstance(value, dict):
                raise ConfigError(f"{name}={value!r} is not accepted: {key} is a group of settings")
            value = {**group[key], **value}
        group[key] = value
    return nested


def seeds_text(seeds: Sequence[int]) -> str:
    """Write seeds as the option ``--seeds`` takes them: their number if they are those from 0 on, else a list."""
    if list(seeds) == list(range(len(seeds))):
        return str(len(seeds))
    return ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")  # without a comma it would be a count


def place_of(error: ValidationError) -> tuple[str | int, ...]:
    """Location of the error to explain: the first, but a name that is missing comes after one that is misspelt."""
    return min(error.errors(include_url=False), key=lambda each: each["type"] == "missing")["loc"]


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe the error at `place_of` in one line, with the given and the accepted values."""
    errors = error.errors(include_url=False)
    place = place_of(error)[:1]  # the best-fitting of several accepted types
    first = max((each for each in errors if each["loc"][:1] == place), key=lambda each: len(each["loc"]))
    location = [str(part) for part in first["loc"] if not _is_of_pydantic(part)]
    name = ".".join(location)
    if first["type"] == "extra_forbidden":
        known = _fields(model, location[:-1])
        similar = suggestion(location[-1], known) or _similar_leaf(location[-1], model)
        return f"unknown setting {shown(name)}{similar}; accepted: {', '.join(known)}"
    if first["type"] == "value_error":
        return f"{name}: {first['ctx']['error']}" if name else str(first["ctx"]["error"])
    if "[key]" in first["loc"]:
        return f"{'.'.join(location[:-1])}: the name {shown(first['input'])} is not accepted: {_said(first)}"
    if first["type"] == "missing":
        return f"{name} is missing"
    hint = QUOTE_IT if first["type"] == "string_type" and isinstance(first["input"], int | float | date) else ""
    return f"{name}={shown(first['input'])} is not accepted: {_said(first)}{hint}"


def _said(error: Mapping[str, Any]) -> str:
    """Format a pydantic error as the end of a line, without class names and regular expressions."""
    if error["type"] == "string_pattern_mismatch":  # of a Name, the only text with a pattern
        return NAME_RULE
    message = error["msg"]
    return re.sub(r" valid dictionary( or instance of \w+)?", " mapping", message[0].lower() + message[1:])


def _is_of_pydantic(part: str | int) -> bool:
    """Whether a part of an error's location is pydantic's own marker (of a key or a union member), not a name."""
    return isinstance(part, str) and (
        part == "[key]" or part.partition("[")[0].removeprefix("constrained-") in PYDANTIC_TYPES
    )


def shown(value: Any) -> str:
    """Quote a value for an error, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _fields(model: type[BaseModel], location: Iterable[str]) -> list[str]:
    parts = iter(location)
    for part in parts:
        annotation = model.model_fields[part].annotation
        types = (annotation, *get_args(annotation))
        mapping = next((each for each in types if get_origin(each) in (dict, Mapping)), None)
        models = [a for a in (*types, *get_args(mapping)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not models:
            return []
        model = models[0]
        if mapping is not None:
            next(parts, None)  # a name of the user's own, as of a measure
    return list(model.model_fields)


def _similar_leaf(name: str, model: type[BaseModel]) -> str:
    """Part of an error that suggests the setting of any group with the most similar name; empty if none is similar."""
    leaves = {key: f"{group}.{key}" for group in model.model_fields for key in _fields(model, [group])}
    close = difflib.get_close_matches(name, leaves, n=1)
    return f" (did you mean {leaves[close[0]]!r}?)" if close else ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Part of an error that suggests the most similar accepted name; empty if none is similar."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
