"""The notebooks of the site run, and print what they hold; the site shows that."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))
PATIENCE = 300  # s, for one cell on a busy machine
# A kernel's own: its startup on this Python and its sockets are not ours to mend.
KERNEL = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def texts_of(notebook):
    """Yield what each cell printed or returned, without numbers that may differ by machine."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error", output
            text = output.get("text") or output.data["text/plain"]
            if not (output.output_type == "stream" and output.name == "stderr"):
                yield re.sub(r"\s+|-+", " ", re.sub(r"-?\d+\.\d+", "#", text))


@KERNEL
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_it_holds(path, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    written = nbformat.read(path, as_version=4)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=PATIENCE, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    if os.environ.get("SPK_WRITE_NOTEBOOKS"):
        write_outputs(path, notebook)
        written = notebook
    assert [*texts_of(notebook)] == [*texts_of(written)]
    assert [*texts_of(notebook)]


def write_outputs(path, notebook):
    """Keep what a run printed: `SPK_WRITE_NOTEBOOKS=1 pytest tests/test_notebooks.py`."""
    for cell in notebook.cells:
        cell.metadata = {}
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            cell.execution_count = None
            for output in cell.outputs:
                output.pop("execution_count", None)
                if output.output_type == "execute_result":
                    output.execution_count = None
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)


def test_the_notebooks_are_small():
    assert len(NOTEBOOKS) == 3
    assert [path.name for path in NOTEBOOKS if path.stat().st_size > 100_000] == []
