"""The forward network, and taps: the part of it whose output is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Integral

import keras
import numpy as np
from keras.src.models.functional import Functional  # which Keras does not export

# Activations, and the class of an operation or layer that is nothing else.
SQUASHING = {
    keras.activations.softmax: "Softmax",
    keras.activations.log_softmax: "LogSoftmax",
    keras.activations.sigmoid: "Sigmoid",
}
RECTIFYING = {keras.activations.relu: "Relu"}
KINDS = ("Conv1D", "Conv2D", "Conv3D")
KINDS += ("Dense", "EinsumDense", *(f"{name}Transpose" for name in KINDS))
ACTIVATED_LAYERS = tuple(getattr(keras.layers, name) for name in KINDS)  # at the end


def tap(model: keras.Model, layer: str | int) -> keras.Model:
    """Return the part of a network up to one of its layers.

    Parameters
    ----------
    model : keras.Model
        Sequential or functional, with one input. It is not changed.
    layer : str or int
        The name of a layer, also of one inside a nested model; or its index in
        ``model.layers``; or ``"logits"``: the values before the final softmax or
        sigmoid, also where that activation belongs to the last layer itself.

    Returns
    -------
    keras.Model
        From the same inputs to that layer's output. It shares the weights of
        ``model``, so it follows when ``model`` is trained further. A model whose
        last layer is linear already gives logits and is returned as it is.

    Raises
    ------
    ValueError
        If there is no such layer, if it has several outputs or is used several
        times, or if the model has several inputs, or does something else than its
        graph of layers: a ``call`` of its own, or another answer to a probe.
    """
    if not isinstance(layer, str | Integral) or isinstance(layer, bool):
        raise ValueError(f"tap needs a layer's name or index, got {layer!r:.80}")
    check_graph(model)
    if layer == "logits":
        try:
            return up_to_logits(model)
        except ValueError:
            if all(path[-1].name != layer for path in paths_in(model)):
                raise
    return follow(model, path_to(model, layer))


def check_graph(model: keras.Model) -> None:
    """Refuse a model in which there is nothing to tap, and say what to do."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"tap needs a Keras model, got {type(model).__name__}.")
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"The Sequential model {model.name!r} has not been built. Begin it with "
            "keras.Input(shape), or call model.build((None, *shape)), and tap it then."
        )
    if not runs_its_graph(model):
        what = "with a call of its own" if getattr(model, "inputs", 0) else "subclassed"
        raise ValueError(
            f"{type(model).__name__} {model.name!r} is a model {what}: Keras does not "
            "know which layer feeds which. Give invert a function that calls your "
            "layers, such as lambda x: model.hidden(x), or rebuild the network as "
            "keras.Model(inputs, outputs)."
        )
    check_one_input(model)


def runs_its_graph(model) -> bool:
    """Whether a model has a graph of layers and Keras's own call, which follows it."""
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        return False
    kind = type(model)
    own = kind.call in (keras.Sequential.call, Functional.call)
    return own and kind.__call__ is keras.Layer.__call__ and not replaced(model)


def replaced(layer: keras.Layer) -> bool:
    """Whether what computes was replaced on this one layer, not in its class."""
    return not {"call", "__call__", "quantized_call"}.isdisjoint(vars(layer))


def probes(model: keras.Model) -> np.ndarray:
    """Inputs on which to compare: in the usual range, and far beyond it."""
    shape = (2, *(size or 32 for size in model.inputs[0].shape[1:]))
    generator = np.random.default_rng(0)
    both = np.concatenate([generator.random(shape), 3 * generator.normal(size=shape)])
    return keras.ops.cast(both, model.inputs[0].dtype)


def check_probe(model: keras.Model, ours: Callable | None = None) -> None:
    """Run a model and what should do the same, its graph; refuse another answer."""
    given = model.inputs[0]
    if not keras.backend.is_float_dtype(given.dtype):
        return
    inputs = probes(model)
    ours = ours or keras.Model(model.inputs, model.outputs, name=model.name)
    try:
        theirs = [model(inputs, training=False) for _ in range(2)]
    except Exception:
        if None in given.shape[1:]:  # of any size, but perhaps not of that of ours
            return
        raise
    own, again, same = (
        np.asarray(keras.tree.flatten(values)[0], "float64")
        for values in (*theirs, ours(inputs, training=False))
    )
    close = {"rtol": 1e-3, "atol": 1e-6, "equal_nan": True}
    if np.allclose(own, again, **close) and not np.allclose(own, same, **close):
        raise ValueError(
            f"On a probe, model {model.name!r} and the graph of its layers differ by "
            f"{abs(own - same).max():.2g}: a tap would be a part of another network. "
            "Give invert a function that calls the layers up to your tap."
        )


def check_one_input(model: keras.Model) -> None:
    """Refuse a model with several inputs, and say how to fix all but one."""
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) > 1:
        names = ", ".join(repr(tensor.name) for tensor in inputs)
        raise ValueError(
            f"Model {model.name!r} has {len(inputs)} inputs ({names}), and an "
            "inversion searches for one. Fix the others: use a function such as "
            "lambda x: model([x, constant]) as the forward network."
        )


