import logging

import pytest
from trial_records import config_of
from trials import Trained, make_spec

from fnostab.ptychography.data import prepare
from fnostab.ptychography.training.trial import run_trial


@pytest.fixture(autouse=True, scope="session")
def quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def shared_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def spec(shared_dir):
    """A function that gives the specification of a tiny trial with the given settings (``__`` for a dot)."""
    return lambda seed=0, **settings: make_spec(shared_dir, seed, **settings)


@pytest.fixture(scope="session")
def data(spec):
    config = config_of(spec())
    return prepare(config.data, config.data_seed(0), spec().shared_dir)


@pytest.fixture(scope="session")
def trained(spec, tmp_path_factory):
    """A function that runs such a trial in a new directory; each only once."""
    known = {}

    def train(seed=0, again=False, **settings):
        key = (seed, again, *sorted(settings.items()))
        if key not in known:
            directory = tmp_path_factory.mktemp("trial")
            known[key] = Trained(run_trial(spec(seed, **settings), directory), directory)
        return known[key]

    return train
