"""``fnostab.decide``: the answer of a table in Python is that of the command line."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest

import fnostab
from fnostab import decision
from fnostab.errors import DecisionError

RESULTS = Path(__file__).parents[2] / "results"
TABLES = ("question/stage_a", "question/stages_a_b", "question/crash_hunt", "full_size/stress")


def with_arms(*arms):
    """A study as one read from a file: its arms are named, whether or not they were run."""
    study = fnostab.TableStudy(control=arms[0], roles=dict(zip(("architecture", "clipping"), arms[1:], strict=True)))
    return SimpleNamespace(**dict(study) | {"arms": {arm: {} for arm in arms}})


def printed(text):
    return [line.rstrip() for line in text.rstrip().splitlines()]


@pytest.mark.parametrize("name", TABLES)
def test_what_it_prints_is_what_the_command_prints(call, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "100")
    path = RESULTS / f"{name}.csv"
    _, out, _ = call("decide", "--table", str(path))
    assert printed(str(fnostab.decide(fnostab.read_table(path)))) == printed(out)


def test_the_front_door_offers_what_an_answer_is_made_of():
    hints = get_type_hints(fnostab.Verdict).values()
    parts = {part.__name__ for hint in hints for part in (hint, *get_args(hint)) if isinstance(part, type)}
    made_of = {name for name in parts if hasattr(decision, name)}
    assert {"Answer", "Criterion", "Rules"} <= made_of
    assert made_of | {"AnswerName", "Case", "Stage"} <= set(dir(fnostab))


class TestMadeTable:
    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ("mine.csv", "expected a table, as from read_table or Table, got 'mine.csv'"),
            (fnostab.Table({"a": [], "c": []}), "the table has stage 'c'; accepted: a, b"),
        ],
    )
    def test_what_is_no_table_or_has_another_stage_is_refused(self, table, message):
        with pytest.raises(DecisionError, match=f"^{message}$"):
            fnostab.decide(table)

    @pytest.mark.parametrize(
        ("facts", "message"),
        [
            ({"margin": -1}, "margin=-1 is not accepted: input should be greater than or equal to 0"),
            ({"margn": 0.1}, "unknown setting 'margn' (did you mean 'margin'?)"),
            ({"knob": "lr"}, "stressed lacks the control 'base'"),
        ],
    )
    def test_a_fact_that_is_not_accepted_is_an_error_of_the_package(self, facts, message):
        with pytest.raises(DecisionError, match=f"^{re.escape(message)}"):
            fnostab.TableStudy(control="base", **facts)

    def test_it_is_judged_without_a_file_and_says_the_same_once_written(self, tmp_path, monkeypatch):
        failed = {"base": 15, "norm": 2}
        rows = [
            fnostab.TrialRow(arm, seed, fnostab.Outcome.EXPLODED, None, 40, 41)
            if seed < failed[arm]
            else fnostab.TrialRow(arm, seed, fnostab.Outcome.CONVERGED, 0.1 + seed / 100, None, 99)
            for arm in failed
            for seed in range(20)
        ]
        table = fnostab.Table({"a": rows}, fnostab.TableStudy(name="mine", control="base", margin=0.1))
        case = fnostab.decide(table)
        assert case.verdict.answer("norm").name is fnostab.AnswerName.HELPS
        assert str(case).startswith("40 trials of mine\n")
        with monkeypatch.context() as narrow:
            narrow.setenv("COLUMNS", "60")
            assert 50 < max(map(len, str(case).splitlines())) <= 60  # of a terminal
        monkeypatch.setenv("COLUMNS", "100")
        fnostab.write_table(tmp_path / "mine.csv", table)
        read = fnostab.decide(fnostab.read_table(tmp_path / "mine.csv"))
        assert read.verdict == case.verdict
        assert printed(str(read))[1:] == printed(str(case))[1:]

    def test_arms_that_were_not_judged_alike_are_not_compared_once_written_either(self, tmp_path, monkeypatch):
        monkeypatch.setenv("COLUMNS", "100")
        reasons = ("exploded: needs two validations", "collapsed: needs a measure, as spread")
        rows = [fnostab.TrialRow("base", seed, fnostab.Outcome.EXPLODED, None, 40, 41) for seed in range(10)]
        rows += [
            fnostab.TrialRow("norm", seed, fnostab.Outcome.CONVERGED, 0.1, None, 41, not_judged=reasons)
            for seed in range(10)
        ]
        table = fnostab.Table({"a": rows}, fnostab.TableStudy(name="mine", control="base", margin=0.1))
        fnostab.write_table(tmp_path / "mine.csv", table)
        read = fnostab.read_table(tmp_path / "mine.csv")
        assert [row.not_judged for row in read.stages["a"]] == [()] * 10 + [reasons] * 10
        for case in (fnostab.decide(table), fnostab.decide(read)):
            assert case.verdict.answer("norm").name is fnostab.AnswerName.UNDECIDED
            assert "only some of the trials were judged by exploded (needs two validations)" in str(case)
            assert "do not trust these failure rates" in str(case)

    def test_an_outcome_may_be_text_and_an_unknown_one_is_refused(self):
        assert fnostab.TrialRow("base", 0, "converged", 0.1).outcome is fnostab.Outcome.CONVERGED
        with pytest.raises(DecisionError, match="arm base, seed 3: outcome='fine' is not known; accepted: converged"):
            fnostab.TrialRow("base", 3, "fine", 0.1)

    def test_without_stage_a_it_is_refused(self):
        with pytest.raises(DecisionError, match="no trial of stage a"):
            fnostab.decide(fnostab.Table({"b": []}))

    @pytest.mark.parametrize("other", ["Norm", "norm\N{ZERO WIDTH SPACE}", " no\N{SOFT HYPHEN}rm\N{NO-BREAK SPACE}"])
    def test_arms_that_look_alike_are_refused(self, other):
        rows = [fnostab.TrialRow(arm, 0, "converged", 0.1) for arm in ("control", "norm", other)]
        with pytest.raises(DecisionError) as refusal:
            fnostab.decide(fnostab.Table({"a": rows[:2], "b": [rows[0], rows[2]]}, path="t.csv"))
        assert str(refusal.value).startswith(
            f"t.csv: arms 'norm' and {other!a} differ only by capitals or by characters"
        )

    def test_a_role_of_an_arm_that_is_not_there_is_refused_unless_it_is_known_not_to_have_run(self):
        rows = [fnostab.TrialRow(arm, seed, "converged", 0.1) for arm in ("base", "norm") for seed in range(3)]
        study = fnostab.TableStudy(control="base", roles={"architecture": "nrom"})
        said = r"^architecture: no trial of the arm 'nrom' \(did you mean 'norm'\?\); arms: base, norm$"
        with pytest.raises(DecisionError, match=said):
            fnostab.decide(fnostab.Table({"a": rows}, study))
        exported = fnostab.Table({"a": rows}, study, {"a": {}})
        assert "nrom: not run in Stage A" in str(fnostab.decide(exported))

    def test_of_a_study_file_only_a_role_is_refused_that_the_table_seems_to_misspell(self):
        study = with_arms("control", "arch_fix", "opt_fix")
        rows = [fnostab.TrialRow("control", seed, "converged", 0.1) for seed in range(3)]
        assert "arch_fix: not run in Stage A" in str(fnostab.decide(fnostab.Table({"a": rows}), study))
        table = fnostab.Table({"a": [*rows, fnostab.TrialRow("arch_fx", 0, "converged", 0.1)]})
        with pytest.raises(DecisionError, match=r"architecture: no trial of the arm 'arch_fix' .*mean 'arch_fx'"):
            fnostab.decide(table, study)

    def test_where_a_table_and_the_study_given_with_it_differ_is_said(self):
        rows = [
            fnostab.TrialRow(arm, seed, "exploded" if arm == "base" and seed else "converged", 0.1 + seed)
            for arm in ("base", "gain", "clpi")
            for seed in range(10)
        ]
        table = fnostab.Table({"a": rows}, fnostab.TableStudy(control="gain", look=2), path="t.csv")
        study = SimpleNamespace(**vars(with_arms("base", "norm", "clip")) | {"roles": {}})
        case = fnostab.decide(table, study)
        assert case.judged[1:4] == (
            "its columns study. are not used, except look, missing and same_settings: another study is given",
            "gain and clpi (did you mean 'clip'?) are no arms of the study, but compared as well",
            "no trial of norm and clip is in the table",
        )
        assert case.verdict.rules.look == 2

    @pytest.mark.parametrize(("arm", "command"), [("norm", "run mine.yaml"), ("wide", "decide --table t.csv --study")])
    def test_a_command_runs_no_arm_that_the_study_lacks_and_judges_by_the_same_study(self, arm, command):
        rows = [fnostab.TrialRow(each, seed, "converged", 0.1) for each in ("base", arm) for seed in range(2)]
        study = SimpleNamespace(**vars(with_arms("base", "norm", "clip")) | {"roles": {}})
        case = fnostab.decide(fnostab.Table({"a": rows}, path="t.csv"), study, asked_as="mine.yaml")
        assert case.command.startswith(f"fnostab {command}")

    @pytest.mark.parametrize(("loss", "said"), [(0.1, ""), (0.0, "; without a margin, as a loss is not above 0")])
    def test_a_table_that_names_no_study_says_where_its_losses_allow_no_margin(self, loss, said):
        rows = [fnostab.TrialRow(arm, n, "converged", loss + n) for arm in ("control", "norm") for n in range(3)]
        case = fnostab.decide(fnostab.Table({"a": rows}))
        assert case.judged[0] == f"6 trials; compared with control, as the table names no study{said}"
