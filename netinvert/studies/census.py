"""The study behind the chapter on fibers: ``python -m netinvert.studies.census FILE``.

For each of the first test digits and the next one of another class: a collision and
a metamer that resembles it, both verified exactly. It takes a few minutes. Beside
FILE, a file of the same name in JSON says with what it was made.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from netinvert import certificates, fibers
from netinvert.data import ASSETS, load_mnist, read_asset
from netinvert.inversion import progress_bar
from netinvert.models import pretrained
from netinvert.studies.storage import PACKAGES, made_with

PROVENANCE = ASSETS / "metamers.json"
COMMAND = "python -m netinvert.studies.census"


def partners(labels: np.ndarray, count: int) -> np.ndarray:
    """For each of the first digits, the place of the next one of another class."""
    return np.array([n + (labels[n:] != labels[n]).argmax() for n in range(count)])


def results() -> dict[str, np.ndarray]:
    """What :func:`census` found for 500 digits, as it comes with the package."""
    return read_asset("metamers.npz")


def census(count: int = 500, progress: bool = True) -> dict[str, np.ndarray]:
    """Look for a collision and a metamer of each of the first test digits.

    ``pair`` (N,) is the distance from the digit to its partner; for "collision" and
    "metamer" each, ``_distance`` (N,) that from the twin to the partner, ``_called``
    (N,) the class that the evaluator gives the twin, and ``_seconds`` (N, 2) those of a
    processor to find it and to verify it exactly.
    """
    (_, _), (digits, labels) = load_mnist()
    toward = digits[partners(labels, count)]
    evaluator, layers = pretrained("evaluator"), fibers.layers_of(pretrained("mlp"))
    found = {"pair": distances(digits[:count], toward)}
    for name in ("collision", "metamer"):
        twins, seconds = [], []
        bar = progress_bar(digits[:count], name, "digit", progress)
        for x, picture in zip(bar, toward, strict=True):
            start = time.process_time()
            certificate = getattr(fibers, name)(layers, x, picture)
            middle = time.process_time()
            certificates.verify(certificate, layers)
            seconds.append((middle - start, time.process_time() - middle))
            twins.append(certificate.inputs[1])
        called = evaluator.predict(np.array(twins), verbose=0).argmax(axis=1)
        found[f"{name}_distance"] = distances(np.array(twins), toward)
        found[f"{name}_called"] = called.astype("uint8")
        found[f"{name}_seconds"] = np.array(seconds)
    return found


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.linalg.norm((one - other).reshape(len(one), -1), axis=1)


def fingerprint_of(name: str) -> str:
    """The fingerprint of a network of the book, as certificates bear it."""
    return certificates.fingerprint(fibers.layers_of(pretrained(name)))


def provenance(count: int) -> dict[str, str | int]:
    """Say on which network, judged by whom, with what and how a census was made."""
    facts = {"command": f"{COMMAND} FILE", "digits": count}
    facts |= {"network": fingerprint_of("mlp"), "seconds": "of one processor"}
    return made_with((*PACKAGES, "python-flint", "clarabel"), **facts)


def main(arguments: list[str] | None = None) -> None:
    """Make a census, and write it and its provenance."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("file", type=Path, help="of the results, FILE.npz")
    file = parser.parse_args(arguments).file.with_suffix(".npz")
    found = census()
    np.savez(file, **found)
    facts = json.dumps(provenance(len(found["pair"])), indent=1)
    file.with_suffix(".json").write_text(facts + "\n")


if __name__ == "__main__":
    main()
