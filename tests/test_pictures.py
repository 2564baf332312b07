"""The pictures of README and docs: each is made by a script, used by a page, and says what its table says."""

import re
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image

from docs import make_pictures as script
from fnostab.record.progress import TrialState
from fnostab.record.table_file import read_table
from fnostab.report.decide_table import decide
from fnostab.show.console import Console
from fnostab.show.rendering import arms_table
from fnostab.show.state import StudyState

ROOT = Path(__file__).parent.parent
MADE = (*script.OF_TABLES, *script.OF_STUDY)
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


def images():
    """(page, alternative text, file) of every picture in README and docs."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for alt, target in IMAGE.findall(page.read_text()):
            yield page.name, alt, (page.parent / target).resolve()


def test_each_picture_is_made_by_a_script_and_shown_on_a_page():
    there = set(script.IMAGES.iterdir())
    assert there == {script.IMAGES / f"{name}.png" for name in (*MADE, *script.ELSEWHERE)}
    assert there == {target for _, _, target in images()}


@pytest.mark.parametrize("name", MADE)
def test_a_picture_says_what_its_table_says(name):
    again = "python -m docs.make_pictures" + (" --folder FOLDER" if name in script.OF_STUDY else "")
    with Image.open(script.IMAGES / f"{name}.png") as picture:
        assert picture.text["Source"] == script.OF_TABLES.get(name, script.STUDY)
        assert picture.text["Shows"] == script.shows(name), f"make it again: {again}"


def test_the_readme_says_in_words_what_its_picture_claims():
    (claim,) = [alt for page, alt, target in images() if (page, target.name) == ("README.md", "claim.png")]
    assert claim == script.shows("claim"), "make it again: python -m docs.make_pictures"


def test_the_caption_below_it_has_the_numbers_of_four_epochs():
    case = decide(read_table(ROOT / "results" / "full_size" / "longer.csv"))
    lower, p = re.search(r"(\d+ % lower) (\(p = [\d.]+\))", " ".join(repr(case).split())).groups()
    seeds = {arm: [row for row in case.stages[0].trials if row.arm == arm] for arm in ("control", "cure")}
    assert [(len(rows), any(row.failed for row in rows)) for rows in seeds.values()] == [(5, False), (5, False)]
    caption = " ".join((ROOT / "README.md").read_text().split())
    assert f"neither had failed, in five seeds each, and the median loss with `cure` was {lower} {p}." in caption


def test_the_caption_below_it_has_the_numbers_of_eight_blocks():
    case = decide(read_table(ROOT / "results" / "full_size" / "depth.csv"))
    p = re.search(r"\(p = [\d.]+\)", " ".join(repr(case).split()))[0]
    failed = {
        arm: [row.failed for row in case.stages[0].trials if row.arm.startswith(arm)] for arm in ("control", "cure")
    }
    counts = {arm: f"{sum(each)} of {len(each)}" for arm, each in failed.items()}
    caption = " ".join((ROOT / "README.md").read_text().split())
    assert f"control failed in {counts['control']} trials, `cure` in {counts['cure']} {p}." in caption


def test_the_recorded_end_of_make_run_is_drawn_today_from_the_recorded_trials():
    rows = read_table(ROOT / script.STUDY).stages["a"]
    study = StudyState("stage_a (small profile)", [TrialState(row.arm, row.seed, row.outcome) for row in rows], jobs=2)
    console = Console(file=StringIO(), width=80)
    console.print(arms_table(study, 80))
    drawn = "\n".join(line.rstrip() for line in console.file.getvalue().replace("\xa0", " ").splitlines())
    assert f"\n{drawn}\n" in (script.SAMPLES / "run.txt").read_text()


def test_more_rates_are_all_said_the_hardest_first(monkeypatch, tmp_path):
    lines = (ROOT / script.FULL_SIZE).read_text().splitlines()
    lines = [line for line in lines if not re.match(r"a,\w+_0\.00[13],", line)]
    easier = [line.replace(",cure_0.01,", ",cure_0.003,") for line in lines if ",cure_0.01," in line]
    easier += [line.replace(",control_0.01,", ",control_0.003,") for line in lines if ",control_0.01," in line][:9]
    table = tmp_path / "stress.csv"
    table.write_text("\n".join([*lines, *easier]) + "\n")
    monkeypatch.setattr(script, "FULL_SIZE", str(table))
    sentence, rows = script.claim()
    assert [row.value for row in rows] == [0.01, 0.01, 0.003, 0.003]
    assert "; at learning rate 0.003 control failed in 9 of 9 seeds, cure in 2 of 10 (p = " in sentence
    assert len(script.claim_figure().axes[0].get_yticklabels()) == 4
