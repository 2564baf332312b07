"""Records of studies and trials of the task ``ptychography``, as the engine writes them: made in one place."""

from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.task import Ptychography
from fnostab.record.settings import digest, flatten
from fnostab.record.trial import StudySpec, TrialSpec

TASK = Ptychography()


def config_of(spec):
    """Settings of a trial's record."""
    return TrialConfig.from_dotted(spec.settings)


def trial_spec(settings=None, *, arm="control", seed=0, shared_dir="cache", **values):
    """Record of a trial; ``settings`` are dotted, those that are left out are the defaults."""
    resolved = flatten(settings if isinstance(settings, TrialConfig) else TrialConfig.from_dotted(settings or {}))
    metric = values.pop("metric", TASK.metric)
    return TrialSpec(
        **{
            "task": TASK.name,
            "experiment": "test",
            "study": "test",
            "study_hash": "0" * 16,
            "profile": "small",
            "settings": resolved,
            "config_hash": config_hash(resolved),
            "judged": TASK.judged(resolved, metric),
            "rules": TASK.rules(resolved),
            "after_failure": TASK.after_failure(resolved),
            "resources": TASK.resources(resolved),
        }
        | values,
        metric=metric,
        arm=arm,
        seed=seed,
        shared_dir=str(shared_dir),
    )


def trial_of(study, arm="control", seed=0, settings=None, **values):
    """Record of a trial of the study that ``study`` is the record of; settings that are left out are the arm's."""
    settings = study.arms.get(arm) if settings is None else settings
    about = {"experiment": study.experiment, "study": study.name, "study_hash": study.hash, "profile": study.profile}
    return trial_spec(settings, arm=arm, seed=seed, **about | values)


def study_spec(arms=None, **values):
    """Record of a study; ``arms`` are dotted settings by name, kept as they are, the first one the control."""
    arms = {"control": {}} if arms is None else arms
    metric = values.pop("metric", TASK.metric)
    return StudySpec(
        **{
            "task": TASK.name,
            "name": "shootout",
            "hash": "5eed",
            "experiment": "stage_a",
            "profile": "small",
            "description": "Does it train?",
            "control": next(iter(arms)),
            "config_hashes": {arm: config_hash(settings) for arm, settings in arms.items()},
            "judged": {arm: TASK.judged(settings, metric) for arm, settings in arms.items()},
            "measures": TASK.measures,
            "margin": TASK.margin,
        }
        | values,
        metric=metric,
        arms=arms,
    )


def config_hash(settings):
    """Name of what identifies the trials of an arm."""
    return digest(TASK.identity(settings))
