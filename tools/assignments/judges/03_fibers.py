"""Assignment 3: fibers and certificates."""

from __future__ import annotations

import functools
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

import netinvert as ni
from netinvert.certificates import (
    Certificate,
    Layer,
    Refused,
    exact_values,
    fingerprint,
)
from tools.assignments import cases
from tools.assignments.judges import Mark, checks, trouble

TITLE, MINUTES = "Fibers and certificates", 90
TASKS = {"unseen": 4, "collision": 4, "certificate": 4, "forged": 4}
GIVEN, APART = 6, 0.2

PRELUDE = """
def _text(certificate):
    import tempfile, netinvert.certificates
    with tempfile.TemporaryDirectory() as folder:
        netinvert.certificates.save(certificate, folder + "/certificate.json")
        with open(folder + "/certificate.json") as file:
            return file.read()
"""
ASKS = {
    "unseen": "unseen(GIVEN['w'])",
    "unseen.full": "unseen(GIVEN['full'])",
    "collision": "[one, other]",
    "certificate": "_text(certificate)",
    "forged": "[bool(word) for word in forged]",
}


def rows_of(case: cases.Case) -> np.ndarray:
    return case.random("rows").choice(8000, 4, replace=False)


def small_network(random) -> tuple[list[Layer], np.ndarray]:
    """Six numbers to three to their ReLU, in whole numbers; and what it cannot see."""
    kernel, unseen = random.integers(-3, 4, (6, 3)), random.integers(-2, 3, 6)
    unseen[[0, 5]] = 2, 1
    kernel[5] = -unseen[:5] @ kernel[:5]
    bias = random.integers(-2, 3, 3)
    dense = Layer("first", "dense", (3,), kernel.astype(float), bias.astype(float))
    return [dense, Layer("output", "relu", (3,))], unseen


def claims(case: cases.Case) -> tuple[list[Layer], list[Certificate], list[bool]]:
    """Six claims about one small network, and which of them are forged."""
    random = case.random("claims")
    layers, unseen = small_network(random)
    forged = random.permutation([True, False, True, False, True, random.random() < 0.5])
    ways = list(random.permutation(5))
    found = []
    for fake in forged:
        first = [Fraction(int(n), 64) for n in random.integers(20, 45, 6)]
        move = [Fraction(int(n), 16) for n in random.choice([-1, 1]) * unseen]
        second = [a + b for a, b in zip(first, move)]
        values = list(exact_values(layers, first, (6,)))
        mark = fingerprint(layers)
        place, tiny = int(random.integers(6)), Fraction(1, 10**12)
        way = ways.pop() if fake else -1
        if way == 0:
            second[place] += tiny
        elif way == 1:
            values[place % 3] += tiny
        elif way == 2:
            second = list(first)
        elif way == 3:  # the right line, followed until it has left the box
            count = next(n for n in range(1, 99) if leaves(first, move, n))
            second = [a + count * b for a, b in zip(first, move)]
        elif way == 4:
            bent = layers[0]._replace(bias=layers[0].bias + 1)
            mark = fingerprint([bent, layers[1]])
        points = tuple(values), tuple(first), tuple(second)
        box = Fraction(0), Fraction(1)
        found.append(Certificate("output", *points, (6,), *box, mark))
    return layers, found, [refused(claim, layers) for claim in found]


def refused(claim: Certificate, layers: list[Layer]) -> bool:
    """Whether a claim is false: where a unit is off, a change may change nothing."""
    try:
        ni.certificates.verify(claim, layers)
    except Refused:
        return True
    return False


def leaves(first, move, count: int) -> bool:
    return any(not 0 <= a + count * b <= 1 for a, b in zip(first, move))


def case_cell(case: cases.Case) -> str:
    layers, found, _ = claims(case)
    rows = ", ".join(map(str, rows_of(case)))
    lines = [f"rows = [{rows}]", "kernel = ["]
    lines += [f"    {row.astype(int).tolist()}," for row in layers[0].kernel] + ["]"]
    lines += [f"bias = {layers[0].bias.astype(int).tolist()}", "claims = ["]
    for claim in found:
        lines.append("  {")
        for name in ("values", "first", "second"):
            numbers = " ".join(map(str, getattr(claim, name)))
            words, line = numbers.split(), ""
            parts = []
            for word in words:
                if len(line) + len(word) > 55:
                    parts.append(line)
                    line = ""
                line += f"{word} "
            parts = [repr(part) for part in [*parts, line]]
            lines.append(f'   "{name}": ' + "\n             ".join(parts) + ",")
        lines.append(f'   "network":\n    "{claim.network}",\n  }},')
    return cases.cell(case, *lines, "]")


