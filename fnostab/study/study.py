"""A study file, and what it becomes: resolved arms, and a trial for each arm and seed.

Settings are laid over one another in this order, the later one winning: the program's defaults, the
profile, the policy that a verdict left (`fnostab.ptychography.policy`), the study's defaults, the study's settings
for that profile, the arm, and what the command line sets.
"""

import logging
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fnostab.errors import ConfigError, DataError
from fnostab.ptychography.policy import Policy, policy_path, read_policy
from fnostab.ptychography.settings import TrialConfig
from fnostab.record import names
from fnostab.record.settings import digest, file_sha256, flatten, read_yaml
from fnostab.record.trial import Name, StudySpec, TrialSpec
from fnostab.study.file import Settings, StudyFile, built_in_studies, read_study_file

__all__ = [
    "PROFILES",
    "Study",
    "StudyFile",
    "built_in_studies",
    "load_study",
    "profile_settings",
    "read_study_file",
    "resolve_profile",
]

PROFILES = ("auto", "full", "small")


class Study:
    """A study whose settings are all resolved and checked.

    Args:
        file: the study as written.
        profile: "small" or "full".
        overrides: dotted settings that win over everything else.
        policy: defaults that a verdict chose.

    Raises:
        ConfigError: an arm's settings are unknown, of the wrong type, or impossible together.
        DataError: the probe file is missing.
    """

    def __init__(
        self,
        file: StudyFile,
        profile: str,
        overrides: Mapping[str, Any] | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.file = file
        self.profile = profile
        self.policy = policy
        if file.knob is not None and file.knob in flatten(overrides or {}):
            raise ConfigError(f"{file.name} turns {file.knob} by itself: leave it out, or write a study of your own")
        self.arms = {arm: self._resolve(arm, overrides or {}) for arm in file.arms}
        for arm, config in self.arms.items():
            if file.primary_metric in names.PHASE_METRICS and not config.data.set_phi:
                raise ConfigError(
                    f"{file.name} decides on {file.primary_metric}, but arm {arm} has data.set_phi=false, so that the "
                    "object has no phase: set data.set_phi=true, or decide on another metric"
                )

    @property
    def hash(self) -> str:
        """Name of the resolved arms: the same study, started again, resumes; more seeds extend it."""
        return digest({arm: config.identity() for arm, config in self.arms.items()})

    def spec(self, experiment: str) -> StudySpec:
        """The record of this study in ``experiment``.

        Raises:
            ConfigError: the experiment's name is not accepted.
        """
        try:
            TypeAdapter(Name).validate_python(experiment)
        except ValidationError:
            raise ConfigError(
                f"experiment={experiment!r} is not accepted: it names a folder too, so start it with a letter or digit "
                "and use only these, dots, hyphens and underscores"
            ) from None
        depths = {config.model.fno_blocks for config in self.arms.values()}
        return StudySpec(
            name=self.file.name,
            hash=self.hash,
            experiment=experiment,
            profile=self.profile,
            description=self.file.description,
            control=self.file.control,
            arms={arm: flatten(config) for arm, config in self.arms.items()},
            roles={part: arm for part, arm in self.file.roles.items()},  # noqa: C416 - widens the keys to str
            primary_metric=self.file.primary_metric,
            higher_is_better=self.file.higher_is_better,
            loss_margin=self.file.loss_margin,
            alpha=self.file.alpha,
            depth=depths.pop() if len(depths) == 1 else None,
            knob=self.file.knob,
            stressed=self.file.stressed,
        )

    def trials(
        self, experiment: str, data_dir: str | Path, *, arms: Sequence[str] = (), seeds: Sequence[int] = ()
    ) -> list[TrialSpec]:
        """One trial for each seed and arm, seed by seed, so that a study cut short is still balanced.

        Args:
            experiment: MLflow experiment.
            data_dir: where data sets are cached.
            arms: only these; empty for all.
            seeds: empty for the study's own.

        A policy, and arms that go against it, are reported as warnings of the log.
        """
        unknown = [arm for arm in arms if arm not in self.arms]
        if unknown:
            raise ConfigError(f"{self.file.name} has no arm {unknown[0]!r}; arms: {', '.join(self.arms)}")
        for line in self._policy_notices(arms or list(self.arms)):
            logging.getLogger(__name__).warning("%s", line)
        own = self.file.seeds
        return [
            TrialSpec(
                experiment=experiment,
                study=self.file.name,
                study_hash=self.hash,
                profile=self.profile,
                arm=arm,
                seed=seed,
                config=self.arms[arm],
                data_dir=str(data_dir),
            )
            for seed in (seeds or (range(own) if isinstance(own, int) else own))
            for arm in (arms or self.arms)
        ]

    def _policy_notices(self, arms: Sequence[str]) -> list[str]:
        """What to know of the policy before ``arms`` are run, a line each."""
        if self.policy is None:
            return []
        lines = [f"policy {policy_path()} in force where an arm says nothing else: {self.policy.summary}"]
        for arm in arms:
            architecture = self.arms[arm].model.architecture
            if arm != self.file.control and architecture in self.policy.deprecated:
                lines.append(f"arm {arm} uses {architecture}, which that verdict deprecated: see `fnostab policy`")
        return lines

    def _resolve(self, arm: str, overrides: Mapping[str, Any]) -> TrialConfig:
        own: Settings = {}
        for layer in (*self.file.layers(arm, self.profile), overrides):
            own |= flatten(layer)
        of_policy = self.policy.settings_beside(own) if self.policy else {}
        settings = flatten(profile_settings(self.profile)) | of_policy | own
        path = settings.get("data.probe.path")
        if isinstance(path, str) and path:
            settings["data.probe.path"] = str(Path(path).absolute())
            try:
                settings["data.probe.sha256"] = file_sha256(path)
            except OSError as error:
                raise DataError(f"can't read the probe {path}: {error.strerror}; check data.probe.path") from error
            except ValueError as error:
                raise DataError(f"can't read the probe {path!r}: {error}; check data.probe.path") from None
        try:
            return TrialConfig.from_dotted(settings)
        except ConfigError as error:
            given = any(f"{name}.".startswith(f"{error.setting}.") for name in flatten(overrides) if error.setting)
            place = "" if given else self.file.place(arm, self.profile, error.setting)
            raise ConfigError(f"{place}arm {arm}: {error}") from None


def load_study(name: str, profile: str = "auto", overrides: Mapping[str, Any] | None = None) -> Study:
    """Load a built-in study by name, or one of your own by its path, under the policy in force.

    Raises:
        ConfigError: there is no such study or profile, it is not accepted, or the policy is damaged.
    """
    return Study(read_study_file(name), resolve_profile(profile), overrides, read_policy())


def resolve_profile(profile: str) -> str:
    """``auto`` as ``full`` where there is an NVIDIA GPU, as ``small`` elsewhere."""
    if profile not in PROFILES:
        raise ConfigError(f"profile={profile!r} is not known; accepted: {', '.join(PROFILES)}")
    if profile == "auto":
        return "full" if count_gpus() else "small"
    return profile


@cache
def count_gpus() -> int:
    """NVIDIA GPUs of this machine. Asks the driver, so that torch need not be imported."""
    if not shutil.which("nvidia-smi"):
        return 0
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return listing.stdout.count("GPU ") if listing.returncode == 0 else 0


def profile_settings(profile: str) -> Settings:
    """What a profile sets."""
    text = (resources.files("fnostab.ptychography") / "profiles" / f"{profile}.yaml").read_text()
    return read_yaml(text) or {}
