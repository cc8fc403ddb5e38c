"""What a search minimises: terms that add and scale.

A *mismatch* compares the network's outputs with the targets; a *prior* looks at the
inputs alone and is small for plausible ones. Terms combine with ``+`` and with a number
in front, and are always minimised: ``squared_error + 0.3 * total_variation``. Each
gives one number per example, so that the examples of a batch cannot influence each
other. A prior of your own takes a few lines::

    @prior
    def ink(inputs):
        return tf.reduce_mean(inputs, axis=[1, 2, 3])
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from types import FunctionType

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Term:
    """One weighted summand; ``compares`` says whether it looks at the outputs."""

    weight: float
    function: Callable
    compares: bool

    def __call__(self, inputs, outputs, targets):
        seen = (outputs, targets) if self.compares else (inputs,)
        return self.weight * self.function(*seen)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", repr(self.function))
        return name if self.weight == 1 else f"{self.weight:g} * {name}"


@dataclass(frozen=True, repr=False)
class Objective:
    """A sum of weighted terms, one number per example, always minimised.

    Calling it with ``(inputs, outputs, targets)``, tensors of N examples, returns
    a tensor of shape (N,).
    """

    terms: tuple[Term, ...]

    def __call__(self, inputs, outputs, targets):
        return tf.add_n([term(inputs, outputs, targets) for term in self.terms])

    @property
    def mismatch(self) -> Objective:
        """The terms that compare outputs with targets, without the priors."""
        return Objective(tuple(term for term in self.terms if term.compares))

    @property
    def function(self) -> Callable:
        """What computes its first term; of a decorated function, that function."""
        return self.terms[0].function

    @property
    def steady(self) -> bool:
        """Whether its functions cannot change; this module's read nothing else."""
        return all(term.function.__module__ == __name__ for term in self.terms)

    @property
    def names_class(self) -> bool:
        """Whether targets name a wanted class instead of output values."""
        wanted = cross_entropy.function
        return any(term.function is wanted and term.weight for term in self.terms)

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return Objective(self.terms + other.terms)

    def __mul__(self, weight: float) -> Objective:
        if not isinstance(weight, Real):
            return NotImplemented
        if not 0 <= weight < float("inf"):
            raise ValueError(
                "a term's weight must be a finite number of at least 0: objectives are "
                f"always minimised; got {weight!r}"
            )
        weight = float(weight)
        terms = (replace(term, weight=weight * term.weight) for term in self.terms)
        return Objective(tuple(terms))

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))


def mismatch(function: Callable) -> Objective:
    """Make an objective of ``function(outputs, targets) -> (N,)``."""
    return single(function, compares=True)


def prior(function: Callable) -> Objective:
    """Make an objective of ``function(inputs) -> (N,)``."""
    return single(function, compares=False)


def single(function: Callable, compares: bool) -> Objective:
    """Make an objective of one term."""
    home = sys.modules.get(getattr(function, "__module__", None))
    if isinstance(function, FunctionType) and (
        getattr(home, function.__name__, None) is not function
    ):
        # It was decorated: pickle must look for it inside the objective of its name.
        function.__qualname__ += ".function"
    return Objective((Term(1.0, function, compares),))


def per_example(values):
    """Mean over all axes but the first: (N, ...) -> (N,)."""
    return tf.reduce_mean(values, axis=tf.range(1, tf.rank(values)))


@mismatch
def squared_error(outputs, targets):
    """Mean squared difference between outputs and targets."""
    return per_example(tf.square(outputs - targets))


@mismatch
def cross_entropy(outputs, targets):
    """Cross-entropy of logits against a wanted class, as one-hot or probabilities.

    Unlike a squared error's, its gradient does not vanish at a confident wrong answer.
    """
    return tf.nn.softmax_cross_entropy_with_logits(targets, outputs)


def check_classes(targets: np.ndarray) -> None:
    """Refuse targets that are no shares of classes; most often they are logits."""
    rows = targets if targets.ndim == 2 else np.full((len(targets), 1), -1.0)
    # with room for rounding, of float16 too
    wrong = (rows < -1e-3).any(axis=1) | (np.abs(rows.sum(axis=1) - 1) > 1e-2)
    if wrong.any():
        raise ValueError(
            "targets of cross_entropy are one-hot or probabilities, (N, classes): not "
            f"negative, and with a sum of 1; got {targets.shape}, and {wrong.sum()} of "
            f"{len(targets)} are something else. To reach logits, take squared_error"
        )


@mismatch
def relative_error(outputs, targets):
    """Squared error as a share of the target's own mean square.

    On this scale one weight of a prior suits every layer. An all-zero target counts as
    one of mean square 1e-6.
    """
    size = per_example(tf.square(targets))
    return per_example(tf.square(outputs - targets)) / tf.maximum(size, 1e-6)


@prior
def total_variation(inputs):
    """Mean length of the image gradient, per pixel (images only).

    Rudin, Osher & Fatemi 1992; as a prior for inversion, Mahendran & Vedaldi 2015.
    """
    if inputs.shape.rank != 4 or 1 in inputs.shape[1:3]:
        raise ValueError(
            "total_variation compares neighbors in images (N, height, width, channels) "
            f"of at least 2 x 2 pixels, got {tuple(inputs.shape)}; leave it out for "
            "vector inputs, as in GradientInversion(relative_error)"
        )
    down = inputs[:, 1:, :-1] - inputs[:, :-1, :-1]
    right = inputs[:, :-1, 1:] - inputs[:, :-1, :-1]
    # The small constant keeps the square root differentiable where nothing changes.
    return per_example(tf.sqrt(tf.square(down) + tf.square(right) + 1e-4))


@prior
def alpha_norm(inputs):
    """Mean of ``|value| ** 6``, against extreme values (Mahendran & Vedaldi 2015)."""
    return per_example(tf.square(inputs) ** 3)
