"""The studies that both trees run, as data: settings have the baseline's names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from same_as.differences import ADDED_STUDY_KEYS, MOVED, RENAMED_SETTINGS, RENAMED_STUDY_KEYS, RULES_OF_BEFORE
from tiny import TINY as TINY_TRIAL

TINY = {name: value for name, value in TINY_TRIAL.items() if name not in RULES_OF_BEFORE}  # of both trees
OWN = {"model.options.width": 4, "model.options.dropout": 0.2}
COUNTED = {**OWN, "model.architecture": "same_as_networks.Counted", "model.options.step": 14, "monitor.block_steps": 4}
SMALL = {"data.set_phi": False, "data.object_size": 40, "data.n_lines": 20, "training.learning_rate": 1e-3}
NOT_COLLAPSED = {"monitor.collapsed_spread": 1e-9, "monitor.collapsed_patch_variation": 1e-9}


def _clip(algorithm: str, value: float, **more: Any) -> dict[str, Any]:
    return {"execution.gradient_clip_algorithm": algorithm, "execution.gradient_clip_val": value, **more}


def _grid(setting: str, *values: Any, **fixed: Any) -> dict[str, dict[str, Any]]:
    """One arm a value, named after both."""
    short = setting.rpartition(".")[2]
    return {f"{short}_{value}": {**fixed, setting: value} for value in values}


def _residuals() -> dict[str, dict[str, Any]]:
    accepted = {
        "fno": ("plain", "zero_gamma", "layerscale", "depth", "skipinit"),
        "hybrid": ("plain", "depth", "skipinit"),
        "stable_hybrid": ("zero_gamma", "layerscale"),
        "bounded_hybrid": ("plain", "depth", "skipinit"),
    }
    return {
        f"{architecture}_{residual}": {"model.architecture": architecture, "model.residual": residual}
        for architecture, residuals in accepted.items()
        for residual in residuals
    }


ARMS: dict[str, dict[str, Any]] = {
    **_residuals(),
    # clipping
    "norm": _clip("norm", 0.3),
    "value": _clip("value", 0.01),
    "agc": _clip("agc", 0.01),
    "agc_fno": _clip("agc", 0.01) | {"model.architecture": "fno"},
    "agc_decoder": _clip("agc", 0.01) | {"execution.agc_exempt": "decoder", "model.architecture": "bounded_hybrid"},
    "zclip": _clip("zclip", 0.5) | {"training.epochs": 4},  # it only counts for 25 steps
    # schedules
    "warmup_steps": {"training.schedule": "warmup", "training.warmup_steps": 6},
    "warmup_epochs": {"training.schedule": "warmup", "training.warmup_epochs": 0.5},
    "cosine": {"training.schedule": "cosine"},
    "warmup_cosine": {"training.schedule": "warmup_cosine", "training.warmup_steps": 6},
    # optimisers and losses
    "adamw": {"training.optimizer": "adamw", "training.weight_decay": 0.05},
    "sgd": {"training.optimizer": "sgd", "training.momentum": 0.5, "training.learning_rate": 0.05},
    "stable_adamw": {"training.optimizer": "stable_adamw", "training.weight_decay": 0.01},
    "beta2": {"training.adam_beta2": 0.95},
    "mup": {"training.learning_rates": "mup", "training.mup_base_width": 2},
    "mup_stable": {"training.learning_rates": "mup", "model.architecture": "stable_hybrid"},
    "poisson": {"training.loss": "poisson"},
    # parts of networks
    "pre_norm": {"model.pre_norm": "rms"},
    **_grid("model.limiter", "blocks", "decoder", "both", **{"model.limiter_tau": 0.5}),
    **_grid("model.leaky", "blocks", "decoder", "both"),
    "group": {"model.decoder_norm": "group"},
    "tanh": {"model.stabiliser": "tanh"},
    "polar": {"model.head": "polar"},
    "layerscale_init": {"model.architecture": "fno", "model.residual": "layerscale", "model.layerscale_init": 0.1},
    "capped": {"model.fno_blocks": 4, "model.max_hidden_channels": 8},
    "floor": {"model.fno_blocks": 3, "model.min_resolution": 8},
    "deep": {"model.fno_blocks": 6, "model.checkpoint_blocks": True},
    "bfloat16": {"execution.convolution_precision": "bfloat16"},
    # data
    "other_data": {"data.seed": 5, "data.nphotons": 1e5, "data.nimgs_train": 2, "data.nimgs_test": 2},
    "amplitude_only": {"data.set_phi": False, "data.scan_stride_train": 6},
    "probe": {"data.probe.radius": 0.3, "data.probe.curvature_rad": 1.0},
    "vary_data": {"vary": ["initialisation", "data_order", "data"]},
    "vary_order": {"vary": ["data_order"]},
    "vary_initialisation": {"vary": ["initialisation"]},
    # failures, and what the monitor makes of them
    "own": {**OWN, "model.architecture": "same_as_networks.Plain"},
    "nonfinite": {**COUNTED, "training.epochs": 1, "training.batch_size": 4},
    "nonfinite_goes_on": {**COUNTED, "monitor.after_failure": "continue"},
    "overflow": {"training.learning_rate": 1e20},
    "exploded": SMALL,
    "collapsed": {"training.learning_rate": 0.2, "training.epochs": 1, "training.batch_size": 2},
    "spikes": {"training.learning_rate": 0.1, "training.batch_size": 2, **NOT_COLLAPSED},
    "long": {  # to be killed as well: clipping, schedule, Adam and random states have to go on then
        **OWN,
        **_clip("zclip", 0.5),
        "model.architecture": "same_as_networks.Plain",
        "training.epochs": 20,
        "training.batch_size": 4,
        "training.schedule": "warmup_cosine",
        "training.warmup_steps": 15,
    },
}


@dataclass(frozen=True)
class Study:
    """A study as it is written, by the baseline's names.

    Attributes:
        stress: as in a study file.
        seeds: as for ``--seeds``.
        count: how many trials that makes.
    """

    name: str
    arms: Mapping[str, Mapping[str, Any]]
    control: str
    seeds: str
    count: int
    roles: Mapping[str, str] = field(default_factory=dict)
    stress: Mapping[str, list[float]] = field(default_factory=dict)

    def text(self, *, renamed: bool) -> str:
        """The file, with the working tree's names if ``renamed`` and the baseline's if not."""
        settings, keys = (RENAMED_SETTINGS, RENAMED_STUDY_KEYS) if renamed else ({}, {})
        study = {
            "name": self.name,
            "description": "The same in two trees?",
            "control": self.control,
            "roles": dict(self.roles),
            "defaults": _renamed(TINY, settings) | (RULES_OF_BEFORE if renamed else {}),
            "stress": _renamed(self.stress, settings),
            "arms": {arm: _renamed(_moved(v) if renamed else v, settings) for arm, v in self.arms.items()},
        }
        written = _renamed({key: value for key, value in study.items() if value != {}}, keys)
        return yaml.safe_dump(written | (ADDED_STUDY_KEYS if renamed else {}), sort_keys=False)


def _moved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of parts that have moved in the working tree."""
    moved: dict[str, Any] = {}
    for name, value in values.items():
        moved |= MOVED.get((name, value) if isinstance(value, str) else ("", None), {name: value})
    return moved


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


