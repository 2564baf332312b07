"""The MLflow UI in a real browser: what a user of `fnostab ui` sees. Screenshots are kept for looking at.

They go to outputs/screenshots, or to the folder that FNOSTAB_SCREENSHOTS names.
"""

import html
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ports import unused_port
from tracking_helpers import StudyFolder, write_outcome, write_trial

from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.tracking import find_experiment, open_store, sync
from fnostab.tracking.pages.views import VIEWS

ROOT = Path(__file__).parent.parent.parent
PATIENCE_MS = 60_000  # machines are shared
NASTY = "<b>bold</b> *star* [link](http://x.invalid) | `code` @mlflow"


@pytest.fixture(scope="module")
def records(tmp_path_factory, empty_database, fnostab, tiny):
    """A folder with a real study that was judged, and one of which two seeds failed, one with a nasty message."""
    folder = tmp_path_factory.mktemp("browser")
    shutil.copy(empty_database, folder / "mlflow.db")
    shared = ["--arms", "control,arch_fix", "--seeds", "2", "--profile", "small", *tiny]
    for arguments in (["run", "stage_a", *shared], ["report", "--experiment", "stage_a"]):
        ended = fnostab(folder, *arguments)
        assert ended.returncode == 0, ended.stderr
    study = StudyFolder(folder / "made_up", experiment="failing")
    for seed, outcome, step, reason in (0, "nonfinite", 17, NASTY), (2, "collapsed", 23, None):
        failed = study.trial("control", seed)
        write_trial(failed, outcome=None, **{names.SPIKE: 40.0, names.SPIKES: 3.0})
        with Journal(failed) as journal:
            write_outcome(journal, outcome, failure_step=step, known_good_step=step - 1, reason=reason)
    for arm, seed in ("control", 1), ("agc", 0):
        write_trial(study.trial(arm, seed))
    before = Path.cwd()
    os.chdir(folder)  # where artifacts go
    try:
        sync(folder / "made_up", open_store(f"sqlite:///{folder}/mlflow.db"))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(scope="module")
def addresses(records, environment):
    """What `fnostab ui` prints: {(experiment, view): address}."""
    command = [sys.executable, "-m", "fnostab", "ui", "--port", str(unused_port())]
    with open(records / "ui.txt", "w") as out:
        server = subprocess.Popen(command, cwd=records, env=environment, stdout=out, stderr=out, start_new_session=True)
    started = time.monotonic()
    while "Ctrl-C stops it" not in (records / "ui.txt").read_text():
        assert server.poll() is None, (records / "ui.txt").read_text()
        assert time.monotonic() - started < 240
        time.sleep(0.1)
    found, experiment = {}, ""
    for line in (records / "ui.txt").read_text().splitlines():
        if line.startswith("http"):
            first = line
        elif shown := re.fullmatch(r"  (\w+) +(http\S+)", line):
            found[experiment, shown[1]] = shown[2]
        experiment = line if re.fullmatch(r"[\w.-]+", line) else experiment
    newest = re.search(r"/experiments/(\d+)/", first)[1]
    (of,) = {of for (of, _), address in found.items() if f"/experiments/{newest}/" in address}
    found[of, VIEWS[0]] = first
    yield found
    os.killpg(server.pid, signal.SIGINT)
    assert server.wait(60) == 0, (records / "ui.txt").read_text()


@pytest.fixture
def visit(browser, request):
    """Open an address in a fresh profile; its screenshot is taken when the test ends."""
    pages = []

    def open_page(address, width=1600):
        context = browser.new_context(viewport={"width": width, "height": 1300})
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(address)
        pages.append(page)
        return page

    yield open_page
    folder = Path(os.environ.get("FNOSTAB_SCREENSHOTS") or ROOT / "outputs" / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "_", request.node.name).strip("_")
    for number, page in enumerate(pages):
        page.screenshot(path=folder / f"{name}_{number}.png")
        page.context.close()


def run_page(addresses, records, experiment, found):
    """Address of the newest run of an experiment that a filter finds."""
    store = open_store(f"sqlite:///{records}/mlflow.db")
    identifier = find_experiment(store, experiment)
    run = store.client.search_runs([identifier], found, max_results=1)[0]
    url = addresses["stage_a", "shootout"].partition("/#/")[0]
    return f"{url}/#/experiments/{identifier}/runs/{run.info.run_id}"


def test_every_view_of_every_experiment_with_trials_has_an_address(addresses):
    assert {key for key in addresses if key[0] == "stage_a"} == {("stage_a", view) for view in VIEWS}
    assert {experiment for experiment, _ in addresses} == {"stage_a", "failing"}


@pytest.mark.parametrize(
    ("view", "groups", "metrics"),
    [
        (
            "shootout",
            ["Group: control", "Group: arch_fix"],
            ["grad_norm/total", "grad_norm/window_max", "train/loss"],
        ),
        ("arms", ["Group: control", "Group: arch_fix"], ["grad_norm/total", "train/loss"]),
        ("depth", ["Group: 2"], ["grad_norm/window_max", "val/mae_val_Amp_loss"]),
        ("one_arm", ["Group: 0", "Group: 1"], ["grad_norm/total", "train/loss"]),
    ],
)
def test_a_view_shows_its_charts_with_data(addresses, visit, view, groups, metrics):
    page = visit(addresses["stage_a", view])
    for text in (*groups, *metrics):
        page.get_by_text(text, exact=True).first.wait_for()
    curves = page.locator(".scatterlayer path.js-line")
    curves.first.wait_for(state="attached")
    page.wait_for_function(
        "n => document.querySelectorAll('.scatterlayer path.js-line').length >= n", arg=len(groups) * 2
    )
    assert page.get_by_text("Step by step").count() == 1
    assert page.get_by_text("No charts in this section").count() == 0


