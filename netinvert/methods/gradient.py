"""Method 1, gradient search: change the input until the output matches.

:func:`search` moves the pixels here, and the code of an autoencoder in
:mod:`netinvert.methods.autoencoder`: only the parametrization differs.
"""

from __future__ import annotations

import functools
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from netinvert.forward import as_function
from netinvert.inversion import check_count, check_positive, is_image
from netinvert.methods.parametrization import (
    Box,
    Free,
    as_tuple,
    best_of_restarts,
    check_start,
    fit_start,
    shape_known_to,
    starting_inputs,
)
from netinvert.objectives import Objective, relative_error, total_variation


@dataclass
class GradientInversion:
    """Search in the input itself, by gradient descent on an objective.

    Needs nothing but the network. Which of the many inputs that fit the target it
    finds depends on the start and on the prior.

    Parameters
    ----------
    objective : Objective, optional
        What to minimise. By default ``relative_error``, and for images
        ``relative_error + 0.1 * total_variation``.
    start : "mean", "noise", array or Method
        Where to begin: the mean of the inputs given to ``fit`` (without them, the
        middle of the bounds, or 0); noise, the same for every target; an input or
        one for each target; what another method proposes.
    steps, learning_rate : int, float
        Steps of Adam, and the first step size, which falls to 0 along a cosine. It is
        in units of the inputs, or, within bounds, of the sigmoid's argument.
    restarts : int
        Searches per target, from ``start`` and then from different noise; the one
        with the smallest mismatch is kept.
    jit_compile : bool or "auto"
        Whether XLA compiles the search; "auto" decides by its size and, on a
        processor, leaves convolutions to TensorFlow.
    """

    objective: Objective | None = None
    start: object = "mean"
    steps: int = 500
    learning_rate: float = 0.2
    restarts: int = 1
    jit_compile: bool | str = "auto"
    mean_: np.ndarray | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        check_search(self)
        check_start(self.start)

    def fit(self, forward, inputs) -> GradientInversion:
        """Note the mean of the inputs (N, ...), to start from."""
        fit_start(self, forward, inputs)
        return self

    input_shape_ = property(shape_known_to)

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        """Propose inputs for a batch of targets; see :class:`netinvert.Method`."""
        # Among images that match, prefer those with clear outlines.
        images = is_image(input_shape)
        usual = relative_error + 0.1 * total_variation if images else relative_error
        objective = self.objective or usual
        parametrization = Free() if bounds is None else Box(*map(as_tuple, bounds))

        def search_from(start, seed):
            task = {"bounds": bounds, "seed": seed, "input_shape": input_shape}
            inputs = starting_inputs(start, self.mean_, forward, targets, **task)
            code = parametrization.encode(inputs)
            return search(forward, targets, code, parametrization, objective, self)

        return best_of_restarts(self, search_from, targets, seed)


def check_search(method) -> None:
    """Check the settings that every search by Adam has."""
    method.steps = check_count("steps", method.steps)
    method.restarts = check_count("restarts", method.restarts)
    method.learning_rate = check_positive("learning_rate", method.learning_rate)
    jit, objective = method.jit_compile, method.objective
    if not (isinstance(jit, bool) or jit == "auto"):
        raise ValueError(f'jit_compile must be True, False or "auto", got {jit!r}')
    looks = isinstance(objective, Objective) and objective.mismatch.terms
    if objective is not None and not looks:
        raise ValueError(
            "objective must be built from netinvert.objectives, such as squared_error; "
            f"{objective!r} never looks at the target"
        )


RECORDED_STEPS = 20  # how often a search writes its history
RECORDED_INPUTS = 16  # and for how many targets it keeps the pictures
XLA_PAYS_FROM = 200_000  # targets times steps; see use_xla
HALVES_PAY_FROM = 128  # targets; side by side, or XLA's steps take 1.3 to 1.5 times
MOST_SECONDS = 0.25  # without a look at the keyboard, unless one step takes longer


def search(forward, targets, code, parametrization, objective, settings):
    """Move codes (N, ...) by Adam until the inputs they draw minimise an objective.

    Returns inputs (N, *input_shape), their mismatch (N,), and a history as in
    :class:`netinvert.Inversion`.
    """
    decoder = getattr(parametrization, "decoder", None)
    xla = use_xla(settings, len(targets), forward, decoder)
    what = parametrization, code.shape[1:], objective, xla
    advance = compiled(build_search, forward, *what, steady=objective.steady)
    parts = 2 if xla and len(targets) >= HALVES_PAY_FROM and not on_gpu() else 1
    wanted = np.array_split(targets, parts)
    # Flat while it moves: XLA's loops over single rows and channels are slow.
    flat = code.reshape(len(code), -1).astype(targets.dtype)
    states = [(part, 0 * part, 0 * part) for part in np.array_split(flat, parts)]
    marks = np.linspace(0, settings.steps, RECORDED_STEPS + 1).round()
    marks, totals, pictures = np.unique(marks), [], []
    with in_tensorflow(), ThreadPoolExecutor(parts) as threads:
        each = map if parts == 1 else threads.map
        for begin, end in strides(marks):
            numbers = begin, end, settings.learning_rate, settings.steps
            stride = functools.partial(advance, np.array(numbers, targets.dtype))
            states, seen = zip(*each(stride, states, wanted), strict=True)
            if end in marks:
                inputs, mismatch, total = map(np.concatenate, zip(*seen, strict=True))
                totals.append(total)
                pictures.append(inputs[:RECORDED_INPUTS])
            if end == 0 and (np.isfinite(mismatch) & ~np.isfinite(total)).any():
                raise ValueError(
                    "a prior is NaN or infinite where the search starts, and would "
                    f"count for nothing in {objective!r}: mend it, or start elsewhere"
                )
    history = {"step": marks.astype(int), "objective": np.stack(totals)}
    return inputs, mismatch, {**history, "inputs": np.stack(pictures)}


