"""Prepare a study: make the data sets that its arms share, and refuse networks and probes that can't be used."""

import time
from collections.abc import Sequence

from rich.console import Console

from fnostab.ptychography.data import prepare
from fnostab.ptychography.lockstep import insist_on_lockstep
from fnostab.ptychography.models import build_generator, check_generator
from fnostab.ptychography.physics.probe import make_probe
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.first_step import insist_on_first_step
from fnostab.ptychography.training.setup import choose_device
from fnostab.record.trial import TrialSpec

__all__ = ["prepare_trials"]


def prepare_trials(trials: Sequence[TrialSpec], console: Console, *, here: bool, lockstep: bool) -> None:
    """Make the data sets that all arms share, and see that the launcher can use networks and probes.

    Raises:
        FnostabError: a network, a probe or the device can't be used, or a training step fails.
    """
    configs = {trial.arm: TrialConfig.from_dotted(trial.settings) for trial in trials}
    for arm, config in configs.items():
        if here:
            choose_device(config.execution.device)
        generator = build_generator(config.model)
        check_generator(generator, config.data.N)
        if lockstep:
            insist_on_lockstep([next(trial for trial in trials if trial.arm == arm)])
        make_probe(config.data.probe, config.data.N)
    started = time.monotonic()
    console.print("trying a step of each arm ...", end=" ")
    insist_on_first_step(configs, here=here)
    console.print(f"{time.monotonic() - started:.1f} s")
    shared = {c.data.model_dump_json(): (c, t) for t in trials if "data" not in (c := configs[t.arm]).vary}
    for config, trial in shared.values():
        started = time.monotonic()
        console.print("preparing the data set ...", end=" ")
        prepare(config.data, config.data_seed(trial.seed), trial.shared_dir)
        console.print(f"{time.monotonic() - started:.1f} s")
