"""Damaged files are refused in one line, or what is read from them is what was written."""

import contextlib
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trial_records import study_spec, trial_spec

from fnostab.errors import ConfigError, DecisionError, FnostabError, LaunchError
from fnostab.ptychography.policy import read_policy
from fnostab.ptychography.settings import TrialConfig
from fnostab.record.lines import read_lines
from fnostab.record.outcomes import Outcome
from fnostab.record.settings import flatten, read_yaml
from fnostab.record.table import Table, TrialRow
from fnostab.record.table_file import read_table, write_table
from fnostab.record.trial import TrialSpec
from fnostab.study.file import read_study_file
from fnostab.tracking.upload.mark import NOTHING, Mark

ROWS = [
    TrialRow("control", 0, Outcome.CONVERGED, 0.1 + 0.2, None, 599, run_id="0123456789abcdef" * 2),
    TrialRow("control", 1, Outcome.COLLAPSED, None, 100, 599),
    TrialRow("arch_fix", 0, Outcome.CONVERGED, 1.25e-3, None, 599),
    TrialRow("arch_fix", 11, Outcome.NONFINITE, 3.0, 17, 17),
]
TRIAL = trial_spec(experiment="mine", study="s", study_hash="5eed", seed=3)
STUDY = study_spec({"control": flatten(TrialConfig())}, name="s", experiment="mine", description="d")
POLICY = """settings: {execution.gradient_clip_algorithm: agc, execution.gradient_clip_val: 0.01}
deprecated: []
verdict: {headline: SILVER, run: 5f0c, date: '2026-03-01', conditions: [small profile]}
"""
STUDY_FILE = """task: ptychography
name: mine
description: does it train?
control: control
seeds: 4
arms:
  control: {}
  wide: {model.fno_blocks: 6, training: {epochs: 3}}
"""
ODD = [
    "NaN",
    ".nan",
    ".inf",
    "-1",
    "1e999",
    "9" * 5000,
    "true",
    "null",
    "\0",
    "\ufeff",
    "[" * 3000,
    "2026-99-99",
    "&a [*a]",
]

flip = st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(1, 255))
cut = st.tuples(st.just("cut"), st.integers(0, 10**6), st.just(0))
insert = st.tuples(st.just("insert"), st.integers(0, 10**6), st.integers(0, len(ODD) - 1))
swap = st.tuples(st.just("swap"), st.integers(0, 10**6), st.integers(0, 10**6))
double = st.tuples(st.just("double"), st.integers(0, 10**6), st.just(0))
DAMAGE = st.lists(st.one_of(flip, cut, insert, swap, double), min_size=1, max_size=3)


def damaged(content, damage):
    """``content`` with bits flipped, a tail cut off, odd values put in, lines swapped or doubled."""
    for kind, where, what in damage:
        data = bytearray(content)
        lines = content.splitlines(keepends=True)
        if kind == "flip" and data:
            data[where % len(data)] ^= what
            content = bytes(data)
        elif kind == "cut":
            content = content[: where % (len(content) + 1)]
        elif kind == "insert":
            place = where % (len(content) + 1)
            content = content[:place] + ODD[what].encode() + content[place:]
        elif kind == "swap" and lines:
            a, b = where % len(lines), what % len(lines)
            lines[a], lines[b] = lines[b], lines[a]
            content = b"".join(lines)
        elif lines:
            lines.insert(where % len(lines), lines[where % len(lines)])
            content = b"".join(lines)
    return content


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


def refused(error):
    message = str(error)
    return len(message) < 5000 and "\n" not in message


@given(damage=DAMAGE)
@example(damage=[("cut", 10**6, 0)])
@example(damage=[("cut", 244, 0), ("cut", 82412, 0), ("flip", 61, 1)])
@settings(max_examples=150)
def test_a_damaged_table_holds_trials_or_is_refused(place, damage):
    path = place / "trials.csv"
    write_table(path, Table({"a": ROWS}))
    path.write_bytes(damaged(path.read_bytes(), damage))
    with contextlib.suppress(DecisionError):
        assert all(isinstance(row, TrialRow) for rows in read_table(path).stages.values() for row in rows)


@given(damage=DAMAGE)
@settings(max_examples=100)
def test_a_table_of_a_persons_own_holds_trials_or_is_refused(place, damage):
    path = place / "own.csv"
    write_table(path, Table({"a": ROWS}))
    own = "\n".join(line.rpartition(",")[0] for line in path.read_text().splitlines()) + "\n"
    path.write_bytes(damaged(own.encode(), damage))
    try:
        rows = read_table(path).stages["a"]
    except DecisionError:
        return
    for row in rows:
        assert row.arm
        assert 0 <= row.seed < 10**15
        assert row.loss is None or (math.isfinite(row.loss) and row.loss >= 0)


@pytest.mark.parametrize("value", ["9" * 5000, "1_0", "\u0661", "0x1p3", "1,5"])
def test_what_python_takes_for_a_number_and_people_do_not(place, value):
    path = place / "odd.csv"
    path.write_text(f'stage,arm,seed,outcome,val_loss,failure_step,last_step\na,control,0,killed,"{value}",{value},9\n')
    with pytest.raises(DecisionError):
        read_table(path)


