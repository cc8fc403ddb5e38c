"""A Keras model read as plain layers, and compared with them.

Only Keras's own classes and functions are read, with settings that are all understood.
And before anything is said about a model, it is run beside its plain layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
from scipy.special import softmax

from netinvert.certificates import Layer
from netinvert.fibers.layers import Bend, affine_steps
from netinvert.forward import (
    Functional,
    PreActivation,
    as_function,
    calls_in,
    check_graph,
    replaced,
    without_activation,
)

KNOWN = (
    "Dense, Conv2D, AveragePooling2D, Flatten, Reshape, Dropout, ReLU, LeakyReLU and a "
    "softmax at the end"
)
IDLE = (keras.layers.InputLayer, keras.layers.Dropout)  # change nothing here
RESHAPING = (keras.layers.Flatten, keras.layers.Reshape)
WEIGHTED = (keras.layers.Dense, keras.layers.Conv2D)
BENDING = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.Softmax)
BENDS = (*BENDING, keras.layers.Activation)
CLASSES = (*IDLE, *RESHAPING, *WEIGHTED, *BENDS, PreActivation)
CLASSES += (keras.layers.AveragePooling2D,)
MODELS = (keras.Sequential, Functional)
FLOATS = ("float32", "float64")
# Every setting of these layers is one that is read, or idle after training, or must be
# as it stands here. Whatever else Keras may add or switch on is refused.
READ = set(
    "units filters kernel_size strides padding pool_size activation use_bias "
    "target_shape negative_slope batch_shape dtype".split()
)
ASKED = {
    "data_format": "channels_last",
    "dilation_rate": (1, 1),
    "groups": 1,
    "max_value": None,
    "threshold": 0,
    "axis": -1,
    "quantization_config": None,
    "sparse": False,
    "ragged": False,
    "optional": False,
}
IDLE_SETTINGS = ("_initializer", "_regularizer", "_constraint")
IDLE_SETTINGS += ("name", "trainable", "rate", "seed", "noise_shape")
ROUNDINGS = 8  # of the size that values would have if nothing cancelled


class Step(NamedTuple):
    """A Keras layer, its plain layers, and the activation that these leave away."""

    layer: keras.Layer
    plain: list[Layer]
    rest: object = None


class Unsupported(ValueError):
    """A layer about which nothing exact can be said here."""


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
        Only Keras's own classes and functions are read, with settings that are all
        understood; then model and plain layers must agree on probe inputs.
    upto : str, optional
        The last layer wanted. What comes after may be of any kind.

    Returns
    -------
    list of Layer

    Raises
    ------
    ValueError
        If there is no such layer, if one before it is of another kind or has other
        settings, or if the model does something else than its plain layers.
    """
    if isinstance(model, keras.Model):
        return read(model, upto)
    return cut(listed(model), upto)


def read(
    model: keras.Model, upto: str | None = None, inputs: np.ndarray | None = None
) -> list[Layer]:
    """Translate a Keras model, and compare both on inputs (N, n), or on probes."""
    steps, found = [], []
    try:
        for step in steps_of(model):
            steps.append(step)
            found += step.plain
            if upto in [layer.name for layer in step.plain]:
                break
            if step.rest not in (None, keras.activations.softmax):
                name, home = step.rest.__name__, step.rest.__module__
                raise unsupported(step.layer, f"not the activation {name!r} of {home}")
    except Unsupported as error:
        if not found:
            raise
        raise Unsupported(
            f"{error} What comes before it, {[layer.name for layer in found]}, can "
            f"still be asked about: give layer={found[-1].name!r}, or instead of the "
            f"network layers_of(network, {found[-1].name!r})."
        ) from None
    found = cut(found, upto)
    if inputs is None:
        size, generator = math.prod(model.inputs[0].shape[1:]), np.random.default_rng(0)
        inputs = np.vstack(
            [generator.random((4, size)), 3 * generator.normal(size=(4, size))]
        )
    confront(model, steps, found, inputs, whole=upto is None)
    return found


def cut(layers: Sequence[Layer], upto: str | None) -> list[Layer]:
    """Return the layers up to one of them; refuse a name that two of them have."""
    names = [layer.name for layer in layers]
    if upto not in (names if upto is not None or not names else [None]):
        shown = ", ".join(map(repr, names))
        raise ValueError(f"No layer is called {upto!r}. There are {shown}.")
    end = len(names) if upto is None else names.index(upto) + 1
    twice = next((one for one in names[:end] if names[:end].count(one) > 1), None)
    if twice is not None:
        raise ValueError(
            f"Two layers are called {twice!r}, so that no statement could name one of "
            "them. Give them different names."
        )
    return list(layers[:end])


