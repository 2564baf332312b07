"""The ptychography task: implementation of the engine's task interface."""

import logging
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fnostab.errors import ConfigError
from fnostab.gpus import count_gpus
from fnostab.ptychography import metric_names
from fnostab.ptychography.policy import Policy, policy_path, read_policy
from fnostab.ptychography.settings import DataConfig, TrialConfig
from fnostab.ptychography.shootout import shootouts
from fnostab.ptychography.user_parts import code_hash
from fnostab.ptychography.without_effect import unread_lines
from fnostab.record import names
from fnostab.record.outcome_rules import OutcomeRules
from fnostab.record.outcomes import Outcome
from fnostab.record.settings import flatten, read_yaml
from fnostab.record.trial import Charts, Measure, Metric, PicturePanel, Resources, TrialSpec
from fnostab.tasks.contract import Call, Settings, Task

if TYPE_CHECKING:
    from rich.console import Console

    from fnostab.launch.slurm.launcher import SlurmLauncher
    from fnostab.ptychography.preflight import Preflight
    from fnostab.study.file import StudyFile
    from fnostab.study.study import Study

INPUTS: tuple[Literal["probe", "object"], ...] = ("probe", "object")  # inputs that can be read from files
VAL_LOSS = "val_loss"
METRICS = {  # metrics that a study may decide on: whether higher is better
    VAL_LOSS: False,
    metric_names.MAE_AMP: False,
    metric_names.MAE_PHASE: False,
    metric_names.SSIM_AMP: True,
    metric_names.SSIM_PHASE: True,
}
SMALL_IS_A_MODEL = "The small profile is a scale model: a demonstration, not a basis for policy."
SIZES = {"learning rate": "training.learning_rate", "blocks": "model.fno_blocks", "epochs": "training.epochs"}
PRELOADS = ("fnostab.ptychography.training.trial",)


