"""Chapters are short and print numbers; the code in the prose pages runs.

A page is executed from top to bottom like a notebook: its ``python`` blocks share
their names, and a ``text`` block right after one holds what that one prints.
"""

from __future__ import annotations

import contextlib
import io
import re

import keras
import nbformat
import numpy as np
import pytest

from tools.environment import ROOT
from tools.run_notebooks import all_notebooks

MOST_WORDS = 3000
# A verdict where a number could stand: "good: True", "over 9 in 10", "about 1e+00".
VERDICT = re.compile(
    r"(?:^|: *)(?:True|False)\s*$|\b(?:over|under|about) \d+(?: in \d|e[-+]\d)",
    re.MULTILINE,
)

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```$(?:\n+```text\n(?P<printed>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.parametrize("path", all_notebooks(), ids=lambda path: path.stem)
def test_a_chapter_is_read_in_one_sitting(path):
    cells = nbformat.read(path, as_version=4).cells
    words = sum(len(c.source.split()) for c in cells if c.cell_type == "markdown")
    assert words <= MOST_WORDS, f"{words} words"


@pytest.mark.parametrize("path", all_notebooks(), ids=lambda path: path.stem)
def test_a_chapter_prints_numbers_and_not_verdicts(path):
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        for output in cell.get("outputs", []):
            plain = output.get("data", {}).get("text/plain", "")
            found = VERDICT.search(output.get("text", plain))
            assert not found, f"cell {number}: {found[0]}"


def pages_with_code():
    pages = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]
    return [page for page in pages if BLOCK.search(page.read_text("utf-8"))]


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
    """A folder with what the readme takes for granted: a model and examples."""
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3, activation="softmax")(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "my_model.h5")
    np.save(tmp_path / "examples.npy", np.random.default_rng(0).random((64, 4)))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("readers_folder")
@pytest.mark.parametrize("page", pages_with_code(), ids=lambda page: page.stem)
def test_the_code_on_the_page_runs_and_prints_what_the_page_says(page):
    keras.backend.clear_session()  # layers are numbered from the start
    text = page.read_text("utf-8")
    names = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start("code"))
        # Empty lines in front make tracebacks show the page's own line numbers.
        code = compile("\n" * line + block["code"], str(page), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        if block["printed"] is not None:
            assert printed.getvalue() == block["printed"]
