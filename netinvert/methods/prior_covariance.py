"""What a short step is: prior covariances for second-order search.

If every pixel costs the same, the shortest change that gives the wanted output is noise
all over the picture. A prior covariance (M below) says which changes are likely, and so
cheap: the shortest step is then the most likely one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from netinvert.forward import as_function
from netinvert.inversion import Method, evaluate, invert, is_image, scaling

KEPT_VARIANCE = 0.95  # of the inputs, in the directions that the covariance tells apart
DIRECTIONS = 150  # of the errors' correlation; all 784 of a digit gain hardly more
LEAST_VARIANCE = 1e-4  # of a pixel on [0, 1] that an inverse network is sure of
LARGEST_SURPRISE = 5.0  # standard deviations that an error counts as, at most
FAINTEST = 1e-3  # a value that hardly ever varies is not blown up beyond this
LEAST_FLOOR = 1e-6  # of the largest variance, so that no direction is forbidden
TINY = np.finfo("float64").tiny
CHUNK = 1000  # inputs run through the forward network at once


class Spread(NamedTuple):
    """A prior covariance, M = D (F F' + floor I) D: which changes are likely.

    D is the diagonal ``scale``, the standard deviation of each input value; F the
    ``factor``, the same for every target; ``floor`` the variance in the directions that
    F leaves out.
    """

    scale: np.ndarray | None = None  # (N, n) or (n,); None for 1
    factor: np.ndarray | None = None  # (n, q); None for 0
    floor: float = 1.0


class Identity:
    """The identity: every input value costs the same."""

    spread_ = Spread()

    def fit(self, forward, inputs, start):
        """Learn nothing."""
        return self

    def at(self, inputs, targets) -> Spread:
        """The same at every input."""
        if self.spread_ is None:
            raise RuntimeError(
                "the prior covariance is not known yet: call method.fit(forward, "
                "inputs) with inputs like those you expect back"
            )
        return self.spread_


class InputCovariance(Identity):
    """The covariance of the inputs: what varies together moves together.

    Probabilistic principal components (Tipping & Bishop 1999): the leading
    directions with their own variances, all others with their mean variance.
    """

    spread_ = None

    def fit(self, forward, inputs, start):
        """Learn the covariance of inputs (M, ...)."""
        flat = inputs.reshape(len(inputs), -1).astype("float64")
        variances, directions = principal(flat - flat.mean(axis=0))
        total = max(variances.sum(), TINY)
        kept = 1 + np.searchsorted(np.cumsum(variances) / total, KEPT_VARIANCE)
        self.spread_ = Spread(None, *split(variances, directions, kept))
        return self


class ErrorCovariance(Identity):
    """The covariance of the errors that the starting method makes: M = D R D.

    Their correlation R is learned from its answers to the inputs it was fitted on:
    there it errs less than elsewhere, but in the same directions. How far it may be
    wrong, D, differs from picture to picture: a network that minimises the binary
    cross-entropy draws the mean p of what a pixel may be on [0, 1], whose variance is
    at most p (1 - p). So a background that the network is sure of does not move. For
    inputs that are not images, D is the standard deviation of the errors.

    Examples
    --------
    With a ``start`` that is fitted already:

    >>> errors = ErrorCovariance().fit(forward, x_train, start)
    >>> method = ni.LevenbergMarquardt(start=start, covariance=errors)
    """

    spread_, offset_, range_, deviation_ = None, 0.0, 1.0, None

    def fit(self, forward, inputs, start):
        """Learn the correlation of the start's errors on inputs (M, ...)."""
        if not isinstance(start, Method):
            raise ValueError(
                f'covariance="errors" learns from the errors of a start, and {start!r} '
                "is no method: pass one, such as start=InverseNetwork()"
            )
        targets = evaluate(as_function(forward), inputs, CHUNK)
        shape = inputs.shape[1:]
        drawn = invert(forward, targets, start, bounds=None, input_shape=shape).inputs
        errors = (inputs - drawn).reshape(len(inputs), -1).astype("float64")
        if is_image(shape):
            self.offset_, self.range_ = scaling(inputs)
        else:
            deviation = errors.std(axis=0)
            largest = deviation.max() or 1.0  # a start that never errs
            self.deviation_ = np.maximum(deviation, FAINTEST * largest)
        surprise = errors / self._deviation_of(drawn)
        surprise = np.clip(surprise, -LARGEST_SURPRISE, LARGEST_SURPRISE)
        # On one scale, so that their products are correlations.
        surprise = surprise / np.sqrt((surprise**2).mean(axis=0) + FAINTEST)
        variances, directions = principal(surprise)
        kept = min(DIRECTIONS, len(variances) - 1)
        self.spread_ = Spread(None, *split(variances, directions, kept))
        return self

    def at(self, inputs, targets) -> Spread:
        """The spread of the start's errors where it drew inputs (N, ...)."""
        return super().at(inputs, targets)._replace(scale=self._deviation_of(inputs))

    def _deviation_of(self, drawn) -> np.ndarray:
        """How far off each value of what was drawn may be, (N, n) or (n,)."""
        if self.deviation_ is not None:
            return self.deviation_
        share = (drawn.reshape(len(drawn), -1) - self.offset_) / self.range_
        variance = np.clip(share * (1 - share), 0, None) + LEAST_VARIANCE
        return self.range_ * np.sqrt(variance)


COVARIANCES = dict(identity=Identity, inputs=InputCovariance, errors=ErrorCovariance)


def new_covariance(covariance):
    """A prior covariance by its name, or the object given, if it is one."""
    if isinstance(covariance, str) and covariance in COVARIANCES:
        return COVARIANCES[covariance]()
    offers = hasattr(covariance, "fit") and hasattr(covariance, "at")
    if isinstance(covariance, type) or not offers:
        raise ValueError(
            f"covariance must be one of {', '.join(map(repr, COVARIANCES))}, or an "
            f"object with fit and at; got {covariance!r}"
        )
    return covariance


def spread_at(covariance, inputs, targets) -> Spread:
    """What a prior covariance says at inputs (N, ...), if that is a spread."""
    count, size, spread = len(inputs), inputs[0].size, covariance.at(inputs, targets)
    try:
        scale, factor, floor = spread = Spread(*spread)
        fits = scale is None or np.shape(scale) in ((size,), (count, size))
        fits &= factor is None or (np.ndim(factor) == 2 and len(factor) == size)
        numbers = [values for values in spread if values is not None]
        fits &= all(np.isfinite(values).all() for values in numbers) and floor >= 0
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{covariance!r} must give a finite Spread(scale ({size},) or ({count}, "
            f"{size}), factor ({size}, q), floor >= 0) for {count} inputs of {size} "
            "values; if it was fitted on others, fit it again"
        )
    return spread


def principal(values: np.ndarray):
    """Variances (r,), largest first, and directions (n, r) of values (M, n)."""
    values = values / np.sqrt(len(values))
    if len(values) >= values.shape[1]:
        variances, directions = np.linalg.eigh(values.T @ values)
    else:
        variances, mixtures = np.linalg.eigh(values @ values.T)
        lengths = np.sqrt(np.maximum(variances, TINY))
        directions = values.T @ mixtures / lengths
    return np.maximum(variances[::-1], 0), directions[:, ::-1]


def split(variances: np.ndarray, directions: np.ndarray, kept: int):
    """Factor (n, kept) and floor of a covariance with these principal components.

    All directions but the first ``kept`` share their mean variance.
    """
    rest = max(len(directions) - kept, 1)
    floor = max(variances[kept:].sum() / rest, LEAST_FLOOR * variances[0]) or 1.0
    factor = directions[:, :kept] * np.sqrt(np.maximum(variances[:kept] - floor, 0))
    return factor, float(floor)
