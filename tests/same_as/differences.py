"""Allowed differences between the baseline and the working tree, as data.

A deliberate change is one line here and one line in DELIBERATE.md. Paths of JSON keys are dotted; items of lists
are not counted, so that ``trials.run_id`` names that key in every item of ``trials``.
"""

# Never comparable: they depend on the machine, the clock, or chance.

MACHINE_METRICS = ("system/", "samples_per_s", "peak_memory_bytes")  # names, or beginnings that end in "/"

# Deliberately others, so that no value is compared: in one of the trees alone, or of another meaning.

CHANGED_METRICS = (
    *("val/amplitude_spread", "val/spread", "val/patch_variation", "val/detail_correlation", "val/ssim_phase"),
    *("test/psnr_amp", "test/psnr_phase", "test/frc_0.5", "test/frc_1_7"),
    *("test/ssim_phase_published", "test/ssim_phase_published_constant"),
)

# Deliberate changes of what is written: by output, paths of JSON keys (of export: columns).

REMOVED: dict[str, tuple[str, ...]] = {"decide": (), "export": (), "replay": (), "events": (), "settings": ()}
ADDED: dict[str, tuple[str, ...]] = {"decide": (), "export": (), "replay": (), "events": (), "settings": ()}
RENAMED: dict[str, dict[str, str]] = {"decide": {}, "export": {}, "replay": {}, "events": {}, "settings": {}}
CHANGED: dict[str, tuple[str, ...]] = {  # there in both, with another value: hashes once they are made otherwise, say
    "decide": (),
    "export": (),
    "replay": ("trial.study_hash", "trial.config_hash"),
    "events": (),
    "settings": (),
}

# Deliberate changes of names: from the baseline's to the working tree's.

CHANGED_SETTINGS = ("monitor.collapsed_patch_variation",)  # of built-in studies
CHANGED_IN_SMALL = ("training.epochs",)  # of their small profile
ADDED_ARMS = ("stage_b * clipped_control",)  # built-in "study profile arm"
RULES_OF_BEFORE: dict[str, object] = {"monitor.stagnated_detail": 1e-9}  # the working tree's, that judge as before
RENAMED_SETTINGS: dict[str, str] = {  # dotted, as study files and --set have them
    "training.mup_base_width": "training.options.base_width",
}
RENAMED_STUDY_KEYS: dict[str, str] = {}  # of a study file: "roles", say
ADDED_STUDY_KEYS: dict[str, object] = {"task": "ptychography"}  # that the working tree wants besides
RENAMED_METRICS: dict[str, str] = {}
RENAMED_TENSORS: dict[str, str] = {"decoder.0.norm.": "decoder.0.1.norm."}  # beginnings of names in best.safetensors

# Parts that are examples/cure_search's now: settings of the baseline, and of the working tree in their place.

NETWORK = "cure_parts.network"
MOVED: dict[tuple[str, object], dict[str, object]] = {
    ("model.residual", "depth"): {"model.block": f"{NETWORK}.DepthScaledBlock"},
    ("model.residual", "skipinit"): {"model.block": f"{NETWORK}.SkipInitBlock"},
    ("model.stabiliser", "tanh"): {"model.block": f"{NETWORK}.TanhBlock"},
    ("model.leaky", "blocks"): {"model.block": f"{NETWORK}.LeakyBlock"},
    ("model.leaky", "decoder"): {"model.decoder_activation": f"{NETWORK}.LeakyGELU"},
    ("model.leaky", "both"): {
        "model.block": f"{NETWORK}.LeakyBlock",
        "model.decoder_activation": f"{NETWORK}.LeakyGELU",
    },
    ("model.decoder_norm", "group"): {"model.decoder_activation": f"{NETWORK}.NormedGELU"},
    ("model.head", "polar"): {"model.head": f"{NETWORK}.Polar"},
    ("training.optimizer", "stable_adamw"): {"training.optimizer": "cure_parts.stable_adamw.stable_adamw"},
    ("training.learning_rates", "mup"): {"training.optimizer": "cure_parts.mup.adam"},
    ("execution.gradient_clip_algorithm", "zclip"): {"execution.gradient_clip_algorithm": "cure_parts.zclip.ZClip"},
}
MOVED_ARMS = ("cure_candidates *", "stress_lr * group_norm_*")  # built-in "study profile arm" that are no more
REMOVED_SETTINGS = (
    *("model.decoder_norm", "model.leaky", "model.stabiliser"),
    "training.learning_rates",
    "training.mup_base_width",
)
ADDED_SETTINGS = {
    "model.block": "residual",
    "model.decoder_activation": "gelu",
    "training.options": {},
    "code_hash": None,
    "model.down_kernel": 3,
    "model.spectral_weights": "existing",
    "training.cosine_floor": 0.0,
    "monitor.stagnated_detail": 0.5,
    "data.phase_only": False,
    "data.object.kind": "lines",
    "data.object.path": None,
    "data.object.sha256": None,
    "data.path": None,
    "data.sha256": None,
    "data.fit": "crop",
}

# What is compared of ``decide --json``, by its lists, and of an export.

NUMBERS = {
    "arms": (
        *("stage", "arm", "n", "n_ok", "n_failed", "n_excluded", "n_running", "outcomes", "left_out", "failure_rate"),
        *("failure_rate_ci", "failure_rate_upper", "median", "iqr", "matched_ratio", "matched_pairs"),
        "median_failure_step",
    ),
    "trials": ("stage", "arm", "seed", "outcome", "loss", "failure_step", "last_step", "rules_held", "grad_ratio"),
}
EXPORTED = ("stage", "arm", "seed", "outcome", "val_loss", "failure_step", "last_step")
OF_FAILURES = ("stage", "arm", "test", "p", "effect", "ci")  # of criteria, where p is made as before

# Events of a journal that are compared, each with the keys of its payload that are; None is all of them.

EVENTS: dict[str, tuple[str, ...] | None] = {
    "started": ("scheduled_steps",),
    "dataset": ("name",),
    "nonfinite": ("step", "loss", "norm"),
    "spike": ("step", "norm", "z_score"),
    "outcome": ("outcome", "failure_step", "known_good_step", "rules_held", "reason"),
}

# Where the few objects are that have no command: the first module that has the object counts.

PLACES = {
    "stream_seed": ("fnostab.seeding",),
    "TrialConfig": ("fnostab.ptychography.settings", "fnostab.config"),
    "flatten": ("fnostab.record.settings", "fnostab.config"),
    "load_study": ("fnostab.study.study", "fnostab.studies.spec"),
    "built_in_studies": ("fnostab.tasks.registry", "fnostab.study.study", "fnostab.studies.spec"),
}
