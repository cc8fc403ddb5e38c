"""A ReLU network as what it is: affine maps, and bends between them.

As long as every unit stays on its side of zero, the whole network is one affine
map. The inputs for which it does so form a cell, bounded by one wall per unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np

from netinvert.certificates import Layer
from netinvert.forward import PreActivation, calls_in, check_graph

KNOWN = (
    "Dense, Conv2D, AveragePooling2D, Flatten, Reshape, Dropout, ReLU, LeakyReLU and a "
    "softmax at the end"
)
IDLE = (keras.layers.InputLayer, keras.layers.Dropout)  # change nothing here
RESHAPING = (keras.layers.Flatten, keras.layers.Reshape)


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
    """A cell, and the network in it: outputs (m,) = jacobian (m, n) @ x + offset.

    Its inputs x are those with ``walls @ x >= heights``.
    """

    jacobian: np.ndarray
    offset: np.ndarray
    walls: np.ndarray
    heights: np.ndarray


def layers_of(
    model: keras.Model | Sequence[Layer], upto: str | None = None
) -> list[Layer]:
    """Return the layers of a ReLU network as plain arrays, without Keras.

    Parameters
    ----------
    model : keras.Model or sequence of Layer
        Layers one after the other: Dense, Conv2D, AveragePooling2D, Flatten,
        Reshape, ReLU, LeakyReLU, Dropout (which does nothing after training) and
        a softmax at the end (which is left away). Activations inside a layer
        become a layer of their own: "h" with a ReLU gives "h before relu", "h".
    upto : str, optional
        The last layer wanted. What comes after may be of any kind.

    Returns
    -------
    list of Layer

    Raises
    ------
    ValueError
        If there is no such layer, or one before it is of another kind.
    """
    found = []
    try:
        for layer in listed(model):
            found.append(layer)
            if layer.name == upto:
                return found
    except Unsupported as error:
        if not found:
            raise
        raise ValueError(
            f"{error} What comes before it, {[layer.name for layer in found]}, can "
            f"still be asked about: give layer={found[-1].name!r}, or instead of the "
            f"network layers_of(network, {found[-1].name!r})."
        ) from None
    if upto is not None or not found:
        names = ", ".join(repr(layer.name) for layer in found)
        raise ValueError(f"No layer is called {upto!r}. There are {names}.")
    return found


def first_affine(model: keras.Model | Sequence[Layer]) -> str:
    """Return the name of the first layer with weights, before its activation."""
    for layer in listed(model):
        if layer.kind in ("dense", "convolution"):
            return layer.name
    raise ValueError("The network has no layer with weights.")


class Unsupported(ValueError):
    """A layer about which nothing exact can be said here."""


def listed(model: keras.Model | Sequence[Layer]) -> Sequence[Layer] | Iterator[Layer]:
    """Return the layers, translated as far as they are asked for."""
    if isinstance(model, keras.Model):
        return steps_of(model)
    if isinstance(model, Sequence) and all(isinstance(one, Layer) for one in model):
        return model
    raise ValueError(
        "exact statements need a Keras model or a list of certificates.Layer, got "
        f"{type(model).__name__}"
    )


def steps_of(model: keras.Model) -> Iterator[Layer]:
    """Translate a Keras model layer by layer, and stop at what has no translation."""
    check_graph(model)
    for call in reversed(calls_in(model)):
        layer, shape = call.operation, tuple(call.outputs[0].shape[1:])
        if len(call.input_tensors) > 1 or None in shape:
            raise unsupported(layer, "only layers of known shape, one after the other")
        if isinstance(layer, keras.Model):
            yield from steps_of(layer)
        elif not isinstance(layer, IDLE):
            yield from plain(layer, shape)


def plain(layer: keras.Layer, shape: tuple[int, ...]) -> Iterator[Layer]:
    """Translate one Keras layer: its weights, then its activation."""
    activation = getattr(layer, "activation", None)
    if isinstance(layer, PreActivation):
        layer, activation = layer.layer, None
    bend = bend_of(layer, activation)
    name = layer.name
    if bend != "linear" and not isinstance(bend, Bend):
        # What comes before a softmax or an unknown function can still be told.
        name = f"{layer.name} before {bend}"
    elif isinstance(bend, Bend):
        name = f"{layer.name} before relu"
    weighted = weights_of(layer, name, shape)
    if weighted is not None:
        yield weighted
    if isinstance(bend, Bend):
        yield Layer(layer.name, "relu", shape, slope=bend.slope)
    elif bend not in ("linear", "softmax"):
        raise unsupported(layer, f"not the activation {bend!r}")


def bend_of(layer: keras.Layer, activation) -> Bend | str:
    """Return the bend of a layer, or the name of what is none."""
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    if isinstance(layer, keras.layers.LeakyReLU):
        return Bend(layer.name, float(layer.negative_slope))
    if isinstance(layer, keras.layers.ReLU):
        if layer.max_value is not None or layer.threshold:
            return "relu with a threshold"
        return Bend(layer.name, float(layer.negative_slope))
    if activation is None or activation is keras.activations.linear:
        return "linear"
    if isinstance(activation, keras.Layer):
        return bend_of(activation, None)
    if activation is keras.activations.relu:
        return Bend(layer.name, 0.0)
    if activation is keras.activations.leaky_relu:
        return Bend(layer.name, 0.2)  # the function's default in Keras
    return getattr(activation, "__name__", str(activation))


def weights_of(layer: keras.Layer, name: str, shape: tuple) -> Layer | None:
    """Return the affine part of a layer; None for one that only bends."""
    if isinstance(layer, RESHAPING):
        return Layer(name, "reshape", shape)
    if isinstance(layer, keras.layers.AveragePooling2D):
        check_axes(layer)
        window = dict(window=tuple(layer.pool_size), padding=layer.padding)
        return Layer(name, "average", shape, strides=tuple(layer.strides), **window)
    if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)):
        kernel, *bias = layer.get_weights()
        if not all(np.isfinite(array).all() for array in (kernel, *bias)):
            raise unsupported(layer, "only weights that are finite numbers")
        bias = bias[0] if bias else np.zeros(shape[-1], "float32")
        if isinstance(layer, keras.layers.Dense):
            return Layer(name, "dense", shape, kernel, bias)
        check_axes(layer)
        if layer.groups != 1 or set(layer.dilation_rate) != {1}:
            raise unsupported(layer, "no groups and no dilation")
        window = dict(window=kernel.shape[:2], padding=layer.padding)
        strides = tuple(layer.strides)
        return Layer(
            name, "convolution", shape, kernel, bias, strides=strides, **window
        )
    bends = (keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU)
    if isinstance(layer, (*bends, keras.layers.Softmax)):
        return None
    raise unsupported(layer, f"only {KNOWN}")


def check_axes(layer: keras.Layer) -> None:
    if layer.data_format != "channels_last":
        raise unsupported(layer, "only channels in the last axis")


def unsupported(layer: keras.Layer, known: str) -> Unsupported:
    return Unsupported(
        f"Layer {layer.name!r} ({type(layer).__name__}) is beyond exact statements "
        f"here, which know {known}."
    )


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
