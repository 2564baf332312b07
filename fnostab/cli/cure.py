"""``fnostab run cure``: choose a cure among the candidates, then see whether it holds where nothing was chosen."""

from __future__ import annotations

import platform
import shlex
import sys
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fnostab.cli.launchers import choose_profile, make_launcher
from fnostab.cli.run import as_assignments, execute, insist_on_results
from fnostab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fnostab.decision import Stage, Stress
    from fnostab.report.cure import CureRow
    from fnostab.trial import StudySpec

__all__ = ["run_cure"]

CONTROL, PRESET, DECODER = "control", "bounded", "limiter_decoder"
SEEDS = 20  # of the confirmation
SHARES = (0.2, 0.3, 0.5)  # of that number: for each candidate in the choice, each margin, the usual learning rate
FRESH = 100  # first seed of all that comes after the choice
FRESH_OBJECTS = ("data.seed=1",)  # the choice is made at 0
USUAL_RATE = ("training.learning_rate=1.0e-3",)


def run_cure(
    *,
    extra: Sequence[str],
    settings: Sequence[str],
    seeds: list[int],
    arms: list[str],
    experiment: str | None,
    study: str,
    decide: bool,
    sequential: str | None,
    dry_run: bool,
    from_experiment: str | None,
    profile: str,
    launcher: str,
    cluster: str | None,
    jobs: int | None,
    **common: Any,
) -> None:
    """Run what is missing of the search for a cure, print each step, and write its tables.

    Arguments are those of `fnostab run`. ``seeds`` counts those of the confirmation, of which the other steps take a
    share. ``arms`` are the candidates.

    Raises:
        FnostabError: a study could not be started, a trial came to no result, or something could not be recorded.
    """
    given = {"decide": decide, "sequential": sequential, "dry-run": dry_run, "from": from_experiment}
    if refused := [name for name, value in given.items() if value]:
        raise ConfigError(f"--{refused[0]} is of single studies: {study} decides that itself; leave it out")
    common |= {"jobs": jobs, "launcher": launcher, "cluster": cluster}
    common["profile"] = choose_profile(profile, make_launcher(launcher, cluster, jobs))
    n = len(seeds) or SEEDS
    if seeds and seeds != list(range(n)):
        raise ConfigError(f"seeds={seeds}: {study} chooses its seeds by itself, give how many, as in --seeds {SEEDS}")
    few, some, half = (max(1, round(share * n)) for share in SHARES)
    search = _Search(
        Console(), f"{experiment}_" if experiment else "", (*as_assignments(list(extra)), *settings), common
    )
    if arms and CONTROL not in arms:
        arms = [CONTROL, *arms]
    chosen = search.choose(arms, list(range(few)))
    confirmed = list(dict.fromkeys([CONTROL, chosen, *((PRESET, DECODER) if not arms else ())]))
    search.stress(chosen, [*range(FRESH, FRESH + some)])
    search.compare("confirm", confirmed, [*range(FRESH, FRESH + n)], FRESH_OBJECTS)
    usual = [arm for arm in confirmed if arm != DECODER]
    search.compare("usual rate", usual, [*range(FRESH, FRESH + half)], (*FRESH_OBJECTS, *USUAL_RATE))
    search.conclude(chosen)


