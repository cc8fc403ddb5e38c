"""What the chapter on second-order steps says in words, beside what it prints."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import netinvert as ni
from netinvert.methods.inverse_network import digits_inverse
from netinvert.methods.prior_covariance import Spread

MEAN = ni.load_mnist()[0][0].mean(axis=0)


class Doubt:
    """The chapter's own covariance: what a drawing's p (1 - p) leaves open."""

    def __init__(self, drawing):
        variance = drawing * (1 - drawing) + 1e-4
        self.deviation = np.sqrt(variance).reshape(len(drawing), -1)

    def fit(self, forward, inputs, start):
        return self

    def at(self, inputs, targets):
        return Spread(scale=self.deviation)


@pytest.fixture(scope="module")
def digits():
    return ni.load_mnist()[1][0][:64]


@pytest.fixture(scope="module")
def model():
    return ni.pretrained("mlp")


@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus"])
def test_three_jacobians_are_enough_with_straight_pieces_or_without(
    model, digits, activation
):
    hidden = [keras.layers.Dense(n, activation=activation) for n in (128, 64)]
    layers = [keras.layers.Flatten(), *hidden, keras.layers.Dense(10)]
    net = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    net.set_weights(model.get_weights())
    method = ni.LevenbergMarquardt(MEAN, steps=3)
    assert np.median(ni.invert(net, net(digits), method).residual) < 2e-6


def test_what_polishing_gains_grows_with_the_count_of_numbers_not_their_choice(
    model, digits
):
    deep = ni.tap(model, "hidden_1")
    outputs, examples = deep(digits).numpy(), deep(ni.load_mnist()[0][0]).numpy()
    drawing = ni.invert(deep, outputs, digits_inverse()).inputs
    method = ni.LevenbergMarquardt(drawing, covariance=Doubt(drawing))
    axes = np.linalg.svd(examples - examples.mean(axis=0), full_matrices=False)[2]
    random = np.random.default_rng(0).normal(size=axes.shape).astype("float32")
    before = ni.metrics.psnr(digits, drawing)

    def gain(mixtures):
        found = ni.invert(lambda x: deep(x) @ mixtures, outputs @ mixtures, method)
        assert np.median(found.residual) < 1e-9
        return np.mean(ni.metrics.psnr(digits, found.inputs) - before)

    best = axes.T.copy()
    assert np.allclose(
        [gain(random[:, :10]), gain(best[:, :10])], [0.35, 0.42], atol=0.1
    )
    assert abs(gain(random[:, :32]) - 1.3) < 0.2
    assert abs(gain(random[:, :64]) - 2.7) < 0.3
