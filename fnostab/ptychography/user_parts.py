"""Custom parts, such as a user's network or optimiser, which settings name as ``package.module.name``."""

import importlib
import sys
import traceback
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from fnostab.errors import ConfigError, FnostabError, ModelError, one_line
from fnostab.record.settings import digest, file_sha256

ON_PATH = "install it, or put its folder on PYTHONPATH"
NOT_AT_IMPORT = "run that only where __name__ is '__main__'"


def is_own(name: str) -> bool:
    """Whether a name is the dotted path of a custom part, and not the name of a built-in one."""
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def make_own(setting: str, name: str, kind: Any, *arguments: Any) -> Any:
    """Build a custom part: call ``package.module.name`` with ``arguments``.

    Args:
        setting: setting that names the part, for error messages.
        name: dotted path of a class or function.
        kind: expected type of the result.
        *arguments: arguments of the call.

    Returns:
        The part, an instance of ``kind``.

    Raises:
        ModelError: the part can't be imported, the call raises, or the result is not a ``kind``.
    """
    builder = _imported(setting, name)
    try:
        made = builder(*arguments)
    except FnostabError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(f"{setting}={name} raised {one_line_with_place(error, name)}") from error
    if not isinstance(made, kind):
        raise ModelError(f"{setting}={name}: expected an instance of {kind.__name__}, got {type(made).__name__}")
    return made


def one_line_with_place(error: BaseException, *parts: str) -> str:
    """Write an exception as one line, with the last place in the packages of ``parts`` that it came through."""
    packages = {part.partition(".")[0] for part in parts}
    places = [
        f" at {frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] in packages
    ]
    return "".join([one_line(error), *places[-1:]])


def code_hash(named: Iterable[tuple[str, str]]) -> str | None:
    """Hash of the source files of custom parts, without importing them; None without custom parts.

    Args:
        named: (setting, dotted path) of each part.

    Raises:
        ConfigError: the file of a part is not found.
    """
    modules = {name.rpartition(".")[0]: setting for setting, name in named}
    hashes = {module: file_sha256(_file_of(module, setting)) for module, setting in modules.items()}
    return digest(hashes) if hashes else None


def _imported(setting: str, name: str) -> Any:
    module_name, _, attribute = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except SystemExit as error:
        raise ModelError(
            f"{setting}={name}: importing {module_name} ends the program ({one_line(error)}); {NOT_AT_IMPORT}"
        ) from error
    except Exception as error:
        why = one_line_with_place(error, name)
        raise ModelError(f"{setting}={name}: can't import {module_name} ({why}); {ON_PATH}") from error
    builder: Any = getattr(module, attribute, None)
    if not callable(builder):
        problem = "is not callable" if hasattr(module, attribute) else "does not exist"
        raise ModelError(f"{setting}={name}: {attribute} {problem} in {module_name}; expected a class or function")
    return builder


def _file_of(module: str, setting: str) -> Path:
    """Find the file of a module as an import would, without executing its parent packages."""
    spec = _spec(module)
    path = Path(spec.origin or "") if spec else Path()
    if not path.is_file():
        raise ConfigError(f"{setting}: can't find the file of the module {module!r}; {ON_PATH}", setting)
    return path


def _spec(module: str) -> ModuleSpec | None:
    package = module.rpartition(".")[0]
    above = _spec(package) if package else None
    place = above.submodule_search_locations if above else None
    if package and place is None:
        return None
    found = (finder.find_spec(module, place) for finder in sys.meta_path)
    return next((spec for spec in found if spec is not None), None)
