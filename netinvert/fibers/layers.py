"""A ReLU network as a piecewise-linear one: affine maps, and bends between them.

As long as every unit stays on its side of zero, the network is one affine map. The
inputs for which it does so form an activation region ("cell"), with a wall per unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from netinvert.certificates import Layer, Refused, check_layer


class Affine(NamedTuple):
    """The map x -> (x @ matrix + bias) / divisor, for x as a flat vector."""

    name: str
    matrix: np.ndarray
    bias: np.ndarray
    divisor: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (x @ self.matrix + self.bias) / self.divisor


class Bend(NamedTuple):
    """The map x -> x where x > 0, slope * x elsewhere."""

    name: str
    slope: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, self.slope * x)


class Cell(NamedTuple):
    """An activation region, and the network in it: jacobian (m, n) @ x + offset (m,).

    Its inputs x are those with ``walls @ x >= heights``.
    """

    jacobian: np.ndarray
    offset: np.ndarray
    walls: np.ndarray
    heights: np.ndarray


def check_input(layers: Sequence[Layer], x: np.ndarray, bounds) -> np.ndarray:
    """Return one input as float64; refuse a wrong shape or a value out of bounds."""
    x = np.asarray(x, "float64")
    try:
        given = x.shape if x.ndim < 4 and (x.ndim != 2 or len(x) > 1) else ()
        for layer in layers:
            check_layer(layer, given)
            given = layer.shape
    except Refused as reason:
        raise ValueError(
            f"one input is needed, as the layers take it, without a batch axis; got "
            f"shape {x.shape}: {reason}"
        ) from None
    if not np.isfinite(x).all():
        raise ValueError("x and the picture must be finite: no NaN and no infinity")
    if bounds is not None and (x.min() < bounds[0] or x.max() > bounds[1]):
        raise ValueError(
            f"x reaches from {x.min():g} to {x.max():g}, outside the bounds {bounds}: "
            "clip it first, or give wider bounds"
        )
    return x


def affine_steps(layers: Sequence[Layer], shape: tuple) -> list[Affine | Bend]:
    """Write a network on inputs of a shape as affine maps and bends, in float64."""
    steps = []
    for layer in layers:
        if layer.kind == "relu":
            steps.append(Bend(layer.name, layer.slope))
        elif layer.kind == "dense":
            if len(shape) > 1:
                raise ValueError(f"Flatten what goes into layer {layer.name!r} first.")
            weights = (a.astype("float64") for a in (layer.kernel, layer.bias))
            steps.append(Affine(layer.name, *weights, 1))
        elif layer.kind in ("convolution", "average"):
            steps.append(sliding(layer, shape))
        shape = tuple(layer.shape)
    return steps


def sliding(layer: Layer, shape: tuple[int, ...]) -> Affine:
    """Write a convolution or an average as a matrix."""
    inside = padded = np.arange(math.prod(shape)).reshape(shape)
    outside = np.arange(math.prod(layer.shape)).reshape(layer.shape)
    if layer.padding == "same":
        sizes = zip(shape, layer.shape, layer.strides, layer.window, strict=False)
        missing = [
            max((out - 1) * by + seen - size, 0) for size, out, by, seen in sizes
        ]
        margins = [(n // 2, n - n // 2) for n in (*missing, 0)]
        padded = np.pad(inside, margins, constant_values=-1)
    seen = np.lib.stride_tricks.sliding_window_view(padded, layer.window, (0, 1))
    seen = seen[:: layer.strides[0], :: layer.strides[1]]
    matrix = np.zeros((inside.size + 1, outside.size))  # the last row is the margin's
    for i, j in np.ndindex(*layer.window):
        if layer.kind == "average":
            matrix[seen[..., i, j], outside] = 1
        else:
            places = seen[..., :, None, i, j], outside[..., None, :]
            matrix[places] = layer.kernel[i, j]
    matrix = matrix[:-1]
    if layer.kind == "convolution":
        bias = np.tile(layer.bias.astype("float64"), math.prod(layer.shape[:2]))
        return Affine(layer.name, matrix, bias, 1)
    counts = matrix.sum(axis=0).astype(int)
    divisor = math.lcm(*counts.tolist())
    matrix = matrix * (divisor // counts)
    return Affine(layer.name, matrix, np.zeros(outside.size), divisor)


def pattern(steps: Sequence[Affine | Bend], x: np.ndarray) -> list[np.ndarray]:
    """Say for every bend which units are on at inputs (..., n): bool (..., units)."""
    on = []
    for step in steps:
        if isinstance(step, Bend):
            on.append(x > 0)
        x = step(x)
    return on


def cell(steps: Sequence[Affine | Bend], on: Sequence[np.ndarray], size: int) -> Cell:
    """Return the cell in which the given units are on, for inputs of a size."""
    if not steps or isinstance(steps[0], Bend):
        raise ValueError("The network must begin with a layer that has weights.")
    jacobian, offset, remaining = None, np.zeros(size), iter(on)
    walls, heights = [np.empty((0, size))], [np.empty(0)]
    for step in steps:
        if isinstance(step, Bend):
            units = next(remaining)
            side = np.where(units, 1.0, -1.0)
            walls.append(side[:, None] * jacobian)
            heights.append(-side * offset)
            factor = np.where(units, 1.0, step.slope)
            jacobian, offset = factor[:, None] * jacobian, factor * offset
        else:
            matrix = step.matrix.T / step.divisor
            jacobian = matrix if jacobian is None else matrix @ jacobian
            offset = step(offset)
    return Cell(jacobian, offset, np.concatenate(walls), np.concatenate(heights))
