"""Run one trial, from its configuration to its outcome.

Everything is written to the trial's journal as soon as it is known, and the outcome last, so that the files are
consistent whenever the process dies. MLflow is not used here.
"""

import json
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fnostab
from fnostab.errors import CheckpointError, one_line
from fnostab.monitor import BlackBox, BlockStatistics, ResourceSampler, Snapshots, StabilityMonitor
from fnostab.monitor.state import read_state
from fnostab.ptychography.data import Split, dataset_digest
from fnostab.ptychography.figures.trial import reconstruction_figure
from fnostab.ptychography.models import parameter_count
from fnostab.ptychography.physics.alignment import align
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.checkpoint import BestCheckpoint
from fnostab.ptychography.training.environment import describe_environment, git_state, owner
from fnostab.ptychography.training.precision import arithmetic
from fnostab.ptychography.training.reconstruction import predict, reconstruct, score, score_halves
from fnostab.ptychography.training.setup import Training, choose_device, set_up, watched_blocks
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.outcomes import FAILURES, Judgement, Outcome, outcome_payload
from fnostab.record.process_end import outcome_of
from fnostab.record.safe_files import write_whole
from fnostab.record.settings import flatten
from fnostab.record.trial import TrialSpec


def run_trial(
    spec: TrialSpec,
    directory: Path,
    make: Callable[[TrialSpec], Training] = set_up,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> Outcome:
    """Train, judge and test one trial, and write its journal and artifacts into ``directory``.

    Args:
        spec: specification of the trial.
        directory: folder of the trial.
        make: function that sets up the training.
        tags: additional tags to record.

    Returns:
        A training outcome, ``oom`` or ``killed``. An observed failure takes precedence over whatever ended the trial
        later.

    Raises:
        FnostabError: the trial could not be started, or its journal can't be written.
        Exception: any other error, re-raised after ``infra_error`` is recorded.
    """
    with Journal(directory) as journal:
        try:
            return _run(spec, directory, journal, make, tags)
        except BaseException as error:
            outcome = outcome_of(error)
            requested = outcome is Outcome.KILLED  # not an error of the trial
            payload = outcome_payload(Judgement(outcome), one_line(error), requested=requested)
            journal.event(names.OUTCOME_EVENT, payload)
            if outcome is Outcome.INFRA_ERROR:
                raise
            return outcome


def _run(
    spec: TrialSpec, directory: Path, journal: Journal, make: Callable[[TrialSpec], Training], tags: Mapping[str, str]
) -> Outcome:
    config = TrialConfig.from_dotted(spec.settings)
    device = choose_device(config.execution.device)
    journal.event(names.PARAMS_EVENT, {**flatten(config), "seed": spec.seed, "arm": spec.arm})
    commit = git_state()["commit"]
    journal.event(
        names.TAGS_EVENT,
        {names.OWNER: owner(), names.DEVICE: device.type, names.VERSION: fnostab.__version__, **tags}
        | ({names.GIT_COMMIT: commit} if commit else {}),
    )
    environment = describe_environment(device)
    _record_origin(config, spec.seed, environment, journal)

    training = make(spec)
    generator = training.module.generator
    journal.record(0, {names.CONSTANT_LOSS: training.constant_loss, names.PARAMETERS: parameter_count(generator)})
    if (noise_floor := training.module.noise_floor()) is not None:
        journal.record(0, {names.NOISE_FLOOR_LOSS: noise_floor})

    monitor = training.monitor(journal)
    snapshots = Snapshots(monitor, directory)
    black_box = BlackBox(
        monitor,
        snapshots,
        directory / "artifacts" / names.BLACK_BOX,
        about={"trial": spec.model_dump(mode="json"), "environment": environment},
        announce=lambda folder: _announce(journal, folder, names.BLACK_BOX),
    )
    checkpoint = directory / "artifacts" / "best.safetensors"
    callbacks = [
        monitor,
        snapshots,
        black_box,
        BestCheckpoint(checkpoint, spec),
        BlockStatistics(journal, watched_blocks(generator)),
        ResourceSampler(journal),
    ]
    reason = None
    try:
        training.fit(callbacks, device, directory, _resume_point(snapshots.resume, journal))
        _test(training, device, directory, journal, monitor)
        if checkpoint.exists():
            _announce(journal, checkpoint, "checkpoint")
        if monitor.judgement is None:  # Lightning swallowed an interrupt
            raise KeyboardInterrupt("training was interrupted")
    except BaseException as error:
        if monitor.judgement is None or monitor.judgement.outcome not in FAILURES:
            raise
        reason = one_line(error)  # an observed failure takes precedence over what ended the trial later
        if not isinstance(error, KeyboardInterrupt | SystemExit):
            traceback.print_exc()
    judgement = monitor.judgement
    journal.event(names.OUTCOME_EVENT, outcome_payload(judgement, reason))
    snapshots.remove_files()
    return judgement.outcome


def _record_origin(config: TrialConfig, seed: int, environment: Mapping[str, Any], journal: Journal) -> None:
    """Record what the results come from: packages and hardware, and the data set."""
    path = journal.directory / "artifacts" / "environment.json"
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps(environment, indent=2) + "\n")
    _announce(journal, path, "")
    data_seed = config.data_seed(seed)
    name, source = "grid_lines", f"fnostab simulation, data seed {data_seed}"
    if config.data.path is not None:
        name, source = "measured_scan", f"{Path(config.data.path).name}, sha256 {config.data.sha256}"
    digest = dataset_digest(config.data, data_seed)
    journal.event(names.DATASET_EVENT, {"name": name, "digest": digest, "source": source})


