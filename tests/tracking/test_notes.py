"""Notes on the pages of runs."""

from collections import Counter

import pytest
from tracking_helpers import only_trial, write_outcome, write_trial

from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.tracking import ensure_study, finish_study, log_verdict, sync
from fnostab.tracking.pages.notes import LONGEST, NOTE, bounded, code, escaped, put_note, withdraw_note


def note_of(store, run_id):
    return store.client.get_run(run_id).data.tags.get(NOTE)


@pytest.fixture
def run_id(store):
    return store.client.create_run("0").info.run_id


def test_text_of_users_stays_text():
    assert escaped("a*b* <i>_[x](y)") == r"a\*b\* &lt;i&gt;\_\[x\]\(y\)"
    assert escaped("see http://x @me\n:+1:") == r"see http&#58;//x \@me &#58;\+1:"
    assert code("a`b\n c") == "`a'b c`"


@pytest.mark.parametrize("length", [10, LONGEST, 3 * LONGEST])
def test_a_note_is_never_longer_than_mlflow_takes(length):
    note = bounded("line\n" * (length // 5), "\nthe end")
    assert len(note) <= LONGEST
    assert note.endswith("\nthe end")


def test_a_note_is_replaced_by_ours_but_never_one_of_a_user(store, run_id):
    assert put_note(store.client, run_id, "first")
    assert put_note(store.client, run_id, "second")
    assert note_of(store, run_id) == "second"
    store.client.set_tag(run_id, NOTE, "the probe was misaligned")
    assert not put_note(store.client, run_id, "third")
    withdraw_note(store.client, run_id)
    assert note_of(store, run_id) == "the probe was misaligned"


def test_a_note_that_no_longer_holds_is_withdrawn(store, run_id):
    put_note(store.client, run_id, "killed")
    withdraw_note(store.client, run_id)
    assert note_of(store, run_id) is None
    assert put_note(store.client, run_id, "converged")


def test_a_failed_trial_says_what_it_is_where_it_failed_and_why(store, study):
    directory = study.trial("agc")
    write_trial(directory, outcome=None)
    box = directory / "artifacts" / names.BLACK_BOX
    box.mkdir(parents=True)
    (box / "state.json").write_text("{}")
    with Journal(directory) as journal:
        journal.event(names.ARTIFACT_EVENT, {"path": f"artifacts/{names.BLACK_BOX}", "artifact_path": names.BLACK_BOX})
        (directory / "artifacts" / "grad_norm.png").touch()
        journal.event(names.ARTIFACT_EVENT, {"path": "artifacts/grad_norm.png", "artifact_path": "figures"})
        write_outcome(journal, "nonfinite", failure_step=17, known_good_step=16, rules_held=["nonfinite"], reason="a*b")
    sync(study.folder, store)
    run = only_trial(store)
    note = run.data.tags[NOTE]
    assert note.startswith("Arm **agc**, seed 0: **nonfinite**")
    assert "It failed at step 17; the last step known to be good is 16." in note
    assert "Rules of failure that it met: nonfinite." in note
    assert r"Reason: a\*b" in note
    assert r"![grad\_norm](get-artifact?path=figures/grad_norm.png&" in note
    assert "`execution.gradient_clip_val` `0.01`" in note
    parent = run.data.tags["mlflow.parentRunId"]
    assert f"[study](#/experiments/{run.info.experiment_id}/runs/{parent}?" in note
    assert f"[black box](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/black_box?" in note


def test_a_trial_that_is_tried_again_loses_the_note_of_the_attempt_before(store, study):
    directory = study.trial()
    write_trial(directory, outcome="killed")
    sync(study.folder, store)
    assert "**killed**" in only_trial(store).data.tags[NOTE]
    write_trial(directory, steps=range(30, 40), outcome="converged")
    sync(study.folder, store)
    assert "**converged**" in only_trial(store).data.tags[NOTE]


def test_no_note_costs_an_outcome(store, study, monkeypatch):
    monkeypatch.setattr("fnostab.tracking.pages.run_notes.trial_note", lambda *_: 1 / 0)
    write_trial(study.trial())
    sync(study.folder, store)
    run = only_trial(store)
    assert (run.info.status, run.data.tags[names.OUTCOME]) == ("FINISHED", "converged")
    assert NOTE not in run.data.tags


def test_a_study_says_what_became_of_its_arms_and_links_its_verdict(store, study):
    run_id = ensure_study(store, study.spec)
    assert note_of(store, run_id) == escaped(study.spec.description)
    write_trial(study.trial("control"), outcome="collapsed")
    write_trial(study.trial("agc"))
    sync(study.folder, store)
    finish_study(store, run_id)
    note = note_of(store, run_id)
    assert note.startswith(escaped(study.spec.description))
    assert "| arm | trials | converged | collapsed |" in note
    assert "| `control` | 1 | 0 | 1 |" in note
    assert "| `agc` | 1 | 1 | 0 |" in note
    experiment = store.client.get_run(run_id).info.experiment_id
    payload = {"reason": "r" * 9000, "next_step": "run more seeds"}
    counted = {run_id: {"control": Counter(collapsed=1), "agc": Counter(converged=1)}}  # as who judged has counted them
    verdict = log_verdict(store, experiment, [run_id], "GOLD", payload, "median [0.1, 0.2] (3/4)", outcomes=counted)
    assert note_of(store, run_id).startswith(note.partition("\n[")[0])
    assert f"](#/experiments/{experiment}/runs/{verdict}?" in note_of(store, run_id)
    params = store.client.get_run(verdict).data.params
    assert (len(params["reason"]), params["next_step"]) == (500, "run more seeds")
    said = note_of(store, verdict)
    assert r"[0.1, 0.2] \(3/4)" in said  # no link
    assert f"/runs/{run_id}?" in said
    assert f"/runs/{verdict}/artifacts/report/report.html?" in said
