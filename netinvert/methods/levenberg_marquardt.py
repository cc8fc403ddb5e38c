"""Second-order search: solve f(x) = y by Levenberg's and Marquardt's damped steps.

Gradient descent knows which way is down; the Jacobian J = df/dx also knows how far.
An output of k numbers needs only k rows of it and a k x k system for each step, and
a handful of steps where gradient descent takes hundreds. Of the many steps dx with
J dx = y - f(x) it takes the shortest. What "short" means is up to a prior
covariance, and that is where knowledge of the inputs enters.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from netinvert.forward import as_function, before_relu
from netinvert.inversion import Method, check_count, check_inputs, join_histories
from netinvert.methods.autoencoder import AutoencoderInversion
from netinvert.methods.gradient import (
    HALVES_PAY_FROM,
    RECORDED_INPUTS,
    RECORDED_STEPS,
    Drawing,
    Free,
    as_it_is,
    as_tuple,
    best_of,
    check_start,
    probes,
    starting_inputs,
)
from netinvert.methods.prior_covariance import COVARIANCES, check_covariance, spread_at


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
        often wrong by it. Or an object of your own: see Notes.
    autoencoder : None, "digits" or keras.Model
        None: search in the input. Otherwise search in the code of this autoencoder,
        as for :class:`netinvert.AutoencoderInversion`; the covariance is then that
        of its codes.
    steps : int
        Most Jacobians computed for a target.
    restarts : int
        Searches per target, from ``start`` and then from different noise; the one
        with the smallest mismatch is kept.

    Notes
    -----
    A target leaves the batch when its outputs match to the last digits that their
    type can hold, or when its error falls no more; the others go on.

    Bounds are kept in every step: a value that would leave them stays at the bound,
    and the others take over its share.

    Where a ReLU ends the network, its zeros say only "not above 0". In a Keras model
    whose last layer has or is that ReLU, the search sees the values before it, takes
    those zeros as inequalities, and most targets converge. In other networks it
    cannot see how to turn on a unit that is off: then a target may end where its
    error falls no more, and ``converged`` tells. Nor can it leave a start where the
    network has no slope at all, such as 0 in a ReLU network without biases: begin
    at "noise" there.

    A prior covariance is an object with ``fit(forward, inputs, start)``, called after
    the start has been fitted, and ``at(inputs, targets)``, which returns the
    :class:`~netinvert.methods.prior_covariance.Spread` at the inputs (N, ...) where
    the search starts.

    Examples
    --------
    >>> method = ni.LevenbergMarquardt(start=ni.InverseNetwork()).fit(forward, x_train)
    >>> result = ni.invert(forward, targets, method)
    """

    start: object = "mean"
    covariance: object = "identity"
    autoencoder: keras.Model | str | None = None
    steps: int = 30
    restarts: int = 1
    code_: AutoencoderInversion | None = field(default=None, init=False, repr=False)
    covariance_: object = field(default=None, init=False, repr=False)
    mean_: np.ndarray | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        check_covariance(self.covariance)
        self.steps = check_count("steps", self.steps)
        self.restarts = check_count("restarts", self.restarts)
        self.covariance_ = self._new_covariance()
        if self.autoencoder is None:
            check_start(self.start)
            return
        self.code_ = AutoencoderInversion(self.autoencoder, start=self.start)
        if self.covariance != "identity":
            raise ValueError(
                f"the covariance {self.covariance!r} is one of inputs, and the search "
                "is in the code of an autoencoder: leave one of the two out"
            )

    def _new_covariance(self):
        return (
            COVARIANCES[self.covariance]()
            if isinstance(self.covariance, str)
            else self.covariance
        )

    def fit(self, forward, inputs) -> LevenbergMarquardt:
        """Note the mean of the inputs (N, ...); fit the start and the covariance."""
        inputs = check_inputs(forward, inputs)
        self.mean_ = np.mean(inputs, axis=0)
        if self.code_ is not None:
            self.code_.fit(forward, inputs)
        elif isinstance(self.start, Method):
            self.start.fit(forward, inputs)
        self.covariance_ = self._new_covariance()
        self.covariance_.fit(forward, inputs, self.start)
        return self

    @property
    def input_shape_(self) -> tuple[int, ...] | None:
        """Shape of one input, once fitted."""
        if self.mean_ is None:
            return getattr(self.start, "input_shape_", None)
        return self.mean_.shape

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        """Propose inputs for a batch of targets; see :class:`netinvert.Method`."""
        begin = self._begin if self.code_ is None else self._begin_in_code
        found = []
        for restart in range(self.restarts):
            where = begin(
                "noise" if restart else self.start,
                forward,
                targets,
                bounds=bounds,
                seed=seed + restart,
                input_shape=input_shape,
            )
            found.append(second_order_search(forward, targets, *where, self.steps))
        return best_of(found, targets)

    def _begin(self, start, forward, targets, **task):
        """Inputs to begin with, their parametrization, covariance and bounds."""
        inputs = starting_inputs(start, self.mean_, forward, targets, **task)
        spread = spread_at(self.covariance_, inputs, targets)
        return inputs, Free(), spread, task["bounds"]

    def _begin_in_code(self, start, forward, targets, **task):
        """The same for codes; the decoder keeps what it draws within the bounds."""
        code, bounds = self.code_, task["bounds"]
        code._check_fitted(targets, task["input_shape"])
        drawing = Drawing(
            code.decoder_,
            as_tuple(code.center_),
            code.spread_,
            prior=0.0,
            bounds=None if bounds is None else tuple(map(as_tuple, bounds)),
        )
        codes = np.asarray(code._begin(start, forward, targets, **task))
        return codes, drawing, spread_at(self.covariance_, codes, targets), None