def first_affine(model: keras.Model | Sequence[Layer]) -> str:
    """Return the name of the first layer with weights, before its activation."""
    steps = steps_of(model) if isinstance(model, keras.Model) else [(0, listed(model))]
    for _, layers, *_ in steps:
        for layer in layers:
            if layer.kind in ("dense", "convolution"):
                return layer.name
    raise ValueError("The network has no layer with weights.")


def listed(layers) -> Sequence[Layer]:
    if isinstance(layers, Sequence) and all(isinstance(one, Layer) for one in layers):
        return layers
    raise ValueError(
        "exact statements need a Keras model or a list of certificates.Layer, got "
        f"{type(layers).__name__}"
    )


def steps_of(model: keras.Model) -> Iterator[Step]:
    """Translate a Keras model layer by layer, and stop at what has no translation."""
    check_graph(model)
    if type(model) not in MODELS:
        raise unsupported(
            model, "Sequential and functional models of Keras's own class"
        )
    calls = calls_in(model)
    before, ended = None, None
    for call in reversed(calls):
        check_call(call, before, calls, model)
        (before,) = call.outputs
        layer, shape = call.operation, tuple(before.shape[1:])
        check_settings(layer)
        if isinstance(layer, keras.Model):
            inner = steps_of(layer)
        elif type(layer) in IDLE:
            continue
        else:
            inner = [plain(layer, tuple(call.input_tensors[0].shape[1:]), shape)]
        for step in inner:
            if ended is not None:
                raise unsupported(ended, "a softmax only as the very last step")
            yield step
            if step.rest is keras.activations.softmax:
                ended = step.layer


def check_call(call, before, calls: list, model: keras.Model) -> None:
    """Refuse a call that is no link of one chain from the input to the output."""
    layer, given = call.operation, call.input_tensors
    (shape, *more), last = [t.shape[1:] for t in call.outputs], call is calls[0]
    if before is None:
        linked = call.outputs[0] is model.inputs[0]
    else:
        uses = sum(t is before for one in calls for t in one.input_tensors)
        linked = len(given) == uses == 1 and given[0] is before
        if uses > 1:  # then name where the branches meet
            joins = (one.operation for one in calls if len(one.input_tensors) > 1)
            layer = next(joins, layer)
    ends = call.outputs[0] is model.outputs[0]
    if not linked or more or ends != last or len(model.outputs) > 1 or None in shape:
        raise unsupported(layer, "only layers of known shape, one after the other")
    for name, value in call.arguments.kwargs.items():
        if value is not None and value is not False and value is not given[0]:
            raise unsupported(layer, f"no call with {name}={value!r}")


def check_settings(layer: keras.Layer) -> None:
    """Refuse another class than Keras's own, and any setting that is not read here."""
    if type(layer) not in (*CLASSES, *MODELS):
        raise unsupported(layer, f"only {KNOWN}, each of Keras's own class")
    if replaced(layer):
        raise unsupported(layer, "no layer whose call was replaced")
    policy = layer.dtype_policy
    types = {
        policy.compute_dtype,
        policy.variable_dtype,
        *(w.dtype for w in layer.weights),
    }
    types = {layer.dtype} if type(layer) is keras.layers.InputLayer else types
    plainly = type(policy) is keras.DTypePolicy and layer.quantization_mode is None
    if not plainly or len(types) > 1 or not types <= set(FLOATS):
        raise unsupported(layer, f"float32 or float64 throughout, not {policy.name!r}")
    if isinstance(layer, (keras.Model, PreActivation)):
        return
    for key, value in layer.get_config().items():
        wanted = ASKED.get(key, value)
        read = key in READ or key in ASKED or key.endswith(IDLE_SETTINGS)
        if not read or wanted != value:
            raise unsupported(layer, f"no setting {key}={value!r:.60}")
    own = [getattr(layer, name, None) for name in ("kernel", "bias")]
    own = [weight for weight in own if weight is not None]
    if [id(w) for w in own] != [id(w) for w in layer.weights]:
        names = [weight.name for weight in layer.weights]
        raise unsupported(layer, f"no other weights than kernel and bias, not {names}")


def plain(layer: keras.Layer, given: tuple, shape: tuple) -> Step:
    """Translate one Keras layer: its weights, then its activation."""
    own, activation = layer, getattr(layer, "activation", None)
    if type(layer) is PreActivation:
        layer, activation = layer.layer, None
        check_settings(layer)
    bend = bend_of(layer, layer if type(layer) in BENDING else activation)
    name, rest = layer.name, None
    if isinstance(bend, Bend):
        name = f"{layer.name} before relu"
    elif bend is not None:  # what comes before it can still be told
        name, rest = f"{layer.name} before {title(bend)}", bend
    found = [] if type(layer) in BENDS else [weights_of(layer, name, given, shape)]
    if isinstance(bend, Bend):
        found.append(Layer(layer.name, "relu", shape, slope=bend.slope))
    return Step(own, found, rest)


