"""Method 2, search in a code: an autoencoder's decoder draws the inputs.

An autoencoder alone inverts nothing: it knows inputs, not the network. But its
decoder D knows what inputs look like. So search among what it can draw for the
code z with f(D(z)) = y (Bora et al. 2017). The search is the
same (:mod:`netinvert.search`); only the parametrization differs. It starts from the
code that a regression reads off the target.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real

import keras
import numpy as np
import tensorflow as tf

from netinvert.decoders import digits_autoencoder, halves, train_autoencoder
from netinvert.gradient import (
    as_tuple,
    check_search,
    check_start,
    starting_inputs,
)
from netinvert.inversion import Method, check_count, check_inputs, evaluate
from netinvert.models import as_function
from netinvert.objectives import Objective, relative_error
from netinvert.regression import Regression, fit_regression
from netinvert.search import best_of, search

CHUNK = 1000  # inputs encoded at once


@dataclass(frozen=True)
class Drawing:
    """Parametrization by a decoder: a code draws one of the inputs it knows.

    Attributes
    ----------
    decoder : keras.Model
        Codes (N, k) to inputs.
    center, spread : tuple of floats, float
        The search sees ``(code - center) / spread``, so that for every
        autoencoder its codes have about mean 0 and variance 1.
    prior : float
        Weight of the mean square of such a code, which is small for ordinary ones.
    bounds : None, or low and high as numbers or nested tuples
        What the decoder draws beyond them is clipped, before the network sees it.
    """

    decoder: keras.Model
    center: tuple
    spread: float
    prior: float
    bounds: tuple | None

    def draw(self, code):
        """Inputs (N, *input_shape) for codes (N, k)."""
        raw = tf.cast(code, "float32") * self.spread + tf.constant(self.center)
        inputs = tf.cast(self.decoder(raw, training=False), code.dtype)
        if self.bounds is None:
            return inputs
        low, high = (tf.constant(bound, code.dtype) for bound in self.bounds)
        return tf.clip_by_value(inputs, low, high)

    def penalty(self, code):
        """One number for each of the codes (N, k)."""
        return self.prior * tf.reduce_mean(tf.square(code), axis=-1)


@dataclass
class AutoencoderInversion:
    """Search in the code of an autoencoder for an input that fits the target.

    Proposes only what the decoder can draw: things like the inputs that the
    autoencoder was trained on, even where the target says little.

    Parameters
    ----------
    autoencoder : None, "digits" or keras.Model
        None: ``fit`` trains one on its inputs. "digits": the one that comes with
        the package, trained for longer on the 8,000 training digits. A model of
        two layers, encoder and decoder, such as
        :func:`netinvert.decoders.train_autoencoder` returns: that one. Training
        once and passing the model saves time when several networks or layers are
        inverted.
    latent_size : int
        Numbers in the code of the autoencoder that ``fit`` trains.
    variational : bool
        Whether that is a variational autoencoder.
    epochs : int
        For how many passes over the inputs it trains.
    objective : Objective, optional
        What to minimise; by default ``relative_error``.
    prior : float
        How much an unusual code costs: weight of its mean square, added to the
        objective. 0 for none.
    start : "estimate", "mean", "noise", array or Method
        Where to begin: the code that a regression, learned by ``fit``, reads off
        the target; the mean code; a random one, the same for every target; the
        code of an input or of one for each target; of what another method proposes.
    steps, learning_rate, restarts, jit_compile
        As for :class:`netinvert.GradientInversion`; the learning rate is in
        standard deviations of the code.
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
        for name in ("latent_size", "epochs", "restarts"):
            setattr(self, name, check_count(name, getattr(self, name)))
        self.seed = check_count("seed", self.seed, minimum=0)
        if not (isinstance(self.prior, Real) and 0 <= self.prior < np.inf):
            raise ValueError(
                f"prior must be a number of at least 0, got {self.prior!r}"
            )
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
        if self.autoencoder is None:
            autoencoder = train_autoencoder(
                inputs,
                self.latent_size,
                self.variational,
                epochs=self.epochs,
                seed=self.seed,
            )
        elif self.autoencoder == "digits":
            autoencoder = digits_autoencoder()
        else:
            autoencoder = self.autoencoder
        self.encoder_, self.decoder_ = halves(autoencoder, inputs.shape[1:])
        self.mean_ = inputs.mean(axis=0)
        codes = evaluate(as_function(self.encoder_), inputs, CHUNK)
        self.center_, self.spread_ = codes.mean(axis=0), float(codes.std()) or 1.0
        outputs = evaluate(as_function(forward), inputs, CHUNK)
        self.output_shape_ = outputs.shape[1:]
        self.regression_ = fit_regression(outputs, self._scaled(codes), self.seed)
        if isinstance(self.start, Method):
            self.start.fit(forward, inputs)
        return self

    @property
    def input_shape_(self) -> tuple[int, ...] | None:
        """Shape of one input, once fitted."""
        return None if self.mean_ is None else self.mean_.shape

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        """Propose inputs for a batch of targets; see :class:`netinvert.Method`."""
        self._check_fitted(targets, input_shape)
        drawing = Drawing(
            self.decoder_,
            as_tuple(self.center_),
            self.spread_,
            float(self.prior),
            None if bounds is None else tuple(map(as_tuple, bounds)),
        )
        task = {"bounds": bounds, "input_shape": input_shape}
        found = []
        for restart in range(self.restarts):
            start = "noise" if restart else self.start
            code = self._begin(start, forward, targets, seed=seed + restart, **task)
            found.append(
                search(
                    forward,
                    targets,
                    code,
                    drawing,
                    self.objective or relative_error,
                    self,
                )
            )
        return best_of(found, targets)

    def _begin(self, start, forward, targets, **task) -> np.ndarray:
        """Codes (N, k) to begin a search with, as the search sees them."""
        shape = len(targets), len(self.center_)
        if not isinstance(start, str):
            inputs = starting_inputs(start, self.mean_, forward, targets, **task)
            return self._scaled(evaluate(as_function(self.encoder_), inputs, CHUNK))
        if start == "estimate":
            return self.regression_(targets)
        if start == "mean":
            return np.zeros(shape)
        noise = np.random.default_rng(task["seed"]).standard_normal(shape[1])
        return np.broadcast_to(noise, shape)

    def _scaled(self, codes: np.ndarray) -> np.ndarray:
        return (codes - self.center_) / self.spread_

    def _check_fitted(self, targets: np.ndarray, input_shape) -> None:
        if self.decoder_ is None:
            raise RuntimeError(
                "AutoencoderInversion has no decoder yet: call method.fit(forward, "
                "inputs) with inputs like those you expect back"
            )
        if tuple(input_shape) != self.input_shape_ or (
            targets.shape[1:] != self.output_shape_
        ):
            raise ValueError(
                f"this method was fitted to a network from {self.input_shape_} to "
                f"{self.output_shape_} and cannot invert one from "
                f"{tuple(input_shape)} to {targets.shape[1:]}: call "
                "method.fit(forward, inputs) with that network first"
            )
