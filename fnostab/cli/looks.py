"""``fnostab run --sequential``: judge a study at planned looks, before all its seeds have run."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from fnostab.cli.execution import RunOptions, execute, insist_on_results
from fnostab.cli.options import parse_settings
from fnostab.decision import Roles, Rules, Stage
from fnostab.decision.sequential import Standing, judge_look, look_alpha
from fnostab.errors import ConfigError
from fnostab.record.plurals import counted
from fnostab.record.same_settings import same_settings
from fnostab.show.console import say
from fnostab.study.study import load_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from fnostab.launch.run import StudyRun
    from fnostab.show.notifying import Notifier


def run_in_looks(looks: Sequence[int], options: RunOptions, console: Console, notifier: Notifier | None) -> StudyRun:
    """Run a study up to each look, then continue with control and the arms that are still undecided.

    Looks are increasing numbers of seeds per arm; the options name no seeds. The study is recorded with the alpha of a
    look, so that `fnostab decide` keeps the error over all looks too. A message is sent when a look decides an arm.

    Raises:
        FnostabError: the study could not be started, not all of it could be recorded, or a trial has no result.
    """
    study = load_study(options.study, options.profile, parse_settings(options.settings), epochs=options.epochs)
    file = study.file.with_defaults()
    file.insist_on_arms(options.arms)
    roles = Roles.of(file)
    asked = options.arms or tuple(file.arms)
    say(console, *study.twins(asked))
    same = same_settings({arm: study.config_hashes[arm] for arm in asked}, file.control)
    arms = tuple(arm for arm in asked if arm not in same)
    candidates = [arm for arm in arms if arm in (roles.candidates or file.arms) and arm != roles.control]
    if roles.control not in arms or not candidates:
        raise ConfigError(f"--sequential compares arms with control: --arms needs {roles.control!r} and a candidate")
    alpha = look_alpha(looks, file.alpha, len([arm for arm in arms if arm != roles.control]))
    rules = replace(Rules.of(file, looks_planned=True), alpha=alpha)

    from fnostab.tracking import find_experiment, log_verdict, looks_before, newest_study, trial_rows

    open_arms = candidates
    for number, seeds in enumerate(looks, start=1):
        going_on = tuple(arm for arm in arms if arm in open_arms or arm not in candidates)
        upto = replace(options, arms=going_on, seeds=tuple(range(seeds)), alpha=alpha, looks=tuple(looks))
        result = execute(upto, console)
        insist_on_results(result)
        experiment = find_experiment(result.store, result.experiment)
        if number == 1 and looks_before(result.store, experiment, result.run_id, seeds=seeds):
            late = "it was judged on fewer seeds before these looks were planned"
            say(console, f"{result.experiment}: {late}, so the error over all looks can exceed {file.alpha:g}")
        trials = trial_rows(result.store, experiment, newest_study(result.store, experiment, result.run_id))
        found = judge_look(roles, Stage("a", tuple(trials), same_settings=same), rules, seeds=seeds, last=looks[-1])
        found = [each for each in found if each.arm in open_arms]

        name = f"look {number} of {len(looks)} ({counted(seeds, 'seed')})"
        lines = [str(each) for each in found]
        payload = {"look": number, "looks": list(looks), "alpha": alpha, "arms": [asdict(each) for each in found]}
        payload["seeds"] = seeds  # counts as a look at the study where more seeds than planned follow
        text = "\n".join(f"- {line}" for line in lines)
        log_verdict(result.store, experiment, [result.run_id], name, payload, f"alpha {alpha:.5f}\n\n{text}")
        say(console, f"\n{name}, alpha {alpha:.5f}:", *(f"  {line}" for line in lines))

        decided = [f"{each}" for each in found if each.standing is not Standing.OPEN]
        if notifier and decided:
            notifier.send(f"fnostab: {result.experiment}, {name}", *decided)
        open_arms = [each.arm for each in found if each.standing is Standing.OPEN]
        if not open_arms:
            break
    return result
