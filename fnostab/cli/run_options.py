"""Gather the options of a command that runs a study; options that it does not declare are settings."""

from __future__ import annotations

import functools
import re
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fnostab.cli.execution import RunOptions
from fnostab.cli.options import parse_names, parse_seeds, positive
from fnostab.errors import UnknownSettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ASSIGNMENT = re.compile(r"[\w.-]+=.*")


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command: gather and parse its options that are fields of `RunOptions`, and pass these as ``options``.

    Undeclared options are settings, since `mlflow run -P` passes parameters so.
    """
    names = {each.name for each in fields(RunOptions)}

    @click.pass_context
    @functools.wraps(command)
    def gathered(context: click.Context, /, **given: Any) -> None:
        own = {name: given.pop(name) for name in names if name in given}
        own["seeds"] = parse_seeds(own.get("seeds"))
        own["arms"] = tuple(parse_names(own.get("arms")))
        own |= {name: positive(name, own[name]) for name in ("epochs", "jobs", "lockstep", "attempts") if name in own}
        study, assignments = _study_and_assignments(context, own.pop("study"))
        settings = (*assignments, *own.pop("settings"))
        try:
            command(options=RunOptions(study=study, settings=settings, **own), **given)
        except UnknownSettingError as error:
            similar = _similar_option(context, error.setting)
            if similar and any(setting.partition("=")[0] == error.setting for setting in settings):
                raise click.UsageError(
                    f"{error.setting!r} is not a setting (did you mean {similar}?)", context
                ) from None
            raise

    return gathered


def _study_and_assignments(context: click.Context, study: str | None) -> tuple[str, list[str]]:
    """Return the argument STUDY, empty without one, and settings; click takes a first word ``--lr`` for STUDY too."""
    words, assignments = split_words([study, *context.args] if study else context.args, context)
    required = any(isinstance(each, click.Argument) and each.required for each in context.command.params)
    if required and not words:
        raise click.UsageError("Missing argument 'STUDY'", context)
    wrong = words[1:]
    if words and _ASSIGNMENT.fullmatch(words[0]) and not Path(words[0]).exists():
        wrong = words
    if wrong:
        raise _unknown(wrong[0], context)
    return (words or [""])[0], assignments


def split_words(words: Sequence[str], context: click.Context | None = None) -> tuple[list[str], list[str]]:
    """Split the words that click left over into arguments and assignments: ``--lr 0.1`` is ``lr=0.1``.

    Args:
        words: words of the command line; ``--set.lr 0.1`` is the same as ``--lr 0.1``.
        context: context of the command, whose options an error suggests.

    Raises:
        click.UsageError: an option has no value.
    """
    others, assignments = list[str](), list[str]()
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            others.append(word)
            continue
        following = value if equals else next(rest, None)
        if following is None or (not equals and following.startswith("--")):
            similar = _similar_option(context, name)
            raise click.UsageError(f"{word} has no value" + (f" (did you mean {similar}?)" if similar else ""), context)
        assignments.append(f"{name.removeprefix('set.')}={following}")
    return others, assignments


def _unknown(word: str, context: click.Context) -> click.UsageError:
    """Make the error for a word that is neither an option nor a setting."""
    name, equals, value = word.lstrip("-").partition("=")
    if equals:
        option = _similar_option(context, name) or f"--{name}"
        return click.UsageError(f"unknown argument {word!r}: write {option} {value}", context)
    similar = _similar_option(context, name) if word.startswith("-") else ""
    hint = f" (did you mean {similar}?)" if similar else "; a setting is written --name VALUE"
    return click.UsageError(f"unknown argument {word!r}{hint}", context)


def _similar_option(context: click.Context | None, name: str) -> str:
    """Find the option of a command whose name is most similar to ``name``; empty if none is similar."""
    parameters = context.command.params if context else []
    options = [o.removeprefix("--") for each in parameters if isinstance(each, click.Option) for o in each.opts]
    return next((f"--{option}" for option in get_close_matches(name, options, n=1)), "")
