"""The policy: what a verdict made the default for new studies and training.

It is a file of its own, so that a group can keep it under version control:

    settings: {execution.gradient_clip_algorithm: agc, execution.gradient_clip_val: 0.01}
    deprecated: []
    verdict: {headline: SILVER, run: 5f0c..., date: '2026-03-01', conditions: [...]}

One verdict puts it there, and the next one to be applied replaces it. Its settings lie between the
profile and what a study says itself: see `Policy.settings_beside`.
"""

import datetime
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, field_validator

from fnostab.errors import ConfigError, os_errors_as
from fnostab.ptychography.settings import ExecutionConfig, ModelConfig, TrialConfig
from fnostab.ptychography.user_parts import is_own
from fnostab.record.safe_files import write_whole
from fnostab.record.settings import Frozen, explain, flatten, read_yaml, shown, text_of

__all__ = [
    "CHAMPION",
    "MODEL_NAME",
    "Policy",
    "Source",
    "architecture_policy",
    "clear_policy",
    "clipping_policy",
    "policy_path",
    "read_policy",
]

MODEL_NAME = "fnostab-generator"  # in MLflow's model registry
CHAMPION = "champion"  # alias of the network that the last GOLD registered
FILE_NAME = "fnostab-policy.yaml"
VARIABLE = "FNOSTAB_POLICY"
HEADER = "# Defaults that a verdict chose. `fnostab policy` shows them, `fnostab policy --clear` removes them.\n"
SIZES = {"N", "hidden_channels", "fno_blocks", "fno_modes", "max_hidden_channels", "checkpoint_blocks"}
CLIPPING = ("gradient_clip_algorithm", "gradient_clip_val", "agc_exempt")
OPTIONS = "training.options"  # of clipping of one's own
GROUPS = {  # settings that only make sense together
    "architecture": tuple(f"model.{name}" for name in ModelConfig.model_fields if name not in SIZES),
    "clipping": (*(f"execution.{name}" for name in CLIPPING), OPTIONS),
}
ALWAYS = {"model.architecture", "model.residual", "model.layerscale_init"}  # others only if not the usual ones
Settings = dict[str, Any]  # by dotted name


class Source(Frozen):
    """The verdict that put a policy there.

    Attributes:
        headline: as in "GOLD" or "leaning GOLD (could be luck)".
        date: when it was applied.
        conditions: what it holds for, a line each.
    """

    headline: str
    run: str
    date: datetime.date
    conditions: tuple[str, ...] = ()


class Policy(Frozen):
    """Settings by dotted name, and the architectures that new arms should no longer use."""

    settings: Settings
    deprecated: tuple[str, ...] = ()
    verdict: Source

    @field_validator("settings")
    @classmethod
    def _accepted(cls, settings: Settings) -> Settings:
        for name in settings:
            if _group(name) is None:
                accepted = ", ".join(name for group in GROUPS.values() for name in group)
                raise ValueError(f"unknown setting {shown(name)}; a policy accepts {accepted}")
        met = settings.get("model.min_resolution")
        N = 64 * max(met, 1) if isinstance(met, int) else 64  # which halving brings down to it
        try:
            TrialConfig.from_dotted({"data.N": N, "data.object_size": 2 * N} | settings)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return settings

    @property
    def summary(self) -> str:
        """Settings and verdict of the policy in one line."""
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{settings} ({self.verdict.headline}, verdict run {self.verdict.run})"

    def settings_beside(self, named: Iterable[str]) -> Settings:
        """The settings that hold where an arm names the settings ``named`` itself.

        Architecture and clipping are taken whole or not at all: an arm that names one setting of
        a group has the program's defaults for the rest of it. So an arm written without the policy
        in mind, such as ``model.architecture: hybrid``, means the same with it and without. Options of an arm's own
        optimiser are no clipping, unless the policy has options too.
        """
        has_options = any(_is_of(name, OPTIONS) for name in self.settings)
        taken = {_group(name) for name in named if has_options or not _is_of(name, OPTIONS)}
        return {name: value for name, value in self.settings.items() if _group(name) not in taken}

    def write(self, path: Path) -> None:
        """Write to ``path``, atomically.

        Raises:
            ConfigError: it can't be written.
        """
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        with os_errors_as(ConfigError, f"can't write the policy {path}", f"{VARIABLE} names another"):
            write_whole(path, HEADER + text)


def architecture_policy(winner: Mapping[str, Any], control: Mapping[str, Any], verdict: Source) -> Policy:
    """The policy of GOLD: the winner's architecture and what is special in it; control's architecture is deprecated."""
    settings = _of_group(winner, "architecture")
    if winner["model.residual"] != "layerscale":
        settings.pop("model.layerscale_init", None)
    usual = flatten(TrialConfig(model=ModelConfig(architecture=winner["model.architecture"])))
    settings = {name: value for name, value in settings.items() if name in ALWAYS or value != usual.get(name, ...)}
    old, new = control["model.architecture"], winner["model.architecture"]
    return Policy(settings=settings, deprecated=() if old == new else (old,), verdict=verdict)


def clipping_policy(winner: Mapping[str, Any], verdict: Source) -> Policy:
    """The policy of SILVER: how the winner, an arm given by its dotted settings, clips gradients."""
    settings = _of_group(winner, "clipping")
    if settings.get("execution.agc_exempt") == ExecutionConfig.model_fields["agc_exempt"].default:
        settings.pop("execution.agc_exempt")
    if not is_own(winner["execution.gradient_clip_algorithm"]):  # options are those of another part
        settings = {name: value for name, value in settings.items() if not _is_of(name, OPTIONS)}
    return Policy(settings=settings, verdict=verdict)


def policy_path() -> Path:
    """Path of the policy: FNOSTAB_POLICY, or ``fnostab-policy.yaml`` in the working directory."""
    return Path(os.environ.get(VARIABLE) or FILE_NAME)


def read_policy() -> Policy | None:
    """The policy in force; None if there is none.

    Raises:
        ConfigError: its file can't be read, or is no policy.
    """
    path = policy_path()
    try:
        values = read_yaml(text_of(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"can't read the policy {path}: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(f"the policy {path} is not YAML: {error}; {_way_out()}") from error
    try:
        return _parse(values)
    except ConfigError as error:
        raise ConfigError(f"the policy {path}: {error}; {_way_out()}") from None


def clear_policy() -> bool:
    """Remove the policy's file, readable or not; answer whether there was one.

    Raises:
        ConfigError: it can't be removed.
    """
    path = policy_path()
    with os_errors_as(ConfigError, f"can't remove the policy {path}"):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
    return True


def _parse(values: Any) -> Policy:
    if not isinstance(values, dict):
        raise ConfigError("expected a mapping with settings, deprecated and verdict")
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, Policy)) from None


def _way_out() -> str:
    return "fix it, or remove it with `fnostab policy --clear`"


def _group(name: str) -> str | None:
    for group, members in GROUPS.items():
        if any(_is_of(name, member) for member in members):
            return group
    return None


def _is_of(name: str, setting: str) -> bool:
    """Whether a dotted name is a setting, or one of the options that it holds."""
    return name == setting or name.startswith(f"{setting}.")


def _of_group(settings: Mapping[str, Any], group: str) -> Settings:
    return {name: value for name, value in settings.items() if _group(name) == group and value != {}}
