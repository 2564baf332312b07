"""A table of trials as a CSV file."""

import csv
import json
import math
import re
import resource
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnostab.errors import DecisionError
from fnostab.record.outcomes import FAILURES, Outcome
from fnostab.record.table import Table, TrialRow
from fnostab.record.table_file import COLUMNS, read_table, write_table
from fnostab.record.table_study import TableStudy
from fnostab.record.trial import Measure, Metric

HEADER = ",".join(COLUMNS)


@pytest.fixture
def read(tmp_path):
    def read(*lines, header=HEADER):
        path = tmp_path / "trials.csv"
        path.write_text("\n".join([header, *lines]) + "\n")
        return read_table(path).stages

    return read


def test_a_table_by_stage(read):
    assert read("a,control,0,converged,0.0138,,599", "b,control,0,collapsed,,100,599", "a,control,1,running,,,") == {
        "a": [
            TrialRow("control", 0, Outcome.CONVERGED, 0.0138, None, 599),
            TrialRow("control", 1, Outcome.RUNNING),
        ],
        "b": [TrialRow("control", 0, Outcome.COLLAPSED, None, 100, 599)],
    }


NAMES = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,20}", fullmatch=True).filter(lambda name: name not in ("na", "nan"))
STUDY = TableStudy(
    name="mine",
    control="plain",
    roles={"architecture": "norm", "clipping": "clip"},
    metric=Metric(name="return", higher_is_better=True, of="last"),
    measures={"val/sharp ness": Measure(margin=0.02), "blur": Measure(higher_is_better=False, margin=0.1)},
    margin=12.5,
    smallest_effect=0.1,
    lengths="free",
    alpha=0.01,
    caveats=("a small size",),
    same_for_all=("object", "photon noise"),
    follow_up="deep",
    follow_up_criteria=("matches_stage_a", "grad_bounded"),
    look=3,
    looks_planned=True,
)


@given(
    st.lists(
        st.builds(
            TrialRow,
            arm=NAMES,
            seed=st.integers(0, 2**70),
            outcome=st.sampled_from(Outcome),
            loss=st.floats(-1e300, 1e300),
            failure_step=st.none() | st.integers(0, 10**9),
            last_step=st.none() | st.integers(0, 10**9),
            scheduled_steps=st.none() | st.integers(0, 10**9),
            measures=st.dictionaries(st.sampled_from(list(STUDY.measures)), st.floats(-10, 10)),
            rules_held=st.lists(st.sampled_from(FAILURES), max_size=2).map(tuple),
            grad_ratio=st.none() | st.floats(0, 1e9),
            run_id=st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
        ),
        min_size=1,
        unique_by=lambda row: (row.arm, row.seed),
    ),
    st.none() | st.just(STUDY),
)
def test_what_is_written_is_read_again(tmp_path_factory, rows, study):
    path = tmp_path_factory.mktemp("table") / "trials.csv"
    missing = {"a": {"plain": (3, 4, 2**70), "norm": (7,)}}
    same = {"a": {"norm": "plain"}}
    write_table(path, Table({"a": rows, "b": rows}, study, missing, same))
    assert read_table(path) == Table({"a": rows, "b": rows}, study, missing, same)


ROWS = [
    TrialRow("plain", 0, Outcome.COLLAPSED, None, 500, 1000, 1000, {}, (Outcome.COLLAPSED,), 3.5, "f" * 32),
    TrialRow("norm", 0, Outcome.CONVERGED, -0.25, None, 100_000, 100_000, {"val/sharp ness": 0.5, "blur": 1.0}),
]


def as_pandas_writes(cells):
    """Whole numbers of a column with gaps become floats, and true and false are spelt otherwise."""
    return [
        re.sub(r"^(\d+)$", r"\1.0", c) if i in (5, 6, 7) else {"true": "True"}.get(c, c) for i, c in enumerate(cells)
    ]


