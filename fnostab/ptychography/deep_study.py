"""Load a deep study with the arms that an earlier study chose."""

from collections.abc import Mapping
from typing import Any

from fnostab.errors import ConfigError
from fnostab.ptychography.task import Ptychography
from fnostab.record.settings import flatten
from fnostab.record.trial import StudySpec
from fnostab.study.study import Study, StudyFile

__all__ = ["deep_study"]

DEPTH = "model.fno_blocks"


def deep_study(
    file: StudyFile, earlier: StudySpec, profile: str = "auto", overrides: Mapping[str, Any] | None = None
) -> Study:
    """The arms, roles and rules of ``earlier``, with what ``file`` says to all arms or to their profile laid over.

    An arm keeps every other setting that it was run with, as its learning rate; those in ``file`` of the arms
    themselves take no part. The profile is that of ``earlier``. ``overrides`` win over everything else.

    Raises:
        ConfigError: the profile is another, a setting is not accepted, or an arm would be no deeper than it was.
    """
    task = Ptychography()
    if profile != "auto" and task.choose_profile(profile, gpus=False) != earlier.profile:
        raise ConfigError(
            f"profile={profile!r}, but {earlier.experiment} was run with the {earlier.profile} profile, whose settings "
            "its arms keep: leave out --profile"
        )
    said = flatten(file.defaults) | flatten(file.profiles.get(earlier.profile or "", {}))
    arms = {arm: dict(settings) | said for arm, settings in earlier.arms.items()}
    own = {
        "control": earlier.control,
        "arms": arms,
        "roles": dict(earlier.roles),
        "metric": earlier.metric,
        "margin": earlier.margin,
        "alpha": earlier.alpha,
        "defaults": {},
        "profiles": {},
    }
    study = Study(file.model_copy(update=own), earlier.profile, overrides, task)
    for arm, settings in study.arms.items():
        before = earlier.arms[arm].get(DEPTH)
        if before is not None and settings[DEPTH] <= before:
            raise ConfigError(
                f"{DEPTH}={settings[DEPTH]} is not deeper than arm {arm} was in {earlier.experiment} "
                f"({before}): set more, as with --set {DEPTH}={2 * before}"
            )
    return study
