"""Method 1, gradient search: change the input until the output matches.

The search is Adam (Kingma & Ba 2015) on a whole batch of targets at once, compiled
into one graph. What it moves is a *code*; a parametrization draws the input from
the code. For pixels the code is unbounded and a sigmoid puts it inside the bounds,
so that no clipping afterwards can spoil the match. A decoder is another
parametrization: see :mod:`netinvert.autoencoder`.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from netinvert.inversion import Method, check_count, check_inputs
from netinvert.models import as_function
from netinvert.objectives import Objective, relative_error, total_variation

RECORDED_STEPS = 20  # how often a search writes its history
RECORDED_INPUTS = 16  # and for how many targets it keeps the pictures
XLA_PAYS_FROM = 200_000  # targets times steps
EDGE = 1e-2  # how far inside the bounds a start is put; a sigmoid is flat at its ends


@dataclass(frozen=True)
class Box:
    """Parametrization by a sigmoid: any code draws an input inside the bounds.

    Attributes
    ----------
    low, high : float or nested tuple of floats
    """

    low: float | tuple
    high: float | tuple

    def draw(self, code):
        low, high = (tf.constant(bound, code.dtype) for bound in (self.low, self.high))
        return low + (high - low) * tf.sigmoid(code)

    def encode(self, inputs: np.ndarray) -> np.ndarray:
        low, high = np.asarray(self.low), np.asarray(self.high)
        share = np.clip((inputs - low) / (high - low), EDGE, 1 - EDGE)
        return np.log(share / (1 - share)).astype(inputs.dtype)

    def penalty(self, code):
        return 0.0


@dataclass(frozen=True)
class Free:
    """Parametrization of unbounded inputs: the code is the input."""

    def draw(self, code):
        return tf.identity(code)

    def encode(self, inputs: np.ndarray) -> np.ndarray:
        return inputs

    def penalty(self, code):
        return 0.0


def as_tuple(values):
    """An array as nested tuples, which can be hashed."""
    values = np.asarray(values)
    return tuple(map(as_tuple, values)) if values.ndim else float(values)


def pixels(bounds) -> Box | Free:
    """The parametrization of inputs within bounds, or free where there are none."""
    return Free() if bounds is None else Box(*map(as_tuple, bounds))


@dataclass
class GradientInversion:
    """Search in the input itself, by gradient descent on an objective.

    Needs nothing but the network. Gives an input that fits the target; which of the
    many that fit depends on the start and on the prior.

    Parameters
    ----------
    objective : Objective, optional
        What to minimise. By default ``relative_error``, and for images
        ``relative_error + 0.1 * total_variation``.
    start : "mean", "noise", array or Method
        Where to begin: the mean of the inputs given to ``fit`` (without them, the
        middle of the bounds, or 0 where there are none); noise, the same for every
        target; an input or one for each target; what another method proposes.
    steps : int
        Steps of Adam.
    learning_rate : float
        Its first step size; it falls to 0 along a cosine, so that the search ends
        at rest. In units of the code: of inputs where there are no bounds, of the
        sigmoid's argument where there are.
    restarts : int
        Searches per target, from ``start`` and then from different noise; the one
        with the smallest mismatch is kept.
    jit_compile : bool or "auto"
        Whether XLA compiles the search; "auto" decides by the size of the search
        and, on a processor, leaves convolutions to TensorFlow.
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
        self.restarts = check_count("restarts", self.restarts)

    def fit(self, forward, inputs) -> GradientInversion:
        """Note the mean of the inputs (N, ...), to start from."""
        self.mean_ = np.mean(check_inputs(forward, inputs), axis=0)
        if isinstance(self.start, Method):
            self.start.fit(forward, inputs)
        return self

    @property
    def input_shape_(self) -> tuple[int, ...] | None:
        return None if self.mean_ is None else self.mean_.shape

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        """Propose inputs for a batch of targets; see :class:`netinvert.Method`."""
        objective = self.objective or default_objective(input_shape)
        parametrization = pixels(bounds)
        found = []
        for restart in range(self.restarts):
            inputs = starting_inputs(
                "noise" if restart else self.start,
                self.mean_,
                forward,
                targets,
                bounds=bounds,
                seed=seed + restart,
                input_shape=input_shape,
            )
            found.append(
                search(
                    forward,
                    targets,
                    parametrization.encode(inputs),
                    parametrization,
                    objective,
                    self,
                )
            )
        return best_of(found)