class Ptychography(Task):
    """Task of training hybrid FNO networks that reconstruct an object from its diffraction patterns.

    Args:
        policy: defaults chosen by a verdict, or None.
    """

    name = "ptychography"
    profiles = ("full", "small")
    metric = Metric(name=VAL_LOSS, of="best")
    margin = 0.1
    epochs = "training.epochs"
    charts = Charts(lines=(metric_names.SPREAD, metric_names.DETAIL_CORRELATION), bars=(metric_names.SSIM_AMP,))
    picture = PicturePanel(
        artifact="figures/reconstruction_0.png",
        title="Reconstructions of the test object",
        caption="Left to right: predicted, true, error; amplitude above, phase below where it is trained. In error "
        "maps grey is no error, yellow too large, dark blue too small. Of measured data: the whole scan, areas that "
        "were trained on included, beside the reference; what no pattern lights is even.",
    )
    measures: Mapping[str, Measure] = {
        metric_names.VAL_SSIM_AMP: Measure(margin=0.02),
        metric_names.VAL_SSIM_PHASE: Measure(margin=0.02),
        metric_names.FRC_HALF: Measure(margin=0.05),  # two rings of the small profile's image
    }

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy

    def choose_profile(self, wanted: str, *, gpus: bool) -> str:
        """Resolve ``auto`` to full with a GPU, else to small; check other names."""
        if wanted == "auto":
            return "full" if gpus else "small"
        if wanted not in self.profiles:
            raise ConfigError(f"profile={wanted!r} is not known; accepted: auto, {', '.join(self.profiles)}")
        return wanted

    def resolve(self, layers: Sequence[Settings], profile: str | None) -> dict[str, Any]:
        """Override the settings of profile and policy with those of a study; see `Task.resolve`.

        Raises:
            DataError: a probe, object or scan file can't be read.
            ConfigError: a setting is not accepted, or the file of a custom part is missing.
        """
        own: dict[str, Any] = {}
        for layer in layers:
            own |= layer
        below = self.policy.settings_beside(own) if self.policy else {}
        settings = (flatten(profile_settings(profile)) if profile else {}) | below | own
        if settings.get("data.path") is not None:
            settings = _of_measured_data(settings, own)
        for what in INPUTS:
            path = settings.get(f"data.{what}.path")
            if isinstance(path, str) and path:
                from fnostab.ptychography.physics.input_files import input_sha256  # slow: imports numpy

                settings[f"data.{what}.path"] = str(Path(path).absolute())
                settings[f"data.{what}.sha256"] = input_sha256(path, what)
        settings["code_hash"] = code_hash(TrialConfig.from_dotted(settings).own.items())
        config = TrialConfig.from_dotted(settings)
        if config.data.path is not None:
            _insist_on_counts(config)
        return flatten(config)

    def check(self, study: "Study") -> None:
        """Check that the study's metric is recorded and meaningful."""
        metric = study.metric
        if metric.name not in METRICS:
            raise ConfigError(
                f"{study.file.line_of('metric')}metric {metric.name!r} is not known; accepted: {', '.join(METRICS)}"
            )
        if metric.higher_is_better != METRICS[metric.name] or (metric.of is None) == (metric.name == VAL_LOSS):
            how = f"higher_is_better: {str(METRICS[metric.name]).lower()}"
            of = "of: best or last" if metric.name == VAL_LOSS else "of: null"
            raise ConfigError(f"{study.file.line_of('metric')}metric {metric.name}: expected {how}, {of}")
        for arm, settings in study.arms.items():
            if metric.name != VAL_LOSS and (path := settings["data.path"]) is not None:
                from fnostab.ptychography.scans.scan_file import read_outline

                if not read_outline(path).has_object:
                    raise ConfigError(
                        f"{study.file.name} decides on {metric.name}, but {path} has no object to compare with: import "
                        "the scan with --sweeps 30, or decide on val_loss"
                    )
            if metric.name in metric_names.PHASE_METRICS and not settings["data.set_phi"]:
                raise ConfigError(
                    f"{study.file.name} decides on {metric.name}, but arm {arm} has data.set_phi=false, so that the "
                    "object has no phase: set data.set_phi=true, or decide on another metric"
                )

    def identity(self, settings: Settings) -> Any:
        """All settings except paths, the device, checkpointing and the outcome rules."""
        return TrialConfig.from_dotted(settings).identity()

    def judged(self, settings: Settings, metric: Metric) -> str:
        """Name of the validation loss, which outcomes are judged by whatever metric decides."""
        return f"{names.VAL_PREFIX}{TrialConfig.from_dotted(settings).training.val_loss_name}"

    def rules(self, settings: Settings) -> OutcomeRules:
        """Outcome rules from the settings under ``monitor``."""
        return TrialConfig.from_dotted(settings).monitor.outcome_rules

    def after_failure(self, settings: Settings) -> Literal["stop", "continue"]:
        """Value of ``monitor.after_failure``."""
        return TrialConfig.from_dotted(settings).monitor.after_failure

    def resources(self, settings: Settings) -> Resources:
        """Require a GPU unless ``execution.device`` is cpu; name the imports that CPU trials share."""
        return Resources(gpu=settings["execution.device"] != "cpu", preloads=PRELOADS)

    def size(self, study: "Study") -> str:
        """Learning rate, depth and epochs of the control."""
        control = study.arms[study.file.control]
        return ", ".join(f"{label} {control[key]:g}" for label, key in SIZES.items())

    def caveats(self, profile: str | None) -> tuple[str, ...]:
        """Warn that the small profile is a scale model."""
        return (SMALL_IS_A_MODEL,) if profile == "small" else ()

    def same_for_all(self, study: "Study") -> tuple[str, ...]:
        """Parts of the data that all seeds share, unless the study varies the data with the seed."""
        control = study.arms[study.file.control]
        if control.get("data.path"):
            return ("measured scan", "validation area")
        varied = control.get("vary") or ()
        return () if "data" in varied else ("object", "scan", "photon noise", "validation set")

    def quality(self, study: "Study") -> Mapping[str, Measure]:
        """Quality measures: FRC, and SSIM of the amplitude and phase if the control's object has them."""
        control = study.arms[study.file.control]
        lacks = {metric_names.VAL_SSIM_AMP} if control["data.phase_only"] else set()
        if not control["data.set_phi"]:
            lacks.add(metric_names.VAL_SSIM_PHASE)
        return {name: measure for name, measure in self.measures.items() if name not in lacks}

    def next_of(self, study: "Study") -> dict[str, str]:
        """Commands of the shootout at each depth, if the study compares depths."""
        return shootouts(study)

    def notices(self, study: "Study", arms: Sequence[str]) -> list[str]:
        """Notices before the arms are run: settings without effect, and the policy in force."""
        usual = flatten(TrialConfig()) | flatten(profile_settings(study.profile) if study.profile else {})
        configs = {arm: TrialConfig.from_dotted(study.arms[arm]) for arm in arms}
        given: dict[str, Settings] = {}
        for arm in arms:
            named = {name for layer in study.file.layers(arm, study.profile) for name in flatten(layer)}
            named |= study.overrides.keys()
            given[arm] = {k: v for k, v in study.arms[arm].items() if k in named and v != usual.get(k)}
        lines = unread_lines(given, configs)
        if self.policy is None:
            return lines
        lines.append(f"policy {policy_path()} in force unless an arm sets something else: {self.policy.summary}")
        for arm in arms:
            architecture = study.arms[arm]["model.architecture"]
            if arm != study.file.control and architecture in self.policy.deprecated:
                lines.append(f"arm {arm} uses {architecture}, which that verdict deprecated: see `fnostab policy`")
        return lines

    def prepare(
        self, trials: Sequence[TrialSpec], console: "Console", call: Call, *, here: bool, lockstep: bool
    ) -> None:
        """Check networks and probes, and create the data sets that all arms share."""
        from fnostab.show.console import say, timed

        given = {"trials": [trial.model_dump_json() for trial in trials], "here": here, "lockstep": lockstep}
        with timed(console, "trying a step of each arm, preparing the data set"):
            notices = call("fnostab.ptychography.preparation:prepare_trials", given)
        say(console, *notices)

    def preflight(self, trials: Sequence[TrialSpec], jobs: int, gpus: int, call: Call) -> "Preflight":
        """Estimate memory and time of all arms."""
        from fnostab.ptychography.preflight import Preflight

        return Preflight({t.arm: TrialConfig.from_dotted(t.settings) for t in trials}, jobs, gpus, call)

    def run(self, trials: Sequence[TrialSpec], directories: Sequence[Path]) -> list[Outcome | None]:
        """Train in this process; several trials run in lockstep."""
        from fnostab.ptychography.lockstep import train_in_lockstep
        from fnostab.ptychography.training.trial import run_trial

        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # Lightning sets the level at import
        if len(trials) > 1:
            return train_in_lockstep(trials, directories)
        return [run_trial(trials[0], directories[0])]


