"""The forward network, and taps: the part of it whose output is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Integral

import keras
import numpy as np
from keras.src.models.functional import Functional  # which Keras does not export

SQUASHING = {
    keras.activations.softmax,
    keras.activations.log_softmax,
    keras.activations.sigmoid,
}
SQUASHING_OPERATIONS = {"Softmax", "LogSoftmax", "Sigmoid"}  # layers and keras.ops
ACTIVATED_LAYERS = (  # layers that apply their activation last
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)


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
        times, or if the model has several inputs, no known graph of layers, or does
        something else than its graph: a ``call`` of its own, or another answer to a
        probe.
    """
    check_graph(model)
    if not isinstance(layer, str | Integral) or isinstance(layer, bool):
        raise ValueError(f"tap needs a layer's name or index, got {layer!r:.80}")
    check_probe(model)
    if layer == "logits":
        try:
            return up_to_logits(model)
        except ValueError:
            if not any(paths_named(model, layer)):
                raise
    return follow(model, path_to(model, layer))


def check_graph(model: keras.Model) -> None:
    """Refuse a model in which there is nothing to tap, and say what to do."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"tap needs a Keras model, got {type(model).__name__}.")
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"The Sequential model {model.name!r} has not been built, so its layers "
            "have no shapes yet. Begin it with keras.Input(shape), or call "
            "model.build((None, *shape)), and tap it then."
        )
    graphless = not getattr(model, "inputs", None)
    if graphless or not runs_its_graph(model):
        why = "subclassed model" if graphless else "model with a call of its own"
        raise ValueError(
            f"{type(model).__name__} {model.name!r} is a {why}: Keras "
            "does not know which layer feeds which. Give invert a function that "
            "calls the layers up to your tap, such as lambda x: model.hidden(x), "
            "or rebuild the network as keras.Model(inputs, outputs)."
        )
    check_one_input(model)


def runs_its_graph(model: keras.Model) -> bool:
    """Whether a model's call is Keras's own, which follows the graph of layers."""
    kind = type(model)
    own = kind.call in (keras.Sequential.call, Functional.call)
    return own and kind.__call__ is keras.Layer.__call__ and not replaced(model)


def replaced(layer: keras.Layer) -> bool:
    """Whether what computes was replaced on this one layer, not in its class."""
    return not {"call", "__call__", "quantized_call"}.isdisjoint(vars(layer))


def check_probe(model: keras.Model, ours: Callable | None = None) -> None:
    """Run a model and what should do the same, its graph; refuse another answer."""
    given = model.inputs[0]
    if not keras.backend.is_float_dtype(given.dtype):
        return
    probe = np.random.default_rng(0).random((2, *(n or 32 for n in given.shape[1:])))
    probe = keras.ops.cast(probe, given.dtype)
    ours = ours or keras.Model(model.inputs, model.outputs, name=model.name)
    try:
        theirs = [model(probe, training=False) for _ in range(2)]
    except Exception:
        if None in given.shape[1:]:  # of any size, but perhaps not of that of ours
            return
        raise
    (own, again, same) = (
        np.asarray(keras.tree.flatten(values)[0], "float64")
        for values in (*theirs, ours(probe, training=False))
    )
    close = {"rtol": 1e-3, "atol": 1e-6, "equal_nan": True}
    if np.allclose(own, again, **close) and not np.allclose(own, same, **close):
        raise ValueError(
            f"On a probe, model {model.name!r} and the graph of its layers differ by "
            f"{abs(own - same).max():.2g}: it does something else than its layers, so "
            "a tap would be a part of another network. Give invert a function that "
            "calls the layers up to your tap."
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


def path_to(model: keras.Model, layer: str | int) -> list[keras.Layer]:
    """Find a layer: the nested models that lead to it, then the layer itself."""
    if isinstance(layer, Integral):
        if -len(model.layers) <= layer < len(model.layers):
            return [model.layers[layer]]
        paths = []
    else:
        paths = sorted(paths_named(model, layer), key=len)
    if not paths:
        names = "\n".join(described_layers(model))
        raise ValueError(
            f"Model {model.name!r} has no layer {layer!r}. It has\n{names}"
        )
    if len(paths) > 1 and len(paths[0]) == len(paths[1]):
        holders = ", ".join(repr(path[-2].name) for path in paths)
        raise ValueError(
            f"Several nested models have a layer {layer!r}: {holders}. Tap by index, "
            "or give the layers different names."
        )
    return paths[0]


def paths_named(model: keras.Model, name: str) -> Iterator[list[keras.Layer]]:
    """Yield the path to every layer of that name, nested models included."""
    for layer in model.layers:
        if layer.name == name:
            yield [layer]
        if isinstance(layer, keras.Model):
            for path in paths_named(layer, name):
                yield [layer, *path]


def described_layers(model: keras.Model, indent: str = "  ") -> Iterator[str]:
    """Yield one line for each layer, nested models indented."""
    for index, layer in enumerate(model.layers):
        yield f"{indent}{index}: {layer.name!r} ({type(layer).__name__})"
        if isinstance(layer, keras.Model):
            yield from described_layers(layer, indent + "    ")


def follow(model: keras.Model, path: list[keras.Layer]) -> keras.Model:
    """Return the model up to the output of the layer at the end of a path."""
    layer, *rest = path
    calls = [call for call in calls_in(model) if call.operation is layer]
    if len(calls) != 1:
        raise ValueError(
            f"Layer {layer.name!r} is used {len(calls)} times on the way from inputs "
            f"to outputs of model {model.name!r}, so its output is not one tensor. "
            "Build keras.Model(model.inputs, tensor) for the tensor that you mean."
        )
    if rest:
        check_graph(layer)
        check_probe(layer)
        return and_then(model, calls[0], follow(layer, rest))
    tensor = only(calls[0].output_tensors, f"Layer {layer.name!r}", "outputs")
    return keras.Model(model.inputs[0], tensor, name=f"{model.name}_to_{layer.name}")


def up_to_logits(model: keras.Model) -> keras.Model:
    """Return the model up to the values before its final softmax or sigmoid."""
    only(model.outputs, f"Model {model.name!r}", "outputs")
    last = calls_in(model)[0]
    layer = last.operation
    activation = getattr(layer, "activation", None)
    if isinstance(layer, keras.Model):
        check_graph(layer)
        check_probe(layer)
        inner = up_to_logits(layer)
        return model if inner is layer else and_then(model, last, inner)
    if activation is keras.activations.linear:
        return model
    if type(layer) in ACTIVATED_LAYERS and activation in SQUASHING:
        head = PreActivation(layer, dtype=layer.compute_dtype, name="logits")
        found = and_then(model, last, head)
        check_probe(model, lambda x, training: activation(found(x, training=training)))
        return found
    if squashes(layer):
        tensor = only(last.input_tensors, f"Layer {layer.name!r}", "inputs")
        return keras.Model(model.inputs[0], tensor, name=f"{model.name}_to_logits")
    shown = f" with activation {activation.__name__!r}" if activation else ""
    raise ValueError(
        f"Model {model.name!r} ends in {layer.name!r} ({type(layer).__name__}{shown}), "
        "not in a softmax, a sigmoid or a linear layer, so it has no logits. Use the "
        "model itself as the forward network, or tap one of its layers by name."
    )


def squashes(layer) -> bool:
    """Whether a layer or operation of Keras's own is a softmax or sigmoid alone."""
    if not type(layer).__module__.startswith("keras.") or replaced(layer):
        return False
    if type(layer) is keras.layers.Activation:
        return layer.activation in SQUASHING
    return type(layer).__name__ in SQUASHING_OPERATIONS


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