def default_objective(input_shape: tuple[int, ...]) -> Objective:
    """Match the output; among images that do, prefer those with clear outlines."""
    if len(input_shape) == 3:
        return relative_error + 0.1 * total_variation
    return relative_error


def check_search(method) -> None:
    """Check the settings that every search has."""
    method.steps = check_count("steps", method.steps)
    rate = method.learning_rate
    if not (isinstance(rate, (int, float)) and 0 < rate < float("inf")):
        raise ValueError(f"learning_rate must be a positive number, got {rate!r}")
    if method.jit_compile not in (True, False, "auto"):
        raise ValueError(
            f'jit_compile must be True, False or "auto", got {method.jit_compile!r}'
        )
    if not isinstance(method.objective, Objective | None):
        raise ValueError(
            f"objective must be built from netinvert.objectives, for example "
            f"squared_error + 0.1 * total_variation; got {method.objective!r}"
        )
    if method.objective is not None and not method.objective.mismatch.terms:
        raise ValueError(
            f"the objective {method.objective!r} never looks at the target: add a "
            "term that compares, such as squared_error"
        )


def check_start(start, names=("mean", "noise")) -> None:
    if isinstance(start, str) and start not in names:
        named = ", ".join(f'"{name}"' for name in names)
        raise ValueError(f"start must be {named}, an array or a method, got {start!r}")
    if isinstance(start, type):
        raise ValueError(
            f"start must be a method, got its class; write {start.__name__}()"
        )


def starting_inputs(start, mean, forward, targets, *, bounds, seed, input_shape):
    """One input for each target to begin a search with, (N, *input_shape)."""
    middle = np.zeros(()) if bounds is None else (np.add(*bounds)) / 2
    if isinstance(start, Method):
        inputs, _ = start.solve(
            forward, targets, bounds=bounds, seed=seed, input_shape=input_shape
        )
    elif not isinstance(start, str):
        inputs = np.asarray(start)
        check_start_array(inputs, len(targets), input_shape)
    elif start == "mean":
        inputs = middle if mean is None else mean
    elif bounds is None:
        inputs = np.random.default_rng(seed).standard_normal(input_shape)
    else:
        inputs = np.random.default_rng(seed).uniform(*bounds, input_shape)
    # The noise does not depend on the target's place in the batch: so neither does
    # the answer.
    return np.array(
        np.broadcast_to(inputs, (len(targets), *input_shape)), targets.dtype
    )


def check_start_array(inputs: np.ndarray, count: int, input_shape) -> None:
    if inputs.shape not in (input_shape, (count, *input_shape)):
        raise ValueError(
            f"a start array must be one input of shape {input_shape} or one for each "
            f"target, {(count, *input_shape)}; got {inputs.shape}. (More targets than "
            "batch_size are searched in chunks: raise batch_size.)"
        )
    if not np.isfinite(inputs).all():
        raise ValueError("the start array holds NaN or infinity")


def search(forward, targets, code, parametrization, objective, settings):
    """Move codes by Adam so that the inputs drawn from them minimise an objective.

    Parameters
    ----------
    forward : keras.Model or callable
    targets : array (N, ...)
    code : array (N, ...)
        Where to begin.
    parametrization : object with ``draw``, codes -> inputs, and ``penalty``
        The penalty of codes (N, ...), a prior on them, is (N,) or 0 and joins the
        objective. Hashable, so that the compiled search can be used again.
    objective : Objective
    settings : object with ``steps``, ``learning_rate`` and ``jit_compile``

    Returns
    -------
    inputs : array (N, *input_shape)
    mismatch : array (N,)
        The objective without its priors, at those inputs.
    history : dict
        As in :class:`netinvert.Inversion`.
    """
    work = len(targets) * settings.steps
    xla = use_xla(settings.jit_compile, work, forward, parametrization)
    advance, look = compile_search(forward, parametrization, objective, xla)
    rate, steps = (
        tf.constant(value, targets.dtype)
        for value in (settings.learning_rate, settings.steps)
    )
    code = tf.constant(code, targets.dtype)
    state = code, tf.zeros_like(code), tf.zeros_like(code)
    marks = np.unique(np.linspace(0, settings.steps, RECORDED_STEPS + 1).round())
    try:
        seen = [look(code, targets)]
    except NotImplementedError as error:
        raise ValueError(
            "a search needs the forward function and its objective to be built from "
            f"TensorFlow or Keras operations, also where NumPy has the same: {error}"
        ) from error
    for begin, end in itertools.pairwise(marks):
        span = (tf.constant(mark, targets.dtype) for mark in (begin, end))
        state = advance(*state, targets, *span, rate, steps)
        seen.append(look(state[0], targets))
    inputs, mismatch, _ = seen[-1]
    history = {
        "step": marks.astype(int),
        "objective": np.stack([value.numpy() for _, _, value in seen]),
        "inputs": np.stack([shown[:RECORDED_INPUTS].numpy() for shown, _, _ in seen]),
    }
    return inputs.numpy(), mismatch.numpy(), history