def given(case: cases.Case) -> dict:
    """Matrices that no notebook has seen: one of less than full rank, one of full."""
    random = case.random("given")
    w = random.normal(size=(40, 9)) @ random.normal(size=(9, 12))
    return {"w": w, "full": random.normal(size=(30, 8))}


@functools.cache
def book_layers():
    return ni.fibers.layers_of(ni.pretrained("mlp"), "hidden_1")


def judge_unseen(found, w) -> list[str]:
    """What is wrong with directions D (n, n - rank): not unseen, not orthonormal."""
    rank = int(np.linalg.matrix_rank(w))
    if why := trouble(found, (len(w), len(w) - rank)):
        return [why, why]
    seen = np.abs(w.T @ found).max()
    lengths = np.abs(found.T @ found - np.eye(found.shape[1])).max()
    still = (
        "" if seen < 1e-6 * np.abs(w).max() * len(w) else f"the layer sees {seen:.1e}"
    )
    return [still, "" if lengths < 1e-6 else "the columns are not orthonormal"]


def judge(answers: dict, case: cases.Case) -> dict[str, Mark]:
    """Measure what came back; the terms of every task are in the notebook."""
    arrays, get, marks = given(case), answers.get, {}
    unseen, square = judge_unseen(get("unseen"), arrays["w"])
    full = "; ".join(filter(None, judge_unseen(get("unseen.full"), arrays["full"])))
    parts = [(2, "rank 9 of 12", unseen or square), (2, "full rank", full)]
    marks["unseen"] = checks(parts, 4)
    digits = cases.mnist()[0][0][rows_of(case)]
    marks["collision"] = judge_collision(get("collision"), digits[0])
    marks["certificate"] = judge_certificate(get("certificate"), digits[2])
    forged, said = claims(case)[2], get("forged")
    if why := trouble(said, (GIVEN,)):
        marks["forged"] = Mark(0, why)
    else:
        right = int((said.astype(bool) == np.array(forged)).sum())
        marks["forged"] = Mark({6: 4, 5: 2}.get(right, 0), f"{right} of 6 are right")
    return marks


def judge_collision(pair, digit) -> Mark:
    if why := trouble(pair, (2, 28, 28, 1), box=True):
        return Mark(0, why)
    dense = next(layer for layer in book_layers() if layer.kernel is not None)
    values = pair.reshape(2, 784) @ dense.kernel.astype("float64") + dense.bias
    off, moved = np.abs(values[0] - values[1]).max(), np.abs(pair[0] - pair[1]).max()
    start = np.abs(pair[0] - digit).max()
    equal = "" if off <= 1e-3 else f"the first layer's values differ by {off:.2g}"
    far = "" if moved >= APART else f"no pixel differs by {APART} or more"
    own = "" if start <= 1e-6 else "it is not your digit, x_train[rows[0]]"
    other = equal or far or own
    return Mark(0 if other else 4, other or f"equal to {off:.1e}, apart by {moved:.2f}")


def judge_certificate(text, digit) -> Mark:
    if not isinstance(text, str):
        return Mark(0, "there is no certificate")
    try:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "c.json").write_text(text)
            claim = ni.certificates.load(Path(folder) / "c.json")
        said = ni.certificates.verify(claim, book_layers())
    except (Refused, ValueError) as error:
        return Mark(0, f"refused: {str(error)[-160:]}")
    if claim.shape != (28, 28, 1) or (claim.low, claim.high) != (0, 1):
        return Mark(0, "it is about another box than pictures in [0, 1]")
    if claim.layer != book_layers()[-1].name:
        return Mark(0, f"it is about {claim.layer!r}, not {book_layers()[-1].name!r}")
    away = np.abs(claim.inputs - digit).max(axis=(1, 2, 3))
    if away[0] > 1e-3:
        return Mark(0, "the first input is not your digit, x_train[rows[2]]")
    if away[1] < APART:
        return Mark(0, f"no pixel of the second input differs by {APART} or more")
    return Mark(4, said)


def pictures(answers: dict, case: cases.Case) -> dict:
    """Rows to look at: the two pictures of the collision."""
    return {"one and other": answers.get("collision")}
