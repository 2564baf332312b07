"""Template of a command: split into words once, and filled in word by word, never by a shell.

A value of ``{name}`` stays within its word, whatever it contains; only ``{--name}`` makes words: an option and values.
"""

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fnostab.errors import ConfigError
from fnostab.record.settings import shown, suggestion, value_text

RESERVED = ("seed", "arm", "directory", "inherits", "grid")
SHELLS = ("bash", "sh", "zsh", "dash")
GIVEN = ("seed", "arm", "directory")  # placeholders that stand for no setting
_BASH = "write  bash -c '...'  with it inside the quotes"
_OPERATOR = re.compile(r"[|;&<>]+")
_EXPANSION = re.compile(r"\$[\w({]\w*|`")
_NOT_EXPANDED = re.compile(r"'[^']*'|\\.", re.DOTALL)
_QUOTED = re.compile(r"'[^']*'|\\.|\"(\\.|[^\"\\])*\"", re.DOTALL)
_CONTINUED = re.compile(r"\s\\\s")  # as in a shell; in YAML it would keep the blank or the end of the line
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{(?P<inside>[^{}]*)\}|[{}]")
_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)

Place = Callable[[str], str]


@dataclass(frozen=True)
class Template:
    """A command whose words hold placeholders."""

    words: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Settings that have a placeholder, in order, without `GIVEN`."""
        return tuple(name for name in self._placeholders() if name not in GIVEN)

    @property
    def names_arm(self) -> bool:
        """Whether the arm's name is a part of the command."""
        return "arm" in self._placeholders()

    def check(self, settings: Collection[str], place: Place = lambda name: "") -> None:
        """Check that every placeholder has a setting, and every setting a placeholder.

        Raises:
            ConfigError: a placeholder has no setting, or a setting no placeholder.
        """
        for name in self.names:
            if name not in settings:
                known = suggestion(name, settings)
                raise ConfigError(f"{place('command')}{{{name}}} is not a setting{known}: declare it under defaults")
        for name in settings:
            if name not in self.names:
                raise ConfigError(
                    f"{place(name)}setting {name} has no placeholder: write {{{name}}} or {{--{name}}} in command", name
                )

    def fill(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Fill in the values of all settings, seed, arm and directory; return the words. Call `check` before.

        Raises:
            ConfigError: a value can't be written as one word.
        """
        filled: list[str] = []
        for index, word in enumerate(self.words):
            if option := _option(word):
                filled += _as_option(option, values[option])
            else:
                filled.append(_fill_word(word, values, script=_is_script(self.words, index)))
        for word in filled:
            if "\0" in word:
                raise ConfigError(f"{shown(word)}: no argument of a program can hold a null character")
        return tuple(filled)

    def _placeholders(self) -> list[str]:
        found: dict[str, None] = {}
        for word in self.words:
            for match in _PLACEHOLDER.finditer(word):
                if (inside := match["inside"]) is not None:
                    found[inside.removeprefix("--")] = None
        return list(found)


def parse(text: str, place: Place = lambda name: "") -> Template:
    """Split a command, as ``python train.py --lr {lr} {--norm} --seed {seed}``, into words.

    Raises:
        ConfigError: the text is empty, needs a shell, its quotes or braces don't match, or it has no ``{seed}``.
    """
    where = place("command")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{where}command: {str(error).lower()}: each quote needs a second one") from None
    if any(word[:1].isspace() for word in words) and _CONTINUED.search(text):
        raise ConfigError(f"{where}command: leave out a backslash at the end of a line: YAML joins the lines")
    if not words:
        raise ConfigError(f"{where}command: expected a program and its arguments, got nothing")
    _refuse_shell(text, words, where)
    for word in words:
        _check_braces(word, where)
    template = Template(tuple(words))
    if "seed" not in template._placeholders():
        raise ConfigError(f"{where}command: {{seed}} is missing: each trial of an arm must get its own seed")
    return template


def _word_of(value: Any, name: str) -> str:
    """Write a setting as one word: true or false, the shortest number, text unchanged; no null and no list."""
    if isinstance(value, int | float | str):
        return value_text(value)
    said = "null" if value is None else shown(value)
    raise ConfigError(
        f"command: {{{name}}} is one word and can't stand for {said}: write {{--{name}}} alone, or give it a value",
        name,
    )


def _refuse_shell(text: str, words: list[str], where: str) -> None:
    if _ASSIGNMENT.fullmatch(words[0]):
        raise ConfigError(f"{where}command: a leading {shown(words[0])} needs a shell, and none is used: {_BASH}")
    if _is_script(words, words.index("-c") + 1 if "-c" in words else 0):
        return  # the user's own shell interprets the quoted text
    unquoted = _QUOTED.sub("", text)
    expanded = _NOT_EXPANDED.sub("", text)
    if match := _OPERATOR.search(unquoted) or _EXPANSION.search(expanded):
        raise ConfigError(f"{where}command: {shown(match[0])} needs a shell, and none is used: {_BASH}")


def _is_script(words: Sequence[str], index: int) -> bool:
    """Whether a word is the script of a shell that the user calls, as in ``bash -c '...'``."""
    return index >= 2 and words[0].rpartition("/")[2] in SHELLS and words[index - 1] == "-c"


def _check_braces(word: str, where: str) -> None:
    for match in _PLACEHOLDER.finditer(word):
        inside = match["inside"]
        if match[0] in ("{", "}"):
            raise ConfigError(f"{where}command: {shown(word)} has a single brace; write a literal brace twice")
        if inside is None:
            continue
        if not _NAME.fullmatch(inside.removeprefix("--")):
            raise ConfigError(
                f"{where}command: {{{inside}}} is not a placeholder: expected a plain name, as {{lr}}; "
                "write a literal brace twice"
            )
        if inside.startswith("--") and word != match[0]:
            raise ConfigError(f"{where}command: {{{inside}}} must be a word of its own, not a part of {shown(word)}")


def _option(word: str) -> str | None:
    """Return the name in a word ``{--name}``; None for any other word."""
    match = _PLACEHOLDER.fullmatch(word)
    inside = None if match is None else match["inside"]
    return inside[2:] if inside is not None and inside.startswith("--") else None


def _fill_word(word: str, values: Mapping[str, Any], *, script: bool) -> str:
    def fill(match: re.Match[str]) -> str:
        if (name := match["inside"]) is None:
            return match[0][0]  # a doubled brace stands for one
        text = _word_of(values[name], name)
        if script and shlex.quote(text) != text:
            raise ConfigError(
                f"{name}={shown(text)} would be read by the shell: pass it as a word of its own, "
                f"as in  bash -c 'python train.py \"$0\"' {{{name}}}",
                name,
            )
        return text

    return _PLACEHOLDER.sub(fill, word)


def _as_option(name: str, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{name}"]
    if isinstance(value, list | tuple):
        return [f"--{name}", *(_word_of(each, name) for each in value)]
    return [f"--{name}", _word_of(value, name)]
