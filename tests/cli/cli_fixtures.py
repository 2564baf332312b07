import pytest

from fnostab.ptychography import metric_names
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.study.file import read_study_file
from fnostab.study.study import Study
from fnostab.tracking import Uploader, ensure_study

LOSS = {"control": 0.030, "arch_fix": 0.010, "opt_fix": 0.029}


@pytest.fixture
def record_study(tiny_settings, tmp_path):
    """A function that records a study as its trials would have: how many of an arm's seeds failed, and how.

    Nothing is trained. Of ``failures`` the values are counts of collapsed trials, or outcomes of all seeds; ``seeds``
    is how many there are, or a range, and a setting of None is left to the study.
    """

    def record(store, experiment, failures, *, study="stage_a", seeds=3, loss=None, ssim=None, **settings):
        overrides = {name: v for name, v in tiny_settings.items() if name != "model.fno_blocks"} | settings
        overrides = {name: value for name, value in overrides.items() if value is not None}
        resolved = Study(read_study_file(study), "small", overrides)
        which = range(seeds) if isinstance(seeds, int) else seeds
        trials = resolved.trials(experiment, tmp_path / "outputs", arms=list(failures), seeds=which)
        run_id = ensure_study(store, resolved.spec(experiment, trials))
        uploader = Uploader(store, run_id)
        for trial in trials:
            spec, directory = trial.spec, trial.directory
            spec.write(directory / "trial.json")
            of_arm = failures[spec.arm]
            place = which.index(spec.seed)
            outcome = of_arm if isinstance(of_arm, str) else "collapsed" if place < of_arm else "converged"
            best = (loss or LOSS).get(spec.arm, 0.03) * (1 + 0.001 * spec.seed)
            with Journal(directory) as journal:
                if outcome != "oom":
                    scores = {names.VAL_LOSS_BEST: best, metric_names.VAL_SSIM_AMP: (ssim or {}).get(spec.arm, 0.9)}
                    scores |= {metric_names.VAL_SSIM_PHASE: 0.8, metric_names.FRC_HALF: 0.4}
                    journal.record(9, {names.LAST_STEP: 9.0, **scores})
                ended = {"outcome": outcome, "failure_step": 5 if outcome == "collapsed" else None}
                evidence = {"known_good_step": None, "rules_held": [], "not_judged": [], "reason": None}
                journal.event(names.OUTCOME_EVENT, ended | evidence)
            uploader.follow(directory)
        uploader.drain(60)
        resolved.spec(experiment).write(tmp_path / "outputs" / experiment / resolved.hash / "study.json")
        return run_id

    return record