def _test(
    training: Training, device: torch.device, directory: Path, journal: Journal, monitor: StabilityMonitor
) -> None:
    """Score and draw the reconstructions of the test set."""
    config, data = training.config, training.data

    def reconstructed(split: Split) -> list[tuple[Tensor, Tensor]]:
        with arithmetic(config.execution.convolution_precision, device):
            patches = predict(training.module.to(device), split, device)
        return reconstruct(patches, split, config.data, data.probe)

    pairs = reconstructed(data.test)
    halves = not len(data.test.objects)
    journal.record(max(monitor.steps_read - 1, 0), score_halves(pairs) if halves else score(pairs, config.data))
    if config.data.path is not None:
        pairs = [*reconstructed(data.whole), *pairs]
    named = ("first half", "second half") if halves else ("predicted", "reference" if config.data.path else "true")
    for path in draw_reconstructions(directory / "artifacts", pairs, phase=config.data.set_phi, named=named):
        _announce(journal, path, "figures")


def draw_reconstructions(
    folder: Path, pairs: list[tuple[Tensor, Tensor]], *, phase: bool, named: tuple[str, str]
) -> list[Path]:
    """Save one figure for each (stitched prediction, truth), with titles ``named``; return the files."""
    paths = []
    for index, (prediction, truth) in enumerate(pairs):
        pair = align(prediction, truth)
        predicted = pair.amplitude * np.exp(1j * pair.phase)
        true = pair.true_amplitude * np.exp(1j * pair.true_phase)
        paths.append(folder / f"reconstruction_{index}.png")
        reconstruction_figure(predicted, true, phase, named).savefig(paths[-1])
    return paths


def _resume_point(path: Path, journal: Journal) -> Path | None:
    """State file of an earlier attempt; None if there is none or it is damaged."""
    if not path.exists():
        return None
    try:
        step = read_state(path)["global_step"]
    except CheckpointError as error:
        warnings.warn(f"{error}; the trial starts from the beginning", stacklevel=2)
        path.unlink()
        return None
    journal.event(names.RESUMED_EVENT, {"step": step})
    return path


def _announce(journal: Journal, path: Path, folder: str) -> None:
    relative = path.relative_to(journal.directory).as_posix()
    journal.event(names.ARTIFACT_EVENT, {"path": relative, "artifact_path": folder})
