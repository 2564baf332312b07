"""Every random stream has the seed that it had, and every built-in study the settings."""

from fnmatch import fnmatch

import pytest
from same_as.differences import (
    ADDED_ARMS,
    ADDED_SETTINGS,
    CHANGED_IN_SMALL,
    CHANGED_SETTINGS,
    MOVED_ARMS,
    REMOVED_SETTINGS,
    RENAMED_SETTINGS,
)
from same_as.records import comparable, insist_same
from same_as.trees import in_both

NAMES = (
    (),
    ("initialisation",),
    ("data_order",),
    ("data",),
    ("layers",),
    ("initialisation", "encoder.0.spectral.weight"),
    ("train", "objects"),
    ("photons", "validation", "0"),
    ("ä", "\x1f"),
)
SEEDS = (0, 1, 7, 300, 2**31, 2**63 - 1)
VARY = ((), ("initialisation",), ("data_order",), ("data",), ("initialisation", "data_order", "data"))
STREAMS = f"""
import json
print(json.dumps([stream_seed(seed, *names) for names in {NAMES!r} for seed in {SEEDS!r}]))
"""
TRIALS = f"""
import json
found = {{}}
for vary in [None, *{VARY!r}]:
    config = TrialConfig() if vary is None else TrialConfig(vary=vary)
    for seed in {SEEDS!r}:
        kinds = {{what: config.stream(seed, what) for what in ("initialisation", "data_order", "data")}}
        found[f"{{vary}} {{seed}}"] = [*kinds.items(), config.data_seed(seed)]
print(json.dumps(found))
"""
SETTINGS = """
import json
found = {"defaults": flatten(TrialConfig())}
for name in built_in_studies():
    for profile in ("small", "full"):
        study = load_study(name, profile)
        for arm, config in study.arms.items():
            found[f"{name} {profile} {arm}"] = flatten(config)
print(json.dumps(found))
"""


def test_streams_have_the_same_seeds(trees):
    baseline, head = in_both(trees, lambda tree: tree.script(STREAMS, "stream_seed"))
    assert len(set(baseline)) == len(NAMES) * len(SEEDS)
    assert head == baseline


def test_trials_have_the_same_seeds(trees):
    baseline, head = in_both(trees, lambda tree: tree.script(TRIALS, "TrialConfig"))
    insist_same(baseline, head)


@pytest.fixture(scope="module")
def settings(trees):
    """(baseline, head): settings of every arm of every built-in study by name, as far as they are comparable."""
    objects = ("TrialConfig", "flatten", "load_study", "built_in_studies")
    baseline, head = in_both(trees, lambda tree: tree.script(SETTINGS, *objects))
    assert all(values.items() >= ADDED_SETTINGS.items() for values in head.values())
    kept = _compared(baseline, REMOVED_SETTINGS, MOVED_ARMS)
    old = {arm: {RENAMED_SETTINGS.get(name, name): v for name, v in values.items()} for arm, values in kept.items()}
    return (
        comparable("settings", old, of_baseline=True),
        comparable("settings", _compared(head, ADDED_SETTINGS, ADDED_ARMS), of_baseline=False),
    )


def _compared(arms, names, left_out):
    """Settings of arms without those of such names, and those that changed in both trees."""
    return {
        arm: {
            name: value
            for name, value in values.items()
            if name not in {*names, *CHANGED_SETTINGS, *(CHANGED_IN_SMALL if " small " in arm else ())}
        }
        for arm, values in arms.items()
        if not any(fnmatch(arm, pattern) for pattern in left_out)
    }


def test_built_in_studies_and_defaults_have_the_same_settings(settings):
    baseline, head = settings
    assert len(baseline) > 50
    assert list(head) == list(baseline)
    insist_same(baseline, head)
