import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner
from report_helpers import case_of, study_spec

from fnostab.cli.decide import command as command_of_decide
from fnostab.cli.report import command
from fnostab.decision import Criterion, State
from fnostab.errors import ConfigError
from fnostab.figures import kaplan_meier_figure, loss_curves
from fnostab.figures.fan import Curve
from fnostab.record import names
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.record.trial import Metric
from fnostab.report import evidence as evidence_module
from fnostab.report import panels
from fnostab.report.content import IN_WORDS, OnCase, compose
from fnostab.report.documents import HTML, environment, to_html, to_markdown, write, write_files
from fnostab.report.evidence import Evidence, Spikes, exemplars, gather
from fnostab.report.glossary import glossary
from fnostab.report.verdict import print_case
from fnostab.show.console import Console
from fnostab.tracking import find_experiment, newest_study, trial_rows
from fnostab.tracking.read.histories import metric_histories, read_artifact, run_page

OK, COLLAPSED, NONFINITE, OOM = Outcome.CONVERGED, Outcome.COLLAPSED, Outcome.NONFINITE, Outcome.OOM
SECTIONS = [
    "What differs between the arms",
    "Outcomes of each arm",
    "Criteria: each arm against control",
    "Validation losses",
    "Gradient norms",
    "Reconstructions of the test object",
    "Trials left out",
    "Every trial",
    "Glossary",
    "How far to trust it",
]
TWELVE = [
    *(TrialRow("control", s, OK if s > 2 else COLLAPSED, 0.1 + s / 100, None if s > 2 else 9, 29) for s in range(6)),
    *(TrialRow("arch_fix", s, OK, 0.08 + s / 100, None, 29) for s in range(6)),
]


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def report_of(case, evidence=None):
    return compose(
        case,
        evidence or Evidence(),
        experiment="stage_a",
        store="sqlite:///mlflow.db",
        verdict_run="f00d",
        made_at=datetime(2026, 11, 23, tzinfo=UTC),
    )


@pytest.fixture(scope="module")
def report():
    return report_of(case_of(TWELVE))


@pytest.fixture(scope="module")
def html(report):
    return to_html(report)


@pytest.fixture(scope="module")
def stored_report(stored):
    experiment = find_experiment(stored.store, "stage_a")
    rows = trial_rows(stored.store, experiment, newest_study(stored.store, experiment))
    case = case_of(rows, spec=stored.spec)
    return report_of(case, gather(stored.store, case, {"a": experiment}))


def test_all_sections_are_there(report, html):
    markdown = to_markdown(report)
    for section in (*SECTIONS, report.verdict.headline, report.verdict.next_step):
        assert section in html
        assert section in markdown


def test_the_page_needs_nothing_beside_it(stored_report):
    text = to_html(stored_report)
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "embed", "base"}
    assert not [value for _, attributes in page.elements for name, value in attributes.items() if name[:2] == "on"]
    addresses = [a[name] for _, a in page.elements for name in ("src", "srcset", "xlink:href", "poster") if name in a]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text


def test_ids_are_unique_and_references_lead_somewhere(stored_report):
    text = to_html(stored_report)
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', text)) | set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)


@pytest.mark.parametrize("words", [*IN_WORDS.values(), command_of_decide.help])
def test_a_verdict_in_words_names_no_arm_by_chance(words):
    """`cure` is an arm beside the architecture of GOLD, and takes no part in the verdict."""
    assert {"arch_fix", "opt_fix", "cure"}.isdisjoint(re.findall(r"\w+", words))


def test_what_could_be_luck_is_not_decided():
    ten = [trial for trial in TWELVE if trial.seed]  # 2 of 5 against none
    shown = OnCase(case_of(ten, [replace(trial, loss=2 * trial.loss) for trial in ten]))
    assert shown.verdict.headline == "leaning GOLD (could be luck)"
    assert shown.in_words == "These trials do not decide the question yet."


