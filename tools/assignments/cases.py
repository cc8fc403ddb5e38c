"""A case of one's own for every student: what is asked may be seen, what is true not.

All that is secret follows from the course's key and the student's name. Nothing has to
be stored, and who reads this file, which is public, learns nothing without the key.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import affine_transform

import netinvert as ni

PRACTICE = b"practice"  # the key of the public practice case: no secret


@dataclass(frozen=True)
class Case:
    """The case of one student in one assignment."""

    key: bytes
    assignment: str
    student: str

    def digest(self, *words: str) -> bytes:
        text = "\0".join((self.assignment, self.student, *words)).encode()
        return hmac.new(self.key, text, hashlib.sha256).digest()

    @property
    def tag(self) -> str:
        """A mark in the released notebook that tells whose it is."""
        return self.digest("tag").hex()[:16]

    def random(self, *words: str) -> np.random.Generator:
        return np.random.default_rng(list(self.digest("random", *words)))


def practice(assignment: str) -> Case:
    return Case(PRACTICE, assignment, "practice")


def warped(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Turn, shear, zoom and move a picture (28, 28), so that it is in no file."""
    angle, shear = random.uniform(0.06, 0.2, 2) * random.choice([-1, 1], 2)
    turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix = np.array(turn) @ [[1, shear], [0, 1]] / random.uniform(0.92, 1.08)
    middle = np.full(2, 13.5)
    offset = middle - matrix @ middle + random.uniform(-1, 1, 2)
    return affine_transform(picture, matrix, offset, order=1).clip(0, 1)


def digits(random: np.random.Generator, count: int) -> np.ndarray:
    """Digits (count, 28, 28, 1) that nobody has seen, from the test digits."""
    _, (x_test, _) = mnist()
    chosen = x_test[random.choice(len(x_test), count, replace=False), ..., 0]
    found = np.stack([warped(picture, random) for picture in chosen])
    return found[..., None].astype("float32")


@functools.cache
def mnist():
    return ni.load_mnist()


@functools.cache
def mean_digit() -> np.ndarray:
    return mnist()[0][0].mean(axis=0)


@functools.cache
def logits():
    """The network that most assignments hold: the book's first, up to its logits."""
    return ni.tap(ni.pretrained("mlp"), "logits")


def outputs_of(pictures: np.ndarray, layer: str = "logits") -> np.ndarray:
    """Outputs of the book's network as they stand in a notebook: rounded to 0.001.

    In plain arithmetic of 64 bits, so that they are the same on every computer.
    """
    weights = [w.astype("float64") for w in ni.pretrained("mlp").get_weights()]
    w1, b1, w2, b2, w3, b3 = weights
    flat = np.asarray(pictures, "float64").reshape(len(pictures), 784)
    hidden = np.maximum(np.maximum(flat @ w1 + b1, 0) @ w2 + b2, 0)
    return np.round(hidden if layer == "hidden_2" else hidden @ w3 + b3, 3)


def cell(case: Case, *lines: str) -> str:
    """Source of a case's locked cell: its tag and the lines, which nobody reformats."""
    return "\n".join([f'case = "{case.tag}"', "# fmt: off", *lines, "# fmt: on"])


def written(values: np.ndarray) -> str:
    """Source of an array (N, k), a row a line or as many lines as it takes."""
    rows = []
    for row in np.asarray(values):
        numbers, line = [f"{v:.4f}".rstrip("0").rstrip(".") for v in row], "    ["
        for number in numbers:
            if len(line) + len(number) > 76:
                rows.append(line.rstrip())
                line = "     "
            line += number + ", "
        rows.append(line.rstrip(", ") + "],")
    return "np.array([\n" + "\n".join(rows) + "\n])"
