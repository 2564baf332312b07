"""Choose a cure among candidates, then confirm it on new seeds and objects.

    python search.py --profile small

If started again, it only runs missing trials. Tables, a figure and a report are written to outputs/cure/.
"""

import argparse
import csv
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from median_interval import median_interval
from rich.console import Console

from fnostab import FnostabError, load_study, run_study
from fnostab.cli.execution import insist_on_results
from fnostab.cli.options import parse_names, parse_settings
from fnostab.decision import AnswerName, ArmSummary, Criterion, Roles, Rules, Stage, Stress, decide
from fnostab.decision.stress import margin_text
from fnostab.decision.tally import summarise
from fnostab.ptychography import metric_names
from fnostab.ptychography.task import Ptychography
from fnostab.record.outcomes import Outcome
from fnostab.report.documents import write_files
from fnostab.report.panels import stress_picture
from fnostab.report.stress import render_stress, stress_of
from fnostab.report.tables import evidence_text, plain_table
from fnostab.stats.proportions import fewer_failures_p, holm
from fnostab.stats.rate import Rate
from fnostab.tracking import find_experiment, newest_study, trial_rows

HERE = Path(__file__).parent
CANDIDATES = str(HERE / "candidates.yaml")
CONTROL = "control"
SHIPPED, PRESET = "warmup_norm_1", "bounded"  # the arm `cure` of `stage_a`; the arm `bounded_hybrid`
SEEDS = 20  # seeds of the confirmation
FIRST, SECOND, STRESS, USUAL = 0.2, 0.6, 0.3, 2.0  # seeds of the other steps, as multiples of that number
FINALISTS = 4  # candidates in the second round of the choice
FRESH = 300  # first seed after the choice; seeds 100 to 119 and 200 to 219 chose what is shipped
FRESH_OBJECTS = {"data.seed": 3}  # the choice uses 0; 1 and 2 were used with those seeds
USUAL_RATE = {"training.learning_rate": 1e-3}
COLUMNS = ("arm", "failed", "failure rate (95 %)", "half fail at (95 %)", "median loss (95 %)", "SSIM", "p")
OF_TRIALS = ("step", "arm", "seed", "outcome", "val_loss_best", "val_ssim_amp", "failure_step", "last_step")
NOT_RUN = "the full profile, other depths, the Poisson loss, measured probes"
HOW_TO_READ = """p: one-sided Boschloo against control, Holm over the arms of a step. Medians and SSIM are of \
successful trials, with bootstrap intervals; failure rates have Wilson's. What holds, and what is no worse, is what \
`fnostab decide` calls supported. Half fail at: the stability margin, over the values of the stress study. `arms.csv` \
has the rows above, `trials.csv` every trial of every step, whether its arm was chosen or not."""


