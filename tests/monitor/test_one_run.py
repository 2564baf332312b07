"""One training is one run in MLflow, whoever else records it there."""

import mlflow
import pytest
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from small_module import Small, fit

from fnostab.errors import TrackingError
from fnostab.monitor import StabilityMonitor
from fnostab.record import names
from fnostab.tracking import live_sink


class Logs(Small):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("own", loss, on_step=True)
        return loss


@pytest.fixture
def uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
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


def test_an_active_run(uri):
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run(run_name="active") as active, live_sink() as sink:
            fit(Small(), StabilityMonitor(sink), 5)
    finally:
        mlflow.set_tracking_uri(None)
    (run,) = runs(uri, "Default")
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


def test_a_run_that_is_not_there(uri):
    with pytest.raises(TrackingError, match="has no run 0000"), live_sink(run_id="0000"):
        pass
