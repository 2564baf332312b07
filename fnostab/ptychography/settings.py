"""Configuration of a trial: typed, validated once, then immutable.

The same dotted names, such as ``model.fno_blocks``, are used in YAML, on the command line, by ``mlflow run -P``, as
MLflow params and here. Unknown keys, wrong types and impossible combinations are refused before anything starts:
`TrialConfig.from_dotted` raises a one-line `ConfigError`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from fnostab.errors import ConfigError, UnknownSettingError
from fnostab.ptychography import metric_names
from fnostab.ptychography.user_parts import is_own
from fnostab.record.outcome_rules import Bound, OutcomeRules
from fnostab.record.settings import Frozen, digest, explain, flatten, nest, suggestion
from fnostab.seeding import stream_seed

ARCHITECTURES = {  # accepted values of model.residual; the first is the default
    "fno": ("plain", "zero_gamma", "layerscale"),
    "hybrid": ("plain",),
    "stable_hybrid": ("zero_gamma", "layerscale"),
    "bounded_hybrid": ("plain",),
    "published_hybrid": ("plain",),
}
PRESETS: dict[str, dict[str, Any]] = {  # other model settings whose defaults depend on the architecture
    "bounded_hybrid": {"pre_norm": "rms", "limiter": "both"},
    "published_hybrid": {"down_kernel": 2, "spectral_weights": "published", "min_resolution": None},
}
BUILT_IN = {  # accepted names, besides the dotted path of a custom part
    "architecture": tuple(ARCHITECTURES),
    "block": ("residual",),
    "decoder_activation": ("gelu",),
    "head": ("real_imaginary",),
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("none", "warmup", "cosine", "warmup_cosine"),
    "gradient_clip_algorithm": ("norm", "value", "agc"),
}
Options = dict[str, int | float | str | bool | None]
EPOCH_CAP = 20
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class _WithParts(Frozen):
    """Settings, some of which name a built-in or custom part."""

    @field_validator(*BUILT_IN, check_fields=False)
    @classmethod
    def _known_name(cls, name: str, info: ValidationInfo) -> str:
        accepted = BUILT_IN[str(info.field_name)]
        if name not in accepted and not is_own(name):
            raise ValueError(
                f"{name!r} is not known{suggestion(name, accepted)}; "
                f"accepted: {', '.join(accepted)}, or package.module.name of your own"
            )
        return name

    @property
    def own(self) -> dict[str, str]:
        """Settings that name a custom part, each with its dotted path."""
        named = ((name, getattr(self, name)) for name in BUILT_IN if name in type(self).model_fields)
        return {name: value for name, value in named if is_own(value)}


class ProbeConfig(Frozen):
    """The probe: idealised, or measured and read from a file.

    Without phase curvature, a flat symmetric disk can't distinguish the object from its twin image.
    """

    path: str | None = None  # NPZ file with a complex array `probe` of shape (N, N); the other settings are then unused
    sha256: str | None = None  # SHA-256 of the file; filled in when a study is resolved
    radius: Annotated[float, Field(gt=0, le=0.5)] = 0.25  # radius of the disk as a share of N
    curvature_rad: Annotated[float, Field(ge=0)] = 3.0  # phase at the disk's edge in radians


class ObjectConfig(Frozen):
    """Objects: simulated, or areas of an image read from a file."""

    kind: Literal["lines", "gaussian_field", "dead_leaves", "siemens_star"] = "lines"  # kind of a simulated object
    path: str | None = None  # image, or NPZ file with a real or complex array `object` (H, W); kind is then unused
    sha256: str | None = None  # SHA-256 of the file; filled in when a study is resolved


class DataConfig(Frozen):
    """The data: simulated, with independent objects for training, validation and test, or a measured scan."""

    path: str | None = None  # scan file from `fnostab data import`; simulation settings are then unused
    sha256: str | None = None  # SHA-256 of the file; filled in when a study is resolved
    fit: Literal["crop", "bin"] = "crop"  # how measured patterns are reduced to N pixels: cropped or binned
    N: Annotated[int, Field(ge=4)] = 64  # pixels along a side of a diffraction pattern
    object_size: PositiveInt = 392  # pixels along a side of an object
    n_lines: PositiveInt = 400  # number of lines of an object of kind lines
    object: ObjectConfig = ObjectConfig()
    set_phi: bool = False  # give objects a phase; without it phase metrics are meaningless
    phase_only: bool = False  # set the amplitude of objects to 1
    nimgs_train: PositiveInt = 1  # number of training objects
    nimgs_test: PositiveInt = 1  # number of validation objects, and of test objects
    scan_stride_train: PositiveInt = 4  # distance of scan positions in pixels, for training
    scan_stride_test: PositiveInt = 10  # distance of scan positions in pixels, for validation and test
    nphotons: PositiveFloat = 1e9  # mean photon count of a training pattern
    probe: ProbeConfig = ProbeConfig()
    seed: Annotated[int, Field(ge=0)] = 0  # seed of objects and photon noise

    @model_validator(mode="after")
    def _has_contrast(self) -> Self:
        if self.phase_only and not self.set_phi:
            raise ValueError("phase_only=true, but without a phase the object is constant: set set_phi=true")
        return self

    @model_validator(mode="after")
    def _measured_or_simulated(self) -> Self:
        if self.path is None:
            if self.fit != "crop":
                raise ValueError(f"fit={self.fit} has no effect without a measured scan: set data.path")
            return self
        if not self.set_phi:
            raise ValueError(
                "set_phi=false has no meaning with data.path: a measured object has a phase; leave set_phi out"
            )
        measured_alone = {"path", "sha256", "fit", "N", "set_phi"}
        for name, info in type(self).model_fields.items():
            if name not in measured_alone and getattr(self, name) != info.default:
                raise ValueError(
                    f"{name} has no effect with data.path, it belongs to the simulation: leave one of them out"
                )
        return self

    @model_validator(mode="after")
    def _scan_fits(self) -> Self:
        if self.path is not None:
            return self
        if self.object_size < self.N + self.scan_stride_test:
            raise ValueError(
                f"object_size={self.object_size} leaves no room to scan: "
                f"at least N + scan_stride_test = {self.N + self.scan_stride_test} is needed"
            )
        if max(self.scan_stride_train, self.scan_stride_test) > self.N // 2:
            raise ValueError(f"scan strides must not exceed N / 2 = {self.N // 2}, or stitching leaves gaps")
        return self


class ModelConfig(_WithParts):
    """The network, which predicts complex object patches from measured amplitudes."""

    architecture: str = "hybrid"  # a built-in name, or your own package.module.Class
    N: Annotated[int, Field(ge=4)] = 64  # always data.N
    hidden_channels: PositiveInt = 32  # channels at full resolution
    fno_blocks: PositiveInt = 4  # number of residual blocks; of hybrid networks in the encoder
    fno_modes: PositiveInt = 12  # Fourier modes kept along each axis, per sign of the rows
    max_hidden_channels: PositiveInt | None = None  # maximum number of channels; null: no maximum
    min_resolution: Annotated[int, Field(ge=2)] | None = 4  # further blocks keep this size; null: always halve
    down_kernel: Literal[2, 3] = 3  # kernel size of downsampling convolutions; default depends on architecture
    spectral_weights: Literal["existing", "published"] = "existing"  # of existing modes, or as published
    checkpoint_blocks: bool = False  # save memory by recomputing blocks in the backward pass; same results
    block: str = "residual"  # residual; or your own package.module.Class(config, channels, modes, resolution)
    residual: Literal["plain", "zero_gamma", "layerscale"] = "plain"  # gain of blocks; default depends on architecture
    layerscale_init: PositiveFloat = 1e-3  # initial gain of residual=layerscale
    pre_norm: Literal["none", "rms"] = "none"  # norm before each block's branch; default depends on architecture
    limiter: Literal["none", "blocks", "decoder", "both"] = "none"  # before activations; default set by architecture
    limiter_tau: PositiveFloat = 3.0  # upper bound of the root mean square of activation inputs
    decoder_activation: str = "gelu"  # gelu; or your own package.module.Class, called with config and channels
    head: str = "real_imaginary"  # output of the last layer; or your own package.module.Class, called with config
    options: Options = Field(default={})  # options of your own parts

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_architecture(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        architecture = values.get("architecture", "hybrid")
        known = architecture if isinstance(architecture, str) else ""
        follow = {"residual": ARCHITECTURES.get(known, ("plain",))[0], **PRESETS.get(known, {})}
        return {**values, **{name: default for name, default in follow.items() if values.get(name) is None}}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        accepted = ARCHITECTURES.get(self.architecture)
        if accepted and self.residual not in accepted:
            raise ValueError(f"residual={self.residual} with {self.architecture}: accepted {', '.join(accepted)}")
        if self.options and not self.own:
            raise ValueError(f"options are for parts of your own, {self.architecture} takes none")
        if self.max_hidden_channels is not None and self.max_hidden_channels < self.hidden_channels:
            raise ValueError(
                f"max_hidden_channels={self.max_hidden_channels} is below hidden_channels={self.hidden_channels}: "
                "raise it, lower hidden_channels, or set null for no cap"
            )
        met = [self.N]
        while met[-1] % 2 == 0 and met[-1] > 2:
            met.append(met[-1] // 2)
        if self.min_resolution is None:
            counted = self.architecture == "fno" or self.spectral_weights == "published"  # on the meta device at least
            if not counted and self.N % 2 ** (self.fno_blocks - 1):
                raise ValueError(
                    f"min_resolution=null halves N={self.N} {self.fno_blocks - 1} times, which is impossible: "
                    f"set one of {', '.join(map(str, met))}, or lower fno_blocks"
                )
        elif self.min_resolution not in {*met, type(self).model_fields["min_resolution"].default}:
            raise ValueError(
                f"min_resolution={self.min_resolution} is never met: "
                f"halving N={self.N} gives {', '.join(map(str, met))}; set one of these"
            )
        return self


class TrainingConfig(_WithParts):
    """Optimiser, loss and learning-rate schedule."""

    epochs: PositiveInt = 20
    stress_test: bool = False  # required for more than 20 epochs
    batch_size: PositiveInt = 16  # patterns per optimiser step
    loss: Literal["mae", "poisson"] = "mae"  # mean absolute error of amplitudes, or Poisson deviance of counts
    optimizer: str = "adam"  # adam, adamw, sgd; or your own package.module.name, called with network and config
    learning_rate: PositiveFloat = 1e-3  # base rate, which the schedule scales
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # momentum of SGD
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999  # decay rate of Adam's second moment
    schedule: str = "none"  # none, warmup, cosine, warmup_cosine; or your own, called with steps and config
    cosine_floor: Annotated[float, Field(ge=0, lt=1)] = 0.0  # final learning rate of a cosine, as a share of the base
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # optimiser steps of linear warm-up
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0  # length of the warm-up in epochs, instead of steps
    options: Options = Field(default={})  # options of your own optimiser, schedule or clipping

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.epochs > EPOCH_CAP and not self.stress_test:
            raise ValueError(
                f"epochs={self.epochs} is above {EPOCH_CAP}: comparison runs stay at or below it; "
                "set training.stress_test=true if this is a stress test"
            )
        if self.warmup_steps and self.warmup_epochs:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} and warmup_epochs={self.warmup_epochs:g} both set the warm-up: "
                "keep one"
            )
        if self.adam_beta2 != type(self).model_fields["adam_beta2"].default and self.optimizer == "sgd":
            raise ValueError(f"adam_beta2={self.adam_beta2:g} has no effect with optimizer=sgd: leave it out")
        if self.cosine_floor and not self.schedule.endswith("cosine"):
            raise ValueError(
                f"cosine_floor={self.cosine_floor:g} has no effect with schedule={self.schedule}: "
                "set cosine or warmup_cosine"
            )
        given = next((name for name in ("warmup_steps", "warmup_epochs") if getattr(self, name)), None)
        if given and self.schedule in ("none", "cosine"):
            raise ValueError(f"{given} has no effect with schedule={self.schedule}: set warmup or warmup_cosine")
        if self.schedule == "warmup" and not given:
            raise ValueError("schedule=warmup needs warmup_steps or warmup_epochs")
        return self

    def warmup(self, steps_per_epoch: int) -> int:
        """Number of optimiser steps of linear warm-up."""
        return self.warmup_steps or round(self.warmup_epochs * steps_per_epoch)

    @property
    def val_loss_name(self) -> str:
        """Name of the monitored validation loss, such as ``mae_val_Amp_loss``."""
        return f"{self.loss}_val_Amp_loss"


class ExecutionConfig(_WithParts):
    """Gradient clipping, device and precision; not part of the model's identity."""

    gradient_clip_algorithm: str = "norm"  # norm, value, agc; or your own package.module.name, called with config
    gradient_clip_val: PositiveFloat | None = None  # clipping threshold, for agc the factor lambda; null: no clipping
    agc_exempt: Literal["head", "decoder"] = "head"  # layers that agc does not clip; decoder: head and decoder
    device: Literal["auto", "cpu", "cuda"] = "auto"
    convolution_precision: Literal["float32", "tf32", "bfloat16"] = "float32"  # for real convolutions; tf32: GPU only

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.own and self.gradient_clip_val is None:
            raise ValueError(
                f"gradient_clip_algorithm={self.gradient_clip_algorithm} has no effect with gradient_clip_val=null, "
                "which clips nothing: set a number"
            )
        if self.convolution_precision == "tf32" and self.device == "cpu":
            raise ValueError("convolution_precision=tf32 has no effect with device=cpu: use float32 or bfloat16")
        return self