class Search:
    """State of a search: the steps run so far.

    Attributes:
        options: command-line options.
        console: console for progress.
        steps: for each step by name, a description of its arms and seeds, and its trials.
        rows: for each step by name, the cells of `COLUMNS` for each arm, control first.
        stressed: margins from the stress study; None until it is run.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.console = Console()
        self.steps: dict[str, tuple[str, Stage]] = {}
        self.rows: dict[str, list[tuple[str, ...]]] = {}
        self.stressed: Stress | None = None

    def compare(
        self, name: str, whom: str, arms: Sequence[str], seeds: range, more: dict[str, Any] | None = None, of: str = ""
    ) -> list[str]:
        """Run candidates and print a row for each; return them, best first.

        Args:
            name: name of the step.
            whom: description of the candidates.
            arms: control and candidates; all if empty.
            seeds: seeds of each arm.
            more: additional settings.
            of: name of the step that this one extends; empty for none.
        """
        stage, _ = self.run(name, whom, CANDIDATES, arms, seeds, more or {}, of)
        summaries = [summarise(stage, arm, CONTROL) for arm in (CONTROL, *(a for a in stage.arms if a != CONTROL))]
        self.rows[name] = self._rows(stage, summaries)
        self.table(name, name)
        return [s.arm for s in sorted(summaries[1:], key=_rank)]

    def stress(self, arms: Sequence[str], seeds: range) -> None:
        """Measure the stability margins of the arms that are in the study ``stress_lr``."""
        named = load_study("stress_lr", self.options.profile).spec("stress_lr").stressed
        whom = f"{', '.join(arm for arm in arms if arm in named)} at rising learning rates"
        turned = [name for arm in arms for name in named.get(arm, ())]
        stage, spec = self.run("stress", whom, "stress_lr", turned, seeds, FRESH_OBJECTS)
        self.stressed = stress_of(stage, spec)
        self.console.print(render_stress(self.stressed), highlight=False, soft_wrap=True)

    def run(
        self, name: str, whom: str, study: str, arms: Sequence[str], seeds: range, more: dict[str, Any], of: str = ""
    ) -> tuple[Stage, Any]:
        """Run the missing trials of a step; return its trials and the specification of its study."""
        what = f"{whom}: seeds {seeds[0]} to {seeds[-1]}{''.join(f', {key}={value}' for key, value in more.items())}"
        self.say(f"\n{name}: {what}")
        options = self.options
        result = run_study(
            load_study(study, options.profile, options.settings | more),
            experiment=f"cure_{(of or name).replace(' ', '_')}",
            output=options.output,
            seeds=seeds,
            arms=arms,
            jobs=options.jobs,
            tracking_uri=options.tracking_uri,
            console=self.console,
        )
        insist_on_results(result)
        recorded = find_experiment(result.store, result.experiment)
        record = newest_study(result.store, recorded, result.run_id)
        rows = trial_rows(result.store, recorded, record)
        stage = Stage("a", tuple(row for row in rows if row.seed in seeds and (not arms or row.arm in arms)))
        self.steps[name] = (what, stage)
        return stage, record.spec

    def conclude(self, chosen: str, started: datetime) -> None:
        """Print the conclusions, and write report, tables and figure."""
        assert self.stressed is not None
        judged = decide(Roles(CONTROL), self.steps["confirm"][1], rules=Rules(measures=Ptychography.measures))
        usual = _criteria(decide(Roles(CONTROL), self.steps["usual rate"][1]).criteria, "loss_within_margin")
        confirmed = _criteria(judged.criteria, "fewer_failures")
        answers = {a.arm: (a.name, text) for a, text in zip(judged.answers, judged.sentences, strict=True)}
        said = []
        for arm in sorted(confirmed, key=lambda arm: arm != chosen):
            holds = "holds" if answers[arm][0] is AnswerName.HELPS else "does not hold"
            as_good = "no worse than control" if usual[arm].supported else "not shown to be no worse than control"
            said += [
                f"{arm} {holds}: {evidence_text(confirmed[arm])}; {answers[arm][1]}",
                f"{arm} at learning rate 1e-3: {as_good}; {evidence_text(usual[arm])}",
            ]
        rate = summarise(self.steps["confirm"][1], CONTROL, CONTROL).failure_rate or 0.0
        if not 0.3 <= rate <= 0.9:
            said.append(f"control failed in {rate:.0%} of its trials, not in 30 to 90 %: a poor place to ask")
        said.append(self.stressed.finding)
        self.table("choose", "All arms tried")
        for line in said:
            self.say(line)
        folder = self.options.output / "cure"
        picture = stress_picture(self.stressed)
        write_files(folder, {"README.md": self.page(chosen, said, picture, started)}, [picture])
        _write(folder / "arms.csv", ("step", *COLUMNS), ((n, *row) for n, rows in self.rows.items() for row in rows))
        _write(folder / "trials.csv", OF_TRIALS, self._trials())
        self.say(f"written: arms.csv, trials.csv and the figure in {folder}; look at {folder / 'README.md'}")

    def page(self, chosen: str, said: Sequence[str], picture: Any, started: datetime) -> str:
        """Report of the whole search in Markdown."""
        now = datetime.now().astimezone()
        lines = [f"# The cure: {chosen}", "", *(f"- {line}" for line in said), ""]
        lines += [f"![{picture.alt}](pictures/{picture.file_name})", ""]
        for name, (what, _) in self.steps.items():
            lines += [f"## {name.capitalize()}", "", what, ""]
            if name in self.rows:
                lines += [_line(COLUMNS), _line(["---"] * len(COLUMNS)), *map(_line, self.rows[name]), ""]
        lines += ["## How to read it, and how to repeat it", "", HOW_TO_READ, "", f"Not run: {NOT_RUN}.", ""]
        lines += [
            f"Made by `python {shlex.join(sys.argv)}` on {now:%Y-%m-%d}, {self.options.profile} profile. This go took "
            f"{(now - started).total_seconds() / 60:.0f} minutes; started again, it only runs what is missing. "
            f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}."
        ]
        return "\n".join(lines) + "\n"

    def table(self, name: str, title: str) -> None:
        """Print the rows of a step as a table."""
        table = plain_table(title, COLUMNS)
        for row in self.rows[name]:
            table.add_row(*row)
        self.console.print(table, highlight=False)

    def say(self, line: str) -> None:
        """Print a line without markup."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _rows(self, stage: Stage, summaries: Sequence[ArmSummary]) -> list[tuple[str, ...]]:
        margins = {arm.name: margin_text(arm) for arm in self.stressed.arms} if self.stressed else {}
        control = Rate(summaries[0].n_failed, summaries[0].n)
        raw = [fewer_failures_p(control=control, arm=Rate(s.n_failed, s.n)) for s in summaries[1:]]
        rows = []
        for s, p in zip(summaries, ["", *(f"{p:.2g}" for p in holm(raw))], strict=True):
            trials = stage.arm(s.arm)
            losses = [t.loss for t in trials if t.outcome is Outcome.CONVERGED and t.loss is not None]
            ends = median_interval(losses) if len(losses) > 1 else None
            median = "-" if s.median is None else f"{s.median:.4g}"
            between = "" if ends is None else f" ({ends.low:.4g} to {ends.high:.4g})"
            ci, ssim = s.failure_rate_ci, s.measures.get(metric_names.VAL_SSIM_AMP)
            rate = "-" if ci is None else f"{s.failure_rate:.0%} ({ci[0]:.0%} to {ci[1]:.0%})"
            quality = "-" if ssim is None else f"{ssim:.3f}"
            rows.append((s.arm, f"{s.n_failed}/{s.n}", rate, margins.get(s.arm, "-"), f"{median}{between}", quality, p))
        return rows

    def _trials(self) -> list[tuple[Any, ...]]:
        rows = []
        for name, (_, stage) in self.steps.items():
            for t in stage.trials:
                numbers = (t.loss, t.measures.get(metric_names.VAL_SSIM_AMP), t.failure_step, t.last_step)
                rows.append((name, t.arm, t.seed, t.outcome, *("" if n is None else f"{n:.6g}" for n in numbers)))
        return rows


