"""One damped Gauss-Newton step for each target of a batch.

A step solves J dx = y - f(x), as far as the damping lets it: dx = M J' u, where
(J M J' + damping) u = y - f(x) is a system of only as many equations as f has
outputs. M is the metric; see :mod:`netinvert.metric`. (Levenberg 1944; Marquardt
1963; Nocedal & Wright 2006, chapter 10.)
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

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


def apply_metric(jacobian, scale, factor, floor, whole):
    """J M of Jacobians (N, k, n), in their shape; or of the diagonal of M only."""
    if scale is None and factor is None:
        return jacobian  # the damping goes with the metric, so that 1 is as good as any
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
