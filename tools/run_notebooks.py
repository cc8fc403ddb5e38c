"""Execute the notebooks, each from an empty kernel, one progress line each.

``python -m tools.run_notebooks`` runs every notebook and stores the outputs in it;
``--into FOLDER`` leaves the notebooks alone and writes executed copies. Outputs hold
no times, widget ids or messages, so a notebook whose results are unchanged is
written back byte for byte.
"""

from __future__ import annotations

import argparse
import configparser
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal

from tools.environment import ROOT

CELL_SECONDS = 120
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Where a notebook names the repository, for readers on Colab.
ADDRESS = re.compile(r"(%pip install -q git\+|git clone -q )\S+")
QUIZ, HIDDEN = "widgets.quiz(", "remove-input"
# What TensorFlow's C++ side writes when it starts, whatever its log level.
STARTUP_MESSAGE = re.compile(
    r"WARNING: All log messages before absl::InitializeLog"
    r"|[IW]\d{4} \d\d:\d\d:\d\d"
    r"|E\d{4} \d\d:\d\d:\d\d.*cuda"
    r"|To enable the following instructions:.*rebuild TensorFlow"
)


def all_notebooks() -> list[Path]:
    """Chapters, their solutions, and the assignments with theirs."""
    folders = ["", "solutions", "assignments/source"]
    found = [(ROOT / "notebooks" / folder).glob("*.ipynb") for folder in folders]
    return [path for paths in found for path in sorted(paths)]


def address() -> str:
    """The repository's, from _config.yml."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    return settings["repository"]["url"]


def install_line() -> str:
    """What a Colab reader runs first."""
    return f"%pip install -q git+{address()}"


def unexpected_stderr(outputs: list) -> str:
    """Return what a cell wrote to stderr, less TensorFlow's start-up messages."""
    lines = [
        line
        for output in outputs
        if output["output_type"] == "stream" and output["name"] == "stderr"
        for line in output["text"].splitlines(keepends=True)
    ]
    return "".join(ln for ln in lines if ln.strip() and not STARTUP_MESSAGE.match(ln))


def hide_answers(cell) -> None:
    """Hide the source of a quiz, with its answers, on the page, in Lab and in Colab."""
    if QUIZ in cell.source:
        tags = cell.metadata.get("tags", [])
        cell.metadata["tags"] = [*(t for t in tags if t != HIDDEN), HIDDEN]
        cell.metadata["jupyter"] = {"source_hidden": True}
        cell.metadata["cellView"] = "form"


def without_times(outputs: list) -> str:
    """Outputs as text in which every duration reads the same."""
    patterns = configparser.RawConfigParser()
    patterns.read(ROOT / "tests" / "sanitize.cfg", encoding="utf-8")
    return re.sub(patterns["times"]["regex"], "TIME", json.dumps(outputs))


def tidy(cell, stored: list) -> None:
    """Drop from a cell's outputs what changes from run to run.

    Where nothing but a duration differs from what is stored, the stored outputs stay.
    """
    cell.metadata.pop("execution", None)
    kept = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        if "data" in output and len(output.data) > 1:
            output.data.pop("application/vnd.jupyter.widget-view+json", None)
        kept.append(output)
    same = without_times(kept) == without_times(stored)
    cell.outputs = stored if same else kept


def execute(path: Path) -> nbformat.NotebookNode:
    """Run one notebook from an empty kernel and return it with fresh outputs.

    Raises
    ------
    CellControlSignal
        With the traceback of the cell that failed.
    RuntimeError
        If a cell wrote to stderr: a stored warning is a defect of the chapter.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = nbformat.from_dict(METADATA)
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    stored = [cell.outputs for cell in code_cells]
    for cell in code_cells:
        cell.outputs, cell.execution_count = [], None
        cell.source = ADDRESS.sub(rf"\g<1>{address()}", cell.source)
        hide_answers(cell)
    NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        shutdown_kernel="immediate",  # TensorFlow takes a second to leave politely
    ).execute(stderr=subprocess.DEVNULL)  # cells' own messages arrive as outputs
    for number, cell in enumerate(code_cells, start=1):
        if message := unexpected_stderr(cell.outputs):
            raise RuntimeError(f"code cell {number} wrote to stderr:\n{message}")
        tidy(cell, stored[number - 1])
    notebook.metadata = nbformat.from_dict(METADATA)  # the kernel added its version
    return notebook


def plain(error: Exception) -> str:
    """Text of an error, with IPython's colours only where a terminal shows them."""
    return (
        str(error) if sys.stderr.isatty() else re.sub(r"\x1b\[[\d;]*m", "", str(error))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of them")
    parser.add_argument("--into", type=Path, help="write executed copies below here")
    arguments = parser.parse_args()
    paths = [path.resolve() for path in arguments.notebooks] or all_notebooks()
    if arguments.into and not arguments.notebooks:  # solved assignments are no pages
        paths = [path for path in paths if "assignments" not in path.parts]
    for number, path in enumerate(paths, start=1):
        name = path.relative_to(ROOT)
        print(f"[{number}/{len(paths)}] {name} ... ", end="", flush=True)
        start = time.monotonic()
        try:
            notebook = execute(path)
        except (CellControlSignal, RuntimeError) as error:
            sys.exit(f"failed\n\n{plain(error)}\n{name} stopped at this cell.")
        target = (arguments.into or ROOT) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
        print(f"{time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
