"""One training is one run in MLflow, whoever else records it there."""

import shutil

import mlflow
import pytest
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from small_module import Small, batches, fit, make_trainer

from fnostab.errors import ConfigError, TrackingError
from fnostab.monitor import StabilityMonitor
from fnostab.record import names
from fnostab.tracking import live_sink


class Logs(Small):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("own", loss, on_step=True)
        return loss


@pytest.fixture
def uri(empty_database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def runs(uri, *experiments):
    client = MlflowClient(uri)
    ids = [client.get_experiment_by_name(name).experiment_id for name in experiments]
    return client.search_runs(ids)


def steps(uri, run, metric):
    return [point.step for point in MlflowClient(uri).get_metric_history(run.info.run_id, metric)]


def test_a_trainers_own_logger(uri):
    logger = MLFlowLogger("mine", run_name="my run", tracking_uri=uri)
    with live_sink(run_id=logger.run_id) as sink:
        fit(Logs(), StabilityMonitor(sink), 10, logger=logger, log_every_n_steps=1)
    (run,) = runs(uri, "mine")
    assert steps(uri, run, names.GRAD_NORM) == list(range(10))
    assert len(steps(uri, run, "own")) == 10
    assert (run.info.run_name, run.info.status) == ("my run", "FINISHED")
    assert run.data.tags[names.OUTCOME] == "converged"
    assert MlflowClient(uri).get_experiment_by_name("fnostab") is None


def test_an_active_run_that_autolog_logs_to_as_well(uri):
    mlflow.set_tracking_uri(uri)
    mlflow.pytorch.autolog(log_models=False, checkpoint=False, silent=True)
    try:
        with mlflow.start_run(run_name="active") as active, live_sink() as sink:
            fit(Logs(), StabilityMonitor(sink), 5)
    finally:
        mlflow.pytorch.autolog(disable=True, silent=True)
        mlflow.set_tracking_uri(None)
    (run,) = runs(uri, "Default")
    assert "own" in run.data.metrics
    assert run.info.run_id == active.info.run_id
    assert steps(uri, run, names.TRAIN_LOSS) == list(range(5))


def test_an_active_run_of_another_experiment_is_left_alone(uri):
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run(), live_sink("other") as sink:
            sink.record(0, {"lr": 1.0})
    finally:
        mlflow.set_tracking_uri(None)
    own, other = runs(uri, "Default"), runs(uri, "other")
    assert (len(own), len(other)) == (1, 1)
    assert steps(uri, other[0], "lr") == [0]


def test_a_second_fit_into_a_journal_that_exists_is_refused_and_one_that_goes_on_is_not(uri, tmp_path):
    folder = tmp_path / "kept"
    with live_sink("mine", directory=folder) as sink:
        trainer = fit(Small(), StabilityMonitor(sink), 10)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    with pytest.raises(ConfigError, match="steps 0 to 9 of another fit"), live_sink(directory=folder) as sink:
        fit(Small(), StabilityMonitor(sink), 10)
    with live_sink("mine", directory=folder) as sink:
        make_trainer([StabilityMonitor(sink)], max_epochs=2).fit(Small(), batches(10), ckpt_path=tmp_path / "end.ckpt")
    (run,) = runs(uri, "mine")
    assert steps(uri, run, names.TRAIN_LOSS) == list(range(20))


def test_a_run_that_is_not_there(uri):
    with pytest.raises(TrackingError, match="has no run 0000"), live_sink(run_id="0000"):
        pass