@pytest.mark.parametrize("record", [TRIAL, STUDY], ids=["trial.json", "study.json"])
@given(damage=DAMAGE)
@settings(max_examples=80)
def test_a_record_is_read_as_written_or_refused(place, record, damage):
    path = place / "record.json"
    record.write(path)
    path.write_bytes(damaged(path.read_bytes(), damage))
    try:
        read = type(record).read(path)
    except LaunchError as error:
        assert len(str(error)) < 5000  # noqa: PT017
        return
    assert read == record


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"seed": 3', '"seed": 4', "was changed since it was written"),
        ('"seed": 3', '"seed": 3, "seed": 4', "was changed since it was written"),
        ('"seed": 3', '"seed": NaN', "was changed since it was written"),
        ('"seed": 3', f'"seed": {"9" * 5000}', "not JSON"),
        ("{", "[" * 100_000, "not JSON"),
        ("{", "\0{", "not JSON"),
    ],
)
def test_a_changed_record_says_how(place, old, new, message):
    path = place / "trial.json"
    TRIAL.write(path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(LaunchError, match=message):
        TrialSpec.read(path)


def same_or_refused(read, original):
    """Whether a file of settings, which has no check, is refused or read without an accident."""
    try:
        value = read()
    except FnostabError as error:
        assert refused(error), str(error)[:300]  # noqa: PT017
        return
    assert value is None or type(value) is type(original)


@given(damage=DAMAGE)
@settings(max_examples=100)
def test_a_damaged_study_is_a_study_or_refused(place, damage):
    path = place / "study.yaml"
    path.write_text(STUDY_FILE)
    original = read_study_file(str(path))
    path.write_bytes(damaged(STUDY_FILE.encode(), damage))
    same_or_refused(lambda: read_study_file(str(path)), original)


@given(damage=DAMAGE)
@settings(max_examples=100)
def test_a_damaged_policy_is_a_policy_or_refused(place, damage):
    path = place / "policy.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FNOSTAB_POLICY", str(path))
        path.write_text(POLICY)
        original = read_policy()
        path.write_bytes(damaged(POLICY.encode(), damage))
        same_or_refused(read_policy, original)


@pytest.mark.parametrize("name", ["name", "control", "arms", "seeds", "profiles", "alpha", "margin"])
@pytest.mark.parametrize(
    "value", ["null", "true", ".nan", ".inf", "-1", "[]", "[[1]]", "{}", "{a: {b: {1: 2}}}", "1e400"]
)
def test_a_study_of_other_types_is_refused_or_finite(place, name, value):
    path = place / "types.yaml"
    lines = [line for line in STUDY_FILE.splitlines() if not line.startswith((name, "  "))]
    arms = [] if name == "arms" else ["arms: {control: {}}"]
    path.write_text("\n".join([line for line in lines if line != "arms:"] + arms + [f"{name}: {value}"]))
    try:
        study = read_study_file(str(path))
    except ConfigError as error:
        assert refused(error)  # noqa: PT017
        return
    assert math.isfinite(study.alpha)
    assert study.margin is None or math.isfinite(study.margin)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "'a' is given twice, the second time in line 2"),
        ("1: x", "the name '1' in line 1 is not text"),
        ("yes: x", "the name 'yes' in line 1 is not text"),
        ("a: &a [*a]", "more than 20000 values"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefg", "bcdefgh", strict=True)
        ), "more than 20000 values"),
        ("[" * 5000, "can't be read"),
        ("d: 2026-99-99", "can't be read"),
        ("n: " + "9" * 5000, "can't be read"),
        ("!!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("a: \0", "special characters are not allowed"),
    ],
    ids=["twice", "number", "boolean", "endless", "bomb", "brackets", "date", "digits", "code", "NUL"],
)  # fmt: skip
def test_yaml_that_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        read_yaml(text)


def test_a_huge_file_is_not_read(place):
    path = place / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(ConfigError, match="larger than 1 MB"):
        read_study_file(str(path))
    with pytest.raises(DecisionError, match="larger than 50 MB"):
        read_table(path)


MARK = Mark(1234, 0xC0FFEE, 1_700_000_000_000)


def test_a_mark_is_taken():
    assert Mark.read(str(MARK)) == MARK


@given(damage=DAMAGE)
@settings(max_examples=80)
def test_a_damaged_mark_is_none_or_that_of_another_journal(damage):
    """A number may become another one: the checksum of the line there then is not that of the mark."""
    mark = Mark.read(damaged(str(MARK).encode(), damage).decode(errors="replace"))
    assert mark == NOTHING or mark.offset < 10**18


@given(st.text())
def test_a_mark_that_is_none_leaves_nothing_out(text):
    assert Mark.read(text) == NOTHING


@given(st.binary(max_size=300))
@example(b"00000000 ")
@settings(max_examples=200)
def test_a_journal_of_anything_is_read_to_its_end_or_refused(place, content):
    path = place / "journal.jsonl"
    path.write_bytes(content)
    said = []
    assert list(read_lines(path, leave_out=said.append)) == []
    assert all(refused(line) for line in said)
