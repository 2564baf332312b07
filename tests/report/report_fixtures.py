import io
import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from report_helpers import StoredStudy

from fnostab.tracking import open_store


@pytest.fixture(scope="session")
def png():
    """A picture as a trial keeps it."""
    content = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(content, format="png")
    return content.getvalue()


@pytest.fixture(scope="session")
def stored(tmp_path_factory, png):
    """One study in a SQLite store, made once: six trials with failures of two kinds, one excluded."""
    folder = tmp_path_factory.mktemp("stored")
    before = Path.cwd()
    os.chdir(folder)  # where MLflow puts artifacts
    try:
        store = open_store(f"sqlite:///{folder}/mlflow.db")
        study = StoredStudy(store, folder / "out")
        study.trial("control", 0, "converged", loss=0.10, picture=png)
        study.trial("control", 1, "collapsed", loss=0.50, failure_step=12, picture=png)
        study.trial("control", 2, "converged", loss=0.12, picture=png)
        study.trial("arch_fix", 0, "converged", loss=0.09, spike=4e4, picture=png)
        study.trial("arch_fix", 1, "nonfinite", failure_step=20)
        study.trial("arch_fix", 2, "killed", steps=15)
        study.upload()
    finally:
        os.chdir(before)
    return study
