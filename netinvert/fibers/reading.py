"""A Keras model read as plain layers, and compared with them.

Only Keras's own classes and functions are read, with settings that are all understood.
And before anything is said about a model, it is run beside its plain layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import NamedTuple

import keras
import numpy as np
from keras.activations import leaky_relu, linear, relu, softmax
from scipy import special

from netinvert import forward
from netinvert.certificates import Layer
from netinvert.fibers.layers import Bend, affine_steps
from netinvert.forward import PreActivation

KNOWN = (
    "Dense, Conv2D, AveragePooling2D, Flatten, Reshape, Dropout, ReLU, LeakyReLU and a "
    "softmax at the end"
)
IDLE = (keras.layers.InputLayer, keras.layers.Dropout)  # change nothing here
RESHAPING = (keras.layers.Flatten, keras.layers.Reshape)
BENDING = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.Softmax)
BENDS = (*BENDING, keras.layers.Activation)
AFFINE = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.AveragePooling2D)
CLASSES = (*IDLE, *RESHAPING, *AFFINE, *BENDS, PreActivation)
MODELS = (keras.Sequential, forward.Functional)
SLOPES = {relu: 0.0, leaky_relu: 0.2}  # the default of Keras's function
# Every setting of these layers is one that is read, or idle after training, or must be
# as it stands here. Whatever else Keras may add or switch on is refused.
READ = set(
    "units filters kernel_size strides padding pool_size activation use_bias "
    "target_shape negative_slope batch_shape dtype".split()
)
IDLE_SETTINGS = ("_initializer", "_regularizer", "_constraint")
IDLE_SETTINGS += ("name", "trainable", "rate", "seed", "noise_shape")
ASKED = {"data_format": "channels_last", "dilation_rate": (1, 1), "groups": 1}
ASKED |= {"max_value": None, "threshold": 0, "axis": -1, "quantization_config": None}
ASKED |= dict.fromkeys(("sparse", "ragged", "optional"), False)
ROUNDINGS = 8  # of the size that values would have if nothing cancelled


Network = keras.Model | Sequence[Layer]


class Step(NamedTuple):
    """A Keras layer, its plain layers, and the activation that these leave away."""

    layer: keras.Layer
    plain: list[Layer]
    rest: object = None


class Unsupported(ValueError):
    """A layer about which nothing exact can be said here, and what is known."""

    def __init__(self, layer: keras.Layer, known: str):
        super().__init__(
            f"Layer {layer.name!r} ({type(layer).__name__}) is beyond exact statements "
            f"here, which know {known}."
        )


def layers_of(model: Network, upto: str | None = None) -> list[Layer]:
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

    Raises
    ------
    ValueError
        If there is no such layer, if one before it is not of Keras's own class or has
        other settings, or if the model does something else than its plain layers.
    """
    if isinstance(model, keras.Model):
        return read(model, upto)
    return cut(listed(model), upto)


def read(model: keras.Model, upto: str | None = None, inputs=None) -> list[Layer]:
    """Translate a Keras model, and compare both on inputs (N, n), or on probes."""
    steps, found = [], []
    try:
        for step in steps_of(model):
            steps.append(step)
            found += step.plain
            if upto in [layer.name for layer in step.plain]:
                break
            if step.rest not in (None, softmax):
                name, home = step.rest.__name__, step.rest.__module__
                raise Unsupported(step.layer, f"not the activation {name!r} of {home}")
    except Unsupported as error:
        if not found:
            raise
        raise ValueError(
            f"{error} What comes before it, {[layer.name for layer in found]}, can "
            f"still be asked about: give layer={found[-1].name!r}, or instead of the "
            f"network layers_of(network, {found[-1].name!r})."
        ) from None
    found = cut(found, upto)
    inputs = forward.probes(model) if inputs is None else inputs
    confront(model, steps, found, inputs, whole=upto is None)
    return found


def cut(layers: Sequence[Layer], upto: str | None) -> list[Layer]:
    """Return the layers up to one of them; refuse a name that two of them have."""
    names = [layer.name for layer in layers]
    if not names or upto not in (None, *names):
        shown = ", ".join(map(repr, names))
        raise ValueError(f"No layer is called {upto!r}. There are {shown}.")
    names = names if upto is None else names[: names.index(upto) + 1]
    if len(set(names)) < len(names):
        raise ValueError(
            f"Two layers have the same name, among {names}, so that no statement could "
            "name one of them. Give them different names."
        )
    return list(layers[: len(names)])


