"""Networks that learn to draw inputs: plain and variational autoencoders."""

from __future__ import annotations

import keras
import numpy as np
from tqdm.auto import tqdm

from netinvert.inversion import NO_PROGRESS, PROGRESS_AFTER_SECONDS
from netinvert.models import load_weights

ENCODER_WIDTHS = (256, 128)
DECODER_WIDTHS = (256, 512)
CODE_COST = 0.3  # less than 1: sharper pictures (beta-VAE, Higgins et al. 2017)
VECTOR_NOISE = 0.1  # by how many standard deviations a drawn vector may be off
FIRST_RATE = 2e-3
STEPS_PER_EPOCH = 60  # or more: few inputs make small batches, not few steps
SMALLEST_BATCH, LARGEST_BATCH = 16, 128


class Sample(keras.layers.Layer):
    """Turn means and log-variances (N, 2 k) into codes (N, k).

    While training, the code is drawn from that normal distribution, and its
    Kullback-Leibler divergence from the standard normal one is added to the loss
    (Kingma & Welling 2014). Afterwards the code is the mean.
    """

    def __init__(self, cost: float, seed: int, **keywords):
        super().__init__(**keywords)
        self.cost = cost
        self.random = keras.random.SeedGenerator(seed)

    def call(self, statistics, training=False):
        """Return codes; called by Keras."""
        mean, log_variance = keras.ops.split(statistics, 2, axis=-1)
        if not training:
            return mean
        excess = mean**2 + keras.ops.exp(log_variance) - 1 - log_variance
        self.add_loss(self.cost * keras.ops.mean(keras.ops.sum(excess / 2, axis=-1)))
        noise = keras.random.normal(keras.ops.shape(mean), seed=self.random)
        return mean + keras.ops.exp(log_variance / 2) * noise


def build_autoencoder(
    input_shape: tuple[int, ...],
    latent_size: int = 32,
    variational: bool = True,
    *,
    offset=0.0,
    scale=1.0,
    seed: int = 0,
) -> keras.Sequential:
    """Build an untrained autoencoder of two dense networks, "encoder" and "decoder".

    Parameters
    ----------
    input_shape : tuple
        Of one input. Images (height, width, channels) are drawn with a sigmoid,
        so they stay within ``offset`` and ``offset + scale``; inputs of other
        shapes are drawn without limits.
    latent_size : int
        Numbers in a code.
    variational : bool
        Whether the encoder ends in ``Sample``.
    offset, scale : float, or float array like one input
        The networks see ``(input - offset) / scale``.
    seed : int
        Of the first weights and of the sampling.

    Returns
    -------
    keras.Sequential
        Inputs (N, ``*input_shape``) to inputs; its two layers are Keras models.
    """
    layers, seeds = keras.layers, iter(range(1000 * seed, 1000 * seed + 1000))

    def dense(name, width, activation=None):
        start = keras.initializers.GlorotUniform(seed=next(seeds))
        return layers.Dense(width, activation, kernel_initializer=start, name=name)

    def hidden(widths):
        return [dense(f"hidden_{i}", w, "relu") for i, w in enumerate(widths, start=1)]

    size = int(np.prod(input_shape))
    encoder = [
        keras.Input(input_shape),
        layers.Rescaling(1 / scale, -offset / scale),
        layers.Flatten(),
        *hidden(ENCODER_WIDTHS),
    ]
    if variational:
        encoder += [
            dense("statistics", 2 * latent_size),
            Sample(CODE_COST / size, seed),
        ]
    else:
        encoder += [dense("code", latent_size)]
    decoder = [
        keras.Input((latent_size,)),
        *hidden(DECODER_WIDTHS),
        dense("values", size, "sigmoid" if is_image(input_shape) else None),
        layers.Reshape(input_shape),
        layers.Rescaling(scale, offset),
    ]
    encoder = keras.Sequential(encoder, name="encoder")
    decoder = keras.Sequential(decoder, name="decoder")
    return keras.Sequential([encoder, decoder], name="autoencoder")


def is_image(input_shape: tuple[int, ...]) -> bool:
    """Whether inputs have the shape (height, width, channels)."""
    return len(input_shape) == 3


