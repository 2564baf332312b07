"""The configuration of a trial: typed, validated once, immutable after.

The same dotted names (``model.fno_blocks``) are used in YAML, on the command line, by
``mlflow run -P``, as MLflow params and here. Unknown keys, wrong types and impossible combinations
are refused before anything starts: `TrialConfig.from_dotted` raises a `ConfigError` of one line.
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

__all__ = [
    "ARCHITECTURES",
    "DataConfig",
    "ExecutionConfig",
    "ModelConfig",
    "MonitorConfig",
    "ObjectConfig",
    "ProbeConfig",
    "TrainingConfig",
    "TrialConfig",
]

ARCHITECTURES = {  # the residuals that each accepts; the first is its default
    "fno": ("plain", "zero_gamma", "layerscale"),
    "hybrid": ("plain",),
    "stable_hybrid": ("zero_gamma", "layerscale"),
    "bounded_hybrid": ("plain",),
    "published_hybrid": ("plain",),
}
PRESETS: dict[str, dict[str, Any]] = {  # settings of the model whose default follows the architecture
    "bounded_hybrid": {"pre_norm": "rms", "limiter": "both"},
    "published_hybrid": {"down_kernel": 2, "spectral_weights": "published", "min_resolution": None},
}
BUILT_IN = {  # names that settings accept beside the dotted path of a part of your own
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
    """Settings of which some name a built-in part or one of your own."""

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
        """Settings that name a part of your own, each with its dotted path."""
        named = ((name, getattr(self, name)) for name in BUILT_IN if name in type(self).model_fields)
        return {name: value for name, value in named if is_own(value)}


class ProbeConfig(Frozen):
    """The illumination: an idealised one, or a measured one from a file.

    Without phase curvature a flat symmetric disk cannot tell the object from its twin image.
    """

    path: str | None = None  # NPZ file with a complex array `probe` of (N, N); the rest is then unused
    sha256: str | None = None  # of that file; filled in when a study is resolved
    radius: Annotated[float, Field(gt=0, le=0.5)] = 0.25  # of the disk, as a share of N
    curvature_rad: Annotated[float, Field(ge=0)] = 3.0  # phase at the disk's edge


class ObjectConfig(Frozen):
    """Objects: simulated ones, or areas of an image from a file."""

    kind: Literal["lines", "gaussian_field", "dead_leaves", "siemens_star"] = "lines"
    path: str | None = None  # image, or NPZ file with an array `object` of (H, W), complex or real; kind is then unused
    sha256: str | None = None  # of that file; filled in when a study is resolved


class DataConfig(Frozen):
    """Simulated ptychography, whose training, validation and test use independent objects; or a measured scan."""

    path: str | None = None  # scan file of `fnostab data import`; settings of the simulation are then unused
    sha256: str | None = None  # of that file; filled in when a study is resolved
    fit: Literal["crop", "bin"] = "crop"  # how its patterns come to N pixels: the central ones, or sums of neighbours
    N: Annotated[int, Field(ge=4)] = 64  # pixels along a side of a diffraction pattern
    object_size: PositiveInt = 392  # pixels along a side
    n_lines: PositiveInt = 400  # of an object of lines
    object: ObjectConfig = ObjectConfig()
    set_phi: bool = False  # without it the phase is zero and phase metrics mean nothing
    phase_only: bool = False  # an amplitude of 1 everywhere
    nimgs_train: PositiveInt = 1  # objects
    nimgs_test: PositiveInt = 1  # objects, for validation and for test each
    scan_stride_train: PositiveInt = 4  # pixels
    scan_stride_test: PositiveInt = 10  # pixels, for validation and test
    nphotons: PositiveFloat = 1e9  # mean photon count of a training pattern
    probe: ProbeConfig = ProbeConfig()
    seed: Annotated[int, Field(ge=0)] = 0  # of objects and photon noise

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
    """A generator: measured amplitudes in, complex object patches out."""

    architecture: str = "hybrid"  # a built-in name, or package.module.Class of your own
    N: Annotated[int, Field(ge=4)] = 64  # follows data.N
    hidden_channels: PositiveInt = 32  # at full resolution
    fno_blocks: PositiveInt = 4
    fno_modes: PositiveInt = 12  # Fourier modes kept along each axis, each sign of the rows
    max_hidden_channels: PositiveInt | None = None  # cap on the doubling; null is none
    min_resolution: Annotated[int, Field(ge=2)] | None = 4  # floor of the halving; further blocks keep their size
    down_kernel: Literal[2, 3] = 3  # of the convolutions that halve; default follows architecture
    spectral_weights: Literal["existing", "published"] = "existing"  # published: one row sign, all modes
    checkpoint_blocks: bool = False  # keep less for the backward pass, and compute blocks twice; same numbers
    block: str = "residual"  # or package.module.Class of your own, called with config, channels, modes, resolution
    residual: Literal["plain", "zero_gamma", "layerscale"] = "plain"  # follows architecture
    layerscale_init: PositiveFloat = 1e-3
    pre_norm: Literal["none", "rms"] = "none"  # before each block's branch; default follows architecture
    limiter: Literal["none", "blocks", "decoder", "both"] = "none"  # before activations; follows architecture
    limiter_tau: PositiveFloat = 3.0  # bound of their inputs' root mean square
    decoder_activation: str = "gelu"  # or package.module.Class of your own, called with config and channels
    head: str = "real_imaginary"  # what the last layer gives; or package.module.Class of your own, called with config
    options: Options = Field(default={})  # for parts of your own

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
    """Settings of the optimiser, the loss and the schedule."""

    epochs: PositiveInt = 20
    stress_test: bool = False  # needed for more than 20 epochs
    batch_size: PositiveInt = 16
    loss: Literal["mae", "poisson"] = "mae"
    optimizer: str = "adam"  # adam, adamw, sgd; or package.module.name of your own, called with network and config
    learning_rate: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of SGD
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999  # of the squares' moving average, of all but SGD
    schedule: str = "none"  # warmup, cosine, warmup_cosine; or of your own, called with the steps and config
    cosine_floor: Annotated[float, Field(ge=0, lt=1)] = 0.0  # at which a cosine ends, as a share of the rate
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # optimiser steps of linear warm-up
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0  # the same in epochs, or parts of one
    options: Options = Field(default={})  # for an optimiser, a schedule or clipping of your own

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
        """Optimiser steps of linear warm-up."""
        return self.warmup_steps or round(self.warmup_epochs * steps_per_epoch)

    @property
    def val_loss_name(self) -> str:
        """Name of the monitored validation loss: loss, ``val``, and the quantity it compares."""
        return f"{self.loss}_val_Amp_loss"


class ExecutionConfig(_WithParts):
    """Settings of the execution, never a part of the model's identity."""

    gradient_clip_algorithm: str = "norm"  # value, agc; or package.module.name of your own, called with config
    gradient_clip_val: PositiveFloat | None = None  # null: no clipping; of agc the factor lambda
    agc_exempt: Literal["head", "decoder"] = "head"  # what agc leaves out; decoder: the head and `decoder`
    device: Literal["auto", "cpu", "cuda"] = "auto"
    convolution_precision: Literal["float32", "tf32", "bfloat16"] = "float32"  # of real ones; tf32 is for a GPU

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
    """Rules of failures, and what happens after one. docs/outcomes.md has the reasons."""

    block_steps: PositiveInt = 32  # steps between two reads of the device
    after_failure: Literal["stop", "continue"] = "stop"
    collapsed_spread: PositiveFloat = 0.1  # of the stitched complex field, as a share of the truth's
    collapsed_patch_variation: PositiveFloat = 1e-4  # of complex patches, at three validations in a row
    exploded_vs_constant: PositiveFloat = 2.0  # times the constant output's loss
    exploded_vs_best: PositiveFloat = 3.0  # times the trial's own best
    stagnated_vs_constant: PositiveFloat = 0.95
    stagnated_detail: PositiveFloat = 0.5  # correlation of the reconstruction's details with the truth's, at the end
    stagnated_twin_share: Annotated[float, Field(ge=0, le=1)] = 0.5  # of the patches, above which no loss counts

    @property
    def outcome_rules(self) -> OutcomeRules:
        """Convert the settings to the engine's rules."""
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
    """Everything that determines a trial, but for its seed."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    execution: ExecutionConfig = ExecutionConfig()
    monitor: MonitorConfig = MonitorConfig()
    vary: tuple[Literal["initialisation", "data_order", "data"], ...] = ("initialisation", "data_order")
    code_hash: str | None = None  # of the files that parts of your own are in; filled in when a study is resolved

    @classmethod
    def from_dotted(cls, settings: Mapping[str, Any]) -> Self:
        """Build from dotted names, as in ``{"model.fno_blocks": 8}``.

        Raises:
            ConfigError: an unknown name, or a value that is not accepted, alone or beside another.
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
    def _decoder_is_there(self) -> Self:  # of a network of your own it is known when it is built
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
        """Dotted settings that name a part of your own, each with its dotted path."""
        groups = {"model": self.model, "training": self.training, "execution": self.execution}
        return {f"{group}.{name}": path for group, part in groups.items() for name, path in part.own.items()}

    def stream(self, seed: int, what: Literal["initialisation", "data_order", "data"]) -> int:
        """Seed of one random stream of the trial with this ``seed``."""
        return stream_seed(seed if what in self.vary else 0, what)

    def data_seed(self, seed: int) -> int:
        """Seed of objects and noise: the study's own, unless ``vary`` names the data."""
        return self.stream(seed, "data") if "data" in self.vary else self.data.seed

    def identity(self) -> dict[str, Any]:
        """The dotted settings that change the trial's numbers.

        All but paths, the device, checkpointing, and the rules of outcomes, by which records can be judged again.
        """
        omitted = {"execution.device", "data.probe.path", "data.object.path", "data.path", "model.checkpoint_blocks"}
        if self.data.path is None:  # trials of simulated data are found under the names that they have had
            omitted |= {"data.sha256", "data.fit"}
        rules = {f"monitor.{name}" for name in MonitorConfig.model_fields if name != "after_failure"}
        return {key: value for key, value in flatten(self).items() if key not in omitted | rules}

    @property
    def config_hash(self) -> str:
        """16 hexadecimal digits that name `identity`."""
        return digest(self.identity())