def as_r_writes(cells):
    """Names become names of R, what is missing NA, and what is round an exponent."""
    return [{"": "NA", "true": "TRUE", "100000": "1e+05"}.get(c, c) for c in cells]


@pytest.mark.parametrize("rewrite", [as_pandas_writes, as_r_writes])
def test_pandas_and_r_may_read_and_write_it_between(tmp_path, rewrite):
    path = tmp_path / "trials.csv"
    table = Table({"a": ROWS}, STUDY, {"a": {"plain": (1,)}})
    write_table(path, table)
    header, *rows = csv.reader(path.read_text().splitlines())
    if rewrite is as_r_writes:
        header = [re.sub(r"[^A-Za-z0-9._]", ".", name) for name in header]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["", *header], *([str(i), *rewrite(row)] for i, row in enumerate(rows, 1))])
    assert read_table(path) == table


def test_a_row_that_was_added_is_no_longer_missing(tmp_path):
    path = tmp_path / "trials.csv"
    write_table(path, Table({"a": ROWS[:1]}, STUDY, {"a": {"plain": (1, 2)}}))
    first = path.read_text().splitlines()[-1]
    path.write_text(path.read_text() + first.replace("a,plain,0,", "a,plain,1,") + "\n")
    table = read_table(path)
    assert [row.seed for row in table.stages["a"]] == [0, 1]
    assert table.missing == {"a": {"plain": (2,)}}


def test_an_arm_that_would_be_missing_in_a_table_is_not_written(tmp_path):
    with pytest.raises(DecisionError, match="the arm 'nan' would be missing in a table: rename it"):
        write_table(tmp_path / "trials.csv", Table({"a": [replace(ROWS[0], arm="nan")]}))


