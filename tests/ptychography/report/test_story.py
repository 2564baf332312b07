"""The report of a whole chain of studies."""

from datetime import UTC, datetime

import pytest
from report_helpers import case_of, study_spec

from fnostab.decision import VerdictName
from fnostab.errors import ConfigError
from fnostab.ptychography.report.documents import write_story
from fnostab.ptychography.report.story import Decision, Drift, Ran, Story, chapter, drifts
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow

SEEDS = {
    str(seed): {"encoder.0": {"activation_mean": 0.1}, "bottleneck": {"activation_mean": last}}
    for seed, last in enumerate((0.4, 0.3, 0.8))
}
SLOPE = {"estimate": 0.4, "interval": [0.1, 0.7], "n": 3}
MOMENTS = {
    "control": {
        "initialisation": {"drift": {"mean_slope": SLOPE, "mean": "grows"}, "seeds": SEEDS},
        "after training": {"drift": None, "seeds": {}},
    }
}
TRIALS = [
    *(TrialRow("control", seed, Outcome.COLLAPSED, loss=0.5, failure_step=9, run_id=f"c{seed}") for seed in range(3)),
    *(TrialRow("arch_fix", seed, Outcome.CONVERGED, loss=0.1, run_id=f"a{seed}") for seed in range(3)),
    TrialRow("arch_fix", 3, Outcome.OOM),
]


def ran(**values):
    study = study_spec(description="Is <b>it</b> | stable?", **values)
    return Ran("Stage A", "to see", study, TRIALS, "http://127.0.0.1:5000/#/study")


def story_of(*chapters):
    return Story(
        case=case_of(TRIALS),
        chapters=chapters,
        drifts=drifts(MOMENTS),
        next_step="run <Stage B>",
        commands=["fnostab run strategy"],
        verdict_page="http://127.0.0.1:5000/#/verdict",
        store="sqlite:///mlflow.db",
        made_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_drift_of_one_seed_has_no_interval():
    seeds = {"0": SEEDS["0"], "1": {}}  # the other's numbers were not finite
    one = {"drift": {"mean_slope": SLOPE | {"interval": None, "n": 1}, "mean": "can't tell"}, "seeds": seeds}
    assert drifts({"control": {"initialisation": one}}) == [
        Drift("control", "initialisation", 1, 0.1, 0.4, 0.4, None, "can't tell")
    ]


def test_drift_compares_the_first_block_with_the_last():
    assert drifts(MOMENTS) == [Drift("control", "initialisation", 3, 0.1, 0.4, 0.4, (0.1, 0.7), "grows")]


def test_a_chapter_says_what_became_of_each_arm_and_what_it_changes():
    made = chapter(ran())
    assert [(s.arm, s.n_failed, s.n) for s in made.arms] == [("control", 3, 3), ("arch_fix", 0, 3)]
    assert made.changes == {"control": [], "arch_fix": ["architecture=stable_hybrid"]}
    assert made.finding == "fewest failures: arch_fix (0/3); lowest median loss of all arms: arch_fix (0.1)"
    assert made.left_out[0].startswith("arch_fix: 1 oom (seed 3): not in the rate of 0/3")


def test_decisions_take_the_place_of_a_finding():
    decision = Decision("GOLD", "it is better", "use it", "5eed5eed5eed", "http://127.0.0.1:5000/#/gold")
    assert chapter(ran(), [decision]).finding == ""


def test_both_documents_tell_it_and_text_stays_text(tmp_path):
    decision = Decision("Found", "it is <better>", "", "5eed5eed5eed", "http://127.0.0.1:5000/#/found")
    story = story_of(chapter(ran()), chapter(ran(name="layerscale"), [decision]))
    assert story.verdict.name is VerdictName.INCONCLUSIVE
    html, markdown, *pictures = write_story(story, tmp_path / "new")
    assert [path.name for path in pictures] == ["shootout-failure-rates.png", "layerscale-failure-rates.png"]
    page, text = html.read_text(), markdown.read_text()
    assert "Is &lt;b&gt;it&lt;/b&gt; | stable?" in page
    assert "it is &lt;better&gt;" in page
    assert "Is &lt;b>it&lt;/b> \\| stable?" in text
    assert "\n- **Found** ([run 5eed5eed](http://127.0.0.1:5000/#/found)): it is &lt;better>\n- [The study" in text
    for document in (page, text):
        assert "<b>it" not in document
        assert "fnostab run strategy" in document
        assert "3/3" in document
        assert "0.4 [0.1, 0.7]" in document
        assert "http://127.0.0.1:5000/#/found" in document
        assert "Links to runs open where" in document


def test_a_folder_that_is_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match=r"can't write the report to .*taken"):
        write_story(story_of(chapter(ran())), tmp_path / "taken")
