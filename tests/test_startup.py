import gc

import pytest

from fnostab.startup import imports_that_stay


@pytest.fixture(autouse=True)
def _as_before():
    yield
    gc.unfreeze()
    gc.enable()


def test_what_is_made_within_is_never_looked_through_again():
    before = gc.get_freeze_count()
    with imports_that_stay():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)


def test_a_failed_import_leaves_the_collector_at_work():
    with pytest.raises(ImportError), imports_that_stay():
        raise ImportError
    assert gc.isenabled()
