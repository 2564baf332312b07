"""Spikes are found and dated; noise, non-finite values and new levels are not taken for them."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from fnostab.monitor import spikes as spikes_module
from fnostab.monitor.spikes import Spike, SpikeDetector
from fnostab.record import names

CALM = [1.0, 1.1, 0.9, 1.05, 0.95] * 20  # norms of 100 steps


def spikes_of(
    norms: Iterable[float], losses: Iterable[float] | None = None, detector: SpikeDetector | None = None, first: int = 0
) -> list[Spike]:
    detector = detector or SpikeDetector()
    norms = list(norms)
    losses = [0.5] * len(norms) if losses is None else losses
    ended = []
    for step, (norm, loss) in enumerate(zip(norms, losses, strict=True), start=first):
        ended += detector.take(step, norm, loss)
    return ended + detector.finish()


def test_a_spike_has_its_start_its_peak_and_its_recovery():
    (spike,) = spikes_of([*CALM, 60.0, 400.0, 80.0, 1.2, *CALM])
    assert (spike.step, spike.peak_step, spike.norm, spike.recovered_step) == (100, 101, 400.0, 103)


def test_z_score_by_hand():
    # Log norms -1, 0, 1: median 0, MAD 1. The norm's logarithm is 10.
    (spike,) = spikes_of([math.exp(value) for value in (-1, 0, 1, 10)])
    assert spike.z_score == pytest.approx(10 / 1.4826)


def test_the_floor_decides_where_the_norms_were_constant():
    threshold = math.exp(5.0 * 0.5)  # SPIKE_Z x LEAST_STD
    assert spikes_of([2.0] * 50 + [2.0 * threshold * 0.99] + [2.0] * 5) == []
    (spike,) = spikes_of([2.0] * 50 + [2.0 * threshold * 1.01] + [2.0] * 5)
    assert spike.step == 50


def test_the_same_spikes_whatever_the_scale_of_the_norms():
    norms = np.array([*CALM, 90.0, 1.0])
    assert [s.step for s in spikes_of(norms * 1e-12)] == [s.step for s in spikes_of(norms * 1e12)] == [100]


def test_a_spike_in_the_first_steps_is_found():
    norms = [1.128, 1.65, 169.8, 1.84, 1.27]  # of a control trial at learning rate 1.5e-2
    (spike,) = spikes_of(norms)
    assert (spike.step, spike.recovered_step) == (2, 3)


def test_the_slow_start_of_a_healthy_trial_is_no_spike():
    norms = [1.122, 1.123, 1.127, 1.14, 1.154, 1.185, 1.247, 1.347, 1.605, 2.149, 2.841, 3.155, 10.48, 12.586, 12.77]
    assert spikes_of([*norms, 11.8, 10.0, 7.55, 2.87, 1.33]) == []  # of an AGC trial at learning rate 1e-3


@pytest.mark.parametrize(("std", "most_per_100_000_steps"), [(0.1, 0), (0.3, 0), (0.6, 2), (0.9, 2)])
def test_false_alarms_on_lognormal_noise(std, most_per_100_000_steps):
    noise = np.exp(std * np.random.default_rng(0).standard_normal(100_000))
    assert len(spikes_of(noise)) <= most_per_100_000_steps


def test_false_alarms_on_gaussian_noise():
    noise = np.abs(1.0 + 0.3 * np.random.default_rng(0).standard_normal(100_000))
    assert spikes_of(noise) == []


@pytest.mark.parametrize(("std", "most"), [(0.3, 0), (0.6, 4), (0.9, 80)])
def test_false_alarms_in_the_first_32_steps_of_2000_trainings(std, most):
    noise = np.exp(std * np.random.default_rng(1).standard_normal((2000, 32)))
    assert sum(len(spikes_of(norms)) for norms in noise) <= most


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_a_norm_without_a_logarithm_neither_starts_a_spike_nor_blinds(bad):
    assert spikes_of([bad] * 10 + CALM + [bad] * 10) == []
    (spike,) = spikes_of([*CALM[:50], *[bad] * 200, 300.0, 1.0])
    assert (spike.step, spike.norm, spike.recovered_step) == (250, 300.0, 251)


def test_a_nonfinite_norm_within_a_spike_is_neither_its_peak_nor_its_recovery():
    (spike,) = spikes_of([*CALM, 60.0, math.inf, math.nan, 1.0])
    assert (spike.norm, spike.recovered_step) == (60.0, 103)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_nonfinite_loss_is_not_back(bad):
    (spike,) = spikes_of([*CALM, 60.0, 1.0, 1.0], [0.5] * 101 + [bad, 0.5])
    assert spike.recovered_step == 102


def test_recovery_waits_for_the_loss():
    losses = [0.5] * 100 + [9.0, 4.0, 1.1, 0.9, 0.5]
    (spike,) = spikes_of([*CALM, 60.0, 1.0, 1.0, 1.0, 1.0], losses)
    assert spike.recovered_step == 103  # the first at most twice 0.5


def test_a_negative_loss_can_come_back():
    losses = [-2.0] * 100 + [5.0, -1.9]
    (spike,) = spikes_of([*CALM, 60.0, 1.0], losses)
    assert spike.recovered_step == 101


def test_without_a_loss_the_norm_alone_recovers():
    (spike,) = spikes_of([*CALM, 60.0, 1.0], [None] * 102)
    assert spike.recovered_step == 101


def test_a_loss_that_stays_high_is_not_recovered():
    (spike,) = spikes_of([*CALM, 60.0, *CALM], [0.5] * 100 + [5.0] * 101)
    assert spike.recovered_step is None


def test_a_spike_at_the_last_step_is_not_recovered():
    (spike,) = spikes_of([*CALM, 60.0])
    assert (spike.step, spike.recovered_step) == (100, None)


def test_a_new_level_is_one_spike_that_did_not_recover():
    detector = SpikeDetector()
    norms = np.array([*CALM, *[100 * norm for norm in CALM * 3]])
    (spike,) = spikes_of(norms, detector=detector)
    assert (spike.step, spike.recovered_step) == (100, None)
    assert detector.summary() == {names.SPIKES: 1, names.SPIKES_UNRECOVERED: 1}


def test_a_spike_above_the_new_level_is_found():
    spikes = spikes_of([*CALM, *[100 * norm for norm in CALM], 9000.0, 100.0])
    assert [(spike.step, spike.recovered_step) for spike in spikes] == [(100, None), (200, 201)]


def test_spikes_that_recovered_do_not_raise_what_is_normal():
    norms = ([1.0] * 2 + [50.0]) * 50  # every third step
    assert len(spikes_of(norms)) == 50


@pytest.mark.parametrize("cut", [1, 60, 101, 102, 130, 180, 210])
def test_continued_from_its_state_it_gives_the_same(cut):
    norms = [*CALM, 60.0, 700.0, math.nan, 1.0, *CALM[:30], *[80.0 * norm for norm in CALM], 2e4, 80.0]
    losses = [0.5] * 101 + [4.0, math.nan] + [0.5] * (len(norms) - 103)
    whole, first, second = SpikeDetector(), SpikeDetector(), SpikeDetector()
    expected = spikes_of(norms, losses, whole)
    found = [s for step in range(cut) for s in first.take(step, norms[step], losses[step])]
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    found += spikes_of(norms[cut:], losses[cut:], second, first=cut)
    assert found == expected
    assert len(expected) == 3
    assert second.summary() == whole.summary()
    assert second.state_dict() == whole.state_dict()


def test_a_payload_is_plain_and_finite():
    (spike,) = spikes_of([*CALM, 60.0, 1.0])
    assert set(json.loads(json.dumps(asdict(spike), allow_nan=False))) == {
        "step",
        "peak_step",
        "norm",
        "z_score",
        "recovered_step",
    }


def test_nothing_seen_is_nothing_found():
    detector = SpikeDetector()
    assert detector.finish() == []
    assert detector.summary() == {names.SPIKES: 0, names.SPIKES_UNRECOVERED: 0}


def test_the_page_on_outcomes_has_the_thresholds():
    page = (Path(__file__).parents[2] / "docs/outcomes.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([\d.]+) \|", page, re.MULTILINE)
    assert {name: float(value) for name, value in rows} == {
        name: value for name, value in vars(spikes_module).items() if name.isupper() and name != "MAD_TO_STD"
    }
    assert not re.search(r"`\w*spike_\w+`", page)  # as settings that do not exist