def test_an_effect_on_the_loss_is_a_ratio_or_a_difference():
    effect = environment().filters["effect"]
    found = Criterion("a", "norm", "better_loss", State.MET, "", effect=0.5, ci=(-0.2, 0.8))
    assert effect(found) == "+0.5 [-0.2, +0.8]"
    assert effect(replace(found, ci=(0.2, 0.8), is_ratio=True)) == "\N{MULTIPLICATION SIGN} 0.50 [0.20, 0.80]"


def test_what_no_test_was_made_of_is_not_called_significant():
    support = environment().filters["support"]
    met = Criterion("a", "norm", "no_nonfinite", State.MET, "0 of 5 nonfinite", supported=True)
    assert (support(met), support(replace(met, p=0.01))) == ("", "significant")


def test_what_others_wrote_is_text():
    arms = ("control", "<b>&\"'|$x$")
    trials = [TrialRow(arm, seed, OK, 0.1, None, 9, run_id="<i>") for arm in arms for seed in range(3)]
    spec = study_spec(arms, description="<script>alert(1)</script> | *x* \x1b[2J\u202e", roles={})
    report = report_of(case_of(trials, spec=spec))
    text = to_html(report)
    assert not {tag for tag, _ in Page(text).elements} & {"script", "b>", "i"}
    assert "&lt;script&gt;" in text
    assert arms[1] in Page(text).text
    markdown = to_markdown(report)
    assert "<script" not in markdown
    assert r"\x1b\[2J\u202e" in markdown
    assert "<b>" not in markdown
    assert r"\| \*x\*" in markdown


def test_the_numbers_of_the_verdict_are_shown(html):
    text = " ".join(Page(html).text.split())
    assert "Stage A: control 3/6, arch_fix 0/6" in text
    assert "3/6 19 to 81 %" in text  # Wilson
    assert "0.105 0.0925 to 0.1175 6/6" in text
    assert "+50 points" in text
    assert "Boschloo" in text


def test_drawings_take_the_colour_of_the_page(html):
    assert "currentColor" in html
    assert "#1c2024" not in html.partition("</style>")[2]


def test_both_stages_have_a_section():
    deep = [TrialRow(t.arm, t.seed, t.outcome, t.loss and 2 * t.loss, t.failure_step, t.last_step) for t in TWELVE]
    report = report_of(case_of(TWELVE, deep))
    assert [section.title for section in report.sections] == ["Stage A", "Stage B"]
    assert "grad bounded" in to_html(report)
    assert len({picture.file_name for picture in report.pictures}) == len(report.pictures)


@pytest.mark.parametrize(
    "trials",
    [
        [TrialRow("control", 0, OK, 0.1, None, 9)],
        [TrialRow(arm, s, NONFINITE, None, 0, 0) for arm in ("control", "arch_fix") for s in range(3)],
        [TrialRow("control", 0, COLLAPSED, 0.5, 9, 9), TrialRow("arch_fix", 0, OK, 0.0, None, 9)],
        [TrialRow("control", s, OOM) for s in range(3)],
        [TrialRow("control", 0, Outcome.RUNNING)],
    ],
    ids=["one seed", "no success", "one of each", "excluded only", "running only"],
)
def test_studies_with_little_in_them(trials):
    report = report_of(case_of(trials))
    assert all(section in to_html(report) for section in SECTIONS)
    assert all(section in to_markdown(report) for section in SECTIONS)


def test_excluded_trials_are_listed_with_what_they_would_change(html):
    assert "None: every trial has a training outcome" in html
    text = to_html(report_of(case_of([*TWELVE, TrialRow("arch_fix", 6, OOM)])))
    assert "arch_fix, seed 6: oom" in text
    assert "arch_fix: 1 oom (seed 6): not in the rate of 0/6" in text


def test_a_card_names_the_metric_as_the_table_does():
    metric = Metric(name="return", higher_is_better=True)
    page = Page(to_html(report_of(case_of(TWELVE, spec=study_spec(metric=metric)))))
    assert "median return_best" in [cell.get("data-label") for cell in page.of("td")]


