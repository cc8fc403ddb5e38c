"""Forward networks: the book's own, the reader's own, and taps into them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import keras

from netinvert.data import read_asset

IMAGE_SHAPE = (28, 28, 1)


def mlp() -> keras.Model:
    """Build the book's first network: 784-128-64-10, ReLU, softmax, untrained."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE),
            layers.Flatten(name="flatten"),
            layers.Dense(128, activation="relu", name="hidden_1"),
            layers.Dense(64, activation="relu", name="hidden_2"),
            layers.Dense(10, name="logits"),
            layers.Softmax(name="softmax"),
        ],
        name="mlp",
    )


def cnn() -> keras.Model:
    """Build a small convolutional network with two strides of 2, untrained."""
    layers = keras.layers
    settings = {"strides": 2, "padding": "same", "activation": "relu"}
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE),
            layers.Conv2D(8, 3, name="conv_1", **settings),
            layers.Conv2D(16, 3, name="conv_2", **settings),
            layers.Flatten(name="flatten"),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dense(10, name="logits"),
            layers.Softmax(name="softmax"),
        ],
        name="cnn",
    )


def evaluator() -> keras.Model:
    """Build the independent judge of reconstructions, untrained.

    Its three convolutions pool where the networks under study stride or flatten.
    It has no batch normalisation: with it, the judge is as accurate on digits,
    but misreads every blurred 4, and reconstructions are often blurred.
    """
    layers = keras.layers
    inputs = values = keras.Input(IMAGE_SHAPE)
    for block, filters in enumerate((8, 32, 64), start=1):
        values = layers.Conv2D(
            filters, 3, padding="same", activation="relu", name=f"conv_{block}"
        )(values)
        values = layers.MaxPooling2D(name=f"pool_{block}")(values)
    values = layers.Flatten(name="flatten")(values)
    values = layers.Dropout(0.3, name="dropout")(values)
    values = layers.Dense(10, name="logits")(values)
    return keras.Model(inputs, layers.Softmax(name="softmax")(values), name="evaluator")


NETWORKS = {"mlp": mlp, "cnn": cnn, "evaluator": evaluator}


def pretrained(name: str) -> keras.Model:
    """Return one of the book's networks with the weights that come with it.

    Parameters
    ----------
    name : {"mlp", "cnn", "evaluator"}

    Returns
    -------
    keras.Model
        Digits (N, 28, 28, 1) in [0, 1] to ten probabilities (N, 10). The
        recipe that made the weights is ``python -m netinvert.train NAME``.

    Raises
    ------
    ValueError
        If there is no network of that name.
    RuntimeError
        If the weights file is missing or damaged.
    """
    if name not in NETWORKS:
        known = ", ".join(map(repr, NETWORKS))
        raise ValueError(f"No network is called {name!r}. There are {known}.")
    return load_weights(NETWORKS[name](), f"{name}.npz")


def load_weights(model: keras.Model, asset: str) -> keras.Model:
    """Fill a model of the book with weights that come with the package."""
    arrays = read_asset(asset)
    for variable in model.weights:
        variable.assign(arrays[variable.path])
    return model


def tap(model: keras.Model, layer: str | int) -> keras.Model:
    """First version."""
    if layer == "logits":
        layer = "logits"
    target = model.layers[layer] if isinstance(layer, int) else model.get_layer(layer)
    return keras.Model(model.inputs[0], target.output)


def as_function(forward) -> Callable:
    """First version."""
    if isinstance(forward, keras.Layer):
        return lambda batch: forward(batch, training=False)
    return forward


def input_shape_of(forward) -> tuple[int, ...] | None:
    """First version."""
    if isinstance(forward, keras.Model) and forward.built:
        return tuple(forward.input_shape[1:])
    return None


def load_model(path, allow_code: bool = False) -> keras.Model:
    """First version."""
    return keras.saving.load_model(path, compile=False, safe_mode=not allow_code)
