"""``fnostab policy``: show the policy; and ``fnostab decide --apply``, which writes it."""

from __future__ import annotations

import datetime
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fnostab.errors import ConfigError, DecisionError, ModelError
from fnostab.ptychography.policy import (
    CHAMPION,
    MODEL_NAME,
    Policy,
    Source,
    architecture_policy,
    clipping_policy,
    policy_path,
    read_policy,
)
from fnostab.record import names
from fnostab.record.folders import trial_name
from fnostab.show.console import Console, say

if TYPE_CHECKING:
    from fnostab.record.table import TrialRow
    from fnostab.report.case import Case
    from fnostab.report.stored_studies import Judged
    from fnostab.tracking import Store


@click.command("policy", epilog="Example: fnostab policy")
def command() -> None:
    """Show which defaults a verdict chose for new studies and `fnostab train`, and which verdict.

    They are in fnostab-policy.yaml in the working directory, or in the file that FNOSTAB_POLICY names; delete it to
    get the program's own defaults again. What a study or the command line sets itself always wins over them.
    """
    policy, console = read_policy(), Console(soft_wrap=True, highlight=False)
    if policy is None:
        console.print(f"no policy is in force: {policy_path()} does not exist; `fnostab decide --apply` writes one")
        return
    console.print(f"policy {policy_path()}, for what a study does not set itself:")
    for name, value in policy.settings.items():
        console.print(f"  {name} = {value}", markup=False)
    for architecture in policy.deprecated:
        console.print(f"  {architecture} is deprecated: new arms should not use it, other than as control")
    source = policy.verdict
    console.print(f"set by {source.headline}, verdict run {source.run}, on {source.date}")
    for line in source.conditions:
        console.print(f"  {line}", markup=False)


EXAMPLE_BATCH = 2  # torch.export would specialise the network to a batch of 1
ABOUT_MODEL = (
    "Measured amplitudes (B, 1, N, N) float32 in, complex object patches (B, 1, N, N) complex64 out. "
    f"Registered by `fnostab decide --apply`; the alias {CHAMPION} is the network of the last GOLD."
)


@dataclass(frozen=True)
class Action:
    """Changes of the defaults that follow from a verdict.

    Attributes:
        policy: the new policy.
        champion: stage and trial whose network is to be registered; None for SILVER.
        doubts: reasons not to apply the verdict without --force.
    """

    policy: Policy
    champion: tuple[str, TrialRow] | None
    doubts: tuple[str, ...]


def act_on(judged: Judged, store: Store, *, apply: bool, force: bool, console: Console) -> None:
    """Print the changes of the defaults that follow from a verdict, and with ``apply`` make them.

    GOLD registers the winning network and makes its architecture the default; SILVER makes the winner's clipping the
    default. Other verdicts change nothing.

    Raises:
        ConfigError: the verdict can't be applied, or not without ``force``.
        FnostabError: the network can't be registered, or the policy can't be written.
    """
    action = _action(judged)
    if action is None:
        if apply:
            verdict = judged.case.verdict
            raise ConfigError(
                f"--apply: {verdict.name} changes no default, only GOLD and SILVER do; {verdict.next_step}"
            )
        return
    doubt = f"the verdict {' and '.join(action.doubts)}" if action.doubts else ""
    if apply and doubt and not force:
        raise ConfigError(f"--apply: {doubt}: add --force to make it the default anyway")
    console.print("applying:" if apply else f"`--apply{' --force' if doubt else ''}` would:", highlight=False)
    say(console, *(f"  {line}" for line in _plan(action)))
    if not apply:
        if doubt:
            say(console, f"  --force because {doubt}")
        return
    if action.champion is not None:
        version = _register(store, judged, *action.champion)
        console.print(f"registered {MODEL_NAME} version {version}, alias {CHAMPION}", highlight=False)
    action.policy.write(policy_path())
    say(console, f"wrote {policy_path()}; `fnostab policy` shows it")


def _action(judged: Judged) -> Action | None:
    from fnostab.decision import VerdictName
    from fnostab.report.remarks import conditions

    case, verdict = judged.case, judged.case.verdict
    if verdict.winner is None:
        return None
    source = Source(
        headline=verdict.headline,
        run=judged.verdict_run,
        date=datetime.date.today(),
        conditions=tuple(conditions(case.studies)),
    )
    doubts = ["could be luck"] if not verdict.supported else []
    if any(study.profile == "small" for study in case.studies.values()):
        doubts.append("is of the small profile, a demonstration")
    study = case.studies["a"]
    winner = study.arms[verdict.winner]
    if verdict.name is VerdictName.GOLD:
        policy = architecture_policy(winner, study.arms[study.control], source)
        return Action(policy, _best_trial(case, verdict.winner), tuple(doubts))
    return Action(clipping_policy(winner, source), None, tuple(doubts))


def _best_trial(case: Case, arm: str) -> tuple[str, TrialRow]:
    """Deepest stage of an arm, and its converged trial there with the best primary metric."""
    from fnostab.record.outcomes import Outcome

    stage = [stage for stage in case.stages if stage.arm(arm)][-1]
    study = case.studies[stage.name]
    candidates = [(t.loss, t) for t in stage.arm(arm) if t.outcome is Outcome.CONVERGED and t.loss is not None]
    if not candidates:
        raise DecisionError(f"Stage {stage.name.upper()} has no converged trial of {arm} with a {study.metric.key}")
    _, trial = (max if study.metric.higher_is_better else min)(candidates, key=lambda candidate: candidate[0])
    return stage.name, trial


def _plan(action: Action) -> list[str]:
    lines = []
    if action.champion is not None:
        _, trial = action.champion
        name = trial_name(trial.arm, trial.seed)
        lines.append(f"register the network of {name} (run {trial.run_id}) as {MODEL_NAME}, alias {CHAMPION}")
    lines += [f"make {name}={value} the default" for name, value in action.policy.settings.items()]
    lines += [f"deprecate {architecture}" for architecture in action.policy.deprecated]
    before = read_policy()
    replaced = f", in place of that of {before.verdict.headline}, verdict run {before.verdict.run}" if before else ""
    return [*lines, f"record that in {policy_path()}{replaced}"]


def _register(store: Store, judged: Judged, stage: str, trial: TrialRow) -> str:
    import numpy as np

    from fnostab.ptychography.training.checkpoint import load_checkpoint
    from fnostab.tracking import RegisteredModel, fetch_checkpoint, register_network

    study, run_id = judged.case.studies[stage], trial.run_id or ""
    with tempfile.TemporaryDirectory() as folder:
        generator, spec = load_checkpoint(fetch_checkpoint(store, run_id, Path(folder)))
    if (spec.study_hash, spec.arm, spec.seed) != (study.hash, trial.arm, trial.seed):
        raise ModelError(f"the checkpoint of run {run_id} is that of the trial {spec.trial_id}, not of this run's")
    tags = {
        names.VERDICT: judged.case.verdict.headline,
        names.STUDY_RUN: judged.study_runs[stage],
        names.ARM: trial.arm,
        names.SEED: str(trial.seed),
        names.PROFILE: str(study.profile),
        names.CONFIG_HASH: spec.config_hash,
    }
    N = spec.settings["data.N"]
    example = np.random.default_rng(0).random((EXAMPLE_BATCH, 1, N, N), dtype=np.float32)
    model = RegisteredModel(MODEL_NAME, CHAMPION, ABOUT_MODEL)
    return register_network(
        store, generator, example, model=model, verdict_run=judged.verdict_run, trial_run=run_id, tags=tags
    )
