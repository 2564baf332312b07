"""``fnostab run strategy``: the chain from end to end, stopped and gone on with, and where each verdict leads."""

import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from moments import wait_at

from fnostab.study.file import read_study_file
from fnostab.tracking import find_experiment, newest_study, newest_verdict, open_store, trial_rows
from fnostab.tracking.read.histories import read_artifact

DEPTH = "model.fno_blocks"
CLIPS = dict.fromkeys(read_study_file("clip_sweep").arms, 0) | {"norm_1": 1}


@pytest.fixture
def store(workplace):
    return open_store(None)


@pytest.fixture
def chain(tiny):
    """Arguments of the command for so many seeds."""

    def arguments(seeds, *more):
        return ["run", "strategy", "--profile", "small", "--jobs", "2", "--seeds", str(seeds), *tiny, *more]

    return arguments


def steps(out):
    return re.findall(r"^step \d+, (\w+): ", out, re.MULTILINE)


def test_it_is_stopped_goes_on_and_ends_with_a_report(store, chain, call, record_study, environment, workplace):
    arguments = chain(3, "--experiment", "mine", "--set", "training.epochs=1")
    recorded = {"seeds": 3, "training.epochs": 1}  # all but control, so that little is left to train
    record_study(store, "mine_stage_a", {"arch_fix": 1, "opt_fix": 0, "cure": 0}, **recorded, **{DEPTH: 2})
    record_study(store, "mine_clip_sweep", CLIPS, study="clip_sweep", **recorded, **{DEPTH: 2})
    record_study(store, "mine_stage_b", {"arch_fix": 1, "opt_fix": 0}, study="stage_b", **recorded, **{DEPTH: 4})
    held = environment | wait_at(0, "go", workplace, "control-1 control-2")
    first = subprocess.Popen(
        [sys.executable, "-m", "fnostab", *arguments], cwd=workplace, env=held, stdout=subprocess.PIPE, text=True
    )
    for line in first.stdout:
        if line.startswith("control-0: "):  # a trial has ended
            first.send_signal(signal.SIGINT)
            break
    first.stdout.read()
    assert first.wait(240) == 130

    status, out, err = call(*arguments)
    assert status == 0, err
    assert steps(out) == ["activations", "stage_a", "clip_sweep", "decision", "stage_b", "decision", "report"]
    assert re.search(
        r"10 of 12 trials are finished already", out.partition("step 2")[0]
    )  # also what ended before it was stopped
    assert re.search(r"arms control, arch_fix, opt_fix of mine_stage_a, by its verdict INCONCLUSIVE", out)

    stage_a, stage_b = (find_experiment(store, f"mine_stage_{stage}") for stage in "ab")
    for experiment, blocks in ((stage_a, 2), (stage_b, 4)):
        study = newest_study(store, experiment)
        runs = Counter((t.arm, t.seed) for t in trial_rows(store, experiment, study))
        cure = ["cure"] if experiment == stage_a else []  # it has no role, so no verdict asks for it
        assert runs == {(arm, seed): 1 for arm in ("control", "arch_fix", "opt_fix", *cure) for seed in range(3)}
        control = study.spec.arms["control"]
        assert (control["model.fno_blocks"], control["training.epochs"]) == (blocks, 1)

    verdict = newest_verdict(store, stage_a)
    html = (workplace / "outputs/mine_strategy/strategy.html").read_text()
    assert read_artifact(store, verdict.run_id, "strategy/strategy.html").decode() == html
    text = (workplace / "outputs/mine_strategy/strategy.md").read_text()
    for heading in ("Drift of the activations", "Stage A, the comparison", "Clip sweep", "Stage B, the deep test"):
        assert f"\n## {heading}\n" in text
        assert f"<h2>{heading}</h2>" in html
    for picture in re.findall(r"\]\((pictures/[^)]+)\)", text):
        assert (workplace / "outputs/mine_strategy" / picture).stat().st_size > 1000
    assert html.count("<svg") == 3
    assert "<script" not in html
    assert re.search(r"\| control \| initialisation \| 3 \|", text)
    assert re.search(r"\| norm_1 \| gradient_clip_val=1.0 \| 1/3 \| 6 to 79 % \|", text)
    assert verdict.run_id in text
    commands = re.findall(r"^    fnostab (\w+ \S+)", text, re.MULTILINE)
    assert commands == [
        "run strategy",
        "activations stage_a",
        "run stage_a",
        "run clip_sweep",
        "decide --experiment",
        "run stage_b",
        "decide --experiment",
    ]


