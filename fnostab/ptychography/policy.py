"""Policy: default settings for new studies, chosen by a verdict.

The policy is a separate file, which a group can keep under version control:

    settings: {execution.gradient_clip_algorithm: agc, execution.gradient_clip_val: 0.01}
    deprecated: []
    verdict: {headline: SILVER, run: 5f0c..., date: '2026-03-01', conditions: [...]}

Applying a verdict writes it, and applying another replaces it. Its settings override the profile's and are
overridden by a study's own, see `Policy.settings_beside`.
"""

import datetime
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import field_validator

from fnostab.errors import ConfigError, os_errors_as
from fnostab.ptychography.settings import ExecutionConfig, ModelConfig, TrialConfig
from fnostab.ptychography.user_parts import is_own
from fnostab.record.safe_files import write_whole
from fnostab.record.settings import Frozen, flatten, read_yaml_file, shown

MODEL_NAME = "fnostab-generator"  # name in MLflow's model registry
CHAMPION = "champion"  # alias of the network registered by the last GOLD verdict
FILE_NAME = "fnostab-policy.yaml"
VARIABLE = "FNOSTAB_POLICY"
HEADER = "# Defaults that a verdict chose; `fnostab policy` shows them. Without this file they no longer apply.\n"
SIZES = {"N", "hidden_channels", "fno_blocks", "fno_modes", "max_hidden_channels", "checkpoint_blocks"}
CLIPPING = ("gradient_clip_algorithm", "gradient_clip_val", "agc_exempt")
OPTIONS = "training.options"  # options of custom clipping
GROUPS = {  # settings that only make sense together
    "architecture": tuple(f"model.{name}" for name in ModelConfig.model_fields if name not in SIZES),
    "clipping": (*(f"execution.{name}" for name in CLIPPING), OPTIONS),
}
ALWAYS = {"model.architecture", "model.residual", "model.layerscale_init"}  # others only if not the default
Settings = dict[str, Any]  # by dotted name


class Source(Frozen):
    """Verdict that a policy is based on.

    Attributes:
        headline: headline such as "GOLD" or "leaning GOLD (could be luck)".
        run: id of the verdict's run.
        date: date on which it was applied.
        conditions: conditions under which it was reached, one per line.
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
        N = 64 * max(met, 1) if isinstance(met, int) else 64  # a size whose halvings include it
        try:
            TrialConfig.from_dotted({"data.N": N, "data.object_size": 2 * N} | settings)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return settings

    @property
    def summary(self) -> str:
        """One-line summary of the settings and the verdict."""
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{settings} ({self.verdict.headline}, verdict run {self.verdict.run})"

    def settings_beside(self, named: Iterable[str]) -> Settings:
        """Settings of the policy that apply to an arm which sets ``named`` itself.

        The groups architecture and clipping apply as a whole or not at all: an arm that sets one setting of a group
        gets the program's defaults for the rest. An arm written without the policy in mind, such as
        ``model.architecture: hybrid``, therefore means the same with and without it. ``training.options`` of an arm
        count as clipping only if the policy has options too.

        Args:
            named: dotted names of the arm's own settings.
        """
        has_options = any(_is_of(name, OPTIONS) for name in self.settings)
        taken = {_group(name) for name in named if has_options or not _is_of(name, OPTIONS)}
        return {name: value for name, value in self.settings.items() if _group(name) not in taken}

    def write(self, path: Path) -> None:
        """Write the policy to ``path`` atomically.

        Raises:
            ConfigError: the file can't be written.
        """
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        with os_errors_as(ConfigError, f"can't write the policy {path}", f"{VARIABLE} names another"):
            write_whole(path, HEADER + text)


def architecture_policy(winner: Mapping[str, Any], control: Mapping[str, Any], verdict: Source) -> Policy:
    """Create the policy of GOLD: the winner's architecture with its non-default settings; deprecate the control's."""
    settings = _of_group(winner, "architecture")
    if winner["model.residual"] != "layerscale":
        settings.pop("model.layerscale_init", None)
    usual = flatten(TrialConfig(model=ModelConfig(architecture=winner["model.architecture"])))
    settings = {name: value for name, value in settings.items() if name in ALWAYS or value != usual.get(name, ...)}
    old, new = control["model.architecture"], winner["model.architecture"]
    return Policy(settings=settings, deprecated=() if old == new else (old,), verdict=verdict)


def clipping_policy(winner: Mapping[str, Any], verdict: Source) -> Policy:
    """Create the policy of SILVER: the gradient clipping of the winner, an arm's dotted settings."""
    settings = _of_group(winner, "clipping")
    if settings.get("execution.agc_exempt") == ExecutionConfig.model_fields["agc_exempt"].default:
        settings.pop("execution.agc_exempt")
    if not is_own(winner["execution.gradient_clip_algorithm"]):  # the options belong to another part
        settings = {name: value for name, value in settings.items() if not _is_of(name, OPTIONS)}
    return Policy(settings=settings, verdict=verdict)


def policy_path() -> Path:
    """Path of the policy file: FNOSTAB_POLICY, or ``fnostab-policy.yaml`` in the working directory."""
    return Path(os.environ.get(VARIABLE) or FILE_NAME)


def read_policy() -> Policy | None:
    """Read the current policy; None if there is none.

    Raises:
        ConfigError: the file can't be read, or is not a valid policy.
    """
    try:
        return read_yaml_file(policy_path(), "policy", Policy, "settings: {model.architecture: fno}")
    except ConfigError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise ConfigError(f"{error}; fix it, or delete it") from error


def _group(name: str) -> str | None:
    for group, members in GROUPS.items():
        if any(_is_of(name, member) for member in members):
            return group
    return None


def _is_of(name: str, setting: str) -> bool:
    """Whether a dotted name is ``setting`` or one of its options."""
    return name == setting or name.startswith(f"{setting}.")


def _of_group(settings: Mapping[str, Any], group: str) -> Settings:
    return {name: value for name, value in settings.items() if _group(name) == group and value != {}}
