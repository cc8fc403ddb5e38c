"""Forward networks: the book's own, the reader's own, and taps into them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras

from netinvert.data import read_asset
from netinvert.loading import load_model
from netinvert.tapping import check_one_input, tap

__all__ = [
    "as_function",
    "cnn",
    "evaluator",
    "input_shape_of",
    "load_model",
    "load_weights",
    "mlp",
    "pretrained",
    "tap",
]

IMAGE_SHAPE = (28, 28, 1)


def mlp(widths=(128, 64), activation: str = "relu", name: str = "mlp") -> keras.Model:
    """Build the book's first network: 784-128-64-10, ReLU, softmax, untrained."""
    layers = keras.layers
    first, second = widths
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE),
            layers.Flatten(name="flatten"),
            layers.Dense(first, activation=activation, name="hidden_1"),
            layers.Dense(second, activation=activation, name="hidden_2"),
            layers.Dense(10, name="logits"),
            layers.Softmax(name="softmax"),
        ],
        name=name,
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
    It has no batch normalisation: a judge tried with it was as accurate on
    digits, but took the average 4 for a 1, and reconstructions are often blurred.
    """
    layers = keras.layers
    inputs = values = keras.Input(IMAGE_SHAPE)
    for block, filters in enumerate((16, 48, 96), start=1):
        values = layers.Conv2D(
            filters, 3, padding="same", activation="relu", name=f"conv_{block}"
        )(values)
        values = layers.MaxPooling2D(name=f"pool_{block}")(values)
    values = layers.Flatten(name="flatten")(values)
    values = layers.Dropout(0.3, name="dropout")(values)
    values = layers.Dense(10, name="logits")(values)
    return keras.Model(inputs, layers.Softmax(name="softmax")(values), name="evaluator")


NETWORKS = {"mlp": mlp, "cnn": cnn, "evaluator": evaluator}
# The mlp with one thing changed, to compare it with; netinvert.train trains them.
# The robust one is the same network, but sees adversarial digits.
VARIANTS = {
    "wide": functools.partial(mlp, (512, 256), name="wide"),
    "leaky": functools.partial(mlp, activation="leaky_relu", name="leaky"),
    "robust": functools.partial(mlp, name="robust"),
}


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
    if not isinstance(name, str) or name not in NETWORKS:
        known = ", ".join(map(repr, NETWORKS))
        raise ValueError(f"No network is called {name!r}. There are {known}.")
    return load_weights(NETWORKS[name](), f"{name}.npz")


def load_weights(model: keras.Model, asset: str) -> keras.Model:
    """Fill a model of the book with the weights that come with the package.

    Parameters
    ----------
    model : keras.Model
        Built as it was when ``netinvert.train`` saved the weights.
    asset : str
        Name of the weights file in ``netinvert/assets``.

    Returns
    -------
    keras.Model
        The same model.

    Raises
    ------
    RuntimeError
        If the weights file is missing or damaged.
    """
    # In the order of model.weights; their paths differ between versions of Keras.
    model.set_weights(list(read_asset(asset).values()))
    return model


def as_function(forward) -> Callable:
    """Turn a forward network into a function from a batch to a batch.

    Parameters
    ----------
    forward : keras.Model, keras.Layer or callable
        Keras models run as they do after training: dropout does nothing, batch
        normalisation uses its stored statistics.

    Returns
    -------
    callable
        Batch (N, ...) to one tensor (N, ...).

    Raises
    ------
    ValueError
        If forward cannot be called, or has more than one input or output.
    """
    if not callable(forward):
        raise ValueError(
            "The forward network must be a Keras model or a function from a batch "
            f"to a batch, got {type(forward).__name__}."
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
    """Return the shape of one input, or None where it cannot be known.

    Parameters
    ----------
    forward : keras.Model or callable

    Returns
    -------
    tuple of int or None
        Without the batch axis. None for a function, a model that has not been
        built, a subclassed model, and one that takes inputs of any size.

    Raises
    ------
    ValueError
        If forward is a model with several inputs.
    """
    if not isinstance(forward, keras.Model):
        return None
    check_one_input(forward)
    if not getattr(forward, "inputs", None):
        return None
    shape = tuple(forward.inputs[0].shape[1:])
    return None if None in shape else shape
