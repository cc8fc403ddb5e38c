"""Second-order search: solve f(x) = y by Levenberg's and Marquardt's damped steps.

Gradient descent knows which way is down; the Jacobian J = df/dx also knows how far.
An output of k numbers needs only k rows of it and a k x k system for each step, and
a handful of steps where gradient descent takes hundreds (Levenberg 1944, Marquardt
1963; Nocedal & Wright 2006, chapter 10). Of the many steps dx with J dx = y - f(x)
it takes the shortest. What "short" means is the metric, and that is where knowledge
of the inputs enters.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from netinvert.gradient import check_start, starting_inputs
from netinvert.inversion import Method, check_count, check_inputs, join_histories
from netinvert.models import as_function
from netinvert.search import RECORDED_INPUTS, RECORDED_STEPS, best_of

FIRST_DAMPING, MOST_DAMPING = 1.0, 1e6  # of the mean diagonal of J M J'
TRIALS = 3  # of each Jacobian, which costs as much as k of them
SWEEPS = 3  # to find out which values the box holds back
UNROLLED = 16  # outputs up to which each row of the Jacobian is a part of the graph
LARGEST_JACOBIAN = 2**25  # numbers held at once; more targets take turns
KEPT_VARIANCE = 0.95  # of the inputs, in the directions that the covariance tells apart


class Spread(NamedTuple):
    """Which changes of an input are likely: M = D (F F' + floor I) D.

    Attributes
    ----------
    scale : array (N, n), (n,) or None
        The diagonal D, the standard deviation of each input value; None for 1.
    factor : array (n, q) or None
        F, the same for every target; None for 0.
    floor : float
        Variance in the directions that F leaves out.
    """

    scale: np.ndarray | None = None
    factor: np.ndarray | None = None
    floor: float = 1.0


class Pixels:
    """The metric in which every input value costs the same."""

    def fit(self, forward, inputs, start):
        """Learn nothing."""
        return self

    def at(self, inputs, targets) -> Spread:
        """The same at every input."""
        return Spread()


class Covariance:
    """The metric of the inputs' own covariance: what varies together moves together.

    Probabilistic principal components (Tipping & Bishop 1999): the leading
    directions with their own variances, all others with their mean variance.
    """

    def __init__(self):
        self.spread_ = None

    def fit(self, forward, inputs, start):
        """Learn the covariance of inputs (M, ...)."""
        flat = inputs.reshape(len(inputs), -1).astype("float64")
        centered = (flat - flat.mean(axis=0)) / np.sqrt(len(flat))
        variances, directions = principal(centered)
        total = max(variances.sum(), np.finfo("float64").tiny)
        kept = 1 + np.searchsorted(np.cumsum(variances) / total, KEPT_VARIANCE)
        rest = max(flat.shape[1] - kept, 1)
        floor = max(variances[kept:].sum() / rest, 1e-6 * variances[0], 1e-30)
        factor = directions[:, :kept] * np.sqrt(np.maximum(variances[:kept] - floor, 0))
        self.spread_ = Spread(None, factor, float(floor))
        return self

    def at(self, inputs, targets) -> Spread:
        """The same at every input."""
        if self.spread_ is None:
            raise RuntimeError(
                "the covariance of the inputs is not known yet: call "
                "method.fit(forward, inputs) with inputs like those you expect back"
            )
        return self.spread_


def principal(centered: np.ndarray):
    """Variances and directions (n, r), largest first, of centered inputs (M, n)."""
    if len(centered) >= centered.shape[1]:
        variances, directions = np.linalg.eigh(centered.T @ centered)
    else:
        variances, mixtures = np.linalg.eigh(centered @ centered.T)
        lengths = np.sqrt(np.maximum(variances, np.finfo("float64").tiny))
        directions = centered.T @ mixtures / lengths
    return np.maximum(variances[::-1], 0), directions[:, ::-1]


METRICS = {"pixels": Pixels, "covariance": Covariance}


@dataclass
class LevenbergMarquardt:
    """Search by damped Gauss-Newton steps, for outputs of few numbers.

    Parameters
    ----------
    start : "mean", "noise", array or Method
        Where to begin, as for :class:`netinvert.GradientInversion`. The answer
        stays near it: the search goes the shortest way to an input that fits.
    metric : "pixels", "covariance" or object
        What "short" means. "pixels": every input value costs the same.
        "covariance": a change that the inputs given to ``fit`` often show costs
        little. An object of your own: see Notes.
    steps : int
        Most Jacobians computed for a target.
    restarts : int
        Searches per target, from ``start`` and then from different noise; the one
        with the smallest mismatch is kept.

    Notes
    -----
    A target is done when its outputs match to a few units of the last digit that
    the network's own type can hold; it leaves the batch then, and the others go
    on. So it does when its error falls no more.

    Bounds are kept in every step: a value that would leave them stays at the bound
    and the others take over its share.

    A layer that ends in a ReLU says only "at most 0" where it says 0, and its rows
    of the Jacobian vanish there. A unit that is off and should be on is seen only
    once the steps for the other units have switched it on, which may never happen:
    such targets end where their error falls no more, and ``converged`` tells. From
    a good start (an inverse network) few units are on the wrong side.

    A metric is an object with ``fit(forward, inputs, start)``, called after the
    start has been fitted, and ``at(inputs, targets)``, which returns the
    :class:`~netinvert.levenberg_marquardt.Spread` at the inputs (N, ...) where the
    search starts.

    Examples
    --------
    >>> method = ni.LevenbergMarquardt(start=ni.InverseNetwork()).fit(forward, x_train)
    >>> result = ni.invert(forward, targets, method)
    """

    start: object = "mean"
    metric: object = "pixels"
    steps: int = 30
    restarts: int = 1
    metric_: object = field(default=None, init=False, repr=False)
    mean_: np.ndarray | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        check_start(self.start)
        check_metric(self.metric)
        self.steps = check_count("steps", self.steps)
        self.restarts = check_count("restarts", self.restarts)
        self.metric_ = self._new_metric()

    def _new_metric(self):
        return METRICS[self.metric]() if isinstance(self.metric, str) else self.metric

    def fit(self, forward, inputs) -> LevenbergMarquardt:
        """Note the mean of the inputs (N, ...); fit the start and the metric."""
        inputs = check_inputs(forward, inputs)
        self.mean_ = np.mean(inputs, axis=0)
        if isinstance(self.start, Method):
            self.start.fit(forward, inputs)
        self.metric_ = self._new_metric().fit(forward, inputs, self.start)
        return self

    @property
    def input_shape_(self) -> tuple[int, ...] | None:
        """Shape of one input, once fitted."""
        return None if self.mean_ is None else self.mean_.shape

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        """Propose inputs for a batch of targets; see :class:`netinvert.Method`."""
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
            spread = self.metric_.at(inputs, targets)
            found.append(search(forward, targets, inputs, spread, bounds, self.steps))
        return best_of(found)


def check_metric(metric) -> None:
    known = metric in METRICS if isinstance(metric, str) else hasattr(metric, "at")
    if not known or isinstance(metric, type):
        raise ValueError(
            'metric must be "pixels", "covariance" or an object with fit and at; '
            f"got {metric!r}"
        )


def search(forward, targets, inputs, spread: Spread, bounds, steps: int):
    """Solve for a batch of targets, as many at once as memory allows.

    Parameters
    ----------
    forward : keras.Model or callable
    targets : array (N, ...)
    inputs : array (N, ``*input_shape``)
        Where to begin.
    spread : Spread
        The metric there.
    bounds : (low, high) or None
    steps : int

    Returns
    -------
    inputs, mismatch, history
        As from :func:`netinvert.gradient.search`.
    """
    shape = inputs.shape[1:]
    dtype = np.promote_types(targets.dtype, "float32")  # half has no linear algebra
    flat_targets = targets.reshape(len(targets), -1).astype(dtype)
    codes = inputs.reshape(len(inputs), -1).astype(dtype)
    scale, factor, floor = spread
    if scale is not None:
        scale = np.broadcast_to(scale, codes.shape).astype(dtype)
    if factor is not None:
        factor = factor.astype(dtype)
    box = None
    if bounds is not None:
        box = np.stack([np.broadcast_to(b, shape).ravel() for b in bounds])
        box = box.astype(dtype)
    solver = compile_solver(forward, shape)
    rows = max(1, LARGEST_JACOBIAN // (flat_targets.shape[1] * codes.shape[1]))
    parts = []
    for begin in range(0, len(codes), rows):
        part = slice(begin, begin + rows)
        parts.append(
            solver(
                tf.constant(codes[part]),
                tf.constant(flat_targets[part]),
                None if scale is None else tf.constant(scale[part]),
                factor,
                tf.constant(floor, dtype),
                box,
                tf.constant(steps),
            )
        )
    return collect(parts, shape, steps)


def collect(parts, shape, steps: int):
    """Join what the parts of a batch found, and choose what to record."""
    marks = np.unique(np.geomspace(1, steps, RECORDED_STEPS).round().astype(int))
    marks = np.append(0, marks)
    histories = []
    for _, errors, seen in parts:
        at = np.minimum(marks, len(errors) - 1)  # a finished search stays where it is
        pictures = seen.numpy()[at]
        histories.append(
            {
                "step": marks,
                "objective": errors.numpy()[at],
                "inputs": pictures.reshape(*pictures.shape[:2], *shape),
            }
        )
    codes = np.concatenate([part[0].numpy() for part in parts])
    mismatch = np.concatenate([part[1][-1].numpy() for part in parts])
    return codes.reshape(-1, *shape), mismatch, join_histories(histories)


@functools.lru_cache(maxsize=8)  # a new trace costs a second; keeps 8 networks alive
def compile_solver(forward, shape):
    """Compile a whole search, for flattened inputs (N, n) and targets (N, k)."""
    function = as_function(forward)

    def outputs_of(codes):
        values = function(tf.reshape(codes, (-1, *shape)))
        return tf.cast(tf.reshape(values, (tf.shape(codes)[0], -1)), codes.dtype)

    @tf.function(reduce_retracing=True)
    def solve(codes, targets, scale, factor, floor, box, steps):
        count = tf.shape(codes)[0]
        residuals = targets - outputs_of(codes)
        errors = tf.reduce_mean(tf.square(residuals), axis=1)
        damping = tf.fill([count], tf.constant(FIRST_DAMPING, codes.dtype))
        goal = precision(targets)
        going = tf.reduce_max(tf.abs(residuals), axis=1) > goal
        all_errors = tf.TensorArray(codes.dtype, 1, True, clear_after_read=False)
        all_codes = tf.TensorArray(codes.dtype, 1, True, clear_after_read=False)
        all_errors = all_errors.write(0, errors)
        all_codes = all_codes.write(0, codes[:RECORDED_INPUTS])
        step = 0
        while step < steps and tf.reduce_any(going):
            step += 1
            rows = tf.where(going)
            own = tf.gather_nd(targets, rows)
            own_scale = None if scale is None else tf.gather_nd(scale, rows)
            begin = tf.gather_nd(codes, rows)
            jacobian = jacobian_of(outputs_of, begin, targets.shape[1])
            steered = apply_metric(jacobian, own_scale, factor, floor)
            state = (
                begin,
                tf.gather_nd(residuals, rows),
                tf.gather_nd(errors, rows),
                tf.gather_nd(damping, rows),
            )
            before = state[2]
            for _ in range(TRIALS):
                state = trial(outputs_of, own, jacobian, steered, box, *state)
            better, rest, error, damped = state
            stuck = damped > MOST_DAMPING
            stuck |= (error > 0.999 * before) & (damped <= FIRST_DAMPING)
            done = tf.reduce_max(tf.abs(rest), axis=1) <= tf.gather_nd(goal, rows)
            codes = tf.tensor_scatter_nd_update(codes, rows, better)
            residuals = tf.tensor_scatter_nd_update(residuals, rows, rest)
            errors = tf.tensor_scatter_nd_update(errors, rows, error)
            damping = tf.tensor_scatter_nd_update(damping, rows, damped)
            going = tf.tensor_scatter_nd_update(going, rows, ~(stuck | done))
            all_errors = all_errors.write(step, errors)
            all_codes = all_codes.write(step, codes[:RECORDED_INPUTS])
        return codes, all_errors.stack(), all_codes.stack()

    return solve


def precision(targets):
    """How closely each of the targets (N, k) can be matched, (N,)."""
    largest = tf.reduce_max(tf.abs(targets), axis=1)
    epsilon = np.finfo(targets.dtype.as_numpy_dtype).eps
    return 2 * epsilon * tf.maximum(largest, 1)


def jacobian_of(outputs_of, codes, size: int):
    """Derivatives (N, k, n) of outputs (N, k) by codes (N, n), row by row."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(codes)
        outputs = outputs_of(codes)

    def row(index):
        choice = tf.one_hot(tf.fill([tf.shape(codes)[0]], index), size)
        gradient = tape.gradient(outputs, codes, tf.cast(choice, codes.dtype))
        if gradient is None:
            raise ValueError(
                "no gradient reaches the inputs: the forward function must be "
                "built from differentiable TensorFlow or Keras operations"
            )
        return gradient

    if size <= UNROLLED:
        return tf.stack([row(index) for index in range(size)], axis=1)
    rows = tf.map_fn(row, tf.range(size), fn_output_signature=codes.dtype)
    return tf.transpose(rows, (1, 0, 2))


def apply_metric(jacobian, scale, factor, floor):
    """J M, as J (N, k, n)."""
    if scale is not None:
        jacobian = jacobian * scale[:, None]
    steered = floor * jacobian
    if factor is not None:
        narrow = tf.tensordot(jacobian, factor, 1)
        steered += tf.tensordot(narrow, tf.transpose(factor), 1)
    return steered if scale is None else steered * scale[:, None]


def trial(outputs_of, targets, jacobian, steered, box, codes, residuals, errors, damp):
    """Try one step, and keep it where it lowers the error."""
    moved = propose(jacobian, steered, box, codes, residuals, damp)
    rest = targets - outputs_of(moved)
    error = tf.reduce_mean(tf.square(rest), axis=1)
    good = error < errors  # False where a network overflowed
    least = 10 * np.finfo(codes.dtype.as_numpy_dtype).eps
    return (
        tf.where(good[:, None], moved, codes),
        tf.where(good[:, None], rest, residuals),
        tf.where(good, error, errors),
        tf.where(good, tf.maximum(damp / 10, least), damp * 10),
    )


def propose(jacobian, steered, box, codes, residuals, damp):
    """The damped step x + M J' u of each code, within the box.

    Where the box holds a value back, the derivative of the step by u has no part
    of it: a semismooth Newton iteration for u, which is exact once the set of these
    values repeats.
    """
    size = tf.shape(residuals)[1]
    gram = tf.matmul(jacobian, steered, transpose_b=True)
    level = damp * tf.linalg.trace(gram) / tf.cast(size, damp.dtype)
    level = tf.maximum(level, np.finfo(damp.dtype.as_numpy_dtype).tiny)[:, None]
    eye = tf.eye(size, dtype=damp.dtype)
    force = tf.linalg.solve(gram + level[..., None] * eye, residuals[..., None])
    moved = codes + tf.reduce_sum(steered * force, axis=1)
    if box is None:
        return moved
    for _ in range(SWEEPS):
        inside = tf.clip_by_value(moved, box[0], box[1])
        free = tf.cast(inside == moved, damp.dtype)
        missing = residuals - tf.linalg.matvec(jacobian, inside - codes)
        missing -= level * force[..., 0]
        gram = tf.matmul(jacobian * free[:, None], steered, transpose_b=True)
        change = tf.linalg.solve(gram + level[..., None] * eye, missing[..., None])
        force += change
        moved = codes + tf.reduce_sum(steered * force, axis=1)
    return tf.clip_by_value(moved, box[0], box[1])
