"""Notebook checks that strict nbval leaves open, made with nbval's own fresh outputs.

nbval compares nothing where a cell was never run, looks at no picture, and lets
messages on stderr pass in exempted cells; and it lets no number move, though the
last printed digit differs between processors. The wrapper below mends both, without
a second execution. It stands at the root, because pytest asks a conftest.py
only about what is collected beside or below it, and the notebooks must be.
"""

from __future__ import annotations

import base64
import copy
import io
import re

import numpy as np
import pytest
from nbval.plugin import IPyNbCell
from PIL import Image

import tools.environment  # noqa: F401  (before anything imports TensorFlow)
from tools.run_notebooks import unexpected_stderr

# As students get them: without solutions, so they cannot run. Their sources do.
collect_ignore_glob = ["notebooks/assignments/[0-9]*.ipynb"]
# Antialiasing differs a little between processors; another digit is 20 or more.
PICTURE_TOLERANCE = 3.0
PNG = "iVBORw0KGgo"  # so every picture begins, in base64
PNG_IN_HTML = re.compile(PNG + r"[A-Za-z0-9+/=]+")
# What may move a little: pictures, and numbers with decimals or an exponent.
NUMBER = r" *(?<![\w.])-?\d+(?:\.\d+(?:e[-+]?\d+)?|e[-+]?\d+)(?![\w.]*\w)"
MOVABLE = re.compile(f"{PNG_IN_HTML.pattern}|{NUMBER}")


def pictures(outputs: list) -> list[np.ndarray]:
    """Decode every picture in a cell's outputs, also those inside HTML.

    Returns
    -------
    list of float arrays (height, width, 4) in levels 0 to 255
        On white, with the opacity as fourth.
    """
    encoded = []
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            encoded.append(data["image/png"])
        encoded += PNG_IN_HTML.findall("".join(data.get("text/html", "")))
    files = [io.BytesIO(base64.b64decode("".join(code))) for code in encoded]
    return [on_white(Image.open(file).convert("RGBA")) for file in files]


def on_white(image: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", image.size, "white")
    page = np.asarray(Image.alpha_composite(white, image), float)
    return np.dstack([page[..., :3], np.asarray(image.getchannel("A"), float)])


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


def forgiven(stored: str, fresh: str) -> str:
    """Return the stored text, with fresh numbers where the last digit moved by one.

    That holds for numbers with decimals or an exponent; whole numbers are counts and
    classes. A picture within HTML is replaced as well: ``picture_complaint`` sees it.
    """
    old, new = (MOVABLE.findall(text) for text in (stored, fresh))
    if MOVABLE.split(stored) != MOVABLE.split(fresh) or len(old) != len(new):
        return stored
    pairs = iter(zip(old, new, strict=True))

    def choose(_) -> str:
        before, after = next(pairs)
        if before.startswith(PNG):
            return after if after.startswith(PNG) else before
        if after.startswith(PNG):
            return before
        unit = max(last_digit(before), last_digit(after))
        return after if abs(float(before) - float(after)) < 1.001 * unit else before

    return MOVABLE.sub(choose, stored)


def last_digit(number: str) -> float:
    """Worth of the last printed digit: 0.01 for 1.25, 1e-5 for 1.2e-4."""
    digits, _, exponent = number.strip().partition("e")
    return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def forgiving(stored: list, fresh: list) -> list:
    """Stored outputs in which :func:`forgiven` has gone through every text."""
    if len(stored) != len(fresh):
        return stored
    result = copy.deepcopy(stored)
    for old, new in zip(result, fresh, strict=True):
        places = [(old, new, "text")]
        old_data, new_data = old.get("data", {}), new.get("data", {})
        places += [(old_data, new_data, kind) for kind in ("text/plain", "text/html")]
        for before, after, key in places:
            if key in before and key in after:
                before[key] = forgiven("".join(before[key]), "".join(after[key]))
    return result


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
    if isinstance(item, IPyNbCell):
        strict = item.compare_outputs
        item.compare_outputs = lambda test, ref: strict(test, forgiving(ref, test))
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