def search(options: argparse.Namespace) -> None:
    """Run the missing trials of all steps.

    Raises:
        FnostabError: a study could not be started, a trial has no result, or a result could not be recorded.
    """
    started = datetime.now().astimezone()
    n, arms = options.seeds, list(options.arms)
    if set(arms) == {CONTROL}:
        raise FnostabError(f"arms={CONTROL}: name candidates too; `fnostab studies show candidates.yaml` has them")
    first, second, stress, usual = (max(1, round(share * n)) for share in (FIRST, SECOND, STRESS, USUAL))
    if arms and CONTROL not in arms:
        arms = [CONTROL, *arms]
    steps = Search(options)
    best = steps.compare("choose", "all candidates", arms, range(first))
    finalists = [CONTROL, *best[:FINALISTS]]
    whom = "the best of them, on more seeds"
    chosen, *_ = steps.compare("choose again", whom, finalists, range(second), of="choose")
    steps.say(f"chosen: {chosen}; what follows has seeds and objects that took no part in the choice")
    confirmed = list(dict.fromkeys([CONTROL, chosen, *((SHIPPED, PRESET) if not arms else ())]))
    fresh = range(FRESH, FRESH + max(n, stress, usual))
    steps.stress(confirmed, fresh[:stress])
    whom = f"{', '.join(confirmed[1:])} against {CONTROL}"
    steps.compare("confirm", whom, confirmed, fresh[:n], FRESH_OBJECTS)
    steps.compare("usual rate", whom, confirmed, fresh[:usual], FRESH_OBJECTS | USUAL_RATE)
    steps.conclude(chosen, started)


def _rank(summary: ArmSummary) -> tuple[float, float]:
    """Sort key: failure rate, since arms may have different numbers of trials; then median loss."""
    rate, median = summary.failure_rate, summary.median
    return (1.0 if rate is None else rate, float("inf") if median is None else median)


def _criteria(criteria: Sequence[Criterion], name: str) -> dict[str, Criterion]:
    return {c.arm: c for c in criteria if c.name == name}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _write(path: Path, header: Sequence[str], rows: Any) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def main() -> None:
    """Parse the command line and run the search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=("small", "full"), default="small")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds of the confirmation; other steps take shares")
    parser.add_argument("--arms", default="", help="candidates, separated by commas; all if left out")
    parser.add_argument("--jobs", type=int, help="trials side by side")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="any setting")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    parser.add_argument("--tracking-uri")
    options = parser.parse_args()
    try:
        if options.seeds < 1:
            raise FnostabError(f"seeds={options.seeds}: expected how many, 1 or more (--seeds)")
        options.arms, options.settings = parse_names(options.arms), parse_settings(options.settings)
        paths = (str(HERE), os.environ.get("PYTHONPATH", ""))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # so that trials find the candidates' parts
        search(options)
    except FnostabError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
