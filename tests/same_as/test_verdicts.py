"""The numbers behind answers are the same: outcomes, counts, medians, intervals, p of failures, exports, report data.

The answers themselves are other ones on purpose (DELIBERATE.md). Of studies that each tree has run by itself, and of
fixtures: tables, and the journals of three studies of the baseline, beside records that head has written.
"""

import json
import shutil
from functools import partial

import pytest
from same_as.arms import FIXTURES, LOCKSTEP
from same_as.differences import EXPORTED, NUMBERS, OF_FAILURES
from same_as.make_fixtures import STUDIES, TABLES
from same_as.records import comparable, insist_same, read_csv, read_trials
from same_as.trees import in_both, side_by_side

NAMES = [study.name for study in FIXTURES]
BASELINE = "baseline"


def judge(tree, name, store):
    """The numbers behind the verdict on an experiment, in a store that holds it."""
    return numbers(tree, "--experiment", name, "--tracking-uri", store)


def numbers(tree, *options):
    """What ``decide --json`` says of trials and arms."""
    verdict = json.loads(tree.fnostab("decide", *options, "--json"))
    kept = {part: [{key: row[key] for key in keys} for row in verdict[part]] for part, keys in NUMBERS.items()}
    return comparable("decide", kept, of_baseline=tree.name == BASELINE)


def export(tree, name, store):
    """The rows of an experiment's export."""
    table = tree.work / f"{name}.csv"
    tree.fnostab("export", table, "--experiment", name, "--tracking-uri", store)
    rows = [{column: row[column] for column in EXPORTED} for row in read_csv(table)]
    return comparable("export", rows, of_baseline=tree.name == BASELINE)


# Run in a tree: ``fnostab report``, and in place of the figures what `gather` has read for them, by trial

REPORT = """
import json, sys
from fnostab.cli import main
from fnostab.report import evidence

gather = evidence.gather

def write_too(store, case, experiment_ids):
    read = gather(store, case, experiment_ids)
    trials = {t.run_id: f"{stage.name} {t.arm} {t.seed}" for stage in case.stages for t in stage.trials}
    curves = {
        trials[run]: [curve.steps.tolist(), curve.values.tolist(), curve.nonfinite_steps.tolist()]
        for run, curve in read.curves.items()
    }
    found = {
        "curves": curves,
        "val_losses": {trials[run]: [list(map(float, of)) for of in both] for run, both in read.val_losses.items()},
        "spikes": {trials[run]: [spikes.n, spikes.unrecovered] for run, spikes in read.spikes.items()},
        "pictures": sorted(trials[run] for run in read.pictures),
        "source": read.source,
    }
    with open(sys.argv[1], "w") as file:
        json.dump(found, file)
    return read

evidence.gather = write_too
main(sys.argv[2:])
"""


def report_data(tree, name, store):
    """What a report of the experiment shows."""
    found = tree.work / f"{name}-report.json"
    options = ("--experiment", name, "--tracking-uri", store, "--output", str(tree.work / f"{name}-report"))
    tree.python("-c", REPORT, str(found), "report", *options)
    return json.loads(found.read_text())


# Of a study that each tree has run


@pytest.fixture(scope="module")
def of_lockstep(trees, in_lockstep):
    """(baseline, head): numbers, export and report data."""

    def read(tree):
        store = tree.store_of("runs", LOCKSTEP)
        return [of(tree, LOCKSTEP.name, store) for of in (judge, export, report_data)]

    return in_both(trees, read)


def test_same_numbers_of_what_each_has_trained(of_lockstep):
    (baseline, *_), (head, *_) = of_lockstep
    assert {arm["n_failed"] for arm in baseline["arms"]} == {1, 2}
    insist_same(baseline, head)


def test_same_export_of_what_each_has_trained(of_lockstep):
    (_, baseline, _), (_, head, _) = of_lockstep
    assert len(baseline) == LOCKSTEP.count
    insist_same(baseline, head)


def test_same_report_data_of_what_each_has_trained(of_lockstep):
    (*_, baseline), (*_, head) = of_lockstep
    assert len(baseline["curves"]) == LOCKSTEP.count
    assert baseline["pictures"]
    insist_same(baseline, head)


# Of the fixtures' studies


def test_the_fixtures_are_there():
    assert len(list(TABLES.glob("*.csv"))) == 3
    for study in FIXTURES:
        assert len(read_trials(STUDIES / study.name, of_baseline=True)) == study.count


@pytest.fixture(scope="module")
def own_records(trees):
    """Folder of the fixtures' studies with records that head wrote, but the fixtures' journals."""
    _, head = trees
    for folder in side_by_side([partial(head.records, study) for study in FIXTURES]):
        given = read_trials(STUDIES / folder.name, of_baseline=True)
        own = read_trials(folder, of_baseline=False)
        assert sorted(own) == sorted(given)
        for key, trial in own.items():
            shutil.copy(given[key].folder / "journal.jsonl", trial.folder / "journal.jsonl")
            (trial.folder / "upload.json").unlink(missing_ok=True)
            shutil.rmtree(trial.folder / "artifacts", ignore_errors=True)
    return head.work / "records"


@pytest.fixture(scope="module")
def judged(trees, own_records):
    """(baseline, head): numbers by study, and the export of the first."""
    baseline, head = trees
    given = shutil.copytree(STUDIES, baseline.work / "given")
    return side_by_side([partial(_judge_all, baseline, given), partial(_judge_all, head, own_records)])


def _judge_all(tree, folder):
    store = f"sqlite:///{tree.work}/{folder.name}-read.db"
    tree.fnostab("sync", folder, "--tracking-uri", store)
    found = {name: judge(tree, name, store) for name in NAMES}
    return found | {"export": export(tree, NAMES[0], store), "report": report_data(tree, NAMES[0], store)}


def test_there_is_something_to_judge(judged):
    baseline, _ = judged
    decided = baseline[NAMES[0]]
    outcomes = {trial["outcome"] for trial in decided["trials"]}
    assert outcomes == {"converged", "collapsed", "exploded", "nonfinite", "stagnated"}
    assert len(baseline["export"]) == len(decided["trials"])


@pytest.mark.parametrize("name", [*NAMES, "export", "report"])
def test_same_of_a_study(judged, name):
    baseline, head = judged
    insist_same(baseline[name], head[name])


# Of tables


@pytest.fixture(scope="module")
def of_tables(trees):
    """(baseline, head): the numbers of each table."""

    def judge_tables(tree):
        return {path.stem: numbers(tree, "--table", path) for path in sorted(TABLES.glob("*.csv"))}

    return in_both(trees, judge_tables)


@pytest.mark.parametrize("table", sorted(path.stem for path in TABLES.glob("*.csv")))
def test_same_numbers_of_a_table(of_tables, table):
    baseline, head = of_tables
    assert baseline[table]["trials"]
    insist_same(baseline[table], head[table])


def test_same_p_of_failures_where_two_arms_are_tested_and_no_trial_is_without_an_outcome(trees):
    def failures(tree):
        found = json.loads(tree.fnostab("decide", "--table", TABLES / "silver.csv", "--json"))["criteria"]
        return [{key: c[key] for key in OF_FAILURES} for c in found if c["name"] == "fewer_failures"]

    baseline, head = in_both(trees, failures)
    tested = [one for one in baseline if one["test"]]
    assert len(tested) == 2
    insist_same(tested, [one for one in head if one["test"]])
