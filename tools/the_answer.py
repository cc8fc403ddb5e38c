"""Make the numbers and pictures of the page *The answer*, and the opening picture.

``python -m tools.the_answer`` tries every method, with its default settings, at four
taps of the book's first network, on two hundred test digits. It takes some five minutes
of one core, which is why the page reads what this leaves in ``book/results``. With
``picture`` it only draws the opening picture again, from what is there.
"""

import sys

import numpy as np
import tensorflow as tf

import netinvert as ni
from tools.environment import ROOT

FILE = ROOT / "book" / "results" / "the_answer.npz"
PICTURE = ROOT / "book" / "images" / "reconstructions.png"
DIGITS = 200
TAPS = ["probabilities", "logits", "hidden_2", "hidden_1"]
METHODS = [
    "ten neighbors",
    "gradient search",
    "autoencoder",
    "inverse network",
    "inverse, polished",
]


def forward_at(tap: str):
    """The network up to a tap; probabilities as logarithms, which loses nothing."""
    model = ni.pretrained("mlp")
    if tap == "probabilities":
        logits = ni.tap(model, "logits")
        return lambda batch: tf.nn.log_softmax(logits(batch))
    return ni.tap(model, tap)


class Neighbors:
    """The baseline, in the form of a method."""

    def fit(self, forward, inputs):
        self.pairs = inputs, np.asarray(forward(inputs))
        self.input_shape_ = inputs.shape[1:]
        return self

    def solve(self, forward, targets, **task):
        return ni.baselines.knn_mean(*self.pairs, targets, k=10), {}


def answers(tap: str, x_train, digits) -> dict:
    """What every method draws at a tap, (M, N, 28, 28, 1), and both its errors."""
    forward = forward_at(tap)
    targets = np.asarray(forward(digits))
    inverse = ni.InverseNetwork()
    methods = [
        Neighbors(),
        ni.GradientInversion(),
        ni.AutoencoderInversion(),
        inverse,
        ni.LevenbergMarquardt(start=inverse, covariance="errors"),
    ]
    found = []
    for method in methods:
        method.fit(forward, x_train)
        found.append(ni.invert(forward, targets, method))
    spread = np.asarray(forward(x_train)).var(axis=0).mean()
    return {
        "inputs": np.stack([one.inputs for one in found]),
        "output_error": np.stack([one.residual for one in found]) / spread,
        "psnr": np.stack([ni.metrics.psnr(digits, one.inputs) for one in found]),
        "ssim": np.stack([ni.metrics.ssim(digits, one.inputs) for one in found]),
    }


def draw() -> None:
    """Draw what three methods make of the ten logits of ten digits."""
    with np.load(FILE) as arrays:
        at_logits = arrays["inputs"][TAPS.index("logits")] / 255
        first = arrays["digits"][:10]
    _, (x_test, _) = ni.load_mnist()
    rows = {"the digit": x_test[first]}
    for name in METHODS[1:4]:
        rows[name] = at_logits[METHODS.index(name)]
    PICTURE.write_bytes(ni.plots.figure_png(ni.plots.compare(rows)))
    print(f"wrote {PICTURE.relative_to(ROOT)}")


def measure() -> None:
    """Try every method at every tap."""
    (x_train, _), (x_test, y_test) = ni.load_mnist()
    first = [np.flatnonzero(y_test == digit)[0] for digit in range(10)]
    chosen = np.concatenate([first, np.setdiff1d(np.arange(DIGITS), first)])[:DIGITS]
    every = {tap: answers(tap, x_train, x_test[chosen]) for tap in TAPS}
    arrays = {
        name: np.stack([every[tap][name] for tap in TAPS])
        for name in ("output_error", "psnr", "ssim")
    }
    pictures = np.stack([every[tap]["inputs"][:, :10] for tap in TAPS])
    arrays["inputs"] = np.round(255 * np.clip(pictures, 0, 1)).astype("uint8")
    np.savez_compressed(FILE, taps=TAPS, methods=METHODS, digits=chosen, **arrays)
    print(f"wrote {FILE.relative_to(ROOT)}")


if __name__ == "__main__":
    if sys.argv[1:] != ["picture"]:
        measure()
    draw()
