"""The reference's layout of weights has the published number of parameters."""

import pytest

from benchmarks.reference import complex_as_one, reference_hybrid, training_bytes
from fnostab.ptychography.models import parameter_count


@pytest.mark.parametrize(
    ("blocks", "cap", "as_one", "as_two"),
    [
        (4, None, 17.4, 32.3),
        (6, None, 279.6, 518.6),
        (8, None, 4441, None),
        (6, 512, 120.4, 217.9),
        (8, 512, 219.3, 392.2),
    ],
)
def test_the_published_counts(blocks, cap, as_one, as_two):
    network = reference_hybrid(blocks, cap)
    assert all(parameter.is_meta for parameter in network.parameters())
    assert complex_as_one(network) / 1e6 == pytest.approx(as_one, abs=0.5 if as_one > 1000 else 0.05)
    if as_two is not None:
        assert parameter_count(network) / 1e6 == pytest.approx(as_two, abs=0.05)


def test_one_weight_of_eight_blocks_is_as_large_as_the_allocation_that_failed():
    largest = max(reference_hybrid(8).parameters(), key=lambda parameter: parameter.nbytes)
    assert largest.nbytes == 18 * 2**30
    assert training_bytes(reference_hybrid(8)) > 4 * largest.nbytes