def test_pandas_itself(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "trials.csv"
    table = Table({"a": ROWS}, STUDY, {"a": {"plain": (1,)}})
    write_table(path, table)
    pandas.read_csv(path).to_csv(path)
    assert read_table(path) == table


R = 't <- read.csv("trials.csv"); write.csv(t, "trials.csv")'


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed: apt-get install r-base-core")
@pytest.mark.parametrize("arms", [("plain", "norm"), ("T", "F"), ("8", "16"), ('a "b", c', "d;e")])
def test_r_itself(tmp_path, arms):
    control, other = arms
    study = STUDY.model_copy(update={"control": control, "roles": {"architecture": other}})
    many = [replace(ROWS[1], arm=other, seed=seed, loss=-((2 / 3) ** seed)) for seed in range(1, 30)]
    table = Table({"a": [replace(ROWS[0], arm=control), *many], "b": [TrialRow(control, 0, Outcome.OOM)]}, study)
    write_table(tmp_path / "trials.csv", table)
    subprocess.run(["Rscript", "-e", R], cwd=tmp_path, check=True, capture_output=True)
    read = read_table(tmp_path / "trials.csv")
    assert [[row.loss for row in read.stages[s]] for s in "ab"] == [
        [row.loss and pytest.approx(row.loss, rel=1e-14) for row in table.stages[s]] for s in "ab"
    ]
    stages = {stage: [replace(row, loss=None) for row in rows] for stage, rows in read.stages.items()}
    named = {"T": "TRUE", "F": "FALSE"}  # R takes a column of these letters for truth values
    assert read.study == study.model_copy(
        update={"control": named.get(control, control), "roles": {"architecture": named.get(other, other)}}
    )
    assert stages == {
        stage: [replace(row, arm=named.get(row.arm, row.arm), loss=None) for row in rows]
        for stage, rows in table.stages.items()
    }


def test_a_full_disk_leaves_the_table_that_was_there_and_a_link_is_followed(tmp_path):
    path, link = tmp_path / "trials.csv", tmp_path / "link.csv"
    link.symlink_to(path)
    write_table(link, Table({"a": ROWS[:1]}))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(DecisionError, match="can't write"):
            write_table(path, Table({"a": ROWS}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} == {"trials.csv", "link.csv"}
    assert link.is_symlink()


def test_a_study_must_be_one(tmp_path):
    path = tmp_path / "trials.csv"
    path.write_text(f"{HEADER},study.control,study.alpha\n{GOOD},control,0.05\na,control,1,oom,,,,control,0.1\n")
    with pytest.raises(DecisionError, match=r"study.alpha has more than one value: '0.05', '0.1'; write the same"):
        read_table(path)
    path.write_text(f"{HEADER},study.control\n{GOOD},control\na,norm,1,oom,,,,\n")  # a row that was added
    with pytest.raises(DecisionError, match=r"study.control has more than one value: '', 'control'; write the same in"):
        read_table(path)
    path.write_text(f"{HEADER},study.control,study.alpha\n{GOOD},control,2\n")
    with pytest.raises(DecisionError, match=r"study.alpha='2' is not accepted"):
        read_table(path)
    path.write_text(f"{HEADER},study.mine,study.higher_is_better\n{GOOD},x,true\n")
    with pytest.raises(DecisionError, match=r"has study.higher_is_better but no study.control: add that"):
        read_table(path)
    path.write_text(f"{HEADER},study.control,study.measures\n{GOOD},control,sharp up 2\n")
    with pytest.raises(DecisionError, match=r"study.measures='sharp up 2' is not accepted: expected JSON"):
        read_table(path)
    path.write_text(f"{HEADER},study.control,study.missing\n{GOOD},control,3\n")
    with pytest.raises(DecisionError, match=r"line 2: study.missing='3' is not accepted: "):
        read_table(path)


@pytest.mark.parametrize(
    ("stressed", "why"),
    [
        ({}, "stressed lacks the control 'control'"),
        ({"new": {"control_2": 2}}, "stressed lacks the control 'control'"),
        ({"plain": {"control": 1, "control_4": 4, "control_2": 2}}, r"stressed has .*4.0, 2.0\]\]; expected values"),
        ({"plain": {"control": 1, "control_4": 4}, "new": {"new_4": 4, "new_1": 1}}, "those of every arm rise, or"),
        ({"plain": {"control": 0, "control_4": 4}}, "expected values of lr above 0"),
    ],
)
def test_a_stress_study_needs_the_values_of_control_and_their_order(read, stressed, why):
    cell = json.dumps(stressed).replace('"', '""')
    with pytest.raises(DecisionError, match=rf"csv: study.{why}" if why.startswith("stressed") else why):
        read(f'{GOOD},control,lr,"{cell}"', header=f"{HEADER},study.control,study.knob,study.stressed")


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        *[("contrl", "control"), ("Control", "control"), ("alhpa", "alpha"), ("lenghts", "lengths")],
        *[("higher_better", "higher_is_better"), ("clippng", "clipping"), ("mising", "missing")],
    ],
)
def test_a_misspelt_column_of_the_study_is_refused(read, column, meant):
    with pytest.raises(
        DecisionError, match=rf"csv: study.{column} is no .*\(did you mean study.{meant}\?\): rename it"
    ):
        read(f"{GOOD},x", header=f"{HEADER},study.{column}")


def test_other_columns_that_begin_like_those_of_the_study_are_ignored(read):
    names = ("whatever", "matrix", "date", "notes", "owner", "dataset", "title", "id")
    header = ",".join([HEADER, *(f"study.{name}" for name in names)])
    assert len(read(",".join([GOOD, *names]), header=header)["a"]) == 1


def test_columns_in_any_order_with_others_between_and_blanks(read):
    (row,) = read(
        "599, note, 0.5, control, a, converged, 3, ",
        header="last_step , note, val_loss, arm , stage, outcome, seed, failure_step ",
    )["a"]
    assert row == TrialRow("control", 3, Outcome.CONVERGED, 0.5, None, 599)


