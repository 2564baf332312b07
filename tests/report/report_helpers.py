"""Studies to report on: in memory, and in a store."""

import socket

import trial_records

from fnostab.decision import Roles, Rules, Stage, decide
from fnostab.ptychography.task import Ptychography
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.report.case import Case
from fnostab.tracking import sync

SETTINGS = {
    "model.architecture": "hybrid",
    "model.fno_blocks": 3,
    "training.learning_rate": 1e-3,
    "training.epochs": 6,
}
EPOCH_STEPS = 10
VAL_LOSS = "val/mae_val_Amp_loss"


def study_spec(arms=("control", "arch_fix"), description="Does it train?", **values):
    settings = {arm: SETTINGS | ({} if arm == arms[0] else {"model.architecture": "stable_hybrid"}) for arm in arms}
    roles = {"architecture": arms[1]} if len(arms) > 1 else {}
    return trial_records.study_spec(
        **{"arms": settings, "description": description, "roles": roles, "picture": Ptychography.picture} | values
    )


def case_of(trials, deep=(), spec=None):
    spec = spec or study_spec()
    roles = Roles(spec.control, spec.roles.get("architecture"))
    stages = {"a": Stage("a", tuple(trials))} | ({"b": Stage("b", tuple(deep))} if deep else {})
    verdict = decide(roles, stages["a"], stages.get("b"), rules=Rules.of(spec))
    return Case(verdict, tuple(stages.values()), dict.fromkeys(stages, spec))


class StoredStudy:
    """A study whose trials are written as their processes would, and sent to a store."""

    def __init__(self, store, folder):
        self.store = store
        self.spec = study_spec()
        self.folder = folder / self.spec.experiment / self.spec.hash
        self.spec.write(self.folder / "study.json")

    def trial(self, arm, seed, outcome, *, steps=30, loss=None, failure_step=None, spike=None, picture=None):
        directory = self.folder / f"{arm}-{seed}"
        trial_records.trial_of(self.spec, arm, seed).write(directory / "trial.json")
        with Journal(directory) as journal:
            journal.event(names.TAGS_EVENT, {names.OWNER: f"99999999@{socket.gethostname()}"})
            for step in range(steps):
                norm = spike if spike and step == 17 else 1.0 + seed
                lost = outcome == "nonfinite" and step == failure_step
                journal.record(step, {names.GRAD_NORM: float("nan") if lost else norm})
                if (step + 1) % EPOCH_STEPS == 0:
                    journal.record(step, {VAL_LOSS: float("nan") if outcome == "nonfinite" else 1 / (step + 1)})
            if outcome != "killed":
                journal.record(steps - 1, {names.LAST_STEP: steps - 1})
                journal.record(steps - 1, {names.SPIKES: int(bool(spike)), names.SPIKES_UNRECOVERED: 0})
            if loss is not None:
                journal.record(steps - 1, {names.VAL_LOSS_BEST: loss})
            if picture is not None:
                path = directory / "artifacts" / "reconstruction_0.png"
                path.parent.mkdir()
                path.write_bytes(picture)
                where = {"path": "artifacts/reconstruction_0.png", "artifact_path": "figures"}
                journal.event(names.ARTIFACT_EVENT, where)
            evidence = {"known_good_step": None, "rules_held": [], "not_judged": [], "reason": None}
            journal.event(names.OUTCOME_EVENT, {"outcome": outcome, "failure_step": failure_step} | evidence)

    def upload(self):
        sync(self.folder, self.store)