class MonitorConfig(Frozen):
    """Rules of failure, and what happens after one; for the reasons see docs/outcomes.md."""

    block_steps: PositiveInt = 32  # steps between two reads of metrics from the device
    after_failure: Literal["stop", "continue"] = "stop"  # whether a failed trial stops
    collapsed_spread: PositiveFloat = 0.1  # minimum spread of the stitched complex field, as a share of the truth's
    collapsed_patch_variation: PositiveFloat = 1e-4  # minimum patch variation, judged over three validations in a row
    exploded_vs_constant: PositiveFloat = 2.0  # maximum loss, as a multiple of a constant output's
    exploded_vs_best: PositiveFloat = 3.0  # maximum loss, as a multiple of the trial's own best
    stagnated_vs_constant: PositiveFloat = 0.95  # maximum loss of a success, as a multiple of a constant output's
    stagnated_detail: PositiveFloat = 0.5  # minimum final correlation of details with the truth's
    stagnated_twin_share: Annotated[float, Field(ge=0, le=1)] = 0.5  # share of twin patches above which no loss counts

    @property
    def outcome_rules(self) -> OutcomeRules:
        """Outcome rules of the engine with these settings."""
        return OutcomeRules(
            collapsed={
                metric_names.SPREAD: Bound(below=self.collapsed_spread),
                metric_names.PATCH_VARIATION: Bound(
                    below=self.collapsed_patch_variation, validations=3, ends_early=True
                ),
            },
            stagnated={metric_names.DETAIL_CORRELATION: Bound(below=self.stagnated_detail)},
            meaningless={metric_names.TWIN_SHARE: Bound(above=self.stagnated_twin_share)},
            stagnated_vs_baseline=self.stagnated_vs_constant,
            exploded_vs_baseline=self.exploded_vs_constant,
            exploded_vs_best=self.exploded_vs_best,
        )