def test_rows_without_any_value_are_ignored(read):
    assert len(read(GOOD, ",,,,,,", "", ",,")["a"]) == 1


def test_what_excel_writes(tmp_path):
    path = tmp_path / "trials.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\na,control,0,converged,0.5,,9\r\n".encode())
    assert len(read_table(path).stages["a"]) == 1


@pytest.mark.parametrize("first", ["", "   ", "sep=,"])  # as Excel writes it
def test_a_first_line_without_names_is_to_be_removed(tmp_path, first):
    path = tmp_path / "trials.csv"
    path.write_text(f"{first}\r\narm,seed,outcome,val_loss\r\ncontrol,0,converged,0.1\r\n", newline="")
    with pytest.raises(DecisionError, match=f"line 1: expected the names of the columns, got '{first}': remove this"):
        read_table(path)


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_named(tmp_path, mark, name):
    path = tmp_path / "trials.csv"
    path.write_text(f'"{HEADER}"\n{GOOD}\n'.replace(",", f'"{mark}"'))
    with pytest.raises(DecisionError, match=f"columns are separated by {name}: write them with commas"):
        read_table(path)


def test_the_loss_of_a_failed_trial_may_be_anything_that_is_no_number(read):
    losses = [row.loss for row in read("a,x,0,nonfinite,nan,5,9", "a,x,1,exploded,inf,5,9", "a,x,2,oom,,,")["a"]]
    assert losses == [None, None, None]
    with pytest.raises(DecisionError, match="a converged trial needs a val_loss"):  # infinity as MLflow exports it
        read("a,x,0,converged,1.7976931348623157e+308,,9")
    assert TrialRow("x", 0, Outcome.NONFINITE, loss=math.nan).loss is None


def test_a_measure_that_is_no_number_is_none_whether_read_or_made_in_python(read):
    (row,) = read("a,x,0,converged,0.1,,9,0.9,nan,inf,", header=HEADER + "".join(f",measure.{m}" for m in "pqrs"))["a"]
    made = {"p": 0.9, "q": math.nan, "r": math.inf, "s": None}
    assert row == TrialRow("x", 0, Outcome.CONVERGED, 0.1, last_step=9, measures=made)
    assert row.measures == {"p": 0.9}


GOOD = "a,control,0,converged,0.5,,9"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,control,1,diverged,0.5,,9", r"line 3: outcome='diverged' is not known; accepted: converged, nonfinite"),
        ("a,control,1,,0.5,,9", r"line 3: outcome='' is not known"),
        ("a,control,1,NaN,,,9", r"line 3: outcome='NaN' is not known"),
        ("NA,control,1,converged,0.5,,9", r"line 3: stage='NA' is not accepted"),
        (
            "a,control,1,converged,0,5",
            r"line 3: fewer values .*, and val_loss='0' before failure_step='5'; decimals are",
        ),
        (
            "a,control,1,collapsed,0,5",
            r"line 3: fewer values .*, and val_loss='0' before failure_step='5'; decimals are",
        ),
        (GOOD, r"line 3: stage a, arm control, seed 0 is on line 2 too"),
        ("a,control,1,converged,low,,9", r"line 3: val_loss='low' is not a number"),
        ("a,control,1,converged,nan,,9", r"line 3: a converged trial needs a val_loss, got 'nan'"),
        ("a,control,1,converged,inf,,9", r"line 3: a converged trial needs a val_loss, got 'inf'"),
        ("a,control,1,converged,,,9", r"line 3: a converged trial needs a val_loss, got ''"),
        ("a,control,1,converged", r"line 3: a converged trial needs a val_loss"),
        ("a,control,1,converged,0,5,,9", r"line 3: more values than columns; decimals are written with a point"),
        ("c,control,1,converged,0.5,,9", r"line 3: stage='c' is not accepted; accepted: a, b"),
        ("a,,1,converged,0.5,,9", r"line 3: the arm is missing, got '': name it"),
        ("a, NaN ,1,converged,0.5,,9", r"line 3: the arm is missing, got 'NaN': name it"),
        ("a,<NA>,1,converged,0.5,,9", r"line 3: the arm is missing, got '<NA>': name it"),
        ("a,control,1,converged,1.7e308,,9", r"line 3: a converged trial needs a val_loss, got '1.7e308'"),
        ("a,control,,converged,0.5,,9", r"line 3: the seed is missing"),
        ("a,control,-1,converged,0.5,,9", r"line 3: seed='-1' is not a whole number"),
        ("a,control,1234567890123456.0,converged,0.5,,9", r"line 3: seed='1234567890123456.0' .*\(at most 15 digits\)"),
        ("a,control,1.5,converged,0.5,,9", r"line 3: seed='1.5' is not a whole number"),
        ("a,control,1,collapsed,0.5,ten,9", r"line 3: failure_step='ten' is not a whole number"),
        ('a,"control,1,converged,0.5,,9', r'line 3: a quote \("\) is not closed, or text follows it'),
        ('a,"control"s,1,converged,0.5,,9', r'line 3: a quote \("\) is not closed, or text follows it'),
    ],
)
def test_a_bad_line_is_named(read, line, message):
    with pytest.raises(DecisionError, match=message) as refusal:
        read(GOOD, line)
    assert "\n" not in str(refusal.value)