def first_affine(model: Network) -> str:
    """Return the name of the first layer with weights, before its activation."""
    plain = listed(model)
    if isinstance(model, keras.Model):
        plain = (layer for step in steps_of(model) for layer in step.plain)
    for layer in plain:
        if layer.kernel is not None:
            return layer.name
    raise ValueError("The network has no layer with weights.")


def listed(layers) -> Sequence[Layer]:
    known = isinstance(layers, Sequence) and all(type(one) is Layer for one in layers)
    if not isinstance(layers, keras.Model) and not (known and layers):
        raise ValueError(
            "exact statements need a Keras model or a list of certificates.Layer, got "
            f"{type(layers).__name__}"
        )
    return layers


def steps_of(model: keras.Model) -> Iterator[Step]:
    """Translate a Keras model layer by layer, and stop at what has no translation."""
    forward.check_graph(model)
    if type(model) not in MODELS:
        raise Unsupported(model, "models of Keras's own class only")
    calls, before, ended = forward.calls_in(model), None, None
    for call in reversed(calls):
        check_call(call, before, calls, model)
        (before,) = call.outputs
        layer = call.operation
        check_settings(layer)
        if type(layer) in IDLE:
            continue
        if isinstance(layer, keras.Model):
            inner = steps_of(layer)
        else:
            shapes = [tuple(t.shape[1:]) for t in (call.input_tensors[0], before)]
            inner = [plain(layer, *shapes)]
        for step in inner:
            if ended is not None:
                raise Unsupported(ended, "a softmax only as the very last step")
            yield step
            if step.rest is softmax:
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
        raise Unsupported(layer, "only layers of known shape, one after the other")
    for name, value in call.arguments.kwargs.items():
        if value is not None and value is not False and value is not given[0]:
            raise Unsupported(layer, f"no call with {name}={value!r}")


def check_settings(layer: keras.Layer) -> None:
    """Refuse another class than Keras's own, and any setting that is not read here."""
    if type(layer) not in (*CLASSES, *MODELS):
        raise Unsupported(layer, f"only {KNOWN}, each of Keras's own class")
    if forward.replaced(layer):
        raise Unsupported(layer, "no layer whose call was replaced")
    policy, types = layer.dtype_policy, {layer.dtype}
    if type(layer) is not keras.layers.InputLayer:
        types = {policy.compute_dtype, *(weight.dtype for weight in layer.weights)}
        types.add(policy.variable_dtype)
    plainly = type(policy) is keras.DTypePolicy and layer.quantization_mode is None
    if not plainly or len(types) > 1 or not types <= {"float32", "float64"}:
        raise Unsupported(layer, f"float32 or float64 throughout, not {policy.name!r}")
    if isinstance(layer, (keras.Model, PreActivation)):
        return
    activation = getattr(layer, "activation", linear)
    if not isinstance(activation, (FunctionType, *BENDING)):
        raise Unsupported(layer, f"no activation {activation!r:.60}")
    for key, value in layer.get_config().items():
        wanted = ASKED.get(key, value)
        read = key in READ or key in ASKED or key.endswith(IDLE_SETTINGS)
        if not read or wanted != value:
            raise Unsupported(layer, f"no setting {key}={value!r:.60}")
    own = [getattr(layer, name, None) for name in ("kernel", "bias")]
    if [id(w) for w in own if w is not None] != [id(w) for w in layer.weights]:
        names = [weight.name for weight in layer.weights]
        raise Unsupported(layer, f"no other weights than kernel and bias, not {names}")


def plain(layer: keras.Layer, given: tuple, shape: tuple) -> Step:
    """Translate one Keras layer: its weights, then its activation."""
    own, activation = layer, getattr(layer, "activation", None)
    if type(layer) is PreActivation:
        layer, activation = layer.layer, None
        check_settings(layer)
    slope, rest = bend_of(layer if type(layer) in BENDING else activation)
    name, found = layer.name, []
    if slope is not None:
        name += " before relu"
    elif rest is not None:  # what comes before it can still be told
        name += f" before {getattr(rest, '__name__', type(rest).__name__)}"
    if type(layer) not in BENDS:
        found.append(weights_of(layer, name, given, shape))
    if slope is not None:
        found.append(Layer(layer.name, "relu", shape, slope=slope))
    return Step(own, found, rest)