class TrialConfig(Frozen):
    """All settings of a trial; with the seed they determine its results."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    execution: ExecutionConfig = ExecutionConfig()
    monitor: MonitorConfig = MonitorConfig()
    vary: tuple[Literal["initialisation", "data_order", "data"], ...] = ("initialisation", "data_order")  # vary by seed
    code_hash: str | None = None  # hash of the source files of your own parts; filled in when a study is resolved

    @classmethod
    def from_dotted(cls, settings: Mapping[str, Any]) -> Self:
        """Build a configuration from dotted names, as in ``{"model.fno_blocks": 8}``.

        Raises:
            ConfigError: a name is unknown, or a value or a combination of values is not accepted.
        """
        try:
            return cls.model_validate(nest(settings))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            kind = UnknownSettingError if first["type"] == "extra_forbidden" else ConfigError
            raise kind(explain(error, cls), ".".join(map(str, first["loc"]))) from None

    @model_validator(mode="before")
    @classmethod
    def _model_follows_data(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        data, model = values.get("data", {}), values.get("model", {})
        if isinstance(data, DataConfig):
            data = {"N": data.N}
        if isinstance(model, ModelConfig):
            model = model.model_dump(exclude_unset=True)
        if isinstance(data, Mapping) and isinstance(model, Mapping) and "N" in data and "N" not in model:
            return {**values, "model": {**model, "N": data["N"]}}
        return values

    @model_validator(mode="after")
    def _decoder_is_there(self) -> Self:  # for a custom network this is checked when it is built
        if self.execution.agc_exempt == "decoder" and self.model.architecture == "fno":
            raise ValueError(
                f"execution.agc_exempt=decoder: {self.model.architecture} has no part of that name; set head"
            )
        return self

    @model_validator(mode="after")
    def _options_are_used(self) -> Self:
        if self.training.options and not (self.training.own or self.execution.own):
            raise ValueError("training.options are for an optimiser, a schedule or clipping of your own: name one")
        return self

    @model_validator(mode="after")
    def _data_can_vary(self) -> Self:
        if self.data.path is not None and "data" in self.vary:
            raise ValueError("vary: data has no effect with data.path, there is one measured scan: leave it out")
        return self

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if self.model.N != self.data.N:
            raise ValueError(f"model.N={self.model.N} but data.N={self.data.N}: set data.N alone, model.N follows")
        return self

    @property
    def own(self) -> dict[str, str]:
        """Dotted settings that name a custom part, each with its dotted path."""
        groups = {"model": self.model, "training": self.training, "execution": self.execution}
        return {f"{group}.{name}": path for group, part in groups.items() for name, path in part.own.items()}

    def stream(self, seed: int, what: Literal["initialisation", "data_order", "data"]) -> int:
        """Seed of one random stream of the trial with seed ``seed``; independent of it unless in ``vary``."""
        return stream_seed(seed if what in self.vary else 0, what)

    def data_seed(self, seed: int) -> int:
        """Seed of objects and noise: ``data.seed``, unless ``vary`` contains the data."""
        return self.stream(seed, "data") if "data" in self.vary else self.data.seed

    def identity(self) -> dict[str, Any]:
        """Dotted settings that determine the trial's numbers.

        These are all except paths, the device, checkpointing, and the outcome rules, which can be applied again to
        finished trials.
        """
        omitted = {"execution.device", "data.probe.path", "data.object.path", "data.path", "model.checkpoint_blocks"}
        if self.data.path is None:  # keeps the hashes of earlier trials of simulated data
            omitted |= {"data.sha256", "data.fit"}
        rules = {f"monitor.{name}" for name in MonitorConfig.model_fields if name != "after_failure"}
        return {key: value for key, value in flatten(self).items() if key not in omitted | rules}

    @property
    def config_hash(self) -> str:
        """16 hexadecimal digits that identify `identity`."""
        return digest(self.identity())
