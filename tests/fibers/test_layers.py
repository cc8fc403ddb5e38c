"""A network as affine maps and bends is the network of Keras."""

import keras
import numpy as np
import pytest

from netinvert import certificates, fibers
from netinvert.fibers.layers import affine_steps, cell, pattern
from tests.fibers.networks import random_network

layers = keras.layers


@pytest.mark.parametrize("window, strides", [((3, 2), (2, 3)), ((6, 7), (1, 1))])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kind", [layers.Conv2D, layers.AveragePooling2D])
def test_the_matrix_of_a_sliding_window_is_the_layer(kind, padding, window, strides):
    keras.utils.set_random_seed(0)
    size = (5,) if kind is layers.Conv2D else ()
    layer = kind(*size, window, strides=strides, padding=padding, name="slide")
    model = keras.Sequential([keras.Input((8, 7, 2)), layer])
    images = np.random.default_rng(0).random((3, 8, 7, 2)).astype("float32")
    steps = affine_steps(fibers.layers_of(model), (8, 7, 2))
    flat = images.reshape(3, -1).astype("float64")
    (step,) = steps
    outputs = (flat @ step.matrix + step.bias) / step.divisor
    np.testing.assert_allclose(outputs, model(images).numpy().reshape(3, -1), atol=1e-6)


def test_in_its_cell_a_network_is_one_affine_map():
    model = random_network(3)
    x = np.random.default_rng(3).random(12)
    steps = affine_steps(fibers.layers_of(model), (12,))
    here = cell(steps, pattern(steps, x), 12)
    assert (here.walls @ x >= here.heights).all()
    near = x + 1e-6
    outputs = model(near[None].astype("float32")).numpy()[0]
    np.testing.assert_allclose(here.jacobian @ near + here.offset, outputs, atol=1e-4)


def test_an_average_may_come_before_the_first_weights():
    keras.utils.set_random_seed(1)
    pool, flat = layers.AveragePooling2D(2), layers.Flatten()
    model = keras.Sequential([keras.Input((6, 6, 1)), pool, flat, layers.Dense(2)])
    one, other = np.random.default_rng(1).random((2, 6, 6, 1))
    found = fibers.metamer(model, one, other)
    assert certificates.verify(found, fibers.layers_of(model)).startswith("Proved")
    for wrong in (one[..., 0], one[:5, :5]):
        with pytest.raises(ValueError, match="got shape .*: layer 'average.*' "):
            fibers.metamer(model, wrong, wrong)
