"""Prepare a study: check networks, probes and devices, and create the data sets that its arms share."""

from collections.abc import Sequence

import torch

from fnostab.gpus import count_gpus
from fnostab.ptychography.data import prepare, probe_of
from fnostab.ptychography.first_step import insist_on_first_step
from fnostab.ptychography.lockstep import insist_on_lockstep
from fnostab.ptychography.models import build_generator, check_generator
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.setup import choose_device
from fnostab.record.trial import TrialSpec


def prepare_trials(trials: Sequence[str], *, here: bool, lockstep: bool) -> list[str]:
    """Check networks, probes and a training step of each arm, then create the shared data sets.

    Args:
        trials: all trials of the study, as JSON.
        here: whether the trials run on this machine; only then the device is checked.
        lockstep: whether seeds are trained in lockstep.

    Returns:
        Notices, a line each.

    Raises:
        FnostabError: a network, a probe or the device can't be used, or a training step fails.
    """
    specs = list(map(TrialSpec.model_validate_json, trials))
    configs = {spec.arm: TrialConfig.from_dotted(spec.settings) for spec in specs}
    for arm, config in configs.items():
        if here:
            choose_device(config.execution.device)
        generator = build_generator(config.model)
        check_generator(generator, config.data.N)
        if lockstep:
            insist_on_lockstep([next(spec for spec in specs if spec.arm == arm)])
        probe_of(config.data)
    insist_on_first_step(configs, here=here)
    shared = {c.data.model_dump_json(): (c, spec) for spec in specs if "data" not in (c := configs[spec.arm]).vary}
    for config, spec in shared.values():
        prepare(config.data, config.data_seed(spec.seed), spec.shared_dir)
    unused = here and count_gpus() and not torch.cuda.is_available()
    if unused and any(config.execution.device == "auto" for config in configs.values()):
        return ["torch can't use the GPU of this machine, so trials run on the CPU: `fnostab doctor` says why"]
    return []