def _of_measured_data(settings: dict[str, Any], own: Settings) -> dict[str, Any]:
    """Settings of a study on a measured scan, without the profile's simulation settings.

    Raises:
        ConfigError: the path is no text.
        DataError: the scan file can't be read.
    """
    from fnostab.ptychography.physics.input_files import input_sha256
    from fnostab.ptychography.scans.scan_file import read_outline

    path = settings["data.path"]
    if not isinstance(path, str):
        raise ConfigError(
            f"data.path={path} is not accepted: expected the path of a scan file; put ./ before a name that YAML "
            "reads as a number, a date, a list or true"
        )
    kept = {name: value for name, value in settings.items() if name in own or not name.startswith("data.")}
    sha256 = input_sha256(path, "scan")
    side = min(DataConfig().N, read_outline(path).side)
    filled = {"data.path": str(Path(path).absolute()), "data.sha256": sha256}
    return {"data.N": side, "data.set_phi": True} | kept | filled


def _insist_on_counts(config: TrialConfig) -> None:
    from fnostab.ptychography.scans.scan_file import read_outline

    path = config.data.path or ""
    kind = read_outline(path).kind
    if config.training.loss == "poisson" and kind != "counts":
        raise ConfigError(
            f"training.loss=poisson needs photon counts, {path} holds {kind}: set training.loss=mae, or import the "
            "scan with --kind counts if it has them"
        )


def make_task(file: "StudyFile | None") -> Ptychography:
    """Create the task with the current policy.

    Raises:
        ConfigError: the policy is not valid.
    """
    return Ptychography(read_policy())


def profile_for(wanted: str, cluster: "SlurmLauncher | None") -> str:
    """Resolve a profile for trials on a cluster, or on this machine if ``cluster`` is None.

    Raises:
        ConfigError: the profile is not known.
    """
    return Ptychography().choose_profile(wanted, gpus=bool(count_gpus()) if cluster is None else cluster.has_gpus)


def profile_settings(profile: str) -> dict[str, Any]:
    """Settings of a profile."""
    return read_yaml((resources.files("fnostab.ptychography") / "profiles" / f"{profile}.yaml").read_text()) or {}
