"""The baseline and the working tree, and what both train: once for all tests."""

import os
from pathlib import Path

import pytest
from same_as.arms import LOCKSTEP, TRAINED
from same_as.records import read_trials
from same_as.trees import ROOT, NotThereError, Tree, baseline_source, in_both


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    """(baseline, head); SAME_AS_HEAD names another tree than this one to take for head."""
    folder = tmp_path_factory.mktemp("same_as")
    head = Path(os.environ.get("SAME_AS_HEAD") or ROOT).resolve()
    try:
        with baseline_source(folder) as source:
            pair = (Tree("baseline", source.resolve(), folder / "base"), Tree("head", head, folder / "head"))
            for tree in pair:
                tree.work.mkdir()
            in_both(pair, Tree.insist)
            yield pair
    except NotThereError as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def trained(trees):
    """All arms at one seed, in each tree: trials by arm and seed."""
    return _run_in_both(trees, TRAINED)


@pytest.fixture(scope="session")
def in_lockstep(trees):
    """Three seeds of each arm side by side, in each tree."""
    return _run_in_both(trees, LOCKSTEP, "--lockstep", "3")


def _run_in_both(trees, study, *more):
    baseline, head = in_both(trees, lambda tree: tree.run(study, *more))
    return read_trials(baseline, of_baseline=True), read_trials(head, of_baseline=False)