def bend_of(layer: keras.Layer, activation) -> Bend | object:
    """Return the bend of a layer, None where it has none, or another activation."""
    if isinstance(activation, keras.Layer):
        check_settings(activation)
        if type(activation) is keras.layers.Softmax:
            return keras.activations.softmax
        if type(activation) in BENDING:
            return Bend(layer.name, float(activation.negative_slope))
    slopes = {keras.activations.relu: 0.0, keras.activations.leaky_relu: 0.2}
    if activation in (None, keras.activations.linear):
        return None
    for known, slope in slopes.items():  # 0.2 is the function's default in Keras
        if activation is known:
            return Bend(layer.name, slope)
    return activation


def title(function) -> str:
    return getattr(function, "__name__", type(function).__name__)


def weights_of(layer: keras.Layer, name: str, given: tuple, shape: tuple) -> Layer:
    """Return the affine part of a layer."""
    if type(layer) in RESHAPING:
        return Layer(name, "reshape", shape)
    kind, settings = "average", {}
    if type(layer) in WEIGHTED:
        kernel, *bias = layer.get_weights()
        if not all(np.isfinite(array).all() for array in (kernel, *bias)):
            raise unsupported(layer, "only weights that are finite numbers")
        bias = bias[0] if bias else np.zeros(shape[-1], "float32")
        if type(layer) is keras.layers.Dense:
            if len(given) != 1:
                raise unsupported(layer, "Dense on vectors only: flatten first")
            return Layer(name, "dense", shape, kernel, bias)
        kind, settings = "convolution", {"kernel": kernel, "bias": bias}
    window = layer.kernel_size if kind == "convolution" else layer.pool_size
    settings |= {"window": tuple(window), "strides": tuple(layer.strides)}
    return Layer(name, kind, shape, padding=layer.padding, **settings)


def confront(
    model: keras.Model, steps: list[Step], layers: list[Layer], inputs, whole: bool
) -> None:
    """Run a model and its plain layers on inputs (N, n); refuse where they part."""
    shape, kind = tuple(model.inputs[0].shape[1:]), model.inputs[0].dtype
    own = start = keras.ops.cast(np.reshape(inputs, (-1, *shape)), kind)
    exact = np.reshape(start, (len(own), -1)).astype("float64")
    size, kept = abs(exact), {layer.name for layer in layers}
    kinds = {kind, *(step.layer.compute_dtype for step in steps)}
    if any(np.float32(layer.slope) != layer.slope for layer in layers):
        kinds.add("float32")  # as which TensorFlow holds a slope, whatever the policy
    eps = ROUNDINGS * np.finfo("float32" if "float32" in kinds else "float64").eps
    for step in steps:
        mine = [layer for layer in step.plain if layer.name in kept]
        if not mine:
            break
        if step.rest is not None or len(mine) < len(step.plain):
            own = keras.ops.cast(own, step.layer.compute_dtype)
            own = without_activation(step.layer, own)
        else:
            own = step.layer(own, training=False)
        exact, size = advance(affine_steps(mine, shape), exact, size)
        shape = tuple(mine[-1].shape)
        part(step.layer, own, exact, eps * size)
    if whole:
        if steps[-1].rest is not None:
            exact, size = (a.reshape(-1, shape[-1]) for a in (exact, size))
            exact, size = softmax(exact, axis=1), 1 + size.max(axis=1, keepdims=True)
        part(model, as_function(model)(start), exact, eps * size)


def advance(pieces, values: np.ndarray, size: np.ndarray) -> tuple:
    """Take values through affine maps and bends, and their size if nothing cancels."""
    for piece in pieces:
        if isinstance(piece, Bend):
            values = np.where(values > 0, values, piece.slope * values)
            size = size * max(1.0, abs(piece.slope))
        else:
            values = (values @ piece.matrix + piece.bias) / piece.divisor
            size = (size @ abs(piece.matrix) + abs(piece.bias)) / piece.divisor
    return values, size


def part(layer: keras.Layer, own, mine: np.ndarray, allowed: np.ndarray) -> None:
    """Refuse a layer or model whose own values are not those of its plain layers."""
    gaps = abs(np.reshape(np.asarray(own, "float64"), mine.shape) - mine)
    if not (gaps <= allowed).all():
        raise Unsupported(
            f"{type(layer).__name__} {layer.name!r} gives other values than the plain "
            f"layers that were read: they part by {np.max(gaps):.2g}, where rounding "
            f"explains {np.max(allowed):.2g}. So nothing exact can be said about it"
            " or what comes after it."
        )


def unsupported(layer: keras.Layer, known: str) -> Unsupported:
    return Unsupported(
        f"Layer {layer.name!r} ({type(layer).__name__}) is beyond exact statements "
        f"here, which know {known}."
    )
