"""Second-order search: known answers, bounds, precision, metrics, codes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import lsq_linear

import netinvert as ni
from netinvert.metric import Spread

RANDOM = np.random.default_rng(0)
WIDTHS = (128, "relu"), (64, "relu"), (10, None)
MATRIX = RANDOM.normal(size=(12, 3))


def linear(batch):
    """Twelve numbers to three, in whatever precision the batch has."""
    return tf.matmul(batch, tf.constant(MATRIX, batch.dtype))


def doubled(batch):
    """The same, always in float64."""
    return linear(tf.cast(batch, "float64"))


@pytest.fixture(scope="module")
def digits():
    (x_train, _), (x_test, _) = ni.load_mnist()
    return x_train, x_test[:64]


@pytest.fixture(scope="module")
def forward():
    return ni.tap(ni.pretrained("mlp"), "logits")


def largest_miss(result):
    return np.abs(result.outputs - result.targets).max(axis=1)


def test_without_bounds_a_linear_network_gives_the_nearest_input_that_fits():
    start = RANDOM.normal(size=12)
    targets = RANDOM.normal(size=(5, 3))
    method = ni.LevenbergMarquardt(start=start)
    result = ni.invert(doubled, targets, method, bounds=None, input_shape=(12,))
    nearest = start + (targets - start @ MATRIX) @ np.linalg.pinv(MATRIX)
    np.testing.assert_allclose(result.inputs, nearest, atol=1e-9)
    assert largest_miss(result).max() < 1e-12


class OwnMetric:
    """Far more room for the first values, and some values that move together."""

    scale = np.geomspace(1, 0.01, 12)
    factor = np.random.default_rng(1).normal(size=(12, 2))

    def fit(self, forward, inputs, start):
        return self

    def at(self, inputs, targets):
        return Spread(np.tile(self.scale, (len(inputs), 1)), self.factor, 0.5)


def test_nearest_is_what_the_metric_says():
    targets = RANDOM.normal(size=(4, 3))
    method = ni.LevenbergMarquardt(start=np.zeros(12), metric=OwnMetric())
    result = ni.invert(doubled, targets, method, bounds=None, input_shape=(12,))
    metric = OwnMetric.factor @ OwnMetric.factor.T + 0.5 * np.eye(12)
    metric = OwnMetric.scale[:, None] * metric * OwnMetric.scale
    steer = metric @ MATRIX
    expected = targets @ np.linalg.solve(MATRIX.T @ steer, steer.T)
    np.testing.assert_allclose(result.inputs, expected, atol=1e-8)


@pytest.mark.parametrize("metric", ["pixels", OwnMetric()])
def test_in_a_box_every_output_that_can_be_had_is_had(metric):
    truth = RANDOM.uniform(size=(40, 12)).round(1)
    truth[:, :6] = truth[:, :6].round()  # many values at their bounds
    targets = truth @ MATRIX
    method = ni.LevenbergMarquardt(start=np.full(12, 0.5), metric=metric)
    result = ni.invert(doubled, targets, method, input_shape=(12,))
    assert result.inputs.min() >= 0 and result.inputs.max() <= 1
    assert np.quantile(largest_miss(result), 0.9) < 1e-10
    assert (result.inputs == 0).any(), "the test needs targets that the box restricts"


def test_what_cannot_be_had_in_the_box_is_approached_as_closely_as_possible():
    targets = 30 * RANDOM.normal(size=(6, 3))
    method = ni.LevenbergMarquardt(start=np.full(12, 0.5))
    result = ni.invert(doubled, targets, method, input_shape=(12,))
    assert not result.converged.any()
    assert np.isfinite(result.inputs).all()
    for target, residual in zip(targets, result.residual, strict=True):
        best = lsq_linear(MATRIX.T, target, bounds=(0, 1), tol=1e-12)
        assert residual <= (2 * best.cost / 3) * 1.02
        assert residual >= (2 * best.cost / 3) * 0.999


def test_bounds_may_differ_from_value_to_value():
    low = np.arange(12.0)
    high = low + np.geomspace(0.1, 10, 12)
    truth = RANDOM.uniform(low, high, (8, 12))
    method = ni.LevenbergMarquardt()
    result = ni.invert(
        doubled, truth @ MATRIX, method, bounds=(low, high), input_shape=(12,)
    )
    assert (result.inputs >= low).all() and (result.inputs <= high).all()
    assert largest_miss(result).max() < 1e-9


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_logits_of_digits_are_matched_to_the_last_digits(name, bounds, digits):
    x_train, x_test = digits
    forward = ni.tap(ni.pretrained(name), "logits")
    method = ni.LevenbergMarquardt().fit(forward, x_train[:500])
    result = ni.invert(forward, forward(x_test), method, bounds=bounds)
    assert (largest_miss(result) < 1e-5).mean() >= 0.99
    assert result.converged.all()
    assert (result.outputs.argmax(axis=1) == result.targets.argmax(axis=1)).all()
    if bounds:
        assert result.inputs.min() >= 0 and result.inputs.max() <= 1


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_in_float64_they_are_matched_to_ten_digits(bounds, digits, forward):
    double = {"dtype": "float64"}  # for every layer: each one casts what it is given
    layers = [keras.layers.Dense(n, a, **double) for n, a in WIDTHS]
    flatten = keras.layers.Flatten(**double)
    model = keras.Sequential([keras.Input((28, 28, 1), **double), flatten, *layers])
    model.set_weights(forward.get_weights())
    targets = model(digits[1]).numpy()
    assert targets.dtype == "float64"
    result = ni.invert(model, targets, ni.LevenbergMarquardt(), bounds=bounds)
    assert result.inputs.dtype == "float64"
    assert (largest_miss(result) < 1e-10).mean() >= 0.99


def test_a_relu_at_the_end_is_seen_through(digits):
    x_train, x_test = digits
    model = ni.pretrained("mlp")
    method = ni.LevenbergMarquardt().fit(model, x_train[:500])
    forward = ni.tap(model, "hidden_2")
    targets = forward(x_test).numpy()
    assert (targets == 0).mean() > 0.2
    seen = ni.invert(forward, targets, method)
    unseen = ni.invert(lambda batch: forward(batch), targets, method)
    assert seen.converged.mean() > 0.9 > unseen.converged.mean()
    assert seen.outputs.min() == 0

    inputs = keras.Input(forward.input_shape[1:])
    same = ni.tap(model, "hidden_2")
    separate = keras.Sequential(
        [inputs, *same.layers[1:-1], keras.layers.Dense(64), keras.layers.ReLU()]
    )
    separate.set_weights(forward.get_weights())
    again = ni.invert(separate, targets, method)
    np.testing.assert_allclose(again.residual, seen.residual, atol=1e-4)


def test_a_target_that_fits_leaves_the_batch(forward, digits):
    x_train, x_test = digits
    sizes = []

    def watched(batch):
        count = tf.py_function(lambda values: sizes.append(len(values)), [batch], [])
        with tf.control_dependencies([count]):
            return forward(tf.identity(batch))

    method = ni.LevenbergMarquardt().fit(forward, x_train[:500])
    ni.invert(watched, forward(x_test), method, input_shape=(28, 28, 1))
    inside = [size for size in sizes if size not in (1, len(x_test))]
    assert inside == sorted(inside, reverse=True)
    assert min(inside) < len(x_test) / 2
