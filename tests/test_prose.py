"""The code in the prose pages runs, and prints what the page says it prints.

A page is executed from top to bottom like a notebook: its ``python`` blocks share
their names, and a ``text`` block right after one holds what that one prints.
"""

from __future__ import annotations

import contextlib
import io
import re

import keras
import numpy as np
import pytest

from tools.environment import ROOT

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```$(?:\n+```text\n(?P<printed>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


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
