"""Second-order search: solve f(x) = y by Levenberg's and Marquardt's damped steps.

Gradient descent knows which way is down; the Jacobian J = df/dx also knows how far.
Of the many steps dx with J dx = y - f(x) it takes the shortest, by a k x k system for
outputs of k numbers. What "short" means is up to a prior covariance, and that is where
knowledge of the inputs enters.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from netinvert.forward import before_relu
from netinvert.inversion import check_count, join_histories
from netinvert.methods.gradient import (
    RECORDED_INPUTS,
    RECORDED_STEPS,
    compiled,
    in_graph,
    in_tensorflow,
    that_exists,
    traceable,
)
from netinvert.methods.parametrization import (
    Free,
    best_of_restarts,
    check_start,
    fit_start,
    shape_known_to,
    starting_inputs,
)
from netinvert.methods.prior_covariance import new_covariance, spread_at


@dataclass
class LevenbergMarquardt:
    """Search by damped Gauss-Newton steps, for outputs of few numbers.

    Parameters
    ----------
    start : "mean", "noise", array or Method
        Where to begin, as for :class:`netinvert.GradientInversion`, and with an
        autoencoder as for :class:`netinvert.AutoencoderInversion`, "estimate" too.
        The answer stays near: each step goes the shortest way.
    covariance : "identity", "inputs", "errors" or object
        The prior covariance of a change, which says what "short" means. "identity":
        every input value costs the same. "inputs": a change costs little if inputs
        given to ``fit`` often differ by it. "errors": if the starting method is
        often wrong by it. Or an object with ``fit(forward, inputs, start)``, called
        after the start was fitted, and ``at(inputs, targets)``, which returns the
        :class:`~netinvert.methods.prior_covariance.Spread` at the inputs (N, ...)
        where the search starts.
    autoencoder : None, "digits" or keras.Model
        Not None: search in its code, as :class:`netinvert.AutoencoderInversion`
        does; the covariance is then that of its codes.
    steps : int
        Most Jacobians computed for a target.
    restarts : int
        As for :class:`netinvert.GradientInversion`.

    Notes
    -----
    A Jacobian of one target that is too large to hold is a ValueError. A target leaves
    the batch when its outputs match to the last digits of their type, or when its error
    falls no more. In bounds, a value that would leave them stays there, and the others
    take over its share of the step.

    Where a ReLU ends the network, its zeros say only "not above 0". In a Keras model
    whose last layer has or is that ReLU, the search sees the values before it, and
    takes those zeros as inequalities. In other networks it cannot turn on a unit that
    is off: a target may end unmatched there, and ``converged`` tells. Nor can it leave
    a start without any slope, such as 0 in a ReLU network without biases: begin at
    "noise".

    Examples
    --------
    >>> method = ni.LevenbergMarquardt(start=ni.InverseNetwork())
    >>> result = ni.invert(forward, targets, method.fit(forward, x_train))
    """

    start: object = "mean"
    covariance: object = "identity"
    autoencoder: keras.Model | str | None = None
    steps: int = 30
    restarts: int = 1
    code_: object = field(default=None, init=False, repr=False)
    covariance_: object = field(default=None, init=False, repr=False)
    mean_: np.ndarray | None = field(default=None, init=False, repr=False)
    code_search = None  # AutoencoderInversion: the front door hangs it in

    def __post_init__(self):
        self.steps = check_count("steps", self.steps)
        self.restarts = check_count("restarts", self.restarts)
        self.covariance_ = new_covariance(self.covariance)
        if self.autoencoder is None:
            check_start(self.start)
            return
        self.code_ = self.code_search(self.autoencoder, start=self.start)
        if self.covariance != "identity":
            raise ValueError(
                f"covariance={self.covariance!r} is of inputs, and the search in the "
                "code of an autoencoder: leave one of the two out"
            )

    def fit(self, forward, inputs) -> LevenbergMarquardt:
        """Note the mean of the inputs (N, ...); fit the start and the covariance."""
        if self.code_ is not None:
            self.mean_ = self.code_.fit(forward, inputs).mean_
            return self
        inputs = fit_start(self, forward, inputs)
        self.covariance_ = new_covariance(self.covariance)
        self.covariance_.fit(forward, inputs, self.start)
        return self

    input_shape_ = property(shape_known_to)

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        """Propose inputs for a batch of targets; see :class:`netinvert.Method`."""

        def search_from(start, seed):
            task = {"bounds": bounds, "seed": seed, "input_shape": input_shape}
            if self.code_ is None:
                begin = starting_inputs(start, self.mean_, forward, targets, **task)
                what = begin, Free(), bounds
            else:  # the decoder keeps what it draws within the bounds
                what = *self.code_.starting_codes(start, forward, targets, **task), None
            spread = spread_at(self.covariance_, what[0], targets)
            return second_order_search(forward, targets, *what, spread, self.steps)

        return best_of_restarts(self, search_from, targets, seed)


FIRST_DAMPING, MOST_DAMPING = 1.0, 1e6  # in units of the mean diagonal of J M J'
TRIALS = 3  # of each Jacobian: a trial is one run of f, the Jacobian costs one a row
CORRELATED_STEPS = 4  # Jacobians after which, in a box, values move independently
STALLED = 0.99  # of the error left by a Jacobian's trials: it falls no more
UNROLLED = 16  # rows of a Jacobian, or pfor takes 1.4 times; more rows, more graph
HALVES_PAY_FROM = 64  # targets; side by side, or a search takes 1.2 to 1.3 times
LARGEST_JACOBIAN = 2**23  # numbers held at once; more targets take turns
LARGEST_OF_ONE = 2**28  # numbers for one target: 1 GB, and a step needs it three times


class State(NamedTuple):
    """Where the search for each of N targets stands."""

    codes: np.ndarray  # (N, n); tensors while it moves
    missing: np.ndarray  # (N, k), target minus output
    errors: np.ndarray  # (N,), their mean squares
    damping: np.ndarray  # (N,)
    going: np.ndarray  # (N,) bool


def second_order_search(forward, targets, codes, drawing, bounds, spread, steps):
    """Move codes (N, ...), within bounds, until the inputs they draw give the targets.

    Returns inputs, mismatch and history, as :func:`gradient.search` does.
    """
    shape = codes.shape[1:]
    dtype = np.promote_types(targets.dtype, "float32")  # half has no linear algebra
    targets = targets.reshape(len(targets), -1).astype(dtype)
    codes = codes.reshape(len(codes), -1).astype(dtype)
    size = targets.shape[1] * codes.shape[1]
    if size > LARGEST_OF_ONE:
        raise ValueError(
            f"the Jacobian of one target has {targets.shape[1]:,} x {codes.shape[1]:,} "
            f"numbers, {size * dtype.itemsize / 2**30:.1f} GB: tap a layer with fewer "
            "outputs, or take GradientInversion, which needs no Jacobian"
        )
    scale, factor, floor = spread
    if scale is not None:
        scale = np.broadcast_to(scale, codes.shape).astype(dtype)
    factor = factor if factor is None else tf.constant(factor, dtype)
    box = bounds
    if bounds is not None:
        box = np.stack([np.broadcast_to(bound, shape).ravel() for bound in bounds])
        box = tf.constant(box, dtype)
        codes = np.clip(codes, *box.numpy())  # outside, a start may fit better
    search = compiled(build_second_order, forward, drawing, shape)
    metric = factor, tf.constant(floor, dtype), box
    count = max(1, LARGEST_JACOBIAN // size)
    found = []
    with in_tensorflow(), ThreadPoolExecutor(2) as threads:
        for first in range(0, len(codes), count):
            part = slice(first, first + count)
            own = scale if scale is None else scale[part]
            task = codes[part], targets[part], own, metric, steps
            found.append(run(threads.map, *search, *task))
    inputs, mismatch, histories = zip(*found, strict=True)
    return np.concatenate(inputs), np.concatenate(mismatch), join_histories(histories)


def run(each, begin, improve, draw, codes, targets, scale, metric, steps: int):
    """Search for some targets, one Jacobian after the other, in halves side by side."""
    marks = np.unique(np.geomspace(1, steps, RECORDED_STEPS).round().astype(int))
    state = State(*map(np.array, begin(codes, targets)))

    def look():
        return state.errors.copy(), state.codes[:RECORDED_INPUTS].copy()

    def improved(rows):
        part = State(*(values[rows] for values in state))
        own = scale if scale is None else scale[rows]
        return improve(part, targets[rows], own, *metric, whole)

    seen = [look()]
    for step in range(steps):
        going = np.flatnonzero(state.going)  # who has arrived leaves the batch
        if not going.size:
            break
        whole = tf.constant(metric[-1] is None or step < CORRELATED_STEPS)
        halves = np.array_split(going, 2 if len(going) >= HALVES_PAY_FROM else 1)
        for rows, part in zip(halves, each(improved, halves), strict=True):
            for old, new in zip(state, part, strict=True):
                old[rows] = new
        if step + 1 in marks:
            seen.append(look())
    seen += [look()] * (len(marks) + 1 - len(seen))  # where it ended, it stays
    errors, codes = zip(*seen, strict=True)
    shown = draw(np.concatenate(codes)).numpy()
    history = {
        "step": np.append(0, marks),
        "objective": np.stack(errors),
        "inputs": shown.reshape(len(seen), -1, *shown.shape[1:]),
    }
    return draw(state.codes).numpy(), state.errors, history


def build_second_order(forward, drawing, shape):
    """Compile the start and a step of a search, for codes (N, n), targets (N, k)."""
    forward, rectified = before_relu(forward)
    function = traceable(forward)

    def draw(codes):
        return drawing.draw(tf.reshape(codes, (-1, *shape)))

    def outputs_of(codes):
        values = function(draw(codes))
        return tf.cast(tf.reshape(values, (tf.shape(codes)[0], -1)), codes.dtype)

    def match(targets, outputs):
        if rectified:  # a ReLU follows, and where it gives 0, less will do
            outputs = tf.where(targets > 0, outputs, tf.nn.relu(outputs))
        missing = targets - outputs
        return missing, tf.reduce_mean(tf.square(missing), axis=1)

    def begin(codes, targets):
        missing, errors = match(targets, outputs_of(codes))
        damping = tf.fill(tf.shape(errors), tf.constant(FIRST_DAMPING, codes.dtype))
        return State(codes, missing, errors, damping, ~matched(missing, targets))

    def improve(part, targets, scale, factor, floor, box, whole):
        """Try a few steps along one Jacobian."""
        # Who begins at one input shares its Jacobian, or a search takes 1.3 times.
        alike = tf.reduce_all(part.codes == part.codes[:1])
        codes = tf.cond(alike, lambda: part.codes[:1], lambda: part.codes)
        jacobian = jacobian_at(codes, targets.shape[1])
        if rectified:
            on = (targets > 0) | (part.missing < targets)
            jacobian *= tf.cast(on, jacobian.dtype)[:, :, None]
        steered = times_covariance(jacobian, scale, factor, floor, whole)
        before = part.errors
        gram = tf.matmul(jacobian, steered, transpose_b=True)
        # Above 0 also where no output depends on any input.
        least = np.finfo(gram.dtype.as_numpy_dtype).tiny
        unit = tf.maximum(tf.linalg.trace(gram) / targets.shape[1], least)
        for _ in range(TRIALS):
            part, gram = trial(part, targets, jacobian, steered, gram, unit, box)
        stalled = (part.errors > STALLED * before) & (part.damping <= FIRST_DAMPING)
        stalled |= part.damping > MOST_DAMPING
        if box is not None and factor is not None:
            stalled &= ~whole  # what stalls in the whole covariance may yet go on
        done = matched(part.missing, targets)
        return part._replace(going=~(stalled | done))

    def jacobian_at(codes, size):
        """Derivatives (N, k, n) of k = size outputs by codes (N, n)."""
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(codes)
            outputs = outputs_of(codes)
        that_exists(tape.gradient(outputs, codes))  # a Jacobian would be zeros instead
        if size > UNROLLED:
            return tape.batch_jacobian(outputs, codes, experimental_use_pfor=False)
        ones = tf.ones_like(outputs)
        units = [ones * tf.one_hot(i, size, dtype=ones.dtype) for i in range(size)]
        return tf.stack([tape.gradient(outputs, codes, unit) for unit in units], axis=1)

    def trial(state, targets, jacobian, steered, gram, unit, box):
        """Try one step, and keep it where it lowers the error."""
        moved, gram = propose(jacobian, steered, gram, unit, box, state)
        missing, errors = match(targets, outputs_of(moved))
        good = errors < state.errors  # False where the network overflowed
        least = 10 * np.finfo(moved.dtype.as_numpy_dtype).eps
        damping = tf.where(good, state.damping / 10, state.damping * 10)
        codes = tf.where(good[:, None], moved, state.codes)
        missing = tf.where(good[:, None], missing, state.missing)
        errors, damping = (
            tf.where(good, errors, state.errors),
            tf.maximum(damping, least),
        )
        return State(codes, missing, errors, damping, state.going), gram

    begin, improve = (in_graph(part, autograph=False) for part in (begin, improve))
    return begin, improve, draw


def matched(missing, targets):
    """Whether outputs agree as closely as their type of number can tell, (N,)."""
    epsilon = np.finfo(targets.dtype.as_numpy_dtype).eps
    largest = tf.maximum(tf.reduce_max(tf.abs(targets), axis=1), 1)
    return tf.reduce_max(tf.abs(missing), axis=1) <= 2 * epsilon * largest


def times_covariance(jacobian, scale, factor, floor, whole):
    """J M of Jacobians (N, k, n), in their shape; or of the diagonal of M only."""
    if scale is None and factor is None:
        return jacobian  # the damping goes with it, so that 1 is as good as any
    steered = jacobian if scale is None else jacobian * scale[:, None]
    if factor is not None:
        diagonal = floor + tf.reduce_sum(tf.square(factor), axis=1)

        def correlated():
            narrow = tf.tensordot(steered, factor, 1)
            return floor * steered + tf.tensordot(narrow, tf.transpose(factor), 1)

        given = steered
        steered = tf.cond(whole, correlated, lambda: given * diagonal)
    return steered if scale is None else steered * scale[:, None]


def propose(jacobian, steered, gram, unit, box, state):
    """Take the damped step x + M J' u, within the box.

    The box holds back some values, and the others take over their share: a semismooth
    Newton step for u, exact where those held back are those that were (in ``gram``).
    """
    codes, missing = state.codes, state.missing
    level = solvable((state.damping * unit)[:, None])
    force = solve_damped(gram, level, missing)
    moved = codes + along(force, steered)
    if box is None:
        return moved, gram
    inside = tf.clip_by_value(moved, box[0], box[1])
    free = tf.cast(inside == moved, moved.dtype)
    gram = tf.matmul(jacobian * free[:, None], steered, transpose_b=True)
    left = missing - tf.linalg.matvec(jacobian, inside - codes) - level * force
    force += solve_damped(gram, level, left)
    return tf.clip_by_value(codes + along(force, steered), box[0], box[1]), gram


def solvable(level):
    """The damping, or 1 where no slope or one beyond all bounds leaves none.

    There any will do; with none TensorFlow would stop for the other targets too.
    """
    least = np.finfo(level.dtype.as_numpy_dtype).tiny
    return tf.where(tf.math.is_finite(level) & (level >= least), level, 1)


def solve_damped(gram, level, missing):  # for u (N, k)
    gram = tf.where(tf.math.is_finite(gram), gram, 0)  # or TensorFlow stops here
    gram += tf.linalg.diag(level * tf.ones_like(missing))
    return tf.linalg.solve(gram, missing[..., None])[..., 0]


def along(force, steered):  # M J' u, (N, n)
    return tf.matmul(force[:, None], steered)[:, 0]
