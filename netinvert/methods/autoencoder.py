"""Method 2, search in a code: an autoencoder's decoder draws the inputs.

An autoencoder alone inverts nothing: it knows inputs, not the network. But its decoder
D knows what inputs look like. So search for the code z with f(D(z)) = y (Bora et al.
2017), as in :mod:`netinvert.methods.gradient`, from one that a regression reads off y.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real

import keras
import numpy as np

from netinvert.baselines import center_and_spread, ridge_weights
from netinvert.forward import as_function
from netinvert.inversion import (
    Method,
    check_count,
    check_inputs,
    check_learned,
    evaluate,
    is_image,
    progress_bar,
    scaling,
)
from netinvert.methods.gradient import check_search, search
from netinvert.methods.parametrization import (
    Drawing,
    as_tuple,
    best_of_restarts,
    check_start,
    shape_known_to,
    starting_inputs,
)
from netinvert.models import load_weights
from netinvert.objectives import Objective, relative_error


@dataclass
class AutoencoderInversion:
    """Search in an autoencoder's code: for what its decoder can draw, and fits.

    Parameters
    ----------
    autoencoder : None, "digits" or keras.Model
        None: ``fit`` trains one on its inputs. "digits": the one that comes with the
        package. A model of two layers, encoder and decoder, such as
        :func:`~netinvert.methods.autoencoder.train_autoencoder` returns: that one.
    latent_size, variational, epochs : int, bool, int
        Of the autoencoder that ``fit`` trains: numbers in its code; whether it is a
        variational one; passes over the inputs.
    objective : Objective, optional
        What to minimize; by default ``relative_error``.
    prior : float
        Weight of the code's mean square, added to the objective; 0 for none.
    start : "estimate", "mean", "noise", array or Method
        Where to begin: the code that a regression, learned by ``fit``, reads off the
        target; the mean code; a random one for all; that of an input or of one for
        each target; of what another method proposes.
    steps, learning_rate, restarts, jit_compile
        As for :class:`netinvert.GradientInversion`, the rate in standard deviations.
    seed : int
        For what ``fit`` learns; the search has its own, that of ``invert``.
    """

    autoencoder: keras.Model | str | None = None
    latent_size: int = 32
    variational: bool = True
    epochs: int = 20
    objective: Objective | None = None
    prior: float = 3e-5
    start: object = "estimate"
    steps: int = 300
    learning_rate: float = 0.1
    restarts: int = 1
    jit_compile: bool | str = "auto"
    seed: int = 0
    encoder_: keras.Model | None = field(default=None, init=False, repr=False)
    decoder_: keras.Model | None = field(default=None, init=False, repr=False)
    center_: np.ndarray | None = field(default=None, init=False, repr=False)
    spread_: float = field(default=1.0, init=False, repr=False)
    mean_: np.ndarray | None = field(default=None, init=False, repr=False)
    output_shape_: tuple | None = field(default=None, init=False, repr=False)
    regression_: Regression | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        check_search(self)
        for name in ("latent_size", "epochs"):
            setattr(self, name, check_count(name, getattr(self, name)))
        self.seed = check_count("seed", self.seed, minimum=0)
        if not (isinstance(self.prior, Real) and 0 <= self.prior < np.inf):
            raise ValueError(f"prior must be a number of at least 0, got {self.prior}")
        check_start(self.start, ("estimate", "mean", "noise"))
        known = self.autoencoder is None or isinstance(self.autoencoder, keras.Model)
        if not known and self.autoencoder != "digits":
            raise ValueError(
                'autoencoder must be None (fit trains one), "digits" or a Keras model '
                f"of two layers, encoder and decoder; got {self.autoencoder!r}"
            )

    def fit(self, forward, inputs) -> AutoencoderInversion:
        """Train the autoencoder on inputs (M, ...), and the estimate of the code."""
        inputs = check_inputs(forward, inputs)
        autoencoder = self.autoencoder
        if autoencoder is None:
            kind = self.latent_size, self.variational
            passes = {"epochs": self.epochs, "seed": self.seed}
            autoencoder = train_autoencoder(inputs, *kind, **passes)
        elif isinstance(autoencoder, str):
            autoencoder = digits_autoencoder()
        self.encoder_, self.decoder_ = halves(autoencoder, inputs.shape[1:])
        self.mean_ = inputs.mean(axis=0)
        codes = evaluate(as_function(self.encoder_), inputs, CHUNK)
        self.center_, self.spread_ = codes.mean(axis=0), float(codes.std()) or 1.0
        outputs = evaluate(as_function(forward), inputs, CHUNK)
        self.output_shape_ = outputs.shape[1:]
        self.regression_ = Regression(outputs, self._scaled(codes), self.seed)
        if isinstance(self.start, Method):
            self.start.fit(forward, inputs)
        return self

    input_shape_ = property(shape_known_to)

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        """Propose inputs for a batch of targets; see :class:`netinvert.Method`."""
        objective = self.objective or relative_error

        def search_from(start, seed):
            task = {"bounds": bounds, "seed": seed, "input_shape": input_shape}
            code, drawing = self.starting_codes(start, forward, targets, **task)
            return search(forward, targets, code, drawing, objective, self)

        return best_of_restarts(self, search_from, targets, seed)

    def starting_codes(self, start, forward, targets, **task):
        """Codes (N, k) to begin a search with, and how inputs are drawn from them."""
        learned = self.output_shape_, self.mean_ is not None and self.mean_.shape
        check_learned(self, self.decoder_, learned, targets, task["input_shape"])
        bounds, shape = task["bounds"], (len(targets), len(self.center_))
        box = None if bounds is None else tuple(map(as_tuple, bounds))
        where = as_tuple(self.center_), self.spread_
        drawing = Drawing(self.decoder_, *where, float(self.prior), box)
        if not isinstance(start, str):
            inputs = starting_inputs(start, self.mean_, forward, targets, **task)
            codes = self._scaled(evaluate(as_function(self.encoder_), inputs, CHUNK))
        elif start == "estimate":
            codes = self.regression_(targets)
        else:
            noise = np.random.default_rng(task["seed"]).standard_normal(shape[1])
            codes = np.broadcast_to(noise if start == "noise" else 0.0, shape)
        return codes, drawing

    def _scaled(self, codes: np.ndarray) -> np.ndarray:
        return (codes - self.center_) / self.spread_


CHUNK = 1000  # inputs encoded at once
ENCODER_WIDTHS, DECODER_WIDTHS = (256, 128), (256, 512)
CODE_COST = 0.3  # less than 1: sharper pictures (beta-VAE, Higgins et al. 2017)
VECTOR_NOISE = 0.1  # by how many standard deviations a drawn vector may be off
FIRST_RATE = 2e-3
STEPS_PER_EPOCH = 60  # or more: few inputs make small batches, not few steps
SMALLEST_BATCH, LARGEST_BATCH = 16, 128


@keras.saving.register_keras_serializable("netinvert")
class Sample(keras.layers.Layer):
    """Turn means and log-variances (N, 2 k) into codes (N, k).

    While training they are drawn, and the divergence from a standard normal joins the
    loss (Kingma & Welling 2014); later they are the means.
    """

    def __init__(self, cost: float, seed: int, **keywords):
        super().__init__(**keywords)
        self.cost, self.seed = cost, seed
        self.random = keras.random.SeedGenerator(seed)

    def get_config(self):  # of which Keras makes it again
        return super().get_config() | {"cost": self.cost, "seed": self.seed}

    def call(self, statistics, training=False):
        ops = keras.ops
        mean, log_variance = ops.split(statistics, 2, axis=-1)
        if not training:
            return mean
        excess = mean**2 + ops.exp(log_variance) - 1 - log_variance
        self.add_loss(self.cost * ops.mean(ops.sum(excess / 2, axis=-1)))
        shape, kind = ops.shape(mean), mean.dtype  # of its own, not the global one
        noise = keras.random.normal(shape, dtype=kind, seed=self.random)
        return mean + ops.exp(log_variance / 2) * noise


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

    ``input_shape`` is that of one input, ``latent_size`` the count of numbers in a
    code, which a variational encoder samples; ``seed`` is of the first weights and of
    the sampling. The networks see ``(input - offset) / scale``, floats or arrays like
    one input. Images (height, width, channels) are drawn with a sigmoid, within
    ``offset`` and ``offset + scale``; other inputs without limits.
    """
    layers, seeds = keras.layers, iter(range(1000 * seed, 1000 * seed + 1000))

    def dense(name, width, activation=None):
        start = keras.initializers.GlorotUniform(seed=next(seeds))
        return layers.Dense(width, activation, kernel_initializer=start, name=name)

    def hidden(values, widths):
        for number, width in enumerate(widths, start=1):
            values = dense(f"hidden_{number}", width, "relu")(values)
        return values

    size = int(np.prod(input_shape))
    inputs, code = keras.Input(input_shape), keras.Input((latent_size,))
    # Keras's Rescaling and Flatten depend on where it looks for channels.
    values = layers.Reshape((size,))(inputs * (1 / scale) - offset / scale)
    values = hidden(values, ENCODER_WIDTHS)
    values = dense("code", latent_size * (1 + variational))(values)
    if variational:  # those were means and variances
        values = Sample(CODE_COST / size, seed)(values)
    end = "sigmoid" if is_image(input_shape) else None
    drawn = hidden(code, DECODER_WIDTHS)
    drawn = layers.Reshape(input_shape)(dense("values", size, end)(drawn))
    encoder = keras.Model(inputs, values, name="encoder")
    decoder = keras.Model(code, drawn * scale + offset, name="decoder")
    return keras.Sequential([encoder, decoder], name="autoencoder")


