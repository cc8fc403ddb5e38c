"""Method 1, gradient search: change the input until the output matches.

What :func:`search` moves is a *code*; a parametrization draws the input
from the code. For pixels the code is unbounded and a sigmoid puts it inside the
bounds, so that no clipping afterwards can spoil the match. A decoder is another
parametrization.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from netinvert.forward import as_function
from netinvert.inversion import (
    LARGEST,
    Method,
    as_numbers,
    check_classes,
    check_count,
    check_inputs,
    check_positive,
    names_class,
)
from netinvert.objectives import Objective, relative_error, total_variation

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
        if self.mean_ is None:
            return getattr(self.start, "input_shape_", None)
        return self.mean_.shape

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
        return best_of(found, targets)


def default_objective(input_shape: tuple[int, ...]) -> Objective:
    """Match the output; among images that do, prefer those with clear outlines."""
    if len(input_shape) == 3:
        return relative_error + 0.1 * total_variation
    return relative_error


def check_search(method) -> None:
    """Check the settings that every search has."""
    method.steps = check_count("steps", method.steps)
    method.learning_rate = check_positive("learning_rate", method.learning_rate)
    if not (isinstance(method.jit_compile, bool) or method.jit_compile == "auto"):
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
        if names_class(start):
            check_classes(targets)
        inputs, _ = start.solve(
            forward, targets, bounds=bounds, seed=seed, input_shape=input_shape
        )
    elif not isinstance(start, str):
        inputs = checked_start(start, len(targets), input_shape)
    elif start == "mean":
        inputs = middle if mean is None else mean
        if mean is not None and mean.shape != input_shape:
            raise ValueError(
                f"the method was fitted on inputs of shape {mean.shape}, and this "
                f"network takes {input_shape}: call method.fit(forward, inputs) again"
            )
    elif bounds is None:
        inputs = np.random.default_rng(seed).standard_normal(input_shape)
    else:
        inputs = np.random.default_rng(seed).uniform(*bounds, input_shape)
    # The noise does not depend on the target's place in the batch: so neither does
    # the answer.
    return np.array(
        np.broadcast_to(inputs, (len(targets), *input_shape)), targets.dtype
    )


def checked_start(start, count: int, input_shape) -> np.ndarray:
    """Return a start array if it fits the targets and the network."""
    try:
        inputs = as_numbers(start)
    except (TypeError, ValueError) as error:
        raise ValueError(
            'start must be "mean", "noise", an array of real numbers or a method; '
            f"got {start!r:.80}: {error}"
        ) from error
    if inputs.shape not in (input_shape, (count, *input_shape)):
        raise ValueError(
            f"a start array must be one input of shape {input_shape} or one for each "
            f"target, {(count, *input_shape)}; got {inputs.shape}. (More targets than "
            "batch_size are searched in chunks: raise batch_size.)"
        )
    if not (np.abs(inputs) <= LARGEST).all():
        raise ValueError(
            "the start array holds NaN, infinity or numbers too large for float32"
        )
    return inputs


RECORDED_STEPS = 20  # how often a search writes its history
RECORDED_INPUTS = 16  # and for how many targets it keeps the pictures
XLA_PAYS_FROM = 200_000  # targets times steps
ROUNDING = 8  # last digits of the largest output; who is nearer matches as well
HALVES_PAY_FROM = 128  # targets
PROBES = 16  # inputs by which a function that has changed is recognised


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
    decoder = getattr(parametrization, "decoder", None)
    xla = use_xla(settings.jit_compile, work, forward, decoder)
    inputs = parametrization.draw(probes(code.shape[1:], targets.dtype))
    outputs = probes(targets.shape[1:], targets.dtype)
    values = objective(inputs, outputs, outputs[::-1])
    forward = as_it_is(forward, inputs)
    seen = values.numpy().tobytes()  # an objective, too, may read what has changed
    compiled = compile_search(forward, parametrization, objective, xla, seen)
    descend = functools.partial(descend_batch, *compiled, settings)
    try:
        if not xla or len(targets) < HALVES_PAY_FROM or on_gpu():
            return descend(code, targets)
        # XLA's steps leave a third of two processors idle. Halves side by side do not.
        with ThreadPoolExecutor(2) as threads:
            halves = threads.map(
                descend, np.array_split(code, 2), np.array_split(targets, 2)
            )
            return join(*halves)
    except NotImplementedError as error:
        raise ValueError(
            "a search needs the forward function and its objective to be built from "
            f"TensorFlow or Keras operations, also where NumPy has the same: {error}"
        ) from error


def descend_batch(advance, look, settings, code, targets):
    """Run a compiled search from its first step to its last; see :func:`search`."""
    rate, steps = (
        tf.constant(value, targets.dtype)
        for value in (settings.learning_rate, settings.steps)
    )
    shape = code.shape[1:]
    # Flat while it moves: XLA's loops over single rows and channels are slow.
    code = tf.constant(code.reshape(len(code), -1), targets.dtype)
    state = code, tf.zeros_like(code), tf.zeros_like(code)
    marks = np.unique(np.linspace(0, settings.steps, RECORDED_STEPS + 1).round())
    seen = [look(code, shape, targets)]
    for begin, end in itertools.pairwise(marks):
        span = (tf.constant(mark, targets.dtype) for mark in (begin, end))
        state = advance(*state, shape, targets, *span, rate, steps)
        seen.append(look(state[0], shape, targets))
    inputs, mismatch, _ = seen[-1]
    history = {
        "step": marks.astype(int),
        "objective": np.stack([value.numpy() for _, _, value in seen]),
        "inputs": np.stack([shown[:RECORDED_INPUTS].numpy() for shown, _, _ in seen]),
    }
    return inputs.numpy(), mismatch.numpy(), history


def join(first, second):
    """One answer of :func:`search` from those for two halves of the batch."""
    inputs, mismatch, history = (
        np.concatenate(pair) if isinstance(pair[0], np.ndarray) else pair
        for pair in zip(first, second, strict=True)
    )
    objective = np.concatenate([half["objective"] for half in history], axis=1)
    # The pictures kept are of the first targets: the first half has them all.
    return inputs, mismatch, {**history[0], "objective": objective}


@dataclass(frozen=True)
class Snapshot:
    """A forward function that is no Keras model, and how it answers now.

    A compiled search has frozen whatever else the function reads, such as weights in
    a NumPy array. So it may be used again only while the answers stay the same.
    """

    function: Callable = field(compare=False)
    identity: object
    answers: bytes

    def __call__(self, batch):
        return self.function(batch)


def as_it_is(forward, inputs):
    """A forward network for which a compiled search may be kept.

    Parameters
    ----------
    forward : keras.Layer or callable
    inputs : tensor (N, *input_shape)
        Where to ask a function for its answers.
    """
    if isinstance(forward, keras.Layer):
        return forward  # what is compiled follows when its weights change
    answers = np.asarray(as_function(forward)(inputs))
    try:
        hash(identity := forward)
    except TypeError:
        identity = id(forward)
    return Snapshot(forward, identity, answers.tobytes())


def probes(shape: tuple[int, ...], dtype):
    """Some values of every size, always the same, to see what a function does."""
    values = np.random.default_rng(0).standard_normal((PROBES, *shape))
    sizes = np.geomspace(0.01, 3, PROBES).reshape(-1, *[1] * len(shape))
    return tf.constant(values * sizes, dtype)


@functools.lru_cache(maxsize=8)  # a new trace costs a second; keeps 8 networks alive
def compile_search(forward, parametrization, objective: Objective, xla: bool, seen):
    """Compile the steps of a search, and a look at where it stands.

    ``seen`` tells apart what looks the same and has changed; see :class:`Snapshot`.
    """
    function = as_function(forward)
    if not isinstance(forward, keras.Layer):  # Keras needs no autograph; others may
        function = tf.function(function)

    def examine(code, shape, targets):
        code = tf.reshape(code, (-1, *shape))
        inputs = parametrization.draw(code)
        outputs = function(inputs)
        return (
            inputs,
            objective.mismatch(inputs, outputs, targets),
            objective(inputs, outputs, targets) + parametrization.penalty(code),
        )

    def step_of_adam(code, mean, square, shape, targets, step, rate, steps):
        # By hand: Keras's Adam needs variables of a fixed batch size, and its
        # stateless form does not exist for TensorFlow.
        with tf.GradientTape() as tape:
            tape.watch(code)
            total = tf.reduce_sum(examine(code, shape, targets)[2])
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
        decayed *= tf.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        moved = code - decayed * mean / (tf.sqrt(square) + 1e-7)
        # A search that overflows stays at its last finite code.
        return tf.where(tf.math.is_finite(moved), moved, code), mean, square

    def advance(code, mean, square, shape, targets, begin, end, rate, steps):
        # A while loop, since XLA would compile a for loop anew for every range.
        def body(step, code, mean, square):
            moved = step_of_adam(code, mean, square, shape, targets, step, rate, steps)
            return step + 1, *moved

        loop = begin, code, mean, square
        return tf.while_loop(lambda step, *_: step < end, body, loop)[1:]

    # Without autograph: reading the sources takes it longer than many a search.
    options = {"jit_compile": xla, "reduce_retracing": True, "autograph": False}
    return tf.function(advance, **options), tf.function(examine, **options)


def use_xla(jit_compile, work: int, *networks) -> bool:
    """Resolve "auto" for a search of so much work, counted in targets times steps.

    XLA makes the steps of dense networks nearly twice as fast but needs a second to
    compile them for each size of batch; convolutions it slows down on a processor.
    """
    if jit_compile != "auto":
        return bool(jit_compile)
    if on_gpu():
        return True
    return work >= XLA_PAYS_FROM and not any(map(convolves, networks))


def on_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def convolves(network) -> bool:
    """Whether a network has a convolution, or might: a plain callable may."""
    if network is None:
        return False
    if not isinstance(network, keras.Layer):
        return True
    return any("Conv" in type(layer).__name__ for layer in network._flatten_layers())


def best_of(found, targets):
    """Of several searches, keep for each target the one with the least mismatch.

    Where several match but for rounding, the first: which of them is less wrong in
    the last digit depends on the other targets of the batch.
    """
    inputs, _, history = found[0]
    if len(found) == 1:
        return inputs, history
    mismatches = np.stack([mismatch for _, mismatch, _ in found])
    mismatches = np.nan_to_num(mismatches, nan=np.inf)
    digit = np.finfo(targets.dtype).eps * np.abs(targets).reshape(len(targets), -1)
    level = (ROUNDING * digit.max(axis=1)) ** 2
    best = np.argmin(np.maximum(mismatches, level), axis=0)
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