FIRST_DAMPING, MOST_DAMPING = 1.0, 1e6  # in units of the mean diagonal of J M J'
TRIALS = 3  # of each Jacobian: a trial is one run of f, the Jacobian costs one a row
CORRELATED_STEPS = 4  # Jacobians after which, in a box, values move independently
STALLED = 0.99  # of the error left by a Jacobian's trials: it falls no more
LARGEST_JACOBIAN = 2**23  # numbers held at once; more targets take turns


class State(NamedTuple):
    """Where the search for each of N targets stands."""

    codes: tf.Tensor  # (N, n)
    residuals: tf.Tensor  # (N, k), target minus output
    errors: tf.Tensor  # (N,), mean squares of the residuals
    damping: tf.Tensor  # (N,)
    going: tf.Tensor  # (N,) bool


def second_order_search(
    forward, targets, codes, parametrization, spread, bounds, steps
):
    """Move codes until the outputs for the inputs drawn from them match.

    Parameters
    ----------
    forward : keras.Model or callable
    targets : array (N, ...)
    codes : array (N, ...)
        Where to begin.
    parametrization : object with ``draw``, codes -> inputs
        Hashable, so that the compiled search can be used again.
    spread : Spread
        The covariance at the codes.
    bounds : (low, high) or None
        Of the codes.
    steps : int
        Most Jacobians for each target.

    Returns
    -------
    inputs, mismatch, history
        As from :func:`netinvert.methods.gradient.search`.
    """
    shape = codes.shape[1:]
    dtype = np.promote_types(targets.dtype, "float32")  # half has no linear algebra
    flat_targets = targets.reshape(len(targets), -1).astype(dtype)
    codes = codes.reshape(len(codes), -1).astype(dtype)
    scale, factor, floor = spread
    if scale is not None:
        scale = np.broadcast_to(scale, codes.shape).astype(dtype)
    if factor is not None:
        factor = tf.constant(factor, dtype)
    box = None
    if bounds is not None:
        box = tf.constant([np.broadcast_to(b, shape).ravel() for b in bounds], dtype)
        # Outside, a start may fit better than whatever the box has to offer.
        codes = np.clip(codes, *box.numpy())
    probe = probes(codes.shape[1:], dtype)
    if box is not None:
        probe = tf.clip_by_value(probe, *box)
    inputs = parametrization.draw(tf.reshape(probe, (-1, *shape)))
    forward = as_it_is(forward, inputs)
    advance = compile_second_order(forward, parametrization, shape)
    half = len(codes) if len(codes) < HALVES_PAY_FROM else -(-len(codes) // 2)
    most = max(1, LARGEST_JACOBIAN // (flat_targets.shape[1] * codes.shape[1]))

    def solve(begin):
        part = slice(begin, begin + min(half, most))
        return advance(
            tf.constant(codes[part]),
            tf.constant(flat_targets[part]),
            None if scale is None else tf.constant(scale[part]),
            factor,
            tf.constant(floor, dtype),
            box,
            tf.constant(steps),
        )

    try:
        # Small operations leave two processors half idle. Halves side by side do not.
        with ThreadPoolExecutor(2) as threads:
            parts = list(threads.map(solve, range(0, len(codes), min(half, most))))
    except NotImplementedError as error:
        raise ValueError(
            "a search needs the forward function to be built from TensorFlow or Keras "
            f"operations, also where NumPy has the same: {error}"
        ) from error
    return collect(parts, lambda c: parametrization.draw(c.reshape(-1, *shape)), steps)


def collect(parts, draw, steps: int):
    """Join what the parts of a batch found, and choose what to record."""
    # Most happens in the first steps.
    marks = np.unique(np.geomspace(1, steps, RECORDED_STEPS).round().astype(int))
    marks = np.append(0, marks)
    histories = []
    for _, errors, seen in parts:
        at = np.minimum(marks, len(errors) - 1)  # a finished search stays where it is
        seen = seen.numpy()[at]
        inputs = draw(seen).numpy()
        histories.append(
            {
                "step": marks,
                "objective": errors.numpy()[at],
                "inputs": inputs.reshape(*seen.shape[:2], *inputs.shape[1:]),
            }
        )
    inputs = np.concatenate([draw(codes.numpy()).numpy() for codes, _, _ in parts])
    mismatch = np.concatenate([errors[-1].numpy() for _, errors, _ in parts])
    return inputs, mismatch, join_histories(histories)


@functools.lru_cache(maxsize=8)  # a new trace costs a second; keeps 8 networks alive
def compile_second_order(forward, parametrization, shape):
    """Compile a whole search, for flattened codes (N, n) and targets (N, k)."""
    forward, rectified = before_relu(forward)
    function = as_function(forward)
    if not isinstance(forward, keras.Layer):  # Keras needs no autograph; others may
        function = tf.function(function)

    def outputs_of(codes):
        values = function(parametrization.draw(tf.reshape(codes, (-1, *shape))))
        return tf.cast(tf.reshape(values, (tf.shape(codes)[0], -1)), codes.dtype)

    def match(targets, outputs):
        if rectified:  # a ReLU follows, and where it gives 0, less will do
            outputs = tf.where(targets > 0, outputs, tf.nn.relu(outputs))
        residuals = targets - outputs
        return residuals, tf.reduce_mean(tf.square(residuals), axis=1)

    def advance(codes, targets, scale, factor, floor, box, steps):
        residuals, errors = match(targets, outputs_of(codes))
        damping = tf.fill(tf.shape(errors), tf.constant(FIRST_DAMPING, codes.dtype))
        state = State(codes, residuals, errors, damping, ~matched(residuals, targets))
        seen = [tf.TensorArray(codes.dtype, steps + 1) for _ in looks(state)]

        def body(step, state, seen):
            rows = tf.where(state.going)  # the others have left the batch
            part, own = tf.nest.map_structure(
                lambda values: tf.gather_nd(values, rows), (state, targets)
            )
            own_scale = None if scale is None else tf.gather_nd(scale, rows)
            whole = tf.constant(box is None) | (step < CORRELATED_STEPS)
            part = improve(part, own, own_scale, factor, floor, box, whole)
            updated = [
                tf.tensor_scatter_nd_update(old, rows, new)
                for old, new in zip(state, part, strict=True)
            ]
            state = State(*updated)
            return step + 1, state, write(seen, step + 1, state)

        def more(step, state, seen):
            return (step < steps) & tf.reduce_any(state.going)

        loop = tf.constant(0), state, write(seen, 0, state)
        step, state, seen = tf.while_loop(more, body, loop)
        return state.codes, *(array.gather(tf.range(step + 1)) for array in seen)

    def improve(state, targets, scale, factor, floor, box, whole):
        """Try a few steps along one Jacobian."""
        # Searches that begin at the same input share their first Jacobian (1, k, n).
        first = state.codes[:1]
        alike = tf.reduce_all(state.codes == first)
        codes = tf.cond(alike, lambda: first, lambda: state.codes)
        jacobian = jacobian_of(outputs_of, codes, targets.shape[1])
        if rectified:
            on = (targets > 0) | (state.residuals < targets)
            jacobian *= tf.cast(on, jacobian.dtype)[:, :, None]
        steered = times_covariance(jacobian, scale, factor, floor, whole)
        before = state.errors
        gram = tf.matmul(jacobian, steered, transpose_b=True)
        # Above 0 also where no output depends on any input.
        least = np.finfo(gram.dtype.as_numpy_dtype).tiny
        unit = tf.maximum(tf.linalg.trace(gram) / targets.shape[1], least)
        for _ in range(TRIALS):
            state, gram = trial(state, targets, jacobian, steered, gram, unit, box)
        stalled = (state.errors > STALLED * before) & (state.damping <= FIRST_DAMPING)
        stalled |= state.damping > MOST_DAMPING
        if box is not None and factor is not None:
            stalled &= ~whole  # what stalls in the whole covariance may yet go on
        done = matched(state.residuals, targets)
        return state._replace(going=~(stalled | done))

    def trial(state, targets, jacobian, steered, gram, unit, box):
        """Try one step, and keep it where it lowers the error."""
        moved, gram = propose(jacobian, steered, gram, unit, box, state)
        residuals, errors = match(targets, outputs_of(moved))
        good = errors < state.errors  # False where the network overflowed
        least = 10 * np.finfo(moved.dtype.as_numpy_dtype).eps
        damping = tf.where(good, state.damping / 10, state.damping * 10)
        state = State(
            tf.where(good[:, None], moved, state.codes),
            tf.where(good[:, None], residuals, state.residuals),
            tf.where(good, errors, state.errors),
            tf.maximum(damping, least),
            state.going,
        )
        return state, gram

    compiled = tf.function(advance, autograph=False)

    # TensorFlow counts traces by a function's name, and would warn a reader who
    # inverts five networks; only calls of the function itself are counted.
    def search(*task):
        batch = map(any_batch, task[:3])  # codes, targets and scale
        return compiled.get_concrete_function(*batch, *task[3:])(*task)

    return search


def any_batch(tensor):
    """Describe a tensor but for how many targets it is for: one trace serves all."""
    if tensor is None:
        return tensor
    return tf.TensorSpec((None, tensor.shape[1]), tensor.dtype)


def looks(state: State):
    """What the history keeps of a state."""
    return state.errors, state.codes[:RECORDED_INPUTS]


def write(arrays, step, state: State):
    """Note a state in arrays for the history."""
    pairs = zip(arrays, looks(state), strict=True)
    return [array.write(step, value) for array, value in pairs]


def matched(residuals, targets):
    """Whether outputs agree as closely as their type of number can tell, (N,)."""
    epsilon = np.finfo(targets.dtype.as_numpy_dtype).eps
    largest = tf.reduce_max(tf.abs(targets), axis=1)
    return tf.reduce_max(tf.abs(residuals), axis=1) <= (
        2 * epsilon * tf.maximum(largest, 1)
    )


UNROLLED = 16  # outputs up to which each row of the Jacobian is a part of the graph


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

    The box holds back some values, and their share of the step is up to the others:
    a step of a semismooth Newton iteration for u, which is exact where the values
    held back are those that were (in ``gram``, which is returned for the next time).
    """
    codes, residuals = state.codes, state.residuals
    level = solvable((state.damping * unit)[:, None])
    force = solve_damped(gram, level, residuals)
    moved = codes + along(force, steered)
    if box is None:
        return moved, gram
    inside = tf.clip_by_value(moved, box[0], box[1])
    free = tf.cast(inside == moved, moved.dtype)
    gram = tf.matmul(jacobian * free[:, None], steered, transpose_b=True)
    missing = residuals - tf.linalg.matvec(jacobian, inside - codes) - level * force
    force += solve_damped(gram, level, missing)
    return tf.clip_by_value(codes + along(force, steered), box[0], box[1]), gram


def solvable(level):
    """The damping, or 1 where no slope or one beyond all bounds leaves none.

    There any will do: the step goes nowhere, or is refused. With none TensorFlow
    would stop, and the other targets with it.
    """
    least = np.finfo(level.dtype.as_numpy_dtype).tiny
    return tf.where(tf.math.is_finite(level) & (level >= least), level, 1)


def solve_damped(gram, level, residuals):
    """Solve (gram + level) u = residuals for u (N, k)."""
    gram = tf.where(tf.math.is_finite(gram), gram, 0)  # or TensorFlow stops here
    gram += tf.linalg.diag(level * tf.ones_like(residuals))
    return tf.linalg.solve(gram, residuals[..., None])[..., 0]


def along(force, steered):
    """M J' u, (N, n)."""
    return tf.matmul(force[:, None], steered)[:, 0]