def test_metric_and_control_are_called_as_the_study_calls_them():
    trials = [replace(trial, arm={"control": "plain", "arch_fix": "norm"}[trial.arm]) for trial in TWELVE]
    spec = study_spec(("plain", "norm"), roles={}, metric=Metric(name="return", higher_is_better=True, of=None))
    case = case_of(trials, spec=spec)
    markdown = to_markdown(report_of(case))
    page = " ".join(Page(to_html(report_of(case))).text.split())
    for text in (markdown, page):
        assert "norm against plain: return 0.8571 times as high over 3 seeds at which neither failed" in text
        assert "fails less often than plain" in text
        assert "better return" in text
        assert not re.search(r"\bcontrol\b", text.replace("plain (control)", "").replace("plaincontrol", ""))
    assert "| arm | seed | outcome | return | failed at step |" in markdown
    shown = print_evidence(case)
    assert "Criteria, arm against plain" in shown
    assert "control" not in shown


def print_evidence(case):
    console = Console(file=io.StringIO(), width=200)
    print_case(case, console, evidence=True)
    return console.file.getvalue()


def test_the_glossary_explains_the_words_of_its_report_alone(report):
    words = dict(glossary(report))
    assert {"Boschloo", "Mann-Whitney", "Kaplan-Meier", "Collapsed", "Margin", "p"} <= words.keys()
    assert words.keys().isdisjoint({"Exploded", "Spike", "Half of the trials fail at"})
    assert "10 % here" in words["Margin"]
    assert "at most 0.05 is called significant" in words["p"]
    (alone,) = (dict(glossary(report_of(case_of([TrialRow("control", 0, OK, 0.1)], spec=study_spec(("control",)))))),)
    assert alone.keys() == {"Converged", "95 % interval", "Quartiles", "Kaplan-Meier", "Loss"}


def test_best_median_and_worst():
    trials = [
        TrialRow("arm", 0, COLLAPSED, 0.01, 5),
        TrialRow("arm", 1, OK, 0.3),
        TrialRow("arm", 2, OK, 0.1),
        TrialRow("arm", 3, NONFINITE, None, 2),
        TrialRow("arm", 4, OK, 0.2),
        TrialRow("arm", 5, OOM),
    ]
    seeds = lambda ts, **kw: {label: trial.seed for label, trial in exemplars(ts, **kw)}  # noqa: E731
    assert seeds(trials) == {"best": 2, "median": 1, "worst": 3}
    assert seeds(trials, higher_is_better=True) == {"best": 1, "median": 2, "worst": 3}
    assert seeds(trials[1:3]) == {"best and median": 2, "worst": 1}
    assert seeds(trials[1:2]) == {"only": 1}
    assert seeds(trials[5:]) == {}
    at_the_same_step = [TrialRow("arm", seed, COLLAPSED, 0.3 - seed / 10, 5) for seed in range(3)]
    assert seeds(at_the_same_step) == {"best": 2, "median": 1, "worst": 0}


def test_the_files_that_markdown_shows_exist(stored_report, tmp_path):
    files = write(stored_report, tmp_path / "new" / "folder")
    shown = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", files[1].read_text())
    assert len(shown) == len(stored_report.pictures) > 5
    assert {tmp_path / "new" / "folder" / path for path in shown} == set(files[2:])
    assert all(path.stat().st_size for path in files)
    with pytest.raises(ConfigError, match="can't write the report"):
        write(stored_report, files[0] / "below_a_file")


