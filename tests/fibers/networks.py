"""Small networks that the tests of fibers share."""

import keras
import numpy as np

from netinvert.certificates import Layer

layers = keras.layers


def dense(weights, bias=0.0, name="sum"):
    kernel = np.array(weights, "float32")
    bias = np.full(kernel.shape[1], bias, "float32")
    return Layer(name, "dense", bias.shape, kernel, bias)


def random_network(seed, *extra):
    """A small dense network with biases of its own."""
    keras.utils.set_random_seed(seed)
    hidden = [layers.Dense(6, activation="relu", name=f"h{k}") for k in (1, 2)]
    last = layers.Dense(3, name="logits")
    model = keras.Sequential([keras.Input((12,)), *hidden, *extra, last])
    generator = np.random.default_rng(seed)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([generator.normal(size=shape) for shape in shapes])
    return model


SUM = [dense([[1], [1]])]  # f(x1, x2) = x1 + x2
SUM_WITH_RELU = [dense([[1], [1]], bias=-1), Layer("relu", "relu", (1,))]