def test_nothing_that_helps_at_depth_leads_to_layerscale(store, chain, call, record_study):
    record_study(store, "stage_a", {"control": 2, "arch_fix": 3, "opt_fix": 2, "cure": 0}, **{DEPTH: 2})
    record_study(store, "clip_sweep", CLIPS, study="clip_sweep", **{DEPTH: 2})
    record_study(store, "stage_b", {"control": 1, "arch_fix": 3, "opt_fix": 2}, study="stage_b", **{DEPTH: 4})
    pivot = dict.fromkeys(read_study_file("layerscale").arms, 1) | {"control": 2, "init_0.001": 0}
    deep = {DEPTH: 4, "model.max_hidden_channels": 64}
    record_study(store, "layerscale", pivot, study="layerscale", **deep)

    status, out, err = call(*chain(3))
    assert status == 0, err
    assert steps(out)[4:] == ["stage_b", "decision", "layerscale", "decision", "report"]
    assert "arms control of stage_a, by its verdict INCONCLUSIVE" in out  # both candidates are out
    assert re.search(r"^(leaning )?PIVOT", out, re.MULTILINE)
    spec = newest_study(store, find_experiment(store, "layerscale")).spec
    assert spec.arms["control"][DEPTH] == 4
    text = Path("outputs/strategy/strategy.md").read_text()
    assert "PIVOT" in text.splitlines()[0]
    assert re.search(r"\| init_0.001 \| .* \| 0/3 \|", text)


def test_nothing_to_cure_leads_to_the_depth_at_which_training_fails(store, chain, call, record_study):
    harmless = {"control": 0, "arch_fix": 0, "opt_fix": 0, "cure": 0}
    record_study(store, "stage_a", harmless, **{DEPTH: 2})
    record_study(store, "clip_sweep", dict.fromkeys(CLIPS, 0), study="clip_sweep", **{DEPTH: 2})
    record_study(store, "stage_b", harmless, study="stage_b", **{DEPTH: 4})
    record_study(store, "crash_hunt", {"depth_4": 0, "depth_6": 1, "depth_8": "oom"}, study="crash_hunt")

    status, out, err = call(*chain(3))
    assert status == 0, err
    assert steps(out)[4:] == ["stage_b", "decision", "crash_hunt", "decision", "report"]
    assert "control never failed in Stage A: nothing to cure there" in out
    assert "training begins to fail at model.fno_blocks 6: 1/3 failed" in out
    text = Path("outputs/strategy/strategy.md").read_text()
    assert "**Found** ([run " in text
    assert re.search(
        r"Next: study arms at model.fno_blocks 6: fnostab run stage_a --profile small .*--set model.fno_blocks=6 ", text
    )
    assert "depth_8: 3 oom (seeds 0, 1, 2)" in text


@pytest.mark.parametrize(
    ("more", "pattern"),
    [
        (("--arms", "control"), "--arms applies to single studies, not to strategy, a chain of them"),
        (("--from", "stage_a"), "--from applies to single studies"),
        (("--sequential", "3,5"), "--sequential applies to single studies"),
        (("--decide",), "--decide applies to single studies"),
        (("--profile", "tiny"), "profile='tiny' is not known"),
        (("--experiment", "a/b"), "experiment='a/b_stage_a' is not accepted"),
        (("--set", "model.fno_blocks=banana"), "model.fno_blocks='banana' is not accepted"),
    ],
)
def test_what_the_chain_decides_itself_is_refused(workplace, call, more, pattern):
    status, _, err = call("run", "strategy", "--profile", "small", *more)
    assert (status, err.count("\n")) == (2, 1), err
    assert pattern in err
    assert not (workplace / "outputs").exists()