def strides(marks):
    """Strides of MOST_SECONDS from mark to mark: between them Ctrl-C is heard."""
    yield marks[0], marks[0]
    stride = 1
    for begin, end in itertools.pairwise(marks):
        while begin < end:
            started, to = time.perf_counter(), min(begin + stride, end)
            yield begin, to
            slow = time.perf_counter() - started > MOST_SECONDS / 2
            stride, begin = max(stride // 2, 1) if slow else 2 * stride, to


def build_search(forward, parametrization, shape, objective, xla):
    """Compile some steps of a search, and a look at where they lead."""
    function = traceable(forward)

    def look(code, targets):
        code = tf.reshape(code, (-1, *shape))
        inputs = parametrization.draw(code)
        seen = inputs, function(inputs), targets
        total = objective(*seen) + parametrization.penalty(code)
        return inputs, objective.mismatch(*seen), total

    def step_of_adam(step, code, mean, square, targets, rate, steps):
        # By hand: Keras's Adam needs variables of a fixed batch size.
        with tf.GradientTape() as tape:
            tape.watch(code)
            total = tf.reduce_sum(look(code, targets)[2])
        gradient = that_exists(tape.gradient(total, code))
        gradient.set_shape(code.shape)  # a SavedModel forgets the batch size
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * tf.square(gradient)
        decayed = 0.5 * rate * (1 + tf.cos(np.pi * step / steps))
        decayed *= tf.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        moved = code - decayed * mean / (tf.sqrt(square) + 1e-7)
        # A search that overflows stays at its last finite code.
        return tf.where(tf.math.is_finite(moved), moved, code), mean, square

    def advance(numbers, state, targets):
        begin, end, rate, steps = tf.unstack(numbers)

        def body(step, *state):
            return step + 1, *step_of_adam(step, *state, targets, rate, steps)

        # A while loop, since XLA would compile a for loop anew for every range.
        loop = tf.while_loop(lambda step, *_: step < end, body, (begin, *state))
        return loop[1:], look(loop[1], targets)

    # Without autograph: reading the sources takes it longer than many a search.
    return in_graph(advance, jit_compile=xla, autograph=False)


def use_xla(settings, targets: int, *networks) -> bool:
    """Resolve "auto": XLA nearly halves the steps of dense networks, after a second.

    It compiles for each size of batch; convolutions it slows down on a processor.
    """
    if settings.jit_compile != "auto":
        return settings.jit_compile
    long = targets * settings.steps >= XLA_PAYS_FROM
    return on_gpu() or (long and not any(map(convolves, networks)))


def on_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def convolves(network) -> bool:
    """Whether a network has a convolution, or might: a plain callable may."""
    if not isinstance(network, keras.Layer):
        return network is not None
    return any("Conv" in type(layer).__name__ for layer in network._flatten_layers())


# For searches of every order.


def in_graph(function, **options):
    """Compile a function, for batches of any size."""
    compiled = tf.function(function, reduce_retracing=True, **options)
    # It would warn a reader who inverts five networks.
    compiled._omit_frequent_tracing_warning = True
    return compiled


def traceable(forward):
    """A forward network as a function for compiled searches."""
    function = as_function(forward)  # Keras needs no autograph; others may
    return function if isinstance(forward, keras.Layer) else in_graph(function)


def compiled(build, forward, *what, steady=True):
    """Build a search for a forward network, or take the one built last time.

    What is compiled has frozen all that it reads but the weights of Keras models.
    """
    if steady and isinstance(forward, keras.Layer):
        return kept(build, forward, *what)
    return build(forward, *what)


@functools.lru_cache(maxsize=8)  # a new trace costs a second; keeps 8 networks alive
def kept(build, *what):
    return build(*what)


@contextmanager
def in_tensorflow():
    """Explain the error where a search meets a function of NumPy."""
    try:
        yield
    except NotImplementedError as error:
        raise ValueError(
            "a search needs a forward function and an objective built from TensorFlow "
            f"or Keras operations, also where NumPy has the same: {error}"
        ) from error


def that_exists(slope):
    """Return a derivative, if there is one."""
    if slope is not None:
        return slope
    raise ValueError(
        "no gradient reaches the inputs: the forward function must be built from "
        "differentiable TensorFlow or Keras operations"
    )