def test_what_is_read_from_the_runs(stored, stored_report):
    experiment = find_experiment(stored.store, "stage_a")
    rows = trial_rows(stored.store, experiment, newest_study(stored.store, experiment))
    case = case_of(rows, spec=stored.spec)
    found = gather(stored.store, case, {"a": experiment})
    of = {(row.arm, row.seed): row.run_id for row in rows}
    spiky, lost = found.curves[of["arch_fix", 0]], found.curves[of["arch_fix", 1]]
    assert spiky.values.max() == 4e4
    assert lost.nonfinite_steps.tolist() == [20]
    assert set(found.pictures) == {of["control", 0], of["control", 1], of["control", 2], of["arch_fix", 0]}
    assert "every step, of all 6 trials" in found.source
    steps, losses = found.val_losses[of["control", 0]]
    assert steps.tolist() == [9, 19, 29]
    np.testing.assert_allclose(losses, [1 / 10, 1 / 20, 1 / 30])
    assert found.val_losses[of["arch_fix", 1]][0].size == 0  # none of its losses was finite
    assert of["arch_fix", 2] not in found.val_losses  # killed
    assert found.spikes[of["arch_fix", 0]] == Spikes(1, 0)
    assert of["arch_fix", 2] not in found.spikes
    text = to_html(stored_report)
    assert "largest norm 4e+04 at step 17 (seed 0)" in text
    assert "first not finite at step 20" in text
    assert "arch_fix, worst (seed 1, nonfinite)" in text  # kept no picture
    assert all(f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{run_id}" in text for run_id in of.values())


def test_the_report_says_how_many_spikes_there_were(stored_report):
    control, arch_fix = (picture.caption for picture in stored_report.sections[0].fans)
    assert control.endswith("No gradient spikes.")
    assert arch_fix.endswith("1 gradient spike in 1 of 2 trials, 0 without recovery.")


def test_runs_that_counted_no_spikes_say_nothing_of_them():
    curve = Curve(0, np.arange(9), np.ones(9), np.array([], dtype=np.int64))
    trials = [TrialRow("control", 0, OK, 0.1, None, 9, run_id="old")]
    report = report_of(case_of(trials), Evidence(curves={"old": curve}))
    assert "spikes" not in to_markdown(report).lower()
    assert "spikes" not in to_html(report).lower()


def test_losses_are_drawn_over_validations(monkeypatch):
    drawn = {}
    monkeypatch.setattr(panels, "loss_curves", lambda arms, **kw: drawn.update(arms, **kw) or loss_curves(arms, **kw))
    trials = [
        TrialRow("control", 0, OK, 0.1, None, 29, run_id="whole"),
        TrialRow("control", 1, NONFINITE, None, 14, 14, run_id="lost"),
        TrialRow("control", 2, OOM, run_id="aside"),
    ]
    losses = {
        run_id: (np.array(steps), np.ones(len(steps)))
        for run_id, steps in {"whole": [9, 19, 29], "lost": [9, 14], "aside": [9]}.items()
    }
    report_of(case_of(trials), Evidence(val_losses=losses))
    whole, lost = drawn["control"]
    assert drawn["x"] == "validation"
    assert (whole.epochs.tolist(), whole.failed, list(whole.nonfinite_epochs)) == ([1, 2, 3], False, [])
    assert (lost.epochs.tolist(), lost.failed, list(lost.nonfinite_epochs)) == ([1, 1.5], True, [1.5])


def test_what_losses_compare_with_and_what_was_not_judged_is_said_once():
    reason = "collapsed: needs val/spread"
    trials = [
        TrialRow("control", 0, OK, 0.1, None, 29, constant_loss=0.21, noise_floor_loss=0.045, not_judged=(reason,)),
        TrialRow("control", 1, OK, 0.2, None, 29, constant_loss=0.22, noise_floor_loss=0.045, not_judged=(reason,)),
        TrialRow("control", 2, NONFINITE, None, 14, 14, constant_loss=0.21),
        TrialRow("control", 3, OOM, not_judged=("exploded: needs two validations",)),
    ]
    report = report_of(case_of(trials), Evidence())
    line = "reference validation losses: 0.21 to 0.22 of the best constant output, 0.045 of a right prediction"
    for text in (to_html(report), to_markdown(report)):
        assert text.count(line) == text.count("collapsed not judged in 2 of 3 trials: needs val/spread") == 1
        assert "exploded: needs two validations" not in text
    assert "compare with" not in to_markdown(report_of(case_of([TrialRow("control", 0, OK, 0.1)]), Evidence()))


def test_a_killed_trial_is_censored_where_its_history_ends():
    trials = [TrialRow("control", 0, OK, 0.1, None, 29), TrialRow("control", 1, Outcome.KILLED, run_id="dead")]
    curve = Curve(1, np.arange(15), np.ones(15), np.array([], dtype=np.int64))
    with_end, without = (report_of(case_of(trials), Evidence(curves=c)) for c in ({"dead": curve}, {}))
    assert with_end.sections[0].survival.element != without.sections[0].survival.element
    assert with_end.sections[0].losses.element == without.sections[0].losses.element


def test_trials_known_to_have_stagnated_only_at_the_end_are_compared_with_all_others(monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        panels, "kaplan_meier_figure", lambda arms, lost: drawn.update(arms) or kaplan_meier_figure(arms, lost)
    )
    trials = [TrialRow("control", seed, OK, 0.1, None, 90, scheduled_steps=100) for seed in range(4)]  # every tenth
    trials += [TrialRow("control", 4, OK, 0.1, None, 50, scheduled_steps=100)]  # stopped early
    trials += [TrialRow("control", 5, Outcome.STAGNATED, 0.3, 99, 90, scheduled_steps=100)]
    report_of(case_of(trials), Evidence())
    assert drawn["control"].survival[-1] == pytest.approx(5 / 6)


def test_of_a_large_study_only_window_maxima_are_read(stored, monkeypatch):
    monkeypatch.setattr(evidence_module, "MOST_POINTS", 50)
    monkeypatch.setattr(evidence_module, "MOST_CURVES", 4)
    experiment = find_experiment(stored.store, "stage_a")
    rows = trial_rows(stored.store, experiment, newest_study(stored.store, experiment))
    found = gather(stored.store, case_of(rows, spec=stored.spec), {"a": experiment})
    assert len(found.curves) == 4
    assert "largest of each window" in found.source
    assert "4 of 6 trials" in found.source


def test_what_a_run_does_not_have(stored):
    experiment = find_experiment(stored.store, "stage_a")
    run_id = newest_study(stored.store, experiment).run_id
    steps, values = metric_histories(stored.store, [run_id], "nothing")[run_id]
    assert (steps.size, values.size) == (0, 0)
    assert read_artifact(stored.store, run_id, "figures/nothing.png") is None


def test_addresses_on_a_server_hold_no_password():
    class Server:
        uri = "https://me:secret@mlflow.example:8443/base"

    assert (
        run_page(Server, "7", "abc")
        == "https://mlflow.example:8443/base/#/experiments/7/runs/abc?workflowType=machine_learning"
    )


def test_the_command_logs_the_report_with_the_verdict(stored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--experiment", "stage_a", "--tracking-uri", stored.store.uri]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "reports" / "stage_a" / "report.html").exists()
    run_id = result.output.split()[-1]
    client = stored.store.client
    assert client.get_run(run_id).data.tags[names.KIND] == names.KIND_VERDICT
    logged = {a.path for a in client.list_artifacts(run_id, "report")}
    assert logged == {"report/report.html", "report/report.md", "report/pictures"}
    pictures = {a.path.rpartition("/")[2] for a in client.list_artifacts(run_id, "report/pictures")}
    assert pictures == {path.name for path in (tmp_path / "reports" / "stage_a" / "pictures").iterdir()}


def test_a_link_in_the_place_of_a_report_is_replaced_and_its_target_stays(tmp_path):
    (target := tmp_path / "thesis.html").write_text("mine")
    (folder := tmp_path / "report").mkdir()
    (folder / HTML).symlink_to(target)
    write_files(folder, {HTML: "report"}, [])
    assert (target.read_text(), (folder / HTML).read_text()) == ("mine", "report")
