"""The task ``ask``: trials that the user's own loop asks for and trains, for example in a notebook."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fnostab.errors import ConfigError
from fnostab.record.trial import ASK
from fnostab.tasks.command.settings import declare
from fnostab.tasks.command.task import Command
from fnostab.tasks.contract import Settings

if TYPE_CHECKING:
    from fnostab.study.file import StudyFile

__all__ = ["Ask"]


class Ask(Command):
    """A training that this process runs itself: settings and rules are those of a command, but nothing is started.

    Args:
        file: study without ``command`` and ``task``.

    Raises:
        ConfigError: the file names what trains its trials, or a declaration of a setting is not accepted.
    """

    name = ASK

    def __init__(self, file: "StudyFile") -> None:
        super().__init__()
        if (given := "command" if file.command else "task" if file.task else None) is not None:
            raise ConfigError(
                f"{file.line_of(given)}{given} names what `fnostab run` starts: leave it out of a study that your "
                "own loop trains"
            )
        self._declared = declare(file.defaults, lambda name: file.line_of(f"defaults.{name}"))
        layers = (file.defaults, *file.arms.values())
        self._floats = {name for layer in layers for name, value in layer.items() if isinstance(value, float)}

    @property
    def goes_by_arm(self) -> bool:
        """Whether nothing but their names tells the arms apart: the loop sees these."""
        return not self._declared

    def identity(self, settings: Settings) -> Any:
        """The settings: what trains is not known."""
        return {"settings": dict(settings)}

    def argv(self, settings: Settings, arm: str, seed: int, directory: Path) -> tuple[str, ...]:
        """No words: nothing is started."""
        return ()

    def as_written(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings for a training: 1.0 stays a float, which the record writes as 1."""
        floats = {name: float(settings[name]) for name in self._floats if isinstance(settings[name], int)}
        return {**settings, **floats}
