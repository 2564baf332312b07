"""Trial specifications of the built-in task, for benchmarks without a study file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.task import Ptychography
from fnostab.record.settings import digest, flatten
from fnostab.record.trial import TrialSpec


def trial_record(settings: Mapping[str, Any], shared: str | Path, **about: Any) -> TrialSpec:
    """Specification of a trial with dotted settings; ``about`` has experiment, study, profile, arm and seed."""
    task, resolved = Ptychography(), flatten(TrialConfig.from_dotted(settings))
    return TrialSpec(
        task=task.name,
        settings=resolved,
        config_hash=digest(task.identity(resolved)),
        metric=task.metric,
        judged=task.judged(resolved, task.metric),
        rules=task.rules(resolved),
        after_failure=task.after_failure(resolved),
        resources=task.resources(resolved),
        shared_dir=str(shared),
        **about,
    )
