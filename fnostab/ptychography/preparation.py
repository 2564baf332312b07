"""Prepare a study: check networks, probes and devices, and create the data sets that its arms share."""

from collections.abc import Sequence

import torch
from rich.console import Console

from fnostab.gpus import count_gpus
from fnostab.ptychography.data import prepare, probe_of
from fnostab.ptychography.first_step import insist_on_first_step
from fnostab.ptychography.lockstep import insist_on_lockstep
from fnostab.ptychography.models import build_generator, check_generator
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.setup import choose_device
from fnostab.record.trial import TrialSpec
from fnostab.show.console import say, timed


def prepare_trials(trials: Sequence[TrialSpec], console: Console, *, here: bool, lockstep: bool) -> None:
    """Check networks, probes and a training step of each arm, then create the shared data sets.

    Args:
        trials: all trials of the study.
        console: console for progress.
        here: whether the trials run on this machine; only then the device is checked.
        lockstep: whether seeds are trained in lockstep.

    Raises:
        FnostabError: a network, a probe or the device can't be used, or a training step fails.
    """
    configs = {trial.arm: TrialConfig.from_dotted(trial.settings) for trial in trials}
    unused = here and count_gpus() and not torch.cuda.is_available()
    if unused and any(config.execution.device == "auto" for config in configs.values()):
        say(console, "torch can't use the GPU of this machine, so trials run on the CPU: `fnostab doctor` says why")
    for arm, config in configs.items():
        if here:
            choose_device(config.execution.device)
        generator = build_generator(config.model)
        check_generator(generator, config.data.N)
        if lockstep:
            insist_on_lockstep([next(trial for trial in trials if trial.arm == arm)])
        probe_of(config.data)
    with timed(console, "trying a step of each arm"):
        insist_on_first_step(configs, here=here)
    shared = {c.data.model_dump_json(): (c, t) for t in trials if "data" not in (c := configs[t.arm]).vary}
    for config, trial in shared.values():
        with timed(console, "preparing the data set"):
            prepare(config.data, config.data_seed(trial.seed), trial.shared_dir)
