"""What a search moves, where it begins, and which of several ends is kept.

What a search moves is a *code*; a parametrization draws the input from the code. For
pixels within bounds the code is unbounded and a sigmoid puts it inside, so that no
clipping afterwards can spoil the match. A decoder is another parametrization.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from netinvert.inversion import (
    LARGEST,
    Method,
    as_numbers,
    check_classes,
    check_inputs,
    names_class,
)

EDGE = 1e-2  # how far inside the bounds a start is put; a sigmoid is flat at its ends


@dataclass(frozen=True)
class Free:
    """The code is the input."""

    def draw(self, code):
        """Inputs (N, *input_shape) for codes (N, ...)."""
        return tf.identity(code)

    def encode(self, inputs: np.ndarray) -> np.ndarray:
        """Codes for inputs."""
        return inputs

    def penalty(self, code):
        """A prior on codes, one number for each or 0, which joins the objective."""
        return 0.0


@dataclass(frozen=True)
class Box(Free):
    """A sigmoid draws an input inside the bounds, numbers or nested tuples."""

    low: float | tuple
    high: float | tuple

    def draw(self, code):
        low, high = (tf.constant(bound, code.dtype) for bound in (self.low, self.high))
        return low + (high - low) * tf.sigmoid(code)

    def encode(self, inputs):
        low, high = np.asarray(self.low), np.asarray(self.high)
        share = np.clip((inputs - low) / (high - low), EDGE, 1 - EDGE)
        return np.log(share / (1 - share)).astype(inputs.dtype)


@dataclass(frozen=True)
class Drawing:
    """A decoder draws inputs that it knows, from codes of mean 0 and variance 1.

    ``center`` (k,) and ``spread`` are those of the decoder's own codes, ``prior`` the
    weight of a code's mean square. What is drawn beyond the bounds is clipped, before
    the network sees it.
    """

    decoder: keras.Model
    center: tuple
    spread: float
    prior: float
    bounds: tuple | None

    def draw(self, code):
        raw = tf.cast(code, "float32") * self.spread + tf.constant(self.center)
        inputs = tf.cast(self.decoder(raw, training=False), code.dtype)
        if self.bounds is None:
            return inputs
        low, high = (tf.constant(bound, code.dtype) for bound in self.bounds)
        return tf.clip_by_value(inputs, low, high)

    def penalty(self, code):
        return self.prior * tf.reduce_mean(tf.square(code), axis=-1)


def as_tuple(values):
    """An array as nested tuples, which can be hashed."""
    values = np.asarray(values)
    return tuple(map(as_tuple, values)) if values.ndim else float(values)


def check_start(start, names=("mean", "noise")) -> None:
    if isinstance(start, str) and start not in names:
        named = ", ".join(f'"{name}"' for name in names)
        raise ValueError(f"start must be {named}, an array or a method, got {start!r}")
    if isinstance(start, type):
        raise ValueError(
            f"start must be a method, got its class; write {start.__name__}()"
        )


def fit_start(method, forward, inputs) -> np.ndarray:
    """Note the mean of inputs and fit the start on them; return them, checked."""
    inputs = check_inputs(forward, inputs)
    method.mean_ = np.mean(inputs, axis=0)
    if isinstance(method.start, Method):
        method.start.fit(forward, inputs)
    return inputs


def shape_known_to(method) -> tuple[int, ...] | None:
    """Shape of an input, from what the method or its start was fitted on."""
    if method.mean_ is not None:
        return method.mean_.shape
    return getattr(method.start, "input_shape_", None)


def starting_inputs(start, mean, forward, targets, *, bounds, seed, input_shape):
    """One input for each target to begin a search with, (N, *input_shape)."""
    if isinstance(start, Method):
        if names_class(start):
            check_classes(targets)
        inputs, _ = start.solve(
            forward, targets, bounds=bounds, seed=seed, input_shape=input_shape
        )
    elif not isinstance(start, str):
        inputs = checked_start(start, len(targets), input_shape)
    # The noise does not depend on the target's place in the batch: so neither does
    # the answer.
    elif start == "noise" and bounds is None:
        inputs = np.random.default_rng(seed).standard_normal(input_shape)
    elif start == "noise":
        inputs = np.random.default_rng(seed).uniform(*bounds, input_shape)
    elif mean is None:
        inputs = np.zeros(()) if bounds is None else np.add(*bounds) / 2
    elif mean.shape != input_shape:
        raise ValueError(
            f"the method was fitted on inputs of shape {mean.shape}, and this "
            f"network takes {input_shape}: call method.fit(forward, inputs) again"
        )
    else:
        inputs = mean
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
        raise ValueError("the start holds NaN, infinity or numbers beyond float32")
    return inputs


ROUNDING = 8  # last digits of the largest output; who is nearer matches as well


def best_of_restarts(method, search_from, targets, seed: int):
    """Search from the start, then from noise; keep for each target the best answer.

    That is the first of those that match but for rounding: which of them is less
    wrong in the last digit depends on the other targets of the batch.
    """
    starts = [method.start] + ["noise"] * (method.restarts - 1)
    found = [search_from(start, seed + i) for i, start in enumerate(starts)]
    inputs, mismatches, histories = zip(*found, strict=True)
    digit = np.finfo(targets.dtype).eps * np.abs(targets).reshape(len(targets), -1)
    level = (ROUNDING * digit.max(axis=1)) ** 2
    order = np.nan_to_num(np.stack(mismatches), nan=np.inf)
    best = np.argmin(np.maximum(order, level), axis=0)

    def chosen(values, axis):
        """Of the searches' values, those of the best search for each target."""
        rows = np.moveaxis(np.stack(values), axis + 1, 1)
        count = rows.shape[1]
        return np.moveaxis(rows[best[:count], np.arange(count)], 0, axis)

    history = {
        key: chosen([history[key] for history in histories], axis=1)
        for key in ("objective", "inputs")
    }
    return chosen(inputs, axis=0), {"step": histories[0]["step"], **history}
