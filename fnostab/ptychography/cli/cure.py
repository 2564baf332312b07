"""``fnostab run cure``: choose a cure among the candidates, then see whether it holds where nothing was chosen."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from fnostab.cli.console import Console
from fnostab.cli.execution import RunOptions, execute, insist_on_results, refuse_in_a_chain
from fnostab.cli.launchers import make_launcher
from fnostab.errors import ConfigError
from fnostab.ptychography.task import Ptychography, profile_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fnostab.decision import Stress
    from fnostab.ptychography.report.cure import SearchStep
    from fnostab.record.trial import StudySpec

__all__ = ["run_cure"]

CONTROL = "control"
SHIPPED, PRESET = "warmup_norm_1", "bounded"  # the arm `cure` of `stage_a`; the arm that is `bounded_hybrid`
SEEDS = 20  # of the confirmation
FIRST, SECOND, STRESS, USUAL = 0.2, 0.6, 0.3, 2.0  # shares of that number: seeds of the other steps
FINALISTS = 4  # candidates in the second round of the choice
FRESH = 300  # first seed of all that comes after the choice; seeds 100 to 119 and 200 to 219 chose what is shipped
FRESH_OBJECTS = ("data.seed=3",)  # the choice is made at 0; 1 and 2 went with those seeds
USUAL_RATE = ("training.learning_rate=1.0e-3",)
NOT_RUN = "the full profile, other depths, the Poisson loss, measured probes"


def run_cure(options: RunOptions, *, decide: bool, sequential: str | None, dry_run: bool) -> None:
    """Run what is missing of the search for a cure, print each step, and write its tables.

    Arguments are those of `fnostab run`. The options' seeds count those of the confirmation, of which the other steps
    take a share; their arms are the candidates.

    Raises:
        FnostabError: a study could not be started, a trial came to no result, or something could not be recorded.
    """
    study, seeds, arms = options.study, options.seeds, list(options.arms)
    given = {"decide": decide, "sequential": sequential, "dry_run": dry_run, "from": options.from_experiment}
    refuse_in_a_chain(study, **given)
    launcher = make_launcher(options.launcher, options.cluster, options.jobs)
    common = replace(options, profile=profile_for(options.profile, launcher))
    n = len(seeds) or SEEDS
    if seeds and seeds != tuple(range(n)):
        raise ConfigError(
            f"seeds={list(seeds)}: {study} chooses its seeds by itself, give how many, as in --seeds {SEEDS}"
        )
    if set(arms) == {CONTROL}:
        raise ConfigError(f"arms={CONTROL}: name candidates too; `fnostab studies show cure_candidates` has them")
    first, second, stress, usual = (max(1, round(share * n)) for share in (FIRST, SECOND, STRESS, USUAL))
    search = _Search(Console(), f"{options.experiment}_" if options.experiment else "", common)
    if arms and CONTROL not in arms:
        arms = [CONTROL, *arms]
    best = search.compare("choose", "all candidates", arms, range(first))
    finalists = [CONTROL, *best[:FINALISTS]]
    chosen, *_ = search.compare(
        "choose again", "the best of them, on more seeds", finalists, range(second), of="choose"
    )
    search.say(f"chosen: {chosen}; what follows has seeds and objects that took no part in the choice")
    confirmed = list(dict.fromkeys([CONTROL, chosen, *((SHIPPED, PRESET) if not arms else ())]))
    fresh = range(FRESH, FRESH + max(n, stress, usual))
    search.stress(confirmed, fresh[:stress])
    whom = f"{', '.join(confirmed[1:])} against {CONTROL}"
    search.compare("confirm", whom, confirmed, fresh[:n], FRESH_OBJECTS)
    search.compare("usual rate", whom, confirmed, fresh[:usual], (*FRESH_OBJECTS, *USUAL_RATE))
    search.conclude(chosen)


@dataclass
class _Search:
    """State of the search: what has been run so far."""

    console: Console
    prefix: str
    common: RunOptions
    steps: dict[str, SearchStep] = field(default_factory=dict)
    stressed: Stress | None = None
    started: datetime = field(default_factory=lambda: datetime.now().astimezone())

    def compare(
        self, name: str, whom: str, arms: list[str], seeds: range, more: Sequence[str] = (), of: str = ""
    ) -> list[str]:
        """Run candidates, all if ``arms`` is empty, and print a row for each; their names, the best first.

        ``of`` is the step that this one goes on with.
        """
        from fnostab.ptychography.report.cure import cure_rows, cure_table, ranked

        step, _ = self._run(name, whom, "cure_candidates", arms, seeds, more, of)
        step = replace(step, rows=cure_rows(name, step.stage, CONTROL, self.stressed))
        self.steps[name] = step
        self.console.print(cure_table(name, step.rows), highlight=False)
        return ranked(step.rows)

    def stress(self, arms: list[str], seeds: range) -> None:
        """Measure the stability margins of those arms that the stress study has."""
        from fnostab.cli.stress import stress_of
        from fnostab.report.stress import render_stress
        from fnostab.study.study import load_study

        named = load_study("stress_lr", self.common.profile).spec("stress_lr").stressed
        stressed = [name for arm in arms for name in named.get(arm, ())]
        whom = f"{', '.join(arm for arm in arms if arm in named)} at rising learning rates"
        self.steps["stress"], study = self._run("stress", whom, "stress_lr", stressed, seeds, FRESH_OBJECTS)
        self.stressed = stress_of(self.steps["stress"].stage, study)
        self.console.print(render_stress(self.stressed), highlight=False, soft_wrap=True)

    def conclude(self, chosen: str) -> None:
        """Say what holds, and write report, tables and figure."""
        from fnostab.decision import AnswerName, Roles, Rules, decide
        from fnostab.ptychography.report.cure import SearchReport, claims, cure_table, write_rows, write_trials
        from fnostab.ptychography.report.documents import write_search
        from fnostab.report.stress_picture import stress_picture
        from fnostab.report.verdict import evidence_text

        assert self.stressed is not None
        stage = self.steps["confirm"].stage
        confirmed = claims(stage, CONTROL, "fewer_failures")
        judged = decide(Roles(CONTROL), stage, rules=Rules(measures=Ptychography.measures))
        answers = {answer.arm: answer for answer in judged.answers}
        sentences = {answer.arm: text for answer, text in zip(judged.answers, judged.sentences, strict=True)}
        usual = claims(self.steps["usual rate"].stage, CONTROL, "loss_within_margin")
        said = []
        for arm in sorted(confirmed, key=lambda arm: arm != chosen):
            holds = "holds" if answers[arm].name is AnswerName.HELPS else "does not hold"
            as_good = "no worse than control" if usual[arm].supported else "not shown to be no worse than control"
            said += [
                f"{arm} {holds}: {evidence_text(confirmed[arm])}; {sentences[arm]}",
                f"{arm} at learning rate 1e-3: {as_good}; {evidence_text(usual[arm])}",
            ]
        rate = self.steps["confirm"].rows[0].summary.failure_rate or 0.0
        if not 0.3 <= rate <= 0.9:
            said.append(f"control failed in {rate:.0%} of its trials, not in 30 to 90 %: a poor place to ask")
        said.append(self.stressed.finding)
        self.console.print(cure_table("All arms tried", self.steps["choose"].rows), highlight=False)
        now = datetime.now().astimezone()
        packages = ", ".join(f"{name} {version(name)}" for name in ("fnostab", "torch", "lightning", "numpy", "scipy"))
        report = SearchReport(
            chosen=chosen,
            said=said,
            steps=list(self.steps.values()),
            picture=stress_picture(self.stressed),
            profile=self.common.profile,
            not_run=NOT_RUN,
            command=shlex.join(["fnostab", *sys.argv[1:]]),
            made_at=now,
            minutes=(now - self.started).total_seconds() / 60,
            machine=f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python "
            f"{platform.python_version()}; {packages}",
        )
        for line in said:
            self.say(line)
        folder = self.common.output / f"{self.prefix}cure"
        files = write_search(report, folder)
        write_rows(report.steps, folder / "arms.csv")
        write_trials(report.steps, folder / "trials.csv")
        self.say(
            f"written: {', '.join(sorted(path.name for path in folder.iterdir()))} in {folder}; look at {files[0]}"
        )

    def _run(
        self, name: str, whom: str, study: str, arms: list[str], seeds: range, more: Sequence[str], of: str = ""
    ) -> tuple[SearchStep, StudySpec]:
        from fnostab.decision import Stage
        from fnostab.ptychography.report.cure import SearchStep
        from fnostab.tracking import find_experiment, newest_study, trial_rows

        what = f"{whom}: seeds {seeds[0]} to {seeds[-1]}{''.join(f', {each}' for each in more)}"
        self.say(f"\n{name}: {what}")
        experiment = f"{self.prefix}cure_{(of or name).replace(' ', '_')}"
        settings = (*self.common.settings, *more)
        options = replace(
            self.common, study=study, settings=settings, seeds=tuple(seeds), arms=tuple(arms), experiment=experiment
        )
        _, result = execute(options, self.console)
        insist_on_results(result)
        recorded = find_experiment(result.store, result.experiment)
        record = newest_study(result.store, recorded, result.run_id)
        rows = trial_rows(result.store, recorded, record)
        asked = [row for row in rows if row.seed in seeds and (not arms or row.arm in arms)]
        return SearchStep(name, what, Stage("a", tuple(asked))), record.spec

    def say(self, line: str) -> None:
        """Print a line as it is."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
