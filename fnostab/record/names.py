"""Names of the tags, metrics and artifacts of a run.

They are the contract between what a trial writes, what the MLflow UI shows and what ``decide``
reads. Increment ``SCHEMA`` when a meaning changes.
"""

SCHEMA = "1"

# Tags
KIND = "fnostab.kind"  # kind of run: one of the KIND_ values below
TRIAL_ID = "fnostab.trial_id"
USER = "mlflow.user"  # user who owns the run
SOURCE = "mlflow.source.name"  # command that created it: MLflow's column "Source"
PARENT_RUN = "mlflow.parentRunId"  # run id of the study
OWNER = "fnostab.owner"  # process that writes the journal: "pid@host", or "pid@host in Slurm job 123_4 of perlmutter"
STUDY = "fnostab.study"
TASK = "fnostab.task"
RESTARTED = "fnostab.restarted"  # a retry repeated steps; the first record of each step counts
STUDY_HASH = "fnostab.study_hash"
CHARTS = "fnostab.charts"  # of a study: replacements for the words in braces in a view's charts, as JSON
ARM = "fnostab.arm"
SEED = "fnostab.seed"
OUTCOME = "fnostab.outcome"
FAILURE_STEP = "fnostab.failure_step"
FAILURE_AFTER = "fnostab.failure_after_step"  # last step known to precede the failure
RULES_HELD = "fnostab.rules_held"  # every outcome rule that held, not only the deciding one
NOT_JUDGED = "fnostab.not_judged"  # rules that could not be judged, and why
REASON = "fnostab.reason"  # why the outcome is not a training outcome, or may be misleading
LONGEST_REASON = 500  # characters
PROFILE = "fnostab.profile"
CONFIG_HASH = "fnostab.config_hash"
SCHEMA_TAG = "fnostab.schema"
VERSION = "fnostab.version"
GIT_COMMIT = "fnostab.git_commit"
DEVICE = "fnostab.device"
LOCKSTEP = "fnostab.lockstep"  # number of trials that the process trained side by side
SCHEDULED_STEPS = "fnostab.scheduled_steps"  # optimiser steps of the whole training
SENT = "fnostab.sent"  # part of the journal that was sent: bytes, their CRC-32, time of the last record
LEFT_OUT = "fnostab.left_out"  # records of the journal that could not be sent, and why
THINNED = "fnostab.thinned"  # time at which `fnostab prune` removed points; no more are sent to the run
SHORT_ARM = "arm"  # short copies, for the UI's grouping
SHORT_SEED = "seed"

# Metrics at every optimiser step
TRAIN_LOSS = "train/loss"
GRAD_NORM = "grad_norm/total"  # before clipping
GRAD_NORM_CLIPPED = "grad_norm/clipped"  # after clipping
CLIP_FRACTION = "clip/fraction"  # fraction of units clipped
LEARNING_RATE = "lr"

# At most WINDOWS points per run: the UI samples long curves and would hide a single spike
GRAD_NORM_WINDOW_MAX = "grad_norm/window_max"
WINDOWS = 300

# Only at the steps of gradient spikes: norm before clipping
SPIKE = "grad_norm/spike"

# At every validation
VAL_PREFIX = "val/"
ACTIVATION_MEAN = "activation_mean/"  # + block name
ACTIVATION_STD = "activation_std/"
DEAD_UNITS = "dead_units/"  # fraction of a module's channels
SPECTRAL_TO_LOCAL = "spectral_to_local/"  # ratio of the branches' root mean squares
LOW_FREQUENCIES = "low_frequencies/"  # fraction of the output's power
BLOCK_QUANTITIES = (ACTIVATION_MEAN, ACTIVATION_STD, DEAD_UNITS, SPECTRAL_TO_LOCAL, LOW_FREQUENCIES)
RESIDUAL_GAIN = "residual_gain/"
BLOCK_GRAD_NORM = "block_grad_norm/"

# Once, at the end of training
VAL_LOSS_BEST = "val_loss_best"  # the deciding metric
VAL_LOSS_LAST = "val_loss_last"
CONSTANT_LOSS = "constant_output_loss"
NOISE_FLOOR_LOSS = "noise_floor_loss"  # validation loss of a perfect prediction, caused by noise alone
NAN_EVENTS = "nan_events"
INF_EVENTS = "inf_events"
SPIKES = "spike_events"
SPIKES_UNRECOVERED = "spike_events_unrecovered"
TIME_TO_FAILURE = "time_to_failure_steps"  # for a trial that did not fail, its last step (censored)
LAST_STEP = "last_step"
GRAD_P99_LAST_HALF = "grad_norm/p99_last_half"
GRAD_MEDIAN_LAST_HALF = "grad_norm/median_last_half"
SAMPLES_PER_S = "samples_per_s"
PEAK_MEMORY = "peak_memory_bytes"
PARAMETERS = "params_real"  # number of real parameters; a complex weight counts as two
JUDGED = (  # by which trials are judged and compared; no program may record its own values under these
    LAST_STEP,
    TIME_TO_FAILURE,
    NAN_EVENTS,
    INF_EVENTS,
    GRAD_P99_LAST_HALF,
    GRAD_MEDIAN_LAST_HALF,
    CONSTANT_LOSS,
    NOISE_FLOOR_LOSS,
)


# Events in a journal
PARAMS_EVENT = "params"
TAGS_EVENT = "tags"
ARTIFACT_EVENT = "artifact"
DATASET_EVENT = "dataset"
STARTED_EVENT = "started"  # of training: scheduled_steps, guard
NONFINITE_EVENT = "nonfinite"
SPIKE_EVENT = "spike"  # step, norm, z_score, recovered_step (None if it did not)
RESUMED_EVENT = "resumed"  # from a checkpoint: step
OUTCOME_EVENT = "outcome"

OUTCOMES = "converged", "nonfinite", "collapsed", "exploded", "stagnated", "oom", "killed", "infra_error", "running"

# Folders of a trial's artifacts
BLACK_BOX = "black_box"  # state from before the failing step
BLACK_BOX_FILE = "black_box.json"  # in that folder

# Kinds of runs: the values of KIND
KIND_STUDY = "study"
KIND_TRIAL = "trial"
KIND_VERDICT = "verdict"
KIND_SET_ASIDE = "set_aside"  # run of a trial whose journal was lost, and that was created again
KIND_LIVE = "live"  # run of a user's own script, part of no study

# Tags that link runs
STUDY_RUN = "fnostab.study_run"  # run IDs of the studies to which a verdict or an `mlflow run` belongs
PROJECT_RUN = "fnostab.project_run"  # run that `mlflow run` created for itself
VERDICT = "fnostab.verdict"
SEEDS_JUDGED = "fnostab.seeds_judged"  # of a verdict: number of trials in the largest arm
