"""Notebook checks that strict nbval leaves open, made with nbval's own fresh outputs.

nbval compares nothing where a cell was never run, looks at no picture, and lets
messages on stderr pass in exempted cells. The wrapper below closes these holes
without a second execution. It stands at the root, because pytest asks a conftest.py
only about what is collected beside or below it, and the notebooks must be.
"""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from nbval.plugin import IPyNbCell
from PIL import Image

import tools.environment  # noqa: F401  (before anything imports TensorFlow)
from tools.run_notebooks import unexpected_stderr

# Antialiasing differs a little between processors; another digit is 20 or more.
PICTURE_TOLERANCE = 3.0
PNG_IN_HTML = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/=]+")  # so every PNG begins


def pictures(outputs: list) -> list[np.ndarray]:
    """Decode every picture in a cell's outputs, also those inside HTML.

    Returns
    -------
    list of float arrays (height, width, 3) in grey levels 0 to 255
    """
    encoded = []
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            encoded.append(data["image/png"])
        encoded += PNG_IN_HTML.findall("".join(data.get("text/html", "")))
    files = [io.BytesIO(base64.b64decode("".join(code))) for code in encoded]
    return [np.asarray(Image.open(file).convert("RGB"), float) for file in files]


def picture_complaint(stored: list[np.ndarray], fresh: list[np.ndarray]) -> str:
    """Say how the stored pictures differ from the fresh ones; empty if they agree."""
    if len(stored) != len(fresh):
        return f"{len(stored)} pictures are stored, {len(fresh)} were drawn"
    for number, (old, new) in enumerate(zip(stored, fresh, strict=True), start=1):
        if old.shape != new.shape:
            return f"picture {number} has shape {old.shape}, drawn was {new.shape}"
        difference = np.sqrt(np.mean((old - new) ** 2))
        if difference > PICTURE_TOLERANCE:
            return (
                f"picture {number} differs by {difference:.1f} grey levels (root "
                f"mean square); {PICTURE_TOLERANCE} are allowed"
            )
    return ""


def cell_complaint(item: IPyNbCell) -> str:
    """Say what nbval overlooked in a cell that it has just run; empty if nothing."""
    stored, fresh = item.cell, item.test_outputs or []
    if not stored.source.strip():
        return ""
    if stored.execution_count is None:
        return "the stored cell was never run"
    if message := unexpected_stderr(fresh):
        return f"the cell wrote to stderr:\n{message}"
    shown = [output for output in fresh if output.get("name") != "stderr"]
    if shown and not stored.outputs:
        return "the cell has output, but none is stored"
    if not item.options["check"]:
        return ""
    return picture_complaint(pictures(stored.outputs), pictures(fresh))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    if isinstance(item, IPyNbCell) and (complaint := cell_complaint(item)):
        item.raise_cell_error(f"{complaint}; if it should, run `make notebooks`")
    return result


def pytest_terminal_summary(terminalreporter):
    """Say it when the pages were not opened, and how to change that."""
    skipped = terminalreporter.stats.get("skipped", [])
    if any("no Chromium found" in str(report.longrepr) for report in skipped):
        terminalreporter.write_line(
            "The page checks did not run: no Chromium was found. Install one (Debian: "
            "apt-get install chromium) or point $CHROMIUM to it."
        )
