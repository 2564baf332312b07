import pytest
from small_scan import SmallScan, simulated


@pytest.fixture(scope="session")
def small() -> SmallScan:
    return simulated()
