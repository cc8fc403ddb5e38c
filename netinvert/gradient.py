"""Method 1, gradient search: change the input until the output matches.

What the search in :mod:`netinvert.search` moves is a *code*; a parametrization draws
the input from the code. For pixels the code is unbounded and a sigmoid puts it inside
the bounds, so that no clipping afterwards can spoil the match. A decoder is another
parametrization: see :mod:`netinvert.autoencoder`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

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
from netinvert.search import best_of, search

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
