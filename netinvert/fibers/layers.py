"""A ReLU network as a piecewise-linear one: affine maps, and bends between them.

As long as every unit stays on its side of zero, the whole network is one affine map.
The inputs for which it does so form an activation region ("cell"), bounded by one wall
per unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from netinvert.certificates import Layer


class Affine(NamedTuple):
    """The map x -> (x @ matrix + bias) / divisor, for x as a flat vector."""

    name: str
    matrix: np.ndarray
    bias: np.ndarray
    divisor: int


class Bend(NamedTuple):
    """The map x -> x where x > 0, slope * x elsewhere."""

    name: str
    slope: float


class Cell(NamedTuple):
    """An activation region, and the network in it: jacobian (m, n) @ x + offset (m,).

    Its inputs x are those with ``walls @ x >= heights``.
    """

    jacobian: np.ndarray
    offset: np.ndarray
    walls: np.ndarray
    heights: np.ndarray


def check_input(
    layers: Sequence[Layer], x: np.ndarray, bounds: tuple[float, float] | None
) -> np.ndarray:
    """Return one input as float64; refuse a wrong shape or a value out of bounds."""
    x = np.asarray(x, "float64")
    first = next((one for one in layers if one.kernel is not None), None)
    fits = first is None or first.kind != "dense" or x.size == len(first.kernel)
    if first is not None and first.kind == "convolution":
        fits = x.ndim == 3 and x.shape[-1] == first.kernel.shape[2]
    batch = x.ndim > 3 or (x.ndim == 2 and len(x) == 1)
    if not fits or batch:
        raise ValueError(
            f"one input is needed, as layer {first.name!r} takes it (kernel of shape "
            f"{first.kernel.shape}), without a batch axis; got shape {x.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError(
            "x and the picture must be finite, but one of them holds NaN or infinity"
        )
    if bounds is not None and (x.min() < bounds[0] or x.max() > bounds[1]):
        raise ValueError(
            f"x reaches from {x.min():g} to {x.max():g}, outside the bounds {bounds}: "
            "clip it first, or give wider bounds"
        )
    return x


def affine_steps(
    layers: Sequence[Layer], shape: tuple[int, ...]
) -> list[Affine | Bend]:
    """Write a network on inputs of a shape as affine maps and bends, in float64."""
    steps = []
    for layer in layers:
        if layer.kind == "relu":
            steps.append(Bend(layer.name, layer.slope))
        elif layer.kind == "dense":
            if len(shape) > 1:
                raise ValueError(f"Flatten what goes into layer {layer.name!r} first.")
            matrix = layer.kernel.astype("float64")
            steps.append(Affine(layer.name, matrix, layer.bias.astype("float64"), 1))
        elif layer.kind in ("convolution", "average"):
            steps.append(sliding(layer, shape))
        shape = tuple(layer.shape)
    return steps


def sliding(layer: Layer, shape: tuple[int, ...]) -> Affine:
    """Write a convolution or an average as a matrix."""
    inside, outside = np.arange(math.prod(shape)), np.arange(math.prod(layer.shape))
    inside, outside = inside.reshape(shape), outside.reshape(layer.shape)
    matrix = np.zeros((inside.size, outside.size))
    (rows, columns, _), (down, across) = layer.shape, layer.strides
    top, left = (
        max((out - 1) * stride + window - size, 0) // 2 * (layer.padding == "same")
        for out, stride, window, size in zip(
            layer.shape, layer.strides, layer.window, shape, strict=False
        )
    )
    for i, j in np.ndindex(*layer.window):
        row, column = np.arange(rows) * down + i - top, np.arange(columns) * across + j
        column = column - left
        keep = np.flatnonzero((row >= 0) & (row < shape[0]))
        keep_too = np.flatnonzero((column >= 0) & (column < shape[1]))
        seen = inside[np.ix_(row[keep], column[keep_too])]
        target = outside[np.ix_(keep, keep_too)]
        if layer.kind == "average":
            matrix[seen, target] = 1
        else:
            matrix[seen[..., :, None], target[..., None, :]] = layer.kernel[i, j]
    if layer.kind == "convolution":
        bias = np.tile(layer.bias.astype("float64"), rows * columns)
        return Affine(layer.name, matrix, bias, 1)
    counts = matrix.sum(axis=0).astype(int)
    divisor = math.lcm(*counts.tolist())
    matrix *= divisor // counts
    return Affine(layer.name, matrix, np.zeros(outside.size), divisor)


def pattern(steps: Sequence[Affine | Bend], x: np.ndarray) -> list[np.ndarray]:
    """Say for every bend which units are on at inputs (..., n): bool (..., units)."""
    on = []
    for step in steps:
        if isinstance(step, Bend):
            on.append(x > 0)
            x = np.where(x > 0, x, step.slope * x)
        else:
            x = (x @ step.matrix + step.bias) / step.divisor
    return on


def cell(steps: Sequence[Affine | Bend], on: Sequence[np.ndarray], size: int) -> Cell:
    """Return the cell in which the given units are on, for inputs of a size."""
    jacobian, offset, walls, heights = None, np.zeros(size), [], []
    remaining = iter(on)
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
            offset = (offset @ step.matrix + step.bias) / step.divisor
    if jacobian is None or (isinstance(steps[0], Bend)):
        raise ValueError("The network must begin with a layer that has weights.")
    walls = np.concatenate([np.empty((0, size)), *walls])
    return Cell(jacobian, offset, walls, np.concatenate([np.empty(0), *heights]))