def test_missing_columns_and_stages(read, tmp_path):
    with pytest.raises(DecisionError, match=r"line 1, has no column 'outcome'; needed: arm, seed, outcome, val_loss; "):
        read(header="stage,arm,seed,val_loss,failure_step,last_step")
    with pytest.raises(DecisionError, match="has the column 'val_loss' twice"):
        read(header=f"{HEADER},val_loss")
    with pytest.raises(DecisionError, match="has no trial of stage a"):
        read("b,control,0,converged,0.5,,9")
    with pytest.raises(DecisionError, match="has no trial of stage a"):
        read()


def test_columns_that_may_be_empty_may_be_absent(read):
    (row,) = read("control,0,collapsed,", header="arm,seed,outcome,val_loss")["a"]
    assert row == TrialRow("control", 0, Outcome.COLLAPSED)


def test_files_that_are_no_tables(tmp_path):
    path = tmp_path / "trials.csv"
    with pytest.raises(DecisionError, match=r"can't read .*trials.csv: No such file"):
        read_table(path)
    with pytest.raises(DecisionError, match=r"can't read .*: Is a directory"):
        read_table(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DecisionError, match=r"line 1, has no column 'arm'.*given with --runs"):
        read_table(path)
    path.write_bytes(f"{HEADER}\na,contr\xf6le,0,converged,0.5,,9\n".encode("latin-1"))
    with pytest.raises(DecisionError, match="is not text in UTF-8 "):
        read_table(path)
    with pytest.raises(DecisionError, match="can't write"):
        write_table(tmp_path, Table({}))


def test_a_table_of_a_million_rows_is_refused_at_once(tmp_path):
    path = tmp_path / "huge.csv"
    path.write_text(",".join(COLUMNS) + "\n" + "a,control,1,converged,0.1,,9\n" * 1_000_000)
    with pytest.raises(DecisionError, match="has 1,000,001 lines; a table of trials has at most 100,000"):
        read_table(path)


@pytest.mark.parametrize(
    ("columns", "row", "end", "message"),
    [
        (200_000, "1\n", "", "has no column 'arm'"),
        (1_000_000, "1\n", "1\n" * 20, "room for 22,000,000 cells; .* at most 10,000,000: leave out columns"),
        (3, "1,2\r", "\r" * 200_000, "has 200,002 lines"),
    ],
)
def test_a_table_is_bounded_in_both_directions(tmp_path, columns, row, end, message):
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"c{n}" for n in range(columns)) + row[-1] + row + end, newline="")
    with pytest.raises(DecisionError, match=message):
        read_table(path)
