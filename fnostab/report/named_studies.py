"""The studies of a store that a command names."""

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class StoredStudies:
    """Studies in a store that are judged together, each named by its experiment and run; None is the newest run.

    ``tracking_uri`` is the store's address as the user gave it, for commands to be pasted; None if none was given.
    """

    experiment: str
    deep_experiment: str | None = None
    study_run: str | None = None
    deep_study_run: str | None = None
    tracking_uri: str | None = None

    @property
    def places(self) -> dict[str, tuple[str, str | None]]:
        """Experiment and study run of each stage."""
        deep = {"b": (self.deep_experiment, self.deep_study_run)} if self.deep_experiment else {}
        return {"a": (self.experiment, self.study_run), **deep}

    @property
    def as_options(self) -> str:
        """Command-line options that name these studies."""
        given = {name: value for name, value in vars(self).items() if value}
        return shlex.join(word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value))
