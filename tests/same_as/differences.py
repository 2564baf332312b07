"""What may differ between the baseline and the working tree, as data.

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
    "replay": ("trial.study_hash",),
    "events": (),
    "settings": (),
}

# Deliberate changes of names: from the baseline's to the working tree's.

ADDED_SETTINGS = (  # with defaults by which nothing changes, but for the rules of outcomes
    *("model.down_kernel", "model.spectral_weights", "training.cosine_floor", "monitor.stagnated_detail"),
    *("data.phase_only", "data.object.kind", "data.object.path", "data.object.sha256"),
)
CHANGED_SETTINGS = ("monitor.collapsed_patch_variation",)
SMALL_PROFILE_SETTINGS = ("training.epochs",)  # changed in the small profile alone
ADDED_ARMS = ("stage_b small clipped_control", "stage_b full clipped_control")
RULES_OF_BEFORE: dict[str, object] = {  # settings of the working tree by which outcomes are as they were
    "monitor.stagnated_detail": 1e-9,
}
RENAMED_SETTINGS: dict[str, str] = {}  # dotted, as study files and --set have them
RENAMED_STUDY_KEYS: dict[str, str] = {}  # of a study file: "roles", say
ADDED_STUDY_KEYS: dict[str, object] = {"task": "ptychography"}  # that the working tree wants besides
RENAMED_METRICS: dict[str, str] = {}
RENAMED_TENSORS: dict[str, str] = {}  # beginnings of names in best.safetensors

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
    "built_in_studies": ("fnostab.study.study", "fnostab.studies.spec"),
}