def only(tensors: list, owner: str = "The forward network", what: str = "outputs"):
    """Return the one tensor there is; refuse several, and say how to choose."""
    if len(tensors) != 1:
        raise ValueError(
            f"{owner} has {len(tensors)} {what}, and an inversion holds one. Choose it "
            "with tap(model, name of its layer), or join them in a function such as "
            "lambda x: tf.concat(model(x), axis=-1)."
        )
    return tensors[0]


def path_to(model: keras.Model, layer: str | int) -> list[keras.Layer]:
    """Find a layer: the nested models that lead to it, then the layer itself."""
    if not isinstance(layer, str) and -len(model.layers) <= layer < len(model.layers):
        return [model.layers[layer]]
    paths = [path for path in paths_in(model) if path[-1].name == layer]
    paths.sort(key=len)
    if not paths:
        known = "\n".join(described(model, path) for path in paths_in(model))
        raise ValueError(
            f"Model {model.name!r} has no layer {layer!r}. It has\n{known}"
        )
    if len(paths) > 1 and len(paths[0]) == len(paths[1]):
        holders = ", ".join(repr(path[-2].name) for path in paths)
        raise ValueError(
            f"Several nested models have a layer {layer!r}: {holders}. Tap by index, "
            "or give the layers different names."
        )
    return paths[0]


def paths_in(model: keras.Model) -> Iterator[list[keras.Layer]]:
    """Yield the path to every layer, nested models included."""
    for layer in model.layers:
        yield [layer]
        if isinstance(layer, keras.Model):
            yield from ([layer, *path] for path in paths_in(layer))


def described(model: keras.Model, path: list[keras.Layer]) -> str:
    """One line for the layer at the end of a path, those of nested models indented."""
    owner, layer = [model, *path][-2:]
    name = f"{layer.name!r} ({type(layer).__name__})"
    return f"{(4 * len(path) - 2) * ' '}{owner.layers.index(layer)}: {name}"


def follow(model: keras.Model, path: list[keras.Layer]) -> keras.Model:
    """Return the model up to the output of the layer at the end of a path."""
    check_graph(model)
    check_probe(model)
    layer, *rest = path
    calls = [call for call in calls_in(model) if call.operation is layer]
    if len(calls) != 1:
        raise ValueError(
            f"Layer {layer.name!r} is used {len(calls)} times in {model.name!r}: its "
            "output is not one tensor. Build keras.Model(model.inputs, tensor) instead."
        )
    if rest:
        return and_then(model, calls[0], follow(layer, rest))
    tensor = only(calls[0].output_tensors, f"Layer {layer.name!r}")
    return keras.Model(model.inputs[0], tensor, name=f"{model.name}_to_{layer.name}")


def up_to_logits(model: keras.Model) -> keras.Model:
    """Return the model up to the values before its final softmax or sigmoid."""
    check_graph(model)
    check_probe(model)
    only(model.outputs, f"Model {model.name!r}")
    last, *more = calls_in(model)
    layer, activation = last.operation, getattr(last.operation, "activation", None)
    if isinstance(layer, keras.Model):
        inner = up_to_logits(layer)
        return model if inner is layer else and_then(model, last, inner)
    own = type(layer).__module__.startswith("keras.") and not replaced(layer)
    if activation is keras.activations.linear and own:
        giver = more[0].operation if more else None
        if type(layer) is keras.layers.Activation and (
            isinstance(giver, keras.Model) or ends_in(giver, SQUASHING)
        ):  # as in mixed precision: it does nothing, to a softmax
            tensor = only(last.input_tensors)
            return up_to_logits(keras.Model(model.inputs[0], tensor, name=model.name))
        return model
    if ends_in(layer, SQUASHING):
        found = before_activation(model, last, "logits")
        if activation:
            check_probe(model, lambda x, **mode: activation(found(x, **mode)))
        return found
    shown = f" with activation {activation.__name__!r}" if activation else ""
    raise ValueError(
        f"Model {model.name!r} ends in {layer.name!r} ({type(layer).__name__}{shown}), "
        "not in a softmax, a sigmoid or a linear layer, so it has no logits. Use the "
        "model itself as the forward network, or tap one of its layers by name."
    )


def ends_in(layer, known: dict) -> bool:
    """Whether a layer or operation of Keras's own ends in one of some activations."""
    kind = type(layer)
    if kind in (*ACTIVATED_LAYERS, keras.layers.Activation):
        return layer.activation in known
    if not kind.__module__.startswith("keras.") or replaced(layer):
        return False
    if kind is keras.layers.ReLU:
        leaks = layer.negative_slope or layer.threshold or layer.max_value is not None
        return known is RECTIFYING and not leaks
    return kind.__name__ in known.values()


def before_activation(model: keras.Model, last, name: str) -> keras.Model:
    """Return a model up to what its last call computes before its activation."""
    layer = last.operation
    if type(layer) in ACTIVATED_LAYERS:
        head = PreActivation(layer, dtype=layer.compute_dtype, name=name)
        return and_then(model, last, head)
    tensor = only(last.input_tensors, f"Layer {layer.name!r}", "inputs")
    return keras.Model(model.inputs[0], tensor, name=f"{model.name}_to_{name}")


