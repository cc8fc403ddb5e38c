"""The images of the book: bundled digits offline, the full sets on request."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

ASSETS = Path(__file__).parent / "assets"
CHECKSUMS = "SHA256SUMS"
TRAIN_SIZE = 8_000  # of the 10,000 bundled digits; the rest are for testing

Split = tuple[np.ndarray, np.ndarray]


def load_mnist(full: bool = False) -> tuple[Split, Split]:
    """Load handwritten digits, in the order Keras uses for its data sets.

    Parameters
    ----------
    full : bool
        False takes the 10,000 digits that come with the package and needs no
        network. True takes all 70,000 through ``tf.keras.datasets``.

    Returns
    -------
    (x_train, y_train), (x_test, y_test)
        Images as float32 (N, 28, 28, 1) in [0, 1], labels as uint8 (N,). The
        bundled digits are split into 8,000 for training and 2,000 for testing,
        always the same way. The digits are MNIST, by LeCun, Cortes and Burges.

    Raises
    ------
    RuntimeError
        If the images are missing or damaged, and cannot be downloaded.
    """
    if full:
        return load_keras_data("mnist", "mnist.npz")
    digits = read_asset("mnist_10k.npz")
    # The file is ordered by digit. A fixed seed makes the split everybody's split.
    order = np.random.default_rng(0).permutation(len(digits["y"]))
    train, test = order[:TRAIN_SIZE], order[TRAIN_SIZE:]
    x, y = as_images(digits["x"]), digits["y"]
    return (x[train], y[train]), (x[test], y[test])


def load_fashion_mnist() -> tuple[Split, Split]:
    """Load pictures of clothes, 60,000 and 10,000, in the form of :func:`load_mnist`.

    Fashion-MNIST, by Xiao, Rasul and Vollgraf, through ``tf.keras.datasets``.
    """
    return load_keras_data("fashion_mnist", "fashion-mnist/*-ubyte.gz (four files)")


def load_fashion_items() -> Split:
    """Load ten pictures of clothes that come with the package, and their labels.

    Of each class of Fashion-MNIST, the first in its test set: (10, 28, 28, 1) and
    (10,), in the form of :func:`load_mnist`.
    """
    items = read_asset("fashion_items.npz")
    return as_images(items["x"]), items["y"]


def read_asset(name: str) -> dict[str, np.ndarray]:
    """Read the arrays of ``netinvert/assets/NAME``, if they are as they were made."""
    path, expected = ASSETS / name, checksum_of(name)
    repair = "Install netinvert again, or run `git checkout netinvert/assets`."
    if not path.exists():
        raise RuntimeError(f"The file {path} is missing. {repair}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise RuntimeError(
            f"The file {path} is damaged and was not loaded.\n"
            f"  SHA-256 expected: {expected}\n"
            f"  SHA-256 found:    {found} ({len(content):,} bytes)\n{repair}"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def checksum_of(name: str) -> str | None:
    """Return the SHA-256 that is noted for a file of ``netinvert/assets``."""
    lines = (ASSETS / CHECKSUMS).read_text().splitlines()
    return {line.split()[1]: line.split()[0] for line in lines}.get(name)


def as_images(pixels: np.ndarray) -> np.ndarray:
    """Turn uint8 (N, 28, 28) into float32 (N, 28, 28, 1) in [0, 1]."""
    return pixels[..., None].astype(np.float32) / 255


def load_keras_data(name: str, files: str) -> tuple[Split, Split]:
    """Load a data set of ``tf.keras.datasets``, scaled like the bundled digits."""
    import keras  # slow to import, and the bundled digits do not need it

    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as error:
        raise RuntimeError(
            f"The data set {name} is not on this computer and could not be "
            f"downloaded: {error}\n"
            "  Without a network: load_mnist() gives the 10,000 bundled digits.\n"
            "  With another computer: run the same call there, and copy\n"
            f"  ~/.keras/datasets/{files} to the same place here."
        ) from error
    return (as_images(train[0]), train[1]), (as_images(test[0]), test[1])
