"""Train the book's networks: ``python -m netinvert.studies.train mlp``.

Each recipe starts from the bundled digits and a fixed seed, takes well under a
minute on two processor cores (the autoencoder, the sweep of the bottleneck and
the inverse network: a few minutes), and writes its result beside the other assets.
"""

from __future__ import annotations

import argparse
import hashlib
import io

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage

from netinvert import metrics
from netinvert.data import ASSETS, CHECKSUMS, load_mnist
from netinvert.forward import tap
from netinvert.inversion import invert
from netinvert.methods.autoencoder import AutoencoderInversion, train_autoencoder
from netinvert.methods.inverse_network import InverseNetwork
from netinvert.models import NETWORKS, VARIANTS, pretrained

BATCH_SIZE = 64
USUAL = {"epochs": 10, "first_rate": 2e-3, "attack": 0, "harden": False}
# The robust network sees every digit moved by so much, as a Euclidean distance, to
# where the network of that moment errs most (Madry et al. 2018). The evaluator sees
# every digit distorted, and many of them blurred or in noise: it has to be better than
# the networks it judges, and to read what a person still reads of a reconstruction.
RECIPES = {
    "cnn": {"epochs": 8},
    "robust": {"epochs": 20, "attack": 1.5},
    "evaluator": {"epochs": 30, "first_rate": 4e-3, "harden": True},
}
BLUR = 1.2  # pixels: the largest standard deviation
NOISE = 0.3  # the same, of the range of a pixel
ATTACK_STEPS = 5
SIZES = (2, 4, 8, 16, 32, 64)  # of the bottleneck
LAYERS = ("logits", "hidden_1")  # from which the sweep reconstructs


