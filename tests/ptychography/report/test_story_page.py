"""The report of a whole strategy as a browser shows it on a phone and a desk, and prints it."""

from datetime import UTC, datetime

import pytest
from report_helpers import case_of
from report_pages import A4_HEIGHT, BROKEN_WORDS, MARGIN, printed
from trial_records import study_spec

from fnostab.ptychography.report.documents import write_story
from fnostab.ptychography.report.story import Decision, Drift, Ran, Story, chapter
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.study.file import read_study_file

RUN = "http://127.0.0.1:5000/#/experiments/1/runs/{:032x}?workflowType=machine_learning"
STUDIES = ("stage_a", "clip_sweep", "stage_b", "layerscale")


@pytest.fixture(scope="module")
def strategy(browser, tmp_path_factory):
    """Page of the strategy's longest chain, with the arms of its own studies, at any width."""
    specs = {name: _spec(name) for name in STUDIES}
    trials = {name: _trials(spec, number) for number, (name, spec) in enumerate(specs.items(), start=1)}
    case = case_of(trials["stage_a"], trials["stage_b"], spec=specs["stage_a"])
    command = "fnostab run stage_b --from stage_a --seeds 10 --set model.fno_blocks=8"
    decision = Decision(
        case.verdict.headline, case.verdict.reason, f"run Stage B: {command}", "f00d" * 8, RUN.format(9)
    )
    chapters = [
        chapter(Ran(name, f"why {name}", specs[name], trials[name], RUN.format(number)), [decision] * (number != 1))
        for number, name in enumerate(STUDIES)
    ]
    moments = ("initialisation", "after training")
    story = Story(
        case=case,
        chapters=chapters,
        drifts=[
            Drift(a, w, 3, 0.1, 0.4, 0.1, (-0.12345, 0.2), "can't tell") for a in specs["stage_a"].arms for w in moments
        ],
        next_step=f"rerun the trials without an outcome: {command}",
        commands=["fnostab run strategy --profile small", command],
        verdict_page=RUN.format(9),
        store="sqlite:////home/somebody/a_study_of_mine/with_a_long_name/mlflow.db",
        made_at=datetime(2026, 11, 23, tzinfo=UTC),
    )
    html, *_ = write_story(story, tmp_path_factory.mktemp("strategy"))
    page = browser.new_page()
    page.goto(html.as_uri())
    yield page
    page.close()


@pytest.mark.parametrize("width", [390, 800, 900, 1400])
def test_no_width_scrolls_sideways(strategy, width):
    strategy.set_viewport_size({"width": width, "height": 844})
    assert strategy.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [900, 1400])  # narrower, each cell has its heading beside it
def test_no_word_of_a_heading_is_broken(strategy, width):
    strategy.set_viewport_size({"width": width, "height": 844})
    assert strategy.locator("table.cards thead th").evaluate_all(BROKEN_WORDS) == []


def test_links_lead_to_the_runs_of_studies_and_verdicts(strategy):
    hrefs = strategy.locator("a").evaluate_all("all => all.map(each => each.getAttribute('href'))")
    assert set(hrefs) == {RUN.format(number) for number in (*range(len(STUDIES)), 9)}


def test_the_first_printed_page_is_full(strategy):
    texts, _ = next(printed(strategy))
    assert max(texts) > MARGIN + 0.8 * (A4_HEIGHT - 2 * MARGIN)


def _spec(name):
    study = read_study_file(name)
    arms = {arm: {**study.defaults, **settings} for arm, settings in study.arms.items()}
    return study_spec(arms, description=study.description, name=name, experiment=name, roles=study.roles)


def _trials(spec, stage):
    return [
        TrialRow(arm, seed, Outcome.COLLAPSED, 0.5, 20 + seed, 59, run_id=f"{1000 * stage + 100 * number + seed:032x}")
        if (number + seed) % 3 == 0
        else TrialRow(arm, seed, Outcome.OOM if seed == 9 else Outcome.CONVERGED, 0.1 * stage + seed / 100, None, 59)
        for number, arm in enumerate(spec.arms)
        for seed in range(10)
    ]
