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
EPOCHS = {"cnn": 8, "robust": 20, "evaluator": 30}  # 10 for the others
# The evaluator sees every digit distorted in each epoch, and many of them blurred or
# in noise. A judge has to be better than the networks it judges, and it judges
# reconstructions: it has to read what a person still reads.
HARDENED = {"evaluator"}
BLUR = 1.2  # pixels: the largest standard deviation
NOISE = 0.3  # the same, of the range of a pixel
# The robust network sees every digit moved by so much, as a Euclidean distance, to
# where the network of that moment errs most.
LARGEST_ATTACK = {"robust": 1.5}
ATTACK_STEPS = 5
SIZES = (2, 4, 8, 16, 32, 64)  # of the bottleneck
LAYERS = ("logits", "hidden_1")  # from which the sweep reconstructs
FIRST_RATE = {"evaluator": 4e-3}  # 2e-3 for the others


def train(name: str, seed: int = 0) -> keras.Model:
    """Train a network of the book or a variant of it on the 8,000 bundled digits.

    The seed is that of the first weights and of the order of the digits. The robust one
    sees adversarial digits (Madry et al. 2018), made once per epoch.
    """
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    (x_train, y_train), _ = load_mnist()
    model = (NETWORKS | VARIANTS)[name]()
    epochs = EPOCHS.get(name, 10)
    steps = epochs * len(x_train) // BATCH_SIZE
    first_rate = FIRST_RATE.get(name, 2e-3)
    rate = keras.optimizers.schedules.CosineDecay(first_rate, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    for epoch in range(epochs):
        x_epoch = x_train
        if name in HARDENED:
            x_epoch = np.stack([hardened(image, random) for image in x_train])
        if name in LARGEST_ATTACK:
            x_epoch = attacked(model, x_epoch, y_train, LARGEST_ATTACK[name])
        history = model.fit(x_epoch, y_train, batch_size=BATCH_SIZE, verbose=0)
        print(f"epoch {epoch + 1:2d}  loss {history.history['loss'][0]:.4f}")
    return model


def attacked(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, distance: float
) -> np.ndarray:
    """Move each image (N, 28, 28, 1) up the network's loss, and keep it in [0, 1].

    By projected gradient ascent: at most by this Euclidean distance.
    """
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
    """Distort an image (28, 28, 1), and half of the time blur it or put it in noise."""
    image = distorted(image, random, stretch=0.15, move=2)
    if random.random() < 0.5:
        blur = random.uniform(0, BLUR)
        image = ndimage.gaussian_filter(image, (blur, blur, 0))
    if random.random() < 0.5:
        noise = random.normal(0, random.uniform(0, NOISE), image.shape)
        image = np.clip(image + noise, 0, 1)
    return image.astype("float32")


def train_digits_autoencoder(seed: int = 0) -> keras.Model:
    """Train the variational autoencoder that comes with the book.

    It sees eight distorted versions of each digit, so as not to learn them by heart.
    """
    random = np.random.default_rng(seed)
    (x_train, _), _ = load_mnist()
    versions = np.stack([distorted(x, random) for x in x_train for _ in range(8)])
    return train_autoencoder(versions, epochs=12, seed=seed)


def distorted(image: np.ndarray, random, stretch=0.08, move=0.5) -> np.ndarray:
    """Stretch, turn and move an image (28, 28, 1), at random.

    ``stretch`` is the largest entry of the distortion, beside the identity, and
    ``move`` the farthest way in pixels: by default an image changes by about a pixel.
    """
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
        numbers = metrics.psnr(truth, found), metrics.ssim(truth, found)
        judged = metrics.accuracy(evaluator, found, labels)
        return [values.mean() for values in (*numbers, judged)]

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
    found = model.predict(x_test, batch_size=500, verbose=0).argmax(axis=1)
    return float(np.mean(found == y_test))


def save_weights(model: keras.Model, asset: str, precision: str = "float32") -> None:
    """Write a model's weights beside the other assets."""
    save(asset, {w.path: w.numpy().astype(precision) for w in model.weights})


def save(asset: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays beside the other assets and note the file's SHA-256."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    (ASSETS / asset).write_bytes(buffer.getvalue())
    lines = (ASSETS / CHECKSUMS).read_text().splitlines()
    noted = {line.split()[1]: line.split()[0] for line in lines}
    noted[asset] = hashlib.sha256(buffer.getvalue()).hexdigest()
    text = "".join(f"{noted[name]}  {name}\n" for name in sorted(noted))
    (ASSETS / CHECKSUMS).write_text(text)


def main(arguments: list[str] | None = None) -> None:
    """Train the named networks and ship their weights."""
    parser = argparse.ArgumentParser(prog="python -m netinvert.studies.train")
    known = [*NETWORKS, "autoencoder", "bottleneck", "inverse"]
    parser.add_argument(
        "names", nargs="+", choices=known, metavar="NAME", help=", ".join(known)
    )
    for name in parser.parse_args(arguments).names:
        if name == "autoencoder":  # the one large file, and 16 bits suffice to draw
            save_weights(train_digits_autoencoder(), "autoencoder.npz", "float16")
        elif name == "bottleneck":
            save("autoencoder_bottleneck.npz", sweep_bottleneck())
        elif name == "inverse":
            save_weights(train_inverse(), "inverse_hidden_1.npz", "float16")
        else:
            model = train(name)
            save_weights(model, f"{name}.npz")
            print(f"{name}: accuracy {accuracy(model):.4f} on the 2,000 test digits")


if __name__ == "__main__":
    main()
