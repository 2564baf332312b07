"""One trial from its configuration to its outcome. It reads from top to bottom.

Everything that is known is written to the trial's journal as soon as it is known, and the outcome
last, so that what is on disk is right whenever the process dies. No MLflow here.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import nn

import fnostab
from fnostab import names
from fnostab.callbacks import BlockStatistics, ResourceSampler, StabilityMonitor
from fnostab.callbacks.exceptions import one_line, outcome_of
from fnostab.config import flatten
from fnostab.data import GridLinesData, dataset_digest, prepare
from fnostab.errors import LaunchError
from fnostab.journal import Journal
from fnostab.models import build_initialised, parameter_count, residual_blocks
from fnostab.outcomes import Outcome
from fnostab.seeding import stream_seed
from fnostab.training.checkpoint import BestCheckpoint
from fnostab.training.environment import describe_environment, git_state, owner
from fnostab.training.module import PtychoModule
from fnostab.training.reconstruction import predict, reconstruct, score
from fnostab.training.trial_figures import draw_history, draw_reconstructions
from fnostab.trial import TrialSpec

__all__ = ["run_trial", "watched_blocks"]


def run_trial(spec: TrialSpec, directory: Path) -> Outcome:
    """Train, judge and test one trial, writing its journal and artifacts into ``directory``.

    Returns:
        Its outcome: a training outcome, ``oom`` or ``killed``.

    Raises:
        FnostabError: it could not be started, or its journal can't be written.
        Exception: whatever else went wrong, after ``infra_error`` was written.
    """
    with Journal(directory) as journal:
        try:
            return _run(spec, directory, journal)
        except BaseException as error:
            outcome = outcome_of(error)
            _end(journal, outcome, error)
            if outcome is Outcome.INFRA_ERROR:
                raise
            return outcome


def _run(spec: TrialSpec, directory: Path, journal: Journal) -> Outcome:
    config = spec.config
    device = _device(config.execution.device)
    journal.event(names.PARAMS_EVENT, {**flatten(config), "seed": spec.seed, "arm": spec.arm})
    commit = git_state()["commit"]
    journal.event(
        names.TAGS_EVENT,
        {names.OWNER: owner(), names.DEVICE: device.type, names.VERSION: fnostab.__version__}
        | ({names.GIT_COMMIT: commit} if commit else {}),
    )
    environment = directory / "artifacts" / "environment.json"
    environment.parent.mkdir(exist_ok=True)
    environment.write_text(json.dumps(describe_environment(device), indent=2) + "\n")
    _announce(journal, environment, "")

    data_seed = config.data_seed(spec.seed)
    data = prepare(config.data, data_seed, spec.data_dir)
    digest = dataset_digest(config.data, data_seed)
    journal.event(
        names.DATASET_EVENT,
        {"name": "grid_lines", "digest": digest, "source": f"fnostab simulation, data seed {data_seed}"},
    )

    generator = build_initialised(config.model, config.stream(spec.seed, "initialisation"))
    module = PtychoModule(generator, data, config)
    constant_loss = module.constant_loss()
    journal.record(0, {names.CONSTANT_LOSS: constant_loss, names.PARAMETERS: parameter_count(generator)})

    monitor = StabilityMonitor(
        journal,
        rules=config.monitor,
        val_loss_name=config.training.val_loss_name,
        constant_loss=constant_loss,
        warmup_steps=config.training.warmup_steps,
    )
    checkpoint = directory / "artifacts" / "best.safetensors"
    trainer = lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=config.training.epochs,
        callbacks=[
            monitor,
            BestCheckpoint(checkpoint, spec),
            BlockStatistics(journal, watched_blocks(generator)),
            ResourceSampler(journal),
        ],
        plugins=[LightningEnvironment()],  # under Slurm, Lightning would requeue the job by itself
        default_root_dir=directory,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    order_seed = config.stream(spec.seed, "data_order")
    torch.manual_seed(stream_seed(order_seed, "layers"))  # of dropout and the like, in a network of the user's own
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # advice on worker processes, of no use here
        trainer.fit(module, GridLinesData(data, config.training.batch_size, order_seed))

    pairs = reconstruct(predict(generator.to(device), data.test, device), data.test, config.data)
    journal.record(max(monitor.steps_read - 1, 0), score(pairs, config.data))
    drawn = draw_reconstructions(directory / "artifacts", pairs, phase=config.data.set_phi)
    drawn += draw_history(directory / "artifacts", journal.path, monitor.failure_step)
    for path in drawn:
        _announce(journal, path, "figures")
    if checkpoint.exists():
        _announce(journal, checkpoint, "checkpoint")

    judgement = monitor.judgement
    if judgement is None:  # Lightning swallowed an interrupt
        raise KeyboardInterrupt("training was interrupted")
    journal.event(
        names.OUTCOME_EVENT,
        {
            "outcome": str(judgement.outcome),
            "failure_step": judgement.failure_step,
            "known_good_step": judgement.known_good_step,
            "rules_held": [str(rule) for rule in judgement.rules_held],
            "not_judged": list(judgement.not_judged),
            "reason": None,
        },
    )
    return judgement.outcome


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise LaunchError("execution.device=cuda, but torch sees no GPU here: use auto or cpu, or mend the driver")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def watched_blocks(generator: nn.Module) -> Mapping[str, nn.Module]:
    """What to watch the activations of: residual blocks, or the parts of a network of the user's own."""
    return residual_blocks(generator) or dict(generator.named_children())


def _announce(journal: Journal, path: Path, folder: str) -> None:
    relative = path.relative_to(journal.directory).as_posix()
    journal.event(names.ARTIFACT_EVENT, {"path": relative, "artifact_path": folder})


def _end(journal: Journal, outcome: Outcome, error: BaseException) -> None:
    evidence: dict[str, Any] = {"failure_step": None, "known_good_step": None, "rules_held": [], "not_judged": []}
    journal.event(names.OUTCOME_EVENT, {"outcome": str(outcome), "reason": one_line(error), **evidence})
