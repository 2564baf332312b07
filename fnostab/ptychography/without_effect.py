"""Settings that have no effect beside others: a warning names them, and nothing is refused.

A study may well give one setting to all arms of which some do not read it. What a part of your own reads is not known,
so nothing is said of settings that it may read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fnostab.ptychography.settings import TrialConfig
from fnostab.record.settings import value_text

__all__ = ["unread_lines", "unread_settings"]

MOST_ARMS = 4  # that a line names


def unread_settings(config: TrialConfig) -> dict[str, str]:
    """Settings that a trial does not read, each with the setting because of which, as ``model.architecture=fno``."""
    data, model, training, execution = config.data, config.model, config.training, config.execution
    unread: dict[str, str] = {}
    if data.object.path is not None:
        unread |= dict.fromkeys(("data.object.kind", "data.n_lines"), "data.object.path")
    elif data.object.kind != "lines":
        unread["data.n_lines"] = f"data.object.kind={data.object.kind}"
    if data.probe.path is not None:
        unread |= dict.fromkeys(("data.probe.radius", "data.probe.curvature_rad"), "data.probe.path")
    if not model.own:
        if model.architecture == "fno":
            halving = ("model.max_hidden_channels", "model.min_resolution", "model.down_kernel")
            unread |= dict.fromkeys(halving, "model.architecture=fno")
        if model.residual != "layerscale":
            unread["model.layerscale_init"] = f"model.residual={model.residual}"
        if model.limiter == "none":
            unread["model.limiter_tau"] = "model.limiter=none"
    if not training.own and training.optimizer != "sgd":
        unread["training.momentum"] = f"training.optimizer={training.optimizer}"
    if execution.gradient_clip_val is None:
        clipping = ("execution.gradient_clip_algorithm", "execution.agc_exempt")
        unread |= dict.fromkeys(clipping, "execution.gradient_clip_val=null")
    elif not execution.own and execution.gradient_clip_algorithm != "agc":
        unread["execution.agc_exempt"] = f"execution.gradient_clip_algorithm={execution.gradient_clip_algorithm}"
    return unread


def unread_lines(given: Mapping[str, Mapping[str, Any]], configs: Mapping[str, TrialConfig]) -> list[str]:
    """A line for each setting that was given to arms which do not read it.

    Args:
        given: dotted settings that were given to each arm, as far as they are not what they would be anyway.
        configs: of the same arms.
    """
    arms_of: dict[tuple[str, str], list[str]] = {}
    for arm, settings in given.items():
        unread = unread_settings(configs[arm])
        for name in settings:
            if name in unread:
                arms_of.setdefault((f"{name}={value_text(settings[name])}", unread[name]), []).append(arm)
    return [
        f"{setting} has no effect in {_named(arms, len(configs))}, with {other}"
        for (setting, other), arms in arms_of.items()
    ]


def _named(arms: Sequence[str], n_asked: int) -> str:
    if len(arms) == n_asked > 1:
        return "any arm"
    if len(arms) > MOST_ARMS:
        return f"{len(arms)} of {n_asked} arms"
    return f"arm{'s' if len(arms) > 1 else ''} {', '.join(arms)}"
