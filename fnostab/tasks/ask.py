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


class Ask(Command):
    """Task whose trials the user's own loop trains; settings and rules are as in `Command`, but nothing is started.

    Args:
        file: study file without ``command`` and ``task``.

    Raises:
        ConfigError: the file names a command or a task, or a declaration of a setting is not accepted.
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
        """Whether the study has no settings, so that only the arms' names, which the loop sees, tell them apart."""
        return not self._declared

    def identity(self, settings: Settings) -> Any:
        """Identify an arm's trials by their settings; the code that trains them is not known."""
        return {"settings": dict(settings)}

    def argv(self, settings: Settings, arm: str, seed: int, directory: Path) -> tuple[str, ...]:
        """Return no words, since no program is started."""
        return ()

    def as_written(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Convert recorded settings to those of a training: 1.0, which the record writes as 1, is a float again."""
        floats = {name: float(settings[name]) for name in self._floats if isinstance(settings[name], int)}
        return {**settings, **floats}