@pytest.mark.parametrize("width", [390, 1400])
def test_three_clicks_from_the_servers_root_show_which_seeds_of_control_failed_when_and_how(addresses, visit, width):
    page = visit(addresses["failing", "failed"].partition("#")[0], width)
    page.get_by_text("Model training", exact=True).click()
    page.get_by_role("link", name="failing", exact=True).click()
    with page.expect_popup() as opened:
        page.get_by_role("link", name="failed trials", exact=True).click()
    for trial, step in ("control-0 nonfinite", 17), ("control-2 collapsed", 23):
        opened.value.get_by_text(trial, exact=True).first.wait_for()
        opened.value.get_by_text(re.compile(rf"^Group: .*\b{step}\b")).first.wait_for()
    charts = opened.value.get_by_test_id("experiment-view-compare-runs-chart-area")
    charts.scroll_into_view_if_needed()
    charts.get_by_text("grad_norm/total", exact=True).first.wait_for()
    opened.value.wait_for_function("document.querySelectorAll('.scatterlayer path.js-line').length >= 2")
    assert charts.bounding_box()["width"] > 0.5 * width
    assert opened.value.evaluate("document.documentElement.scrollWidth") == width
    assert opened.value.get_by_text(re.compile("^(control-1|agc-0)")).count() == 0  # they did not fail


def test_verdicts_are_a_table_with_their_reasons(addresses, visit):
    page = visit(addresses["stage_a", "verdicts"])
    page.get_by_text("verdict: INCONCLUSIVE").first.wait_for()
    for column in ("fnostab.verdict", "reason", "next_step"):
        page.get_by_text(column, exact=True).first.wait_for()


def test_a_trials_note_links_to_its_study_and_artifacts(addresses, visit, records):
    page = visit(run_page(addresses, records, "stage_a", "tags.arm = 'arch_fix'"))
    page.get_by_text("Show more").first.click()
    page.get_by_text("It differs from").first.wait_for()
    page.locator("img[src^='get-artifact']").first.wait_for()
    page.wait_for_function(  # whole, and a picture
        "[...document.querySelectorAll(\"img[src^='get-artifact']\")].some(img => img.complete && img.naturalWidth)"
    )
    link = page.get_by_role("link", name="figures", exact=True).get_attribute("href")
    shown = visit(page.url.partition("#")[0] + link)
    shown.get_by_text(re.compile(r"\w+\.png")).first.wait_for()


def test_one_click_on_a_trials_page_shows_its_reconstruction(addresses, visit, records):
    page = visit(run_page(addresses, records, "stage_a", "tags.arm = 'control'"), width=1400)
    with page.expect_popup() as opened:
        page.get_by_role("link", name="reconstruction", exact=True).click()
    assert "/artifacts/figures/reconstruction_" in opened.value.url
    opened.value.locator("img[src^='blob:'], img[src*='get-artifact']").first.wait_for(state="attached")


def test_a_verdict_is_uncut_on_its_own_page(addresses, visit, records):
    found = f"tags.`{names.KIND}` = 'verdict'"
    store = open_store(f"sqlite:///{records}/mlflow.db")
    run = store.client.search_runs([find_experiment(store, "stage_a")], found, max_results=1)[0]
    page = visit(run_page(addresses, records, "stage_a", found), width=1400)
    page.get_by_text("Show more").first.click()
    for clause in run.data.params["reason"].split("; "):
        page.get_by_text(clause).first.wait_for()


def test_what_a_message_says_is_shown_as_it_is(addresses, visit, records):
    page = visit(run_page(addresses, records, "failing", f"tags.`{names.OUTCOME}` = 'nonfinite'"))
    page.get_by_text("Show more").first.click()
    page.get_by_text(f"Reason: {NASTY}", exact=True).first.wait_for()
    page.get_by_text("It failed at step 17; the last step known to be good is 16.").first.wait_for()
    assert page.locator("a[href*='x.invalid'], a[href*='github.com/mlflow']").count() == 0


def test_a_verdicts_report_is_shown(addresses, visit, records):
    page = visit(run_page(addresses, records, "stage_a", f"tags.`{names.KIND}` = 'verdict'"))
    page.get_by_text("Show more").first.click()
    link = page.get_by_role("link", name=re.compile("^report")).get_attribute("href")
    shown = visit(page.url.partition("#")[0] + link)
    shown.frame_locator("iframe").get_by_text("INCONCLUSIVE").first.wait_for()


def test_a_run_that_the_report_names_is_one_click_away(addresses, visit, records):
    page = (records / "reports" / "stage_a" / "report.html").read_text()
    link, run_id = re.search(r'href="[^"#]*(#/experiments/\d+/runs/(\w+)[^"]*)"><code>', page).groups()
    name = open_store(f"sqlite:///{records}/mlflow.db").client.get_run(run_id).info.run_name
    shown = visit(addresses["stage_a", "shootout"].partition("#")[0] + html.unescape(link))  # on another port
    shown.get_by_text(name, exact=True).first.wait_for()
