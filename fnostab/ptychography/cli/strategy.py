"""``fnostab run strategy``: run the chain of studies, in which each verdict determines the next study."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from fnostab.cli.decide import show
from fnostab.cli.execution import RunOptions, execute, insist_on_results, make_launcher, refuse_in_a_chain
from fnostab.ptychography.task import profile_for
from fnostab.record.settings import seeds_text
from fnostab.report.named_studies import StoredStudies
from fnostab.report.stored_studies import Judged, judge_and_record
from fnostab.show.console import Console, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fnostab.decision import FollowUp
    from fnostab.launch.run import StudyRun
    from fnostab.ptychography.report.story import Decision, Ran
    from fnostab.report.case import Case
    from fnostab.show.notifying import Notifier
    from fnostab.tracking import Store

PIVOT = "layerscale"
DEPTH = "model.fno_blocks="
DEEP = ("model.fno_blocks", "model.max_hidden_channels")  # settings of Stage B that its pivot uses too
SEEDS_OF_ACTIVATIONS = 3  # minimum for a useful interval
QUESTIONS = {
    "activations": "does the mean of the activations grow with depth?",
    "stage_a": "does a candidate train more stably than control?",
    "clip_sweep": "is that only about how hard gradients are clipped?",
    "decision": "what do the trials say?",
    "stage_b": "does it still do so in a deep network?",
    "layerscale": "does a small learnt gain on every block help, where nothing else did?",
    "crash_hunt": "from which depth on does control fail?",
    "report": "the whole story",
}
TITLES = {
    "stage_a": "Stage A, the comparison",
    "clip_sweep": "Clip sweep",
    "stage_b": "Stage B, the deep test",
    "layerscale": "Pivot, LayerScale",
    "crash_hunt": "Crash hunt",
}

STRATEGY = "strategy"
STUDY_OF = {"stage_b": "stage_b", "another_remedy": "layerscale", "where_control_fails": "crash_hunt"}


def run_strategy(
    options: RunOptions, *, decide: bool, sequential: str | None, dry_run: bool, notifier: Notifier
) -> None:
    """Run the missing parts of the chain, print each decision, and write the report.

    The arguments are those of `fnostab run`. ``experiment`` of the options, with an underscore, is a prefix of all
    experiment names. ``model.fno_blocks`` in the settings is the depth of Stage A; Stage B is twice as deep.

    Raises:
        FnostabError: a study could not be started, a trial has no result, or a result could not be recorded.
    """
    from fnostab.decision import Roles, follow_up
    from fnostab.report.verdict import in_lines

    given = {"decide": decide, "sequential": sequential, "dry_run": dry_run, "from": options.from_experiment}
    refuse_in_a_chain(STRATEGY, **given, arms=options.arms, lockstep=options.lockstep)
    launcher = make_launcher(options.launcher, options.cluster, options.jobs)
    common = replace(options, profile=profile_for(options.profile, launcher))
    chain = _Chain(Console(), f"{options.experiment}_" if options.experiment else "", common)
    chain.activations()
    chain.study("stage_a", "the arms side by side at standard depth, over the same seeds")
    chain.study("clip_sweep", "control clipped by norm, by value and adaptively, from hard to hardly at all")
    judged = chain.decide("Stage A, before anything deep is run")
    roles = Roles.of(judged.case.studies["a"])
    following = follow_up(judged.case.verdict, roles)
    while following is not None and following.kind == "stage_b":
        chain.study("stage_b", following.why, from_verdict=True)
        judged = chain.decide("Stage A and Stage B together")
        following = follow_up(judged.case.verdict, roles)
    next_step = chain.last(following) if following is not None else _next_of(judged.case)
    page = chain.report(judged, next_step, options.output)
    if notifier:
        notifier.send(f"fnostab: {STRATEGY} has ended", *in_lines(judged.case), f"next: {next_step}", page)


@dataclass
class _Chain:
    """State of the chain.

    Attributes:
        prefix: prefix of experiment names.
        common: options that all studies share.
        ran: content of the report on each finished study.
        runs: result of `execute` for each finished study.
        decisions: decisions by the study after which they were made.
        commands: commands that repeat the chain step by step, without duplicates.
    """

    console: Console
    prefix: str
    common: RunOptions
    steps: int = 0
    ran: dict[str, Ran] = field(default_factory=dict)
    runs: dict[str, StudyRun] = field(default_factory=dict)
    decisions: dict[str, list[Decision]] = field(default_factory=dict)
    commands: dict[str, None] = field(default_factory=dict)

    def heading(self, what: str, why: str) -> None:
        """Print the heading of the next step: its number, question and reason."""
        self.steps += 1
        self.console.print(Text.assemble("\n", (f"step {self.steps}, {what}", "bold"), f": {QUESTIONS[what]}"))
        say(self.console, f"  {why}")

    def activations(self) -> None:
        """Train a few seeds of each arm of Stage A, and show the activations of its blocks."""
        from fnostab.ptychography.cli.activations import command

        seeds = self.common.seeds[:SEEDS_OF_ACTIVATIONS] or tuple(range(SEEDS_OF_ACTIVATIONS))
        self.heading("activations", f"seeds {', '.join(map(str, seeds))} of each arm, whose trials count for Stage A")
        arguments = ["stage_a", *self._arguments("stage_a", self.common.settings, seeds)]
        self._keep("activations", *arguments)
        arguments += ["--output", str(self.common.output)]
        for name in ("jobs", "tracking_uri", "launcher", "cluster"):
            if (value := getattr(self.common, name)) is not None:
                arguments += [f"--{name.replace('_', '-')}", str(value)]
        command.main(arguments, prog_name="fnostab activations", standalone_mode=False)

    def study(self, name: str, why: str, *, from_verdict: bool = False, more: tuple[str, ...] = ()) -> None:
        """Run the missing trials of a study, and keep its trials for the report."""
        from fnostab.ptychography.report.story import Ran
        from fnostab.tracking import find_experiment, newest_study, trial_rows
        from fnostab.tracking.read.histories import run_page

        self.heading(name, why)
        settings = self._settings_of(name) + more
        earlier = f"{self.prefix}stage_a" if from_verdict else None
        experiment = f"{self.prefix}{name}"
        options = replace(self.common, study=name, settings=settings, experiment=experiment, from_experiment=earlier)
        result = execute(options, self.console)
        insist_on_results(result)
        recorded = find_experiment(result.store, result.experiment)
        record = newest_study(result.store, recorded, result.run_id)
        trials = trial_rows(result.store, recorded, record)
        page = run_page(result.store, recorded, result.run_id)
        self.ran[name] = Ran(TITLES[name], why, record.spec, trials, page)
        self.runs[name] = result
        self._keep("run", name, *(["--from", earlier] if earlier else []), *self._arguments(name, settings))

    def decide(self, why: str) -> Judged:
        """Judge the finished stages, and record the verdict."""
        self.heading("decision", why)
        return self._judge("stage_a", "stage_b" if "stage_b" in self.runs else None)

    def last(self, following: FollowUp) -> str:
        """Run and judge the study that ends the chain; return the next step."""
        from fnostab.report.remarks import best_arms

        name = STUDY_OF[following.kind]
        more: tuple[str, ...] = ()
        if name == PIVOT:  # nothing helped: run at the depth of Stage B
            deep = self.ran["stage_b"].study
            settings = deep.arms[deep.control]
            more = tuple(f"{each}={json.dumps(settings[each])}" for each in DEEP)
        self.study(name, following.why, more=more)
        self.heading("decision", f"{name} on its own")
        case = self._judge(name).case
        if name == PIVOT:
            return f"LayerScale has been run at the depth of Stage B: {best_arms(case.verdict)}"
        return _next_of(case)

    def report(self, judged: Judged, next_step: str, output: Path) -> str:
        """Write the report, add it to the verdict's run, and return the URL of that run."""
        from fnostab.ptychography.report.documents import write_story
        from fnostab.ptychography.report.story import Story, chapter, drifts
        from fnostab.tracking.read.histories import log_files, run_page

        self.heading("report", "what was asked, run and found, and how to repeat it")
        first = self.runs["stage_a"]
        store, page = first.store, run_page(first.store, judged.experiment_ids["a"], judged.verdict_run)
        whole = ["fnostab", "run", STRATEGY, *self._arguments(None, self.common.settings)]
        story = Story(
            case=judged.case,
            chapters=[chapter(ran, self.decisions.get(name, ())) for name, ran in self.ran.items()],
            drifts=drifts(json.loads((first.folder / "activations.json").read_text())),
            next_step=next_step,
            commands=[shlex.join(whole), *self.commands],
            verdict_page=page,
            store=store.address,
            made_at=datetime.now().astimezone(),
        )
        folder = output / f"{self.prefix}{STRATEGY}"
        files = write_story(story, folder)
        log_files(store, judged.verdict_run, files, folder, STRATEGY)
        say(self.console, f"{story.verdict.headline}: {story.verdict.reason}")
        say(self.console, f"next: {next_step}")
        for path in files[:2]:
            say(self.console, f"{path} ({path.stat().st_size / 1e3:,.0f} kB)")
        say(self.console, f"recorded with the verdict's run {judged.verdict_run}: {page}")
        return page

    def _judge(self, name: str, deep: str | None = None) -> Judged:
        from fnostab.ptychography.report.story import Decision
        from fnostab.report.remarks import best_arms
        from fnostab.report.tables import arms_table
        from fnostab.report.verdict import render_briefly
        from fnostab.tracking.read.histories import run_page

        store: Store = self.runs[name].store
        studies = StoredStudies(f"{self.prefix}{name}", study_run=self.runs[name].run_id)
        if deep:
            deep_run = self.runs[deep].run_id
            studies = replace(studies, deep_experiment=f"{self.prefix}{deep}", deep_study_run=deep_run)
        judged = judge_and_record(store, studies)
        case, verdict = judged.case, judged.case.verdict
        what, reason, next_step = verdict.headline, verdict.reason, _next_of(case)
        if name == PIVOT:  # already at the depth of Stage B, which the verdict, that of a Stage A, does not know
            self.console.print(arms_table(case.stages[0], verdict, "LayerScale at the depth of Stage B"))
            what, reason, next_step = "Found", best_arms(verdict), ""
            say(self.console, reason)
        elif case.along is not None:
            show(case, self.console, as_json=False)
            what = "Found"
        else:
            self.console.print(render_briefly(case), highlight=False)
        say(self.console, f"recorded as run {judged.verdict_run}")
        self._keep(
            "decide",
            *("--experiment", f"{self.prefix}{name}"),
            *(("--deep-experiment", f"{self.prefix}{deep}") if deep else ()),
        )
        page = run_page(store, judged.experiment_ids["a"], judged.verdict_run)
        decision = Decision(what, reason, next_step, judged.verdict_run, page)
        self.decisions.setdefault(deep or name, []).append(decision)
        return judged

    def _keep(self, *arguments: str) -> None:
        self.commands[shlex.join(["fnostab", *arguments])] = None

    def _settings_of(self, name: str) -> tuple[str, ...]:
        """Settings of the command line, without the depth if the study has its own; doubled for Stage B."""
        others = tuple(each for each in self.common.settings if not each.startswith(DEPTH))
        if name in ("crash_hunt", PIVOT):
            return others
        if name == "stage_b":
            depths = [each.removeprefix(DEPTH) for each in self.common.settings if each.startswith(DEPTH)]
            return (*others, *(f"{DEPTH}{2 * int(depth)}" for depth in depths[-1:] if depth.isdecimal()))
        return self.common.settings

    def _arguments(self, name: str | None, settings: Sequence[str], seeds: Sequence[int] = ()) -> list[str]:
        """Command-line arguments that repeat a study or the whole chain, with the chain's seeds or others."""
        seeds, epochs, profile = seeds or self.common.seeds, self.common.epochs, self.common.profile
        arguments = ["--profile", profile] if name != "stage_b" else []
        arguments += ["--seeds", seeds_text(seeds)] if seeds else []
        arguments += ["--epochs", str(epochs)] if epochs else []
        arguments += [part for each in settings for part in ("--set", each)]
        if self.prefix:
            arguments += ["--experiment", f"{self.prefix}{name}" if name else self.prefix.removesuffix("_")]
        return arguments


def _next_of(case: Case) -> str:
    """Text of the next step, with its command."""
    return f"{case.verdict.next_step}: {case.command}" if case.command else case.verdict.next_step
