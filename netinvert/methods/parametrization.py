"""What a search moves, where it begins, and which of several ends is kept.

What a search moves is a *code*; a parametrization draws the input from it. For pixels
within bounds a sigmoid does, so that no clipping afterwards can spoil the match.
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
        return tf.identity(code)

    def encode(self, inputs: np.ndarray) -> np.ndarray:
        return inputs

    def penalty(self, code):  # a prior on codes, which joins the objective
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
    """A decoder draws inputs that it knows, from codes of mean 0 and variance 1."""

    decoder: keras.Model
    center: tuple  # (k,) and spread, of the decoder's own codes
    spread: float
    prior: float  # the weight of a code's mean square
    bounds: tuple | None  # to which it is clipped, before the network sees it

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
    wrong = start not in names if isinstance(start, str) else isinstance(start, type)
    if wrong:
        got = repr(start) if isinstance(start, str) else f"{start}: add parentheses"
        named = ", ".join(f'"{name}"' for name in names)
        raise ValueError(f"start must be {named}, an array or a method, got {got}")


def fit_start(method, forward, inputs) -> np.ndarray:
    """Note the mean of inputs and fit the start on them; return them, checked."""
    inputs = check_inputs(forward, inputs)
    method.mean_ = np.mean(inputs, axis=0)
    if isinstance(method.start, Method):
        method.start.fit(forward, inputs)
    return inputs


def shape_known_to(method) -> tuple[int, ...] | None:
    """Shape of one input, once the method or its start is fitted."""
    known = getattr(method.start, "input_shape_", None)
    return known if method.mean_ is None else method.mean_.shape


def starting_inputs(start, mean, forward, targets, *, bounds, seed, input_shape):
    """One input for each target to begin a search with, (N, *input_shape)."""
    if isinstance(start, Method):
        if names_class(start):
            check_classes(targets)
        task = {"bounds": bounds, "seed": seed, "input_shape": input_shape}
        inputs, _ = start.solve(forward, targets, **task)
    elif not isinstance(start, str):
        inputs = checked_start(start, len(targets), input_shape)
    # One noise for all: the answer does not depend on a target's place in the batch.
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
    shape = len(targets), *input_shape
    return np.array(np.broadcast_to(inputs, shape), targets.dtype)


def checked_start(start, count: int, shape) -> np.ndarray:
    """Return a start array if it fits the targets and the network."""
    wanted = 'start must be "mean", "noise", an array of real numbers or a method'
    inputs = as_numbers(start, f"{wanted}; got {start!r:.80}")
    if inputs.shape not in (shape, (count, *shape)):
        raise ValueError(
            f"a start array must be one input of shape {shape} or one for each target, "
            f"{(count, *shape)}; got {inputs.shape}. (More targets than batch_size are "
            "searched in chunks: raise batch_size.)"
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

    def chosen(values):  # (searches, ..., N or fewer, ...) with N on axis 1
        rows = np.stack(values)
        count = rows.shape[1]
        return rows[best[:count], np.arange(count)]

    history = {"step": histories[0]["step"]}
    for key in ("objective", "inputs"):
        values = chosen([np.swapaxes(one[key], 0, 1) for one in histories])
        history[key] = np.swapaxes(values, 0, 1)
    return chosen(inputs), history
