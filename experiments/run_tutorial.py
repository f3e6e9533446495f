"""Does the tutorial run, from an experiment to a law? It is executed and stored with its outputs.

``python -m experiments.run_tutorial`` writes ``docs/tutorial.ipynb`` anew; a slow test runs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"

LONGEST_CELL_SECONDS = 600


def executed(page: Path = PAGE) -> Any:
    """The notebook with the outputs of a run beside its page. Raises `CellExecutionError`."""
    notebook = nbformat.read(page, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        timeout=LONGEST_CELL_SECONDS,
        resources={"metadata": {"path": str(page.parent)}},
        record_timing=False,
    )
    client.execute()
    return without_what_changes(notebook)


def without_what_changes(notebook: Any) -> Any:
    """The notebook as it is stored: small, without talk of libraries and names of kernels."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
            for shown in (each.data for each in cell.outputs if "data" in each):
                if len(shown) > 1:  # what shows itself needs no plain form beside it
                    del shown["text/plain"]
    notebook.metadata = {"language_info": {"name": "python"}}
    return notebook


if __name__ == "__main__":
    nbformat.write(executed(), PAGE)  # type: ignore[no-untyped-call]
