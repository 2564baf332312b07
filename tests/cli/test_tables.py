"""Tables on which answers have been wrong, with what must be said of them; and that a store says the same."""

import json
import shutil
from pathlib import Path

import pytest
from tracking_helpers import Server
from trial_records import study_spec, trial_of

from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.table_file import read_table
from fnostab.tracking import Uploader, ensure_study, open_store

TABLES = Path(__file__).parent / "tables"
OPTIONS = {"one_stage": ("--study", str(TABLES / "one_stage.yaml"))}
SAID = {
    "two_seeds_each": (
        30,
        "arch_fix: undecided, too few seeds to tell: 2, at least 3 are needed.",
        "next: run 10 seeds of control, arch_fix and opt_fix",
        "fnostab run stage_a --seeds 10 --arms control,arch_fix,opt_fix",
    ),
    "one_seed_each": (30, "INCONCLUSIVE", "next: run 10 seeds of control, arch_fix and opt_fix"),
    "one_stage": (
        0,
        "layernorm helps: 1 of 10 failed, 7 of 10 of base (p = 0.004); "
        "it fails 60 points less often (95 %: 17 to 81 less).",
        "next: nothing more to run: every arm has an answer",
    ),
    "one_success_against_100": (
        30,
        "arch_fix harms, it fails more often: 2 of 3 failed, 0 of 100 of control (p < 0.001)",
        "next: look for another remedy: arch_fix harms",
    ),
    "tied_at_the_margin": (
        30,
        "arch_fix helps, at a cost: 0 of 20 failed, 10 of 20 of control (p < 0.001)",
        "opt_fix helps: 0 of 20 failed, 10 of 20 of control (p < 0.001)",
        "leaning SILVER (could be luck): arch_fix is shown to fail less often and only lacks: lower loss",
        "Mann-Whitney, shifted by the margin, p = 1 (one-sided), could be luck",
    ),
    "both_cure_at_equal_loss": (
        30,
        "arch_fix helps: 0 of 20 failed, 12 of 20 of control (p < 0.001)",
        "opt_fix helps: 0 of 20 failed, 12 of 20 of control (p < 0.001)",
        "leaning SILVER (could be luck): arch_fix is shown to fail less often and only lacks: lower loss",
    ),
    "unequal_lengths": (
        30,
        "arch_fix: undecided, control ran 1000 steps, arch_fix 50: they can't be compared.",
        "INCONCLUSIVE: arch_fix: fewer failures, lower loss and finite values throughout can't be tested in Stage A",
        "next: run the arms for the same number of steps, or write `lengths: free` in the study",
    ),
    "oom_control_at_depth": (
        30,
        "arch_fix: undecided, 15 trials of control without an outcome could change it: 12 of 20 failed, 3 of 5 of "
        "control.",
        "INCONCLUSIVE: arch_fix: does not show fewer failures and lower loss in Stage A, fewer failures can't be",
        "next: rerun the 15 trials of control without an outcome in Stage B",
        "fnostab run stage_b --seeds 20 --arms control --retry-oom",
    ),
}
OF_ONE_STAGE = ("Stage", "INCONCLUSIVE")  # words that such a study has no use for
OF_THE_SOURCE = ("judged", "conditions", "studies", "study_runs", "verdict_run", "next", "trials", "look")


def test_every_table_has_its_answer():
    assert {path.stem for path in TABLES.glob("*.csv")} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_what_is_said_of_a_table(call, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "400")
    status, *said = SAID[name]
    code, out, _ = call("decide", "--table", str(TABLES / f"{name}.csv"), *OPTIONS.get(name, ()), "--exit-code")
    assert code == status
    evidence = call("decide", "--table", str(TABLES / f"{name}.csv"), *OPTIONS.get(name, ()), "--evidence")[1]
    text = " ".join(f"{out} {evidence}".split())
    for words in said:
        assert words in text
    if name == "one_stage":
        assert not any(word in text for word in OF_ONE_STAGE)


def test_rows_given_again_as_stage_b_are_refused(call, tmp_path):
    header, *rows = (TABLES / "one_stage.csv").read_text().splitlines()
    copied = tmp_path / "copied.csv"
    copied.write_text("\n".join([header, *rows, *(f"b{row[1:]}" for row in rows)]))
    code, _, err = call("decide", "--table", str(copied), *OPTIONS["one_stage"])
    assert (code, err.startswith("error: Stage B repeats Stage A")) == (2, True)


def record(store, folder, experiment, rows):
    """Send trials as their processes would have left them."""
    arms = list(dict.fromkeys(row.arm for row in rows))
    parts = {"architecture": "arch_fix", "clipping": "opt_fix"}
    study = study_spec(
        {arm: {"model.fno_blocks": 1 + place} for place, arm in enumerate(arms)},
        experiment=experiment,
        hash=experiment,
        roles={part: arm for part, arm in parts.items() if arm in arms},
        measures={},
        margin=0.1 if "control" in arms else None,  # as the table's columns and one_stage.yaml have it
    )
    uploader = Uploader(store, ensure_study(store, study))
    for row in rows:
        directory = folder / experiment / f"{row.arm}-{row.seed}"
        trial_of(study, row.arm, row.seed).write(directory / "trial.json")
        with Journal(directory) as journal:
            values = {names.VAL_LOSS_BEST: row.loss, names.LAST_STEP: row.last_step}
            journal.record(row.last_step or 0, {name: value for name, value in values.items() if value is not None})
            ended = {"known_good_step": None, "rules_held": [], "not_judged": [], "reason": None}
            outcome = {"outcome": str(row.outcome), "failure_step": row.failure_step}
            journal.event(names.OUTCOME_EVENT, ended | outcome)
        uploader.follow(directory)
    uploader.drain(120)


@pytest.mark.slow
def test_store_export_and_server_say_what_the_table_says(workplace, call):
    def answer(*arguments):
        code, out, err = call("decide", *arguments, "--json")
        assert code == 0, err
        return {name: value for name, value in json.loads(out).items() if name not in OF_THE_SOURCE}

    store, sources, tables = open_store(f"sqlite:///{workplace}/mlflow.db"), {}, {}
    for name in SAID:
        options = ("--experiment", name)
        for stage, rows in read_table(TABLES / f"{name}.csv").stages.items():
            record(store, workplace / "outputs", f"{name}{'-deep' * (stage == 'b')}", rows)
            options = (*options, "--deep-experiment", f"{name}-deep") if stage == "b" else options
        sources[name] = options
        tables[name] = answer("--table", str(TABLES / f"{name}.csv"), *OPTIONS.get(name, ()))
    assert {name: answer(*options) for name, options in sources.items()} == tables

    shutil.rmtree(workplace / "outputs")
    for name, options in sources.items():
        assert call("export", f"{name}.csv", *options)[0] == 0
    assert {name: answer("--table", f"{name}.csv") for name in SAID} == tables

    server = Server(store, workplace)
    server.start()
    try:
        served = {name: answer(*options, "--tracking-uri", server.url) for name, options in sources.items()}
    finally:
        server.kill()
    assert served == tables