def train_autoencoder(
    inputs: np.ndarray,
    latent_size: int = 32,
    variational: bool = True,
    *,
    epochs: int = 20,
    seed: int = 0,
) -> keras.Sequential:
    """Train an autoencoder on inputs, to draw others like them.

    A progress bar appears when it takes long (TQDM_DISABLE=1 keeps it away).

    Images are scaled by the smallest and largest value seen and compared by
    cross-entropy, other inputs standardised and compared by squared error.

    Parameters
    ----------
    inputs : array (M, ``*input_shape``)
    latent_size, variational, seed
        As in :func:`build_autoencoder`. Same seed, same autoencoder; random
        numbers drawn elsewhere neither disturb it nor are disturbed.
    epochs : int
        Passes over the inputs.

    Returns
    -------
    keras.Sequential
        As from :func:`build_autoencoder`.
    """
    inputs = inputs.astype("float32")
    offset, scale = scaling(inputs)
    autoencoder = build_autoencoder(
        inputs.shape[1:],
        latent_size,
        variational,
        offset=offset,
        scale=scale,
        seed=seed,
    )

    def loss(inputs, drawn):
        inputs, drawn = (inputs - offset) / scale, (drawn - offset) / scale
        if is_image(inputs.shape[1:]):
            return keras.losses.binary_crossentropy(inputs, drawn)
        return keras.ops.mean((inputs - drawn) ** 2, axis=-1) / (2 * VECTOR_NOISE**2)

    batch = min(LARGEST_BATCH, max(len(inputs) // STEPS_PER_EPOCH, SMALLEST_BATCH))
    batch = min(batch, len(inputs))
    count = len(inputs) // batch * batch  # the rest has its turn in another epoch
    rate = keras.optimizers.schedules.CosineDecay(FIRST_RATE, epochs * count // batch)
    # Compiling takes as long as it saves in 20 epochs.
    autoencoder.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    random = np.random.default_rng(seed)
    for _ in tqdm(
        range(epochs),
        desc="training the autoencoder",
        unit="epoch",
        delay=PROGRESS_AFTER_SECONDS,
        disable=NO_PROGRESS,
        leave=False,
    ):
        # Keras would shuffle with the random numbers that it shares with the reader.
        shuffled = inputs[random.permutation(len(inputs))[:count]]
        autoencoder.fit(shuffled, shuffled, batch, shuffle=False, verbose=0)
    return autoencoder


def scaling(inputs: np.ndarray):
    """Offset and scale: of all values of images, of each value of other inputs."""
    if is_image(inputs.shape[1:]):
        offset, scale = float(inputs.min()), float(np.ptp(inputs))
        return offset, scale or 1.0
    offset, scale = inputs.mean(axis=0), inputs.std(axis=0)
    return offset, np.where(scale > 0, scale, 1)


def digits_autoencoder() -> keras.Sequential:
    """Return the variational autoencoder of the 8,000 training digits, trained.

    It comes with the package; ``python -m netinvert.train autoencoder`` made it.

    Raises
    ------
    RuntimeError
        If the weights file is missing or damaged.
    """
    return load_weights(build_autoencoder((28, 28, 1)), "autoencoder.npz")


def halves(autoencoder: keras.Model, input_shape: tuple[int, ...]):
    """Return the encoder and the decoder of an autoencoder, if they fit inputs."""
    parts = [layer for layer in autoencoder.layers if isinstance(layer, keras.Model)]
    if len(parts) != 2:
        raise ValueError(
            f"an autoencoder must consist of two Keras models, encoder and decoder, "
            f"such as keras.Sequential([encoder, decoder]); got {len(parts)} in "
            f"{autoencoder.name!r}"
        )
    encoder, decoder = parts
    if not encoder.input_shape[1:] == decoder.output_shape[1:] == input_shape:
        raise ValueError(
            f"the autoencoder must take and draw inputs of shape {input_shape}, like "
            f"those to fit on; it takes {encoder.input_shape[1:]} and draws "
            f"{decoder.output_shape[1:]}"
        )
    if len(encoder.output_shape) != 2:
        raise ValueError(
            f"a code must be a vector; the encoder gives {encoder.output_shape[1:]}: "
            "end it with a Flatten layer and begin the decoder with a Reshape"
        )
    return encoder, decoder