@dataclass
class _Search:
    """What has been run so far: trials and rows by step, in order."""

    console: Console
    prefix: str
    settings: tuple[str, ...]
    common: dict[str, Any]
    stages: dict[str, Stage] = field(default_factory=dict)
    rows: dict[str, list[CureRow]] = field(default_factory=dict)
    studies: dict[str, StudySpec] = field(default_factory=dict)
    stressed: Stress | None = None
    started: datetime = field(default_factory=lambda: datetime.now().astimezone())

    def choose(self, arms: list[str], seeds: list[int]) -> str:
        """Run every candidate over the first seeds and objects; return the best arm."""
        from fnostab.report.cure import best_of

        self._run("choose", "cure_candidates", arms, seeds, ())
        rows = self._show("choose")
        chosen = best_of(rows)
        self._say(f"chosen: {chosen}; what follows has seeds and objects that took no part in the choice")
        return chosen

    def stress(self, chosen: str, seeds: list[int]) -> None:
        """Measure the stability margins of control, of the chosen arm if the study has it, and of the preset."""
        from fnostab.cli.stress import stress_of
        from fnostab.report.stress import render_stress
        from fnostab.studies.spec import load_study

        named = load_study("stress_lr", self.common["profile"]).spec("stress_lr").stressed
        arms = [name for arm in (CONTROL, chosen, PRESET) for name in named.get(arm, ())]
        self._run("stress", "stress_lr", list(dict.fromkeys(arms)), seeds, FRESH_OBJECTS)
        self.stressed = stress_of(self.stages["stress"], self.studies["stress"])
        self.console.print(render_stress(self.stressed), highlight=False, soft_wrap=True)

    def compare(self, step: str, arms: list[str], seeds: list[int], more: Sequence[str]) -> None:
        """Run some of the candidates where nothing was chosen."""
        self._run(step, "cure_candidates", arms, seeds, more)
        self._show(step)

    def conclude(self, chosen: str) -> None:
        """Say what holds, and write tables, figure and what they were made with."""
        from fnostab.report.cure import cure_table, no_worse_loss, write_rows, write_trials
        from fnostab.report.stress_picture import stress_picture

        assert self.stressed is not None
        folder = Path(self.common["output"]) / f"{self.prefix}cure"
        folder.mkdir(parents=True, exist_ok=True)
        every = [row for rows in self.rows.values() for row in rows]
        write_rows(every, folder / "arms.csv")
        write_trials(self.stages, folder / "trials.csv")
        picture = stress_picture(self.stressed)
        (folder / picture.file_name).write_bytes(picture.content)
        said = [self._verdict(chosen)]
        for arm in dict.fromkeys((chosen, PRESET)):
            if arm in self.stages["usual rate"].arms:
                p, ratio = no_worse_loss(self.stages["usual rate"], CONTROL, arm)
                said.append(
                    f"{arm} at learning rate 1e-3: loss {ratio} times control's; p = {p:.2g} for below 1.1 times"
                )
        said.append(self.stressed.finding)
        self.console.print(cure_table("All arms tried", self.rows["choose"]), highlight=False)
        for line in said:
            self._say(line)
        (folder / "README.md").write_text(self._readme(said, picture.file_name), encoding="utf-8")
        self._say(f"written: {', '.join(sorted(path.name for path in folder.iterdir()))} in {folder}")

    def _verdict(self, chosen: str) -> str:
        of_control, *others = self.rows["confirm"]
        row = next(each for each in others if each.summary.arm == chosen)
        rate, s, c = of_control.summary.failure_rate or 0.0, row.summary, of_control.summary
        holds = "holds" if row.p is not None and row.p <= 0.05 else "does not hold"
        line = f"{chosen} {holds}: {s.n_failed}/{s.n} failed, control {c.n_failed}/{c.n}, Boschloo p = {row.p:.2g}"
        if not 0.3 <= rate <= 0.9:
            line += f"; control failed in {rate:.0%}, not in 30 to 90 %: a poor place to ask"
        return line

    def _run(self, step: str, study: str, arms: list[str], seeds: list[int], more: Sequence[str]) -> None:
        from fnostab.decision import Stage
        from fnostab.tracking import find_experiment, newest_study, trial_rows

        name = f"{self.prefix}cure_{step.replace(' ', '_')}"
        self._say(f"\n{step}: {study}, seeds {seeds[0]} to {seeds[-1]}{''.join(f', {each}' for each in more)}")
        _, result = execute(
            study=study,
            extra=[],
            settings=(*self.settings, *more),
            seeds=seeds,
            arms=arms,
            experiment=name,
            console=self.console,
            **self.common,
        )
        insist_on_results(result)
        experiment = find_experiment(result.store, result.experiment)
        record = newest_study(result.store, experiment, result.run_id)
        wanted = set(seeds)
        rows = [row for row in trial_rows(result.store, experiment, record) if row.seed in wanted]
        self.stages[step], self.studies[step] = Stage("a", tuple(rows)), record.spec

    def _show(self, step: str) -> list[CureRow]:
        from fnostab.report.cure import cure_rows, cure_table

        rows = self.rows[step] = cure_rows(step, self.stages[step], CONTROL, self.stressed)
        self.console.print(cure_table(step, rows), highlight=False)
        return rows

    def _readme(self, said: Sequence[str], picture: str) -> str:
        from fnostab.report.cure import COLUMNS

        now = datetime.now().astimezone()
        profile = self.studies["choose"].profile
        packages = ", ".join(f"{name} {version(name)}" for name in ("fnostab", "torch", "lightning", "numpy", "scipy"))
        command = shlex.join(["fnostab", *sys.argv[1:]])
        lines = ["# The cure", "", *(f"- {line}" for line in said), ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        lines += ["| " + " | ".join(row.cells()) + " |" for rows in self.rows.values() for row in rows]
        lines += ["", f"![Failure rate against the learning rate]({picture})", ""]
        minutes = (now - self.started).total_seconds() / 60
        lines += [
            f"Made by `{command}` on {now:%Y-%m-%d}, {profile} profile. This go took {minutes:.0f} minutes; started "
            "again, it only runs what is missing.",
            f"Machine: {platform.machine()}, {platform.system()}, Python {platform.python_version()}; {packages}.",
            "`arms.csv` has these rows, `trials.csv` every trial of every step, whether its arm was chosen or not.",
            "p: one-sided Boschloo against control, Holm over the arms of a step; medians are of successful trials.",
            "Not run: the full profile, other depths, the Poisson loss, measured probes, muP learning rates.",
        ]
        return "\n".join(lines) + "\n"

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