def only(tensors: list, owner: str, what: str):
    """Return the one tensor there is; refuse several."""
    if len(tensors) == 1:
        return tensors[0]
    names = ", ".join(tensor.name for tensor in tensors)
    raise ValueError(
        f"{owner} has {len(tensors)} {what} ({names}), and a tap holds one. Choose "
        "with tap(model, name of a layer), or build keras.Model(model.inputs, tensor)."
    )


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


def before_relu(forward):
    """The part of a network before the ReLU it ends in, and whether it ends in one.

    Where a unit is off, its ReLU has no slope, and hides how far the unit is from
    being on.
    """
    graph = isinstance(forward, keras.Model) and getattr(forward, "inputs", None)
    if not graph or not runs_its_graph(forward):
        return forward, False
    last = calls_in(forward)[0]
    layer, rectifies = last.operation, plain_relu(last.operation)
    if rectifies and type(layer) in ACTIVATED_LAYERS:
        head = PreActivation(layer, dtype=layer.compute_dtype, name="before_relu")
        return and_then(forward, last, head), True
    if rectifies:
        return keras.Model(forward.inputs[0], last.input_tensors[0]), True
    return forward, False


def plain_relu(layer) -> bool:
    """Whether a layer of Keras's own ends in a ReLU that does not leak or saturate."""
    if replaced(layer):
        return False
    if type(layer) is keras.layers.ReLU:
        leaks = layer.negative_slope or layer.threshold
        return not leaks and layer.max_value is None
    known = (*ACTIVATED_LAYERS, keras.layers.Activation)
    return type(layer) in known and layer.activation is keras.activations.relu


def as_function(forward) -> Callable:
    """Turn a forward network into a function from a batch to one tensor (N, ...).

    Keras models run as they do after training. A ValueError says why what cannot be
    called, is a model's ``predict``, or has several inputs or outputs, will not do.
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
        check_one_output(getattr(forward, "outputs", None) or [None])

    def function(batch):
        if isinstance(forward, keras.Layer):
            values = forward(batch, training=False)
        else:
            values = forward(batch)
        if isinstance(values, (list, tuple, dict)):
            check_one_output(list(values))
            (values,) = values.values() if isinstance(values, dict) else values
        return values

    return function


def check_one_output(outputs: list) -> None:
    """Refuse a forward network with several outputs, and say how to choose."""
    if len(outputs) != 1:
        raise ValueError(
            f"The forward network has {len(outputs)} outputs, and an inversion holds "
            "one. Choose it with tap(model, name of its layer), or join them in a "
            "function such as lambda x: tf.concat(model(x), axis=-1)."
        )


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
    if not isinstance(shape, (tuple, list)) or not shape or None in shape[1:]:
        return None
    known = all(isinstance(n, int) for n in shape[1:])
    return tuple(shape[1:]) if known else None
