"""Ask and tell: the user's own loop, for example in a notebook, trains the trials of a study.

    study = fnostab.Study("qk", control={"qk_norm": False}, arms={"qk": {"qk_norm": True}}, seeds=5, baseline=3.02)
    for trial in study:
        with trial.recorder() as rec:
            train(**trial.settings, seed=trial.seed, rec=rec)
    study.decide()

The records are the same as for any other study: a folder of journals. A trial is judged when its recorder closes.
"""

from fnostab.asking.ask_and_tell import Study
from fnostab.asking.handed_out import Trial

__all__ = ["Study", "Trial"]
