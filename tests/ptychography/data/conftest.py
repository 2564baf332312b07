import pytest

from fnostab.ptychography.data import GridLines, simulate
from fnostab.ptychography.settings import DataConfig


@pytest.fixture(scope="session")
def config() -> DataConfig:
    return DataConfig(
        N=16, object_size=48, n_lines=60, set_phi=True, scan_stride_train=4, scan_stride_test=8, nphotons=1e6
    )


@pytest.fixture(scope="session")
def data(config) -> GridLines:
    return simulate(config, seed=0)