def train(name: str, seed: int = 0) -> keras.Model:
    """Train a network of the book or a variant of it on the 8,000 bundled digits.

    The seed is that of the first weights and of the order of the digits.
    """
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    (x_train, y_train), _ = load_mnist()
    model, recipe = (NETWORKS | VARIANTS)[name](), USUAL | RECIPES.get(name, {})
    steps = recipe["epochs"] * len(x_train) // BATCH_SIZE
    rate = keras.optimizers.schedules.CosineDecay(recipe["first_rate"], steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    for epoch in range(recipe["epochs"]):
        digits = x_train
        if recipe["harden"]:
            digits = np.stack([hardened(image, random) for image in x_train])
        if recipe["attack"]:
            digits = attacked(model, x_train, y_train, recipe["attack"])
        history = model.fit(digits, y_train, batch_size=BATCH_SIZE, verbose=0)
        print(f"epoch {epoch + 1:2d}  loss {history.history['loss'][0]:.4f}")
    return model


def attacked(model, images, labels, distance: float) -> np.ndarray:
    """Move images at most so far up the model's loss, by projected gradient ascent."""
    start = values = tf.constant(images)
    for _ in range(ATTACK_STEPS):
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = keras.losses.sparse_categorical_crossentropy(labels, model(values))
        uphill = tf.math.l2_normalize(tape.gradient(loss, values), axis=[1, 2, 3])
        away = values + 2 * distance / ATTACK_STEPS * uphill - start
        values = start + tf.clip_by_norm(away, distance, axes=[1, 2, 3])
        values = tf.clip_by_value(values, 0, 1)
    return values.numpy()


def hardened(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Distort an image, and half of the time blur it, half of the time add noise."""
    image = distorted(image, random, stretch=0.15, move=2)
    if random.random() < 0.5:
        blur = random.uniform(0, BLUR)
        image = ndimage.gaussian_filter(image, (blur, blur, 0))
    if random.random() < 0.5:
        noise = random.normal(0, random.uniform(0, NOISE), image.shape)
        image = np.clip(image + noise, 0, 1)
    return image.astype("float32")


def train_digits_autoencoder(seed: int = 0) -> keras.Model:
    """Train the book's autoencoder on eight distorted versions of each digit."""
    random = np.random.default_rng(seed)
    (x_train, _), _ = load_mnist()
    versions = np.stack([distorted(x, random) for x in x_train for _ in range(8)])
    return train_autoencoder(versions, epochs=12, seed=seed)


def distorted(image: np.ndarray, random, stretch=0.08, move=0.5) -> np.ndarray:
    """Stretch and turn an image (28, 28, 1), and move it by up to so many pixels."""
    matrix = np.eye(2) + random.uniform(-stretch, stretch, (2, 2))
    middle = np.full(2, 13.5)
    offset = middle - matrix @ middle + random.uniform(-move, move, 2)
    return ndimage.affine_transform(image[..., 0], matrix, offset, order=1)[..., None]


def sweep_bottleneck(sizes=SIZES, epochs=12, digits=256) -> dict[str, np.ndarray]:
    """Measure how the size of an autoencoder's code decides what it can draw.

    For plain and variational ones (S, 3, 3): of each size, from each source, the mean
    PSNR in dB, SSIM and evaluator accuracy over the digits.
    """
    (x_train, _), (x_test, y_test) = load_mnist()
    truth, labels = x_test[:digits], y_test[:digits]
    model, evaluator = pretrained("mlp"), pretrained("evaluator")

    def measured(found):
        judged = metrics.accuracy(evaluator, found, labels)
        numbers = metrics.psnr(truth, found), metrics.ssim(truth, found), judged
        return [values.mean() for values in numbers]

    def row(size, variational):
        autoencoder = train_autoencoder(x_train, size, variational, epochs=epochs)
        results = [measured(autoencoder.predict(truth, verbose=0))]
        for layer in LAYERS:
            forward = tap(model, layer)
            method = AutoencoderInversion(autoencoder).fit(forward, x_train)
            results.append(measured(invert(forward, forward(truth), method).inputs))
        print(f"code of {size}, variational {variational}: {np.round(results, 3)}")
        return results

    return {
        "latent_size": np.array(sizes),
        "source": np.array(["the digit itself", *LAYERS]),
        "plain": np.array([row(size, False) for size in sizes]),
        "variational": np.array([row(size, True) for size in sizes]),
    }


def train_inverse(seed: int = 0) -> keras.Model:
    """Train the inverse network of the mlp's first hidden layer, for 60 epochs."""
    (x_train, _), (x_test, _) = load_mnist()
    forward = tap(pretrained("mlp"), "hidden_1")
    method = InverseNetwork(epochs=60, seed=seed).fit(forward, x_train)
    found = invert(forward, forward(x_test), method).inputs
    print(f"inverse: PSNR {metrics.psnr(x_test, found).mean():.2f} on the test digits")
    return method.network_


def accuracy(model: keras.Model) -> float:
    """Return the share of the 2,000 test digits that a network names correctly."""
    _, (x_test, y_test) = load_mnist()
    return float(metrics.accuracy(model, x_test, y_test).mean())


def save(asset: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays beside the other assets and note the file's SHA-256."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    (ASSETS / asset).write_bytes(buffer.getvalue())
    lines = (ASSETS / CHECKSUMS).read_text().splitlines()
    noted = {name: checksum for checksum, name in map(str.split, lines)}
    noted[asset] = hashlib.sha256(buffer.getvalue()).hexdigest()
    text = "".join(f"{noted[name]}  {name}\n" for name in sorted(noted))
    (ASSETS / CHECKSUMS).write_text(text)


def weights(model: keras.Model, precision: str = "float32") -> dict[str, np.ndarray]:
    return {w.path: w.numpy().astype(precision) for w in model.weights}


OTHERS = {  # name -> the asset and what makes it; 16 bits suffice to draw
    "autoencoder": ("autoencoder", lambda: weights(train_digits_autoencoder(), "half")),
    "bottleneck": ("autoencoder_bottleneck", sweep_bottleneck),
    "inverse": ("inverse_hidden_1", lambda: weights(train_inverse(), "half")),
}


def main(arguments: list[str] | None = None) -> None:
    """Train the named networks and ship their weights."""
    parser = argparse.ArgumentParser(prog="python -m netinvert.studies.train")
    known = [*NETWORKS, *OTHERS]
    names = {"nargs": "+", "metavar": "NAME", "help": ", ".join(known)}
    parser.add_argument("names", choices=known, **names)
    for name in parser.parse_args(arguments).names:
        if name in OTHERS:
            asset, make = OTHERS[name]
            save(f"{asset}.npz", make())
        else:
            model = train(name)
            save(f"{name}.npz", weights(model))
            print(f"{name}: accuracy {accuracy(model):.4f} on the 2,000 test digits")


if __name__ == "__main__":
    main()
