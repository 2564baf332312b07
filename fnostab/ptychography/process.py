"""Trials of one process: one, or several of one arm in lockstep."""

import logging
from collections.abc import Sequence
from pathlib import Path

from fnostab.ptychography.lockstep import train_in_lockstep
from fnostab.ptychography.training.trial import run_trial
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import TrialSpec

__all__ = ["train"]


def train(specs: Sequence[TrialSpec], directories: Sequence[Path]) -> list[Outcome | None]:
    """Outcomes of trials, which are trained side by side if they are several; None of one that broke off.

    Raises:
        FnostabError: a single one could not be started.
        LaunchError: they can't be trained in lockstep.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # Lightning sets it when it is imported
    if len(specs) > 1:
        return train_in_lockstep(specs, directories)
    return [run_trial(specs[0], directories[0])]
