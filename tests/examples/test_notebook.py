"""The notebook of examples/notebook, run from its first cell to its last in a kernel of its own."""

import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parent.parent.parent / "examples" / "notebook" / "study.ipynb"


def test_it_is_stored_without_outputs():
    cells = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)


@pytest.mark.slow
def test_it_ends_with_an_answer_and_a_second_run_trains_nothing(empty_database, tmp_path, environment):
    shutil.copy(empty_database, tmp_path / "mlflow.db")

    def run():
        notebook = nbformat.read(NOTEBOOK, 4)
        client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
        client.execute(env=environment)
        *_, loop, answer = (cell for cell in notebook.cells if cell.cell_type == "code")
        return "".join(output.text for output in loop.outputs), answer.outputs

    printed, (answer,) = run()
    assert len(printed.split("\n")) == 11
    assert "<dt>Failed</dt><dd>control " in answer.data["text/html"]
    assert "clipped 0/5" in answer.data["text/html"]
    assert "failed" in answer.data["text/plain"]
    printed, (again,) = run()
    assert printed == ""
    assert again.data["text/html"] == answer.data["text/html"]