ROLES = {"architecture": "arch_fix", "clipping": "opt_fix"}
ONE_SEED = "7,"  # and not the first, so that it counts whether a seed is heeded
TRAINED = Study("arms", ARMS, "hybrid_plain", ONE_SEED, len(ARMS))
KILLED = Study("killed", {"long": ARMS["long"]}, "long", ONE_SEED, 1)
LOCKSTEP = Study(
    "lockstep",
    {
        "control": NOT_COLLAPSED,  # in none: what collapsed is another question now
        "arch_fix": {
            **NOT_COLLAPSED,
            **_clip("zclip", 0.5),
            "model.architecture": "bounded_hybrid",
            "training.epochs": 4,
        },
        "opt_fix": _clip("agc", 0.01, **NOT_COLLAPSED),
        "stable": {"model.architecture": "stable_hybrid", "training.schedule": "cosine", **NOT_COLLAPSED},
    },
    "control",
    "3",
    12,
    roles=ROLES,
)
FIXTURES = (  # what the fixtures are made of: a shootout, one of depths, and a stress study
    Study(
        "decided",
        {
            "control": {"training.learning_rate": 0.015},
            "arch_fix": {"model.architecture": "stable_hybrid", "model.residual": "layerscale"},
            "opt_fix": _clip("agc", 0.01),
            "small_objects": SMALL,
            "overflow": {"training.learning_rate": 1e20},
        },
        "control",
        "4",
        20,
        roles=ROLES,
    ),
    Study("depths", {f"depth_{n}": {"model.fno_blocks": n} for n in (1, 2, 3)}, "depth_1", "3", 9),
    Study(
        "stressed",
        {"control": {}, "bounded": {"model.architecture": "bounded_hybrid"}},
        "control",
        "2",
        12,
        stress={"training.learning_rate": [0.002, 0.01, 0.05]},
    ),
)
