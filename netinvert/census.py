"""The study behind the chapter on fibres: ``python -m netinvert.census FILE``.

For each of the first test digits and the next one of another class: a collision and
a metamer that resembles it, both verified exactly. It takes a few minutes.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from tqdm import tqdm

from netinvert import certificates, fibers
from netinvert.data import load_mnist, read_asset
from netinvert.models import pretrained


def partners(labels: np.ndarray, count: int) -> np.ndarray:
    """Return for each of the first digits the place of the next of another class."""
    after = [labels[n + 1 :] != labels[n] for n in range(count)]
    return np.arange(count) + 1 + np.array([others.argmax() for others in after])


def results() -> dict[str, np.ndarray]:
    """Return what :func:`census` found for 500 digits, as it comes with the package.

    Returns
    -------
    dict of arrays
    """
    return read_asset("metamers.npz")


def census(count: int = 500, progress: bool = True) -> dict[str, np.ndarray]:
    """Look for a collision and a metamer of each of the first test digits.

    Parameters
    ----------
    count : int
    progress : bool

    Returns
    -------
    dict of arrays
        ``pair`` (N,): distance from the digit to its partner. For "collision" and
        "metamer" each: ``_distance`` (N,) from the twin to the partner;
        ``_called`` (N,) the class that the evaluator gives the twin;
        ``_seconds`` (N, 2) to find it and to verify it exactly.
    """
    (_, _), (digits, labels) = load_mnist()
    toward = digits[partners(labels, count)]
    evaluator, layers = pretrained("evaluator"), fibers.layers_of(pretrained("mlp"))
    found = {"pair": distances(digits[:count], toward)}
    for name in ("collision", "metamer"):
        twins, seconds = [], []
        bar = tqdm(digits[:count], desc=name, disable=not progress)
        for x, picture in zip(bar, toward, strict=True):
            start = time.perf_counter()
            certificate = getattr(fibers, name)(layers, x, picture)
            middle = time.perf_counter()
            certificates.verify(certificate, layers)
            seconds.append((middle - start, time.perf_counter() - middle))
            twins.append(certificate.inputs[1])
        called = evaluator.predict(np.array(twins), verbose=0).argmax(axis=1)
        found |= {
            f"{name}_distance": distances(np.array(twins), toward),
            f"{name}_called": called.astype("uint8"),
            f"{name}_seconds": np.array(seconds),
        }
    return found


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.linalg.norm((one - other).reshape(len(one), -1), axis=1)


if __name__ == "__main__":
    np.savez(sys.argv[1], **census())