def before_relu(forward):
    """The part of a network before the ReLU it ends in, and whether it ends in one.

    Where a unit is off, its ReLU has no slope, and hides how far it is from being on.
    """
    if runs_its_graph(forward):
        last = calls_in(forward)[0]
        if ends_in(last.operation, RECTIFYING) and not replaced(last.operation):
            return before_activation(forward, last, "before_relu"), True
    return forward, False


def calls_in(model: keras.Model) -> list:
    """Return every call of a layer in a model's graph, from the outputs back."""
    calls, tensors = {}, list(model.outputs)
    for tensor in tensors:  # grows on the way
        layer, number, _ = tensor._keras_history
        call = layer._inbound_nodes[number]
        if id(call) not in calls:
            calls[id(call)] = call
            tensors.extend(call.input_tensors)
    return list(calls.values())


def and_then(model: keras.Model, call, head: keras.Layer) -> keras.Model:
    """Return the model up to the inputs of one call, with another head on it."""
    tensor = only(call.input_tensors, f"Layer {call.operation.name!r}", "inputs")
    given = model.inputs[0]
    # A fresh Input, because calling the head on the model's own tensor would leave
    # a trace in the model's graph.
    inputs = keras.Input(batch_shape=given.shape, dtype=given.dtype, name=given.name)
    values = inputs if tensor is given else keras.Model(given, tensor)(inputs)
    return keras.Model(inputs, head(values), name=f"{model.name}_to_{head.name}")


@keras.saving.register_keras_serializable(package="netinvert")
class PreActivation(keras.layers.Wrapper):
    """A layer without its activation, on the very same weights."""

    def call(self, inputs):
        """Compute what the layer computes before its activation."""
        return without_activation(self.layer, inputs)


def without_activation(layer: keras.Layer, inputs):
    """Compute what a layer computes before its activation, quantized or not."""
    # copy.copy would save and reload a Keras layer, which copies the weights.
    linear = object.__new__(type(layer))
    vars(linear).update(vars(layer))
    vars(linear)["activation"] = keras.activations.linear
    quantized = getattr(layer, "quantization_mode", None) is not None
    return linear.quantized_call(inputs) if quantized else linear.call(inputs)


def as_function(forward) -> Callable:
    """Turn a forward network into a function from a batch to one tensor (N, ...).

    Keras models run as after training. ValueError where that will not do: no callable,
    a model's ``predict``, several inputs or outputs.
    """
    if not callable(forward):
        raise ValueError(
            "The forward network must be a Keras model or a function from a batch "
            f"to a batch, got {type(forward).__name__}."
        )
    method = getattr(forward, "func", forward)  # of a functools.partial
    owner, name = (getattr(method, key, None) for key in ("__self__", "__name__"))
    if isinstance(owner, keras.Model) and str(name).startswith("predict"):
        raise ValueError(
            f"The forward network is {owner.name!r}.{name}, which answers in NumPy: no "
            f"gradient passes through it. Pass the model itself, without .{name}."
        )
    if isinstance(forward, keras.Model):
        check_one_input(forward)
        only(getattr(forward, "outputs", None) or [None])
    mode = {"training": False} if isinstance(forward, keras.Layer) else {}

    def function(batch):
        values = forward(batch, **mode)
        if isinstance(values, dict):
            values = list(values.values())
        return only(values) if isinstance(values, (list, tuple)) else values

    return function


def input_shape_of(forward) -> tuple[int, ...] | None:
    """Return the shape of one input, without batch, or None where it is not known.

    That is: of a function, a model neither built nor called, or one for any size.
    """
    if not isinstance(forward, keras.Model):
        return None
    check_one_input(forward)
    if getattr(forward, "inputs", None):
        shape = forward.inputs[0].shape
    else:  # what Keras noted when a subclassed model was built or first called
        shape = (forward.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, (tuple, list)) or not shape:
        return None
    return tuple(shape[1:]) if all(isinstance(n, int) for n in shape[1:]) else None


def find_output(function, shape) -> np.ndarray:
    """Outputs for one input of zeros, which shows their shape and type."""
    try:
        output = np.asarray(function(np.zeros((1, *shape), "float32")))
    except Exception as error:
        raise ValueError(
            f"the forward network cannot take a batch of inputs of shape {shape}: "
            f"{error}"
        ) from error
    floats = output.dtype.name in ("float16", "float32", "float64")
    if output.shape[:1] != (1,) or output.size == 0 or not floats:
        raise ValueError(
            "the forward network must map a batch to a batch of real numbers, such as "
            f"logits instead of a class; for 1 input it gave shape {output.shape} of "
            f'{output.dtype}. In mixed precision give the last layer dtype="float32"'
        )
    return output


def evaluate(function, inputs: np.ndarray, batch_size: int) -> np.ndarray:
    """Outputs of the network for an array of inputs, a chunk at a time."""
    starts = range(0, len(inputs), batch_size)
    parts = [np.asarray(function(inputs[i : i + batch_size])) for i in starts]
    return np.concatenate(parts)
