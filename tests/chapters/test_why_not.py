"""What chapter 2 and the page of theorems say, checked where no reader has to look."""

from __future__ import annotations

import itertools
import re

import nbformat
import numpy as np
import pytest

import netinvert as ni
from netinvert.studies import census
from tools.environment import ROOT

PAGES = ("notebooks/02_why_not.ipynb", "notebooks/solutions/02_solutions.ipynb")
MOST_WORDS, WIDTH = 3000, 60


@pytest.fixture(scope="module", params=PAGES)
def page(request):
    return nbformat.read(ROOT / request.param, as_version=4)


@pytest.fixture(scope="module")
def model():
    return ni.pretrained("mlp")


@pytest.fixture(scope="module")
def digits():
    return ni.load_mnist()[1]


def printed(page):
    outputs = [o for cell in page.cells for o in cell.get("outputs", [])]
    return "\n".join(o.text for o in outputs if o.output_type == "stream")


def test_the_chapter_can_be_read_in_one_session(page):
    prose = [cell.source for cell in page.cells if cell.cell_type == "markdown"]
    assert sum(len(text.split()) for text in prose) <= MOST_WORDS


def test_every_printed_line_fits_and_says_more_than_yes_or_no(page):
    for line in printed(page).splitlines():
        assert len(line) <= WIDTH, line
        assert not re.search(r"\b(True|False)\b", line), line


def test_every_figure_has_a_caption_and_a_name_of_its_own(page):
    names = []
    for cell in page.cells:
        kinds = {k for o in cell.get("outputs", []) for k in o.get("data", {})}
        if "image/png" in kinds:
            figure = cell.metadata["mystnb"]["figure"]
            assert len(figure["caption"].split()) >= 4
            names.append(figure["name"])
    assert len(names) == len(set(names)) >= 4


def test_the_500_certificates_are_about_the_book_s_network():
    table, again = census.results(), census.census(1, progress=False)
    for name in ("pair", "collision_distance", "metamer_distance"):
        np.testing.assert_allclose(again[name], table[name][:1], rtol=1e-4)
    assert census.fingerprint_of("mlp") in census.PROVENANCE.read_text()


def test_the_ledger_counts_what_the_chapter_counts_by_hand(model, digits):
    images, _ = digits
    book = ni.fibers.ledger(model, images[:4])
    W1, b1, W2, b2, W3, _ = (w.astype("float64") for w in model.get_weights())
    for place, x in enumerate(images[:4].reshape(4, -1).astype("float64")):
        on = x @ W1 + b1 > 0
        too = np.maximum(x @ W1 + b1, 0) @ W2 + b2 > 0
        seen = np.linalg.matrix_rank(W1[:, on])
        J = W1[:, on] @ W2[np.ix_(on, too)] @ W3[too]
        assert book.ranks[book.layers.index("hidden_1"), place] == seen
        assert book.ranks[-2, place] == np.linalg.matrix_rank(J)
    assert (book.ranks[-1] == book.ranks[-2] - 1).all()  # the softmax


def test_rounding_tells_the_twins_of_a_fiber_apart_and_repeats(model, digits):
    forward = ni.tap(model, "logits")
    inside = ni.fibers.samples(model, digits[0][0], 8).astype("float32")
    once, again = forward(inside).numpy(), forward(inside).numpy()
    np.testing.assert_array_equal(once, again)
    assert len(np.unique(once, axis=0)) == 8
    assert np.ptp(once, axis=0).max() < 1e-4


def cover_network(subsets: np.ndarray):
    """The network of the theorem: hidden weights and biases, output weights."""
    n, size = subsets.shape
    hidden = np.hstack([np.eye(n), np.eye(n), subsets, -subsets])
    bias = np.repeat([0.0, -0.5, -1.0, 1.0], [n, n, size, size])
    return hidden, bias, np.repeat([1.0, -2.0, 1.0, 1.0], [n, n, size, size])


@pytest.mark.parametrize("seed", range(20))
def test_the_network_of_the_hardness_proof_is_0_exactly_at_exact_covers(seed):
    generator = np.random.default_rng(seed)
    subsets = generator.integers(0, 2, (5, 3)).astype(float)
    hidden, bias, out = cover_network(subsets)
    assert set(np.unique(hidden)) <= {-1, 0, 1} and set(out) <= {1, -2}
    grid = np.array(list(itertools.product(np.linspace(0, 1, 5), repeat=5)))
    zero = np.maximum(grid @ hidden + bias, 0) @ out == 0
    cover = np.isin(grid, (0, 1)).all(axis=1) & (grid @ subsets == 1).all(axis=1)
    np.testing.assert_array_equal(zero, cover)