def train_autoencoder(
    inputs: np.ndarray,
    latent_size: int = 32,
    variational: bool = True,
    *,
    epochs: int = 20,
    seed: int = 0,
) -> keras.Sequential:
    """Train an autoencoder on inputs, to draw others like them.

    It passes ``epochs`` times over inputs (M, ``*input_shape``); see
    :func:`build_autoencoder`. Images are scaled by the smallest and largest value seen
    and compared by cross-entropy, other inputs standardized and compared by squared
    error. Same seed, same autoencoder, whatever else draws random numbers.
    """
    inputs = inputs.astype("float32")
    offset, scale = scaling(inputs)
    kind, settings = (latent_size, variational), {"offset": offset, "scale": scale}
    autoencoder = build_autoencoder(inputs.shape[1:], *kind, **settings, seed=seed)

    def loss(inputs, drawn):
        inputs, drawn = (inputs - offset) / scale, (drawn - offset) / scale
        if is_image(inputs.shape[1:]):
            return keras.losses.binary_crossentropy(inputs, drawn)
        return keras.ops.mean((inputs - drawn) ** 2, axis=-1) / (2 * VECTOR_NOISE**2)

    batch = max(len(inputs) // STEPS_PER_EPOCH, SMALLEST_BATCH)
    batch = min(batch, LARGEST_BATCH, len(inputs))
    count = len(inputs) // batch * batch  # the rest has its turn in another epoch
    rate = keras.optimizers.schedules.CosineDecay(FIRST_RATE, epochs * count // batch)
    # Compiling takes as long as it saves in 20 epochs.
    trainer = keras.Sequential(autoencoder.layers)  # the other stays without a loss
    trainer.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    random = np.random.default_rng(seed)
    for _ in progress_bar(range(epochs), "training the autoencoder", "epoch"):
        # Keras would shuffle with the random numbers that it shares with the reader.
        shuffled = inputs[random.permutation(len(inputs))[:count]]
        trainer.fit(shuffled, shuffled, batch, shuffle=False, verbose=0)
    return autoencoder


def digits_autoencoder() -> keras.Sequential:
    """Return the variational autoencoder of the 8,000 training digits, trained.

    Made by ``python -m netinvert.studies.train autoencoder``. RuntimeError if damaged.
    """
    return load_weights(build_autoencoder((28, 28, 1)), "autoencoder.npz")


def halves(autoencoder: keras.Model, input_shape: tuple[int, ...]):
    """Return the encoder and the decoder of an autoencoder, if they fit inputs."""
    parts = [layer for layer in autoencoder.layers if isinstance(layer, keras.Model)]
    if len(parts) != 2:
        raise ValueError(
            "an autoencoder must be two Keras models, encoder and decoder, such as "
            f"keras.Sequential([encoder, decoder]); this has {len(parts)}"
        )
    encoder, decoder = parts
    if not encoder.input_shape[1:] == decoder.output_shape[1:] == input_shape:
        raise ValueError(
            f"inputs to fit on have the shape {input_shape}; the autoencoder takes "
            f"{encoder.input_shape[1:]} and draws {decoder.output_shape[1:]}"
        )
    if len(encoder.output_shape) != 2:
        raise ValueError(
            f"a code must be a vector; the encoder gives {encoder.output_shape[1:]}: "
            "end it with a Flatten layer and begin the decoder with a Reshape"
        )
    return encoder, decoder


RANDOM_FEATURES = 500  # twice as many guess hardly better and take four times as long
PENALTIES = np.logspace(-9, 0, 19)  # as shares of the largest eigenvalue


class Regression:
    """Ridge regression of answers (M, k) on outputs (M, ...) and random features.

    These are ReLUs along random directions (Rahimi & Recht 2008).
    """

    def __init__(self, outputs: np.ndarray, answers: np.ndarray, seed: int):
        flat = outputs.reshape(len(outputs), -1).astype("float64")
        self.middle, self.spread = center_and_spread(flat)
        random, shape = np.random.default_rng(seed), (flat.shape[1], RANDOM_FEATURES)
        self.directions = random.standard_normal(shape) / np.sqrt(shape[0])
        self.offsets = random.uniform(-1, 1, (1, RANDOM_FEATURES))
        features = self._features(outputs)
        self.weights = ridge_weights(features, answers.astype("float64"), PENALTIES)
        self.low, self.high = answers.min(axis=0), answers.max(axis=0)

    def _features(self, outputs):
        flat = outputs.reshape(len(outputs), -1).astype("float64")
        scaled = (flat - self.middle) / self.spread
        random = np.maximum(scaled @ self.directions + self.offsets, 0)
        return np.hstack([scaled, random / np.sqrt(RANDOM_FEATURES)])

    def __call__(self, outputs: np.ndarray) -> np.ndarray:
        """Answers (N, k), never beyond those seen."""
        answers = self.weights[0] + self._features(outputs) @ self.weights[1:]
        return np.clip(answers, self.low, self.high)
