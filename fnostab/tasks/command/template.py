"""The command of a study file: words with placeholders, filled word by word and never by a shell.

``python train.py --lr {lr} {--norm} --seed {seed}``: a value adds no word and no command, whatever it holds.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fnostab.errors import ConfigError
from fnostab.record.settings import shown, suggestion

__all__ = ["GIVEN", "RESERVED", "Template"]

GIVEN = ("seed", "arm", "directory")  # placeholders that every trial has
RESERVED = (*GIVEN, "inherits", "grid")  # names that no setting may have
SHELL = "use bash -c '...' as the command where a shell is wanted"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_FLAG = re.compile(rf"\{{--({_NAME.replace('_]', '_-]')})\}}")  # a whole word
_PLACE = re.compile(rf"\{{({_NAME})\}}")
_OPERATORS = ("&&", "||", "|", ";", "&", ">", ">>", "<", "<<", "2>", "2>&1", "&>")
_VARIABLE = re.compile(r"\$[A-Za-z_{(]|`")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


@dataclass(frozen=True)
class Template:
    """Words of a command.

    Attributes:
        words: as they are written, split once.
    """

    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Split a command into words.

        Raises:
            ConfigError: its quotes are unequal, it is empty, has no ``{seed}``, or asks for a shell.
        """
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise ConfigError(f"command={shown(text)} can't be split into words: {error}") from None
        if not words:
            raise ConfigError("command: expected a program with its arguments, as in python train.py --seed {seed}")
        if _ASSIGNMENT.match(words[0]):
            raise ConfigError(f"command: {words[0]!r} sets a variable, which only a shell does: {SHELL}")
        template = cls(words)
        if not words[0].endswith(("bash", "sh")):
            template._insist_on_no_shell(text)
        unknown = re.findall(r"\{[^{}]*\}", " ".join(words))
        if bad := [p for p in unknown if not (_PLACE.fullmatch(p) or _FLAG.fullmatch(p))]:
            raise ConfigError(f"command: {bad[0]} is no placeholder: expected a plain name, as in {{lr}} or {{--norm}}")
        inside = [w for w in words if "{--" in w and not _FLAG.fullmatch(w)]
        if inside:
            raise ConfigError(f"command: {inside[0]!r}: a flag as {{--norm}} is a word of its own")
        if "seed" not in template.names:
            raise ConfigError("command: expected the placeholder {seed}: without it all trials of an arm are the same")
        return template

    def _insist_on_no_shell(self, text: str) -> None:
        lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        quoted = set(shlex.split(text))
        for word in lexer:
            if word in _OPERATORS and word not in quoted - set(_OPERATORS):
                raise ConfigError(f"command: {word!r} is of a shell, and none runs it: {SHELL}")
        for word in self.words:
            if _VARIABLE.search(word):
                raise ConfigError(f"command: {word!r} asks a shell for a value, and none runs it: {SHELL}")

    @property
    def names(self) -> frozenset[str]:
        """Names of the placeholders; of a flag that of its setting, with underscores."""
        flags = {m.group(1).replace("-", "_") for w in self.words if (m := _FLAG.fullmatch(w))}
        places = {name for w in self.words if not _FLAG.fullmatch(w) for name in _PLACE.findall(w)}
        return frozenset(flags | places)

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse placeholders without a setting, and settings without a placeholder.

        Raises:
            ConfigError: ``setting`` names the one that is to blame.
        """
        for name in sorted(self.names - settings.keys() - set(GIVEN)):
            raise ConfigError(f"command has {{{name}}}, but defaults declares no {name}{suggestion(name, settings)}")
        for name in settings.keys() - self.names:
            raise ConfigError(
                f"setting {name} is not in the command: write {{{name}}} or {{--{name}}} there, or leave it out",
                setting=name,
            )

    def fill(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The arguments of one trial.

        Args:
            values: of all placeholders.

        Raises:
            ConfigError: a value is null or a list where one word is needed.
        """
        filled: list[str] = []
        for word in self.words:
            if flag := _FLAG.fullmatch(word):
                filled += _flag(flag.group(1), values[flag.group(1).replace("-", "_")])
            else:
                filled.append(_PLACE.sub(lambda place: _text(place.group(1), values[place.group(1)]), word))
        return tuple(filled)


def _flag(name: str, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{name}"]
    return [f"--{name}", *(_text(name, each) for each in (value if isinstance(value, list | tuple) else [value]))]


def _text(name: str, value: Any) -> str:
    """A value as one word: true and false, the shortest form of a float."""
    if value is None or isinstance(value, list | tuple | Mapping):
        what = "null" if value is None else "a list"
        raise ConfigError(f"{name} is {what}, which {{{name}}} can't hold: write {{--{name}}} as a word", setting=name)
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)
