"""Second-order search: damped Gauss-Newton steps for a whole batch of targets.

What one step is stands in :mod:`netinvert.damped_step`; here, which steps are kept,
how the damping follows, and when a target leaves the batch. (Levenberg 1944;
Marquardt 1963; Nocedal & Wright 2006, chapter 10.)
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from netinvert.damped_step import apply_metric, jacobian_of, propose
from netinvert.inversion import join_histories
from netinvert.models import as_function
from netinvert.search import (
    HALVES_PAY_FROM,
    RECORDED_INPUTS,
    RECORDED_STEPS,
    as_it_is,
    probes,
)
from netinvert.tapping import before_relu

FIRST_DAMPING, MOST_DAMPING = 1.0, 1e6  # in units of the mean diagonal of J M J'
TRIALS = 3  # of each Jacobian: a trial is one run of f, the Jacobian costs one a row
METRIC_STEPS = 4  # Jacobians after which, in a box, values move independently
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
        The metric at the codes.
    bounds : (low, high) or None
        Of the codes.
    steps : int
        Most Jacobians for each target.

    Returns
    -------
    inputs, mismatch, history
        As from :func:`netinvert.search.search`.
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
            whole = tf.constant(box is None) | (step < METRIC_STEPS)
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
        steered = apply_metric(jacobian, scale, factor, floor, whole)
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
            stalled &= ~whole  # what stalls in the whole metric may yet go on
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