def bend_of(activation) -> tuple[float | None, object]:
    """Return the slope of a ReLU, or what else an activation is; None if linear."""
    if isinstance(activation, keras.Layer):
        check_settings(activation)
        if type(activation) is keras.layers.Softmax:
            return None, softmax
        if type(activation) in BENDING:
            return float(activation.negative_slope), None
    for known, slope in SLOPES.items():
        if activation is known:
            return slope, None
    return None, None if activation is linear else activation


def weights_of(layer: keras.Layer, name: str, given: tuple, shape: tuple) -> Layer:
    """Return the affine part of a layer."""
    if type(layer) in RESHAPING:
        return Layer(name, "reshape", shape)
    size, settings = getattr(layer, "pool_size", None), {}
    if size is None:
        kernel, bias = (*layer.get_weights(), np.zeros(shape[-1], "float32"))[:2]
        settings = {"kernel": kernel, "bias": bias}
        if not all(np.isfinite(array).all() for array in (kernel, bias)):
            raise Unsupported(layer, "only weights that are finite numbers")
    if type(layer) is keras.layers.Dense:
        if len(given) != 1:
            raise Unsupported(layer, "Dense on vectors only: flatten first")
        return Layer(name, "dense", shape, **settings)
    settings["window"] = tuple(size or layer.kernel_size)
    settings |= {"strides": tuple(layer.strides), "padding": layer.padding}
    return Layer(name, "average" if size else "convolution", shape, **settings)


def confront(model, steps: list[Step], layers: list[Layer], inputs, whole) -> None:
    """Run a model and its plain layers on inputs (N, n); refuse where they part."""
    shape, kind = tuple(model.inputs[0].shape[1:]), model.inputs[0].dtype
    own = start = keras.ops.cast(np.reshape(inputs, (-1, *shape)), kind)
    kept = {layer.name for layer in layers}
    kinds = {kind, *(step.layer.compute_dtype for step in steps)}
    if any(float(np.float32(layer.slope)) != layer.slope for layer in layers):
        kinds.add("float32")  # as which TensorFlow holds a slope, whatever the policy
    eps = ROUNDINGS * np.finfo("float32" if "float32" in kinds else "float64").eps
    for step in steps:
        mine = [layer for layer in step.plain if layer.name in kept]
        if not mine:
            break
        # From what the model gave so far: rounding would add up, and hide a layer.
        exact = np.reshape(own, (len(own), -1)).astype("float64")
        size = abs(exact)
        if step.rest is not None or len(mine) < len(step.plain):
            own = keras.ops.cast(own, step.layer.compute_dtype)
            own = forward.without_activation(step.layer, own)
        else:
            own = step.layer(own, training=False)
        for piece in affine_steps(mine, shape):
            exact = piece(exact)
            if isinstance(piece, Bend):
                size = size * max(1.0, abs(piece.slope))
            else:
                size = (size @ abs(piece.matrix) + abs(piece.bias)) / piece.divisor
        shape = tuple(mine[-1].shape)
        part(step.layer, own, exact, eps * size)
    if whole:
        if steps[-1].rest is not None:
            exact, size = (a.reshape(-1, shape[-1]) for a in (exact, size))
            exact = special.softmax(exact, axis=1)
            size = 1 + size.max(axis=1, keepdims=True)
        part(model, forward.as_function(model)(start), exact, eps * size)


def part(layer: keras.Layer, own, mine: np.ndarray, allowed: np.ndarray) -> None:
    """Refuse a layer or model whose own values are not those of its plain layers."""
    gaps = abs(np.reshape(np.asarray(own, "float64"), mine.shape) - mine)
    if not (gaps <= allowed).all():
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r} gives other values than the plain "
            f"layers that were read: they part by {np.max(gaps):.2g}, where rounding "
            f"explains {np.max(allowed):.2g}. Nothing exact can be said from there on."
        )
