"""Make tests/same_as/fixtures: a small study that the baseline ran, with journals, and tables.

    PYTHONPATH=tests .venv/bin/python tests/same_as/make_fixtures.py

They are in the repository, so that both trees read the same bytes wherever the tests run: make them again only with
another baseline.
"""

import csv
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from same_as.arms import FIXTURES
from same_as.records import read_trials
from same_as.trees import Tree, baseline_source

FOLDER = Path(__file__).parent / "fixtures"
STUDIES, TABLES = FOLDER / "studies", FOLDER / "tables"
RECORDS = ("trial.json", "journal.jsonl")
LARGEST_BYTES = 1_500_000
COLUMNS = ("stage", "arm", "seed", "outcome", "val_loss", "failure_step", "last_step")
FAILURES = ("collapsed", "collapsed", "nonfinite", "exploded", "stagnated")
LAST_STEP = 599

Row = tuple[str | int | float | None, ...]


def main() -> None:
    """Write all of them anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    TABLES.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="same_as_") as folder, baseline_source(Path(folder)) as source:
        tree = Tree("baseline", source.resolve(), Path(folder, "work"))
        tree.work.mkdir()
        tree.insist()
        for study in FIXTURES:
            keep_study(tree.run(study), STUDIES / study.name)
        forget(tree.work)
    for name, rows in tables().items():
        write_table(TABLES / f"{name}.csv", rows)
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    print(f"{size / 1e6:.2f} MB in {FOLDER}")
    assert size < LARGEST_BYTES


def keep_study(output: Path, folder: Path) -> None:
    """Copy records and journals from what a study wrote."""
    (record,) = output.rglob("study.json")
    folder.mkdir(parents=True)
    shutil.copy(record, folder)
    for trial in read_trials(output, of_baseline=True).values():
        target = folder / trial.folder.name
        target.mkdir()
        for name in RECORDS:
            shutil.copy(trial.folder / name, target)
        print(folder.name, target.name, trial.outcome)


def forget(work: Path) -> None:
    """Take the address of a folder out of the records: whose machine it was is nobody's business."""
    for path in STUDIES.rglob("trial.json"):
        record = json.loads(path.read_text().replace(str(work), work.name))
        record.pop("crc32", None)  # of the text before
        path.write_text(json.dumps(record, indent=2) + "\n")


def tables() -> dict[str, list[Row]]:
    """A table of stage_a for each verdict."""
    silver = [*arm("a", "control", 7, 3), *arm("a", "arch_fix", 5, 5), *arm("a", "opt_fix", 10, 0)]
    gold = [*arm("a", "control", 7, 3, 0.02), *arm("a", "arch_fix", 10, 0), *arm("a", "opt_fix", 7, 3)]
    left_out: list[Row] = [("a", "control", 20, "oom", None, None, None), ("a", "control", 21, "killed", 0.3, None, 40)]
    return {
        "gold": [*gold, *left_out, *arm("b", "control", 2, 8), *arm("b", "arch_fix", 10, 0)],
        "silver": silver,
        "pivot": [*silver, *(row for name in ("control", "arch_fix", "opt_fix") for row in arm("b", name, 2, 8))],
    }


def arm(stage: str, name: str, ok: int, failed: int, loss: float = 0.01) -> Iterator[Row]:
    """Trials of an arm, with losses and steps by chance, but always the same."""
    chance = random.Random(f"{stage} {name} {ok} {failed}")
    for seed in range(ok):
        yield stage, name, seed, "converged", loss * chance.lognormvariate(0, 0.2), None, LAST_STEP
    for seed in range(ok, ok + failed):
        outcome, step = chance.choice(FAILURES), chance.randrange(10, LAST_STEP)
        last = step if outcome == "nonfinite" else LAST_STEP
        yield stage, name, seed, outcome, loss * chance.lognormvariate(2, 0.5), step, last


def write_table(path: Path, rows: list[Row]) -> None:
    """Write rows as people write them: without a column of checks."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
