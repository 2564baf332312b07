"""Warn about settings that have no effect in combination with others.

Such settings are not refused, since a study may set them for all arms although some do not use them. It is not known
which settings a custom part uses, so there is no warning about settings that it may use.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fnostab.ptychography.settings import TrialConfig
from fnostab.record.settings import value_text

MOST_ARMS = 4  # maximum number of arms named in a warning


def unread_settings(config: TrialConfig) -> dict[str, str]:
    """Settings that a trial does not use, each with the cause, such as ``model.architecture=fno``."""
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
    """One warning for each setting that is given to arms which do not use it.

    Args:
        given: for each arm, the dotted settings given to it that differ from the default.
        configs: configurations of the same arms.
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
