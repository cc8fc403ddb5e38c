"""What is compared: networks, taps, methods, training seeds and numbers of pairs."""

from __future__ import annotations

import itertools
from dataclasses import astuple, dataclass
from pathlib import Path

from netinvert.benchmark.contestants import METHODS

DENSE = {
    "softmax": "softmax",
    "logits": "logits",
    "last hidden": "hidden_2",
    "first hidden": "hidden_1",
}
TAPS = {
    "mlp": DENSE,
    "cnn": DENSE | {"last hidden": "hidden", "first hidden": "conv_1"},
    "wide": DENSE,
    "robust": DENSE,
    "leaky": DENSE,
}
VALIDATION = slice(1500, 1628)  # of the test digits: settings are chosen on these
OTHERS = ("cnn", "wide", "robust", "leaky")
ALL = {"methods": tuple(METHODS), "pairs": (8000,)}
LEARNED = (
    "k-NN mean",
    "ridge",
    "autoencoder",
    "inverse network",
    "inverse network, polished",
)
FEWER = {"networks": ("mlp",), "taps": ("logits",)}

SMALL = {
    "images": 100,
    "seeds": 1,
    "plans": [{**FEWER, **ALL, "pairs": (500,)}],
}
# In the order of their importance, should the run be interrupted.
FULL = {
    "images": 500,
    "seeds": 5,
    "plans": [
        {"networks": ("mlp",), "taps": ("logits", "first hidden"), **ALL},
        {"networks": OTHERS, "taps": ("logits",), **ALL},
        {**FEWER, **ALL, "pairs": (500,)},  # what the small run does, too
        {**FEWER, "methods": LEARNED, "pairs": (100, 2000)},
        {"networks": ("mlp",), "taps": ("last hidden", "softmax"), **ALL},
        {"networks": OTHERS, "taps": ("first hidden",), **ALL},
        {"networks": OTHERS, "taps": ("last hidden", "softmax"), **ALL},
    ],
}


@dataclass(frozen=True)
class Unit:
    """One result: what is done at once, and kept in one file."""

    network: str
    training_seed: int
    tap: str
    method: str
    pairs: int

    def path(self, out: Path) -> Path:
        """Where the result is, or will be."""
        name = "-".join(map(str, astuple(self))).replace(" ", "_")
        return out / "units" / f"{name}.npz"


def units_of(plans: list[dict], seeds: int) -> list[Unit]:
    """All units of the plans, each once, in the order of the plans."""
    found = {}
    for plan in plans:
        axes = plan["networks"], range(seeds), plan["taps"], plan["pairs"]
        for network, seed, layer, pairs in itertools.product(*axes):
            for method in plan["methods"]:
                found[Unit(network, seed, layer, method, pairs)] = None
    return list(found)