@functools.lru_cache(maxsize=8)  # a new trace costs a second; keeps 8 networks alive
def compile_search(forward, parametrization, objective: Objective, xla: bool):
    """Compile the steps of a search, and a look at where it stands."""
    function = as_function(forward)

    def examine(code, targets):
        inputs = parametrization.draw(code)
        outputs = function(inputs)
        return (
            inputs,
            objective.mismatch(inputs, outputs, targets),
            objective(inputs, outputs, targets) + parametrization.penalty(code),
        )

    @tf.function(jit_compile=xla, reduce_retracing=True)
    def advance(code, mean, square, targets, step, end, rate, steps):
        # Adam by hand: Keras's needs variables of a fixed batch size, and its
        # stateless form does not exist for TensorFlow. A while loop, since XLA
        # would compile a for loop anew for every range.
        while step < end:
            with tf.GradientTape() as tape:
                tape.watch(code)
                total = tf.reduce_sum(examine(code, targets)[2])
            gradient = tape.gradient(total, code)
            if gradient is None:
                raise ValueError(
                    "no gradient reaches the inputs: the forward function must be "
                    "built from differentiable TensorFlow or Keras operations"
                )
            gradient.set_shape(code.shape)  # a SavedModel forgets the batch size
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * tf.square(gradient)
            decayed = 0.5 * rate * (1 + tf.cos(np.pi * step / steps))
            step += 1
            decayed *= tf.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            moved = code - decayed * mean / (tf.sqrt(square) + 1e-7)
            # A search that overflows stays at its last finite code.
            code = tf.where(tf.math.is_finite(moved), moved, code)
        return code, mean, square

    return advance, tf.function(examine, jit_compile=xla, reduce_retracing=True)


def use_xla(jit_compile, work: int, *networks) -> bool:
    """Resolve "auto" for a search of so much work, counted in targets times steps.

    XLA makes the steps of dense networks nearly twice as fast but needs a second to
    compile them for each size of batch; convolutions it slows down on a processor.
    """
    if jit_compile != "auto":
        return bool(jit_compile)
    if tf.config.list_physical_devices("GPU"):
        return True
    return work >= XLA_PAYS_FROM and not any(map(convolves, networks))


def convolves(network) -> bool:
    """Whether a network has a convolution, or might: a plain callable may."""
    if isinstance(network, Box | Free):
        return False
    network = getattr(network, "decoder", network)  # of a parametrization by one
    if not isinstance(network, keras.Layer):
        return True
    return any("Conv" in type(layer).__name__ for layer in network._flatten_layers())


def best_of(found):
    """Of several searches, keep for each target the one with the least mismatch."""
    inputs, _, history = found[0]
    if len(found) == 1:
        return inputs, history
    mismatches = np.stack([mismatch for _, mismatch, _ in found])
    best = np.argmin(np.nan_to_num(mismatches, nan=np.inf), axis=0)
    rows = np.arange(len(best))
    inputs = np.stack([inputs for inputs, _, _ in found])[best, rows]
    shown = rows[:RECORDED_INPUTS]
    history = {
        "step": history["step"],
        "objective": np.stack([h["objective"] for _, _, h in found])[best, :, rows].T,
        "inputs": np.moveaxis(
            np.stack([h["inputs"] for _, _, h in found])[best[shown], :, shown], 0, 1
        ),
    }
    return inputs, history
