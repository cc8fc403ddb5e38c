"""Train the networks that come with the book: ``python -m netinvert.train mlp``.

Each recipe starts from the bundled digits and a fixed seed, takes well under a
minute on two processor cores, and writes its weights beside the others.
"""

from __future__ import annotations

import hashlib
import io
import sys

import keras
import numpy as np

from netinvert.data import ASSETS, CHECKSUMS, load_mnist
from netinvert.models import NETWORKS

EPOCHS = {"mlp": 12, "cnn": 6, "evaluator": 10}


def train(name: str, verbose: int = 0) -> keras.Model:
    """Train one network of the book from scratch on the 8,000 bundled digits.

    Parameters
    ----------
    name : {"mlp", "cnn", "evaluator"}
    verbose : int
        As in ``keras.Model.fit``.

    Returns
    -------
    keras.Model
    """
    keras.utils.set_random_seed(0)
    (x_train, y_train), _ = load_mnist()
    model = NETWORKS[name]()
    epochs = EPOCHS[name]
    batch_size = 128
    steps = epochs * -(-len(x_train) // batch_size)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps) if name == "evaluator" else 1e-3
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    if name == "evaluator":
        shift = keras.Sequential([keras.layers.RandomTranslation(0.08, 0.08, fill_mode="constant"), keras.layers.RandomRotation(0.03, fill_mode="constant")])
        import tensorflow as tf
        data = tf.data.Dataset.from_tensor_slices((x_train, y_train)).shuffle(8000, seed=0).batch(batch_size).map(lambda x, y: (shift(x, training=True), y))
        model.fit(data, epochs=epochs, verbose=verbose)
    else:
        model.fit(x_train, y_train, batch_size=batch_size, epochs=epochs, verbose=verbose)
    return model


def accuracy(model: keras.Model) -> float:
    """Share of the 2,000 test digits that a network names correctly."""
    _, (x_test, y_test) = load_mnist()
    found = model.predict(x_test, batch_size=500, verbose=0).argmax(axis=1)
    return float(np.mean(found == y_test))


def write_asset(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays beside the other assets and note their SHA-256."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    (ASSETS / name).write_bytes(buffer.getvalue())
    lines = (ASSETS / CHECKSUMS).read_text().splitlines()
    noted = {line.split()[1]: line.split()[0] for line in lines}
    noted[name] = hashlib.sha256(buffer.getvalue()).hexdigest()
    text = "".join(f"{noted[key]}  {key}\n" for key in sorted(noted))
    (ASSETS / CHECKSUMS).write_text(text)


def save_weights(model: keras.Model, asset: str) -> None:
    """Write the weights of a model as float32 arrays named by their path."""
    write_asset(asset, {v.path: v.numpy() for v in model.weights})


if __name__ == "__main__":
    for name in sys.argv[1:] or NETWORKS:
        model = train(name, verbose=2)
        save_weights(model, f"{name}.npz")
        print(f"{name}: accuracy {accuracy(model):.4f} on the 2,000 test digits")
