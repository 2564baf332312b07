import itertools
import time

import numpy as np
import pytest
from small_module import Recorder, Small, fit

from fnostab.monitor import ResourceSampler
from fnostab.monitor.resources import peak_memory_bytes
from fnostab.record import names


def test_throughput_counts_samples_and_the_time_of_training(monkeypatch):
    class Slow(Small):
        seconds = 0.0

        def training_step(self, batch, batch_idx):
            Slow.seconds += 0.02
            return super().training_step(batch, batch_idx)

        def on_train_epoch_end(self):
            Slow.seconds += 60

    monkeypatch.setattr(time, "perf_counter", lambda: Slow.seconds)
    sink = Recorder()
    fit(Slow(), ResourceSampler(sink), 10)
    (rate,) = sink.values(names.SAMPLES_PER_S)
    assert rate == pytest.approx(2 / 0.02)  # two samples a batch


def test_samples_are_numbered_and_no_closer_than_the_interval(monkeypatch):
    clock = itertools.count()  # of a machine that has just been started
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    often, seldom = Recorder(), Recorder()
    fit(Small(), [ResourceSampler(often, interval_s=0), ResourceSampler(seldom, interval_s=3600)], 10)
    memory = often.curve("system/system_memory_usage_megabytes")
    assert [step for step, _ in memory] == list(range(10))
    assert all(megabytes > 50 for _, megabytes in memory)
    assert len(seldom.curve("system/system_memory_usage_megabytes")) == 1


def test_the_peak_remembers_what_was_given_back():
    block = np.ones(50_000_000)
    during = peak_memory_bytes()
    del block
    assert peak_memory_bytes() >= during >= 400e6
