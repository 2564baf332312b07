"""A server that is slow is waited for; one that is away is not."""

import threading
import time

import pytest
from slow_proxy import SlowProxy
from tracking_helpers import write_trial

from fnostab.cli import sync as sync_command
from fnostab.errors import SlowStoreError
from fnostab.record import names
from fnostab.tracking import open_store
from fnostab.tracking.store import store as store_module


@pytest.fixture
def slow(real_server, store, monkeypatch):
    """A real server behind a proxy that takes longer than the first question waits."""
    proxy = SlowProxy(real_server, 1.4)
    monkeypatch.setitem(store_module.IMPATIENT, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    yield proxy
    proxy.close()


@pytest.fixture
def too_slow(slow, monkeypatch):
    """The same, slower than MLflow's client is patient."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return slow


def test_it_is_asked_again_and_that_is_said(slow, caplog):
    assert open_store(slow.url).client.get_experiment("0").name == "Default"
    assert f"{slow.url} has not answered within 4 s, retrying" in caplog.text


def test_one_that_never_answers_in_time_is_not_called_away(too_slow):
    with pytest.raises(SlowStoreError, match=r"is running, but has not answered within 1 s: .*TIMEOUT=2"):
        open_store(too_slow.url)


def test_ui_names_it(slow, real_server, call):
    open_store(real_server).client.create_run("0", tags={names.KIND: names.KIND_TRIAL})
    status, out, err = call("ui", "--tracking-uri", slow.url)
    assert status == 0, err
    assert out.startswith(f"{slow.url}/#/experiments/")


@pytest.mark.parametrize("command", ["decide --experiment x", "sync out", "watch --once x"])
def test_commands_say_that_it_is_slow(too_slow, command, study, call):
    write_trial(study.trial())
    status, _, err = call(*command.split(), "--tracking-uri", too_slow.url)
    assert status == 2
    assert "is running, but has not answered within 1 s" in err
    assert "start it" not in err


def test_sync_follow_goes_on_when_it_answers(too_slow, study, call, monkeypatch):
    monkeypatch.setattr(sync_command, "INTERVAL_S", 0.1)
    write_trial(study.trial())

    def recover():
        while too_slow.asked < 3:
            time.sleep(0.05)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # the machine itself may be busy
        too_slow.delay_s = 0

    threading.Thread(target=recover, daemon=True).start()
    status, out, err = call("sync", "--follow", "out", "--tracking-uri", too_slow.url)
    assert status == 0, err
    assert "; retrying" in err
    assert "1 trial" in out
