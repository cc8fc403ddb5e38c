"""What the chapter on your own network says in words, beside the numbers it prints."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import netinvert as ni

WISH = np.array([0.8, 0.2])


@pytest.fixture(scope="module")
def random():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def bakery(random):
    """The chapter's network, its loaves (standardized), and a hundred starts."""
    loaves = random.normal([210, 40], [25, 12], (600, 2)).astype("float32")
    x = (loaves - loaves.mean(axis=0)) / loaves.std(axis=0)
    together, difference = x[:, 0] + x[:, 1], x[:, 0] - x[:, 1]
    luck = random.normal(0, 0.3, len(x))
    good = together**2 + 0.3 * difference**2 + luck < 1.5
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(16, "softplus") for _ in range(2)]
    answer = keras.layers.Dense(2, "softmax")
    model = keras.Sequential([keras.Input((2,)), *hidden, answer])
    model.compile(keras.optimizers.Adam(0.03), "mse")
    answers = np.stack([good, ~good], axis=1).astype("float32")
    model.fit(x, answers, epochs=20, batch_size=60, verbose=0)
    return model, x, random.uniform(-3, 3, (100, 2))


def adam(model, starts, memory=0.999, least=1e-7, steps=500):
    """First output where Adam ends, in double precision, by hand."""
    weights = [tf.constant(w, "float64") for w in model.get_weights()]
    x = tf.Variable(starts)
    mean, square = tf.Variable(0 * starts), tf.Variable(0 * starts)

    def probabilities():
        h = tf.nn.softplus(x @ weights[0] + weights[1])
        h = tf.nn.softplus(h @ weights[2] + weights[3])
        return tf.nn.softmax(h @ weights[4] + weights[5])

    @tf.function
    def step(t):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((probabilities() - WISH) ** 2) / np.sum(WISH**2)
        slope = tape.gradient(loss, x)
        mean.assign(0.9 * mean + 0.1 * slope)
        square.assign(memory * square + (1 - memory) * slope**2)
        rate = 0.05 * (1 + tf.cos(np.pi * t / steps))
        rate *= tf.sqrt(1 - memory ** (t + 1)) / (1 - 0.9 ** (t + 1))
        x.assign_sub(rate * mean / (tf.sqrt(square) + least))

    for t in range(steps):
        step(tf.constant(t, "float64"))
    return probabilities().numpy()[:, 0]


def test_the_two_plateaus_have_different_causes(bakery):
    model, _, starts = bakery
    usual = adam(model, starts)
    bad, good = usual < 0.01, usual > 0.99
    assert bad.sum() > 15 and good.sum() > 15

    def arrive(**change):
        there = np.abs(adam(model, starts, **change) - 0.8) < 0.01
        return there[bad].mean(), there[good].mean()

    bad_cured, good_cured = arrive(least=1e-12)
    assert bad_cured > 0.7 and good_cured < 0.3
    bad_cured, good_cured = arrive(memory=0.9)
    assert bad_cured < 0.3 and good_cured > 0.9


def test_the_curve_is_one_and_closed(bakery):
    side = np.linspace(-12, 12, 241, dtype="float32")
    square = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    inside = bakery[0](square).numpy()[:, 0].reshape(241, 241) > 0.8
    edge = [inside[0], inside[-1], inside[:, 0], inside[:, -1]]
    assert inside.any() and not np.any(edge)


@pytest.mark.parametrize(
    ("loss", "loads"), [("mse", False), ("mean_squared_error", True)]
)
def test_what_keras_trips_over_is_the_short_name_of_the_loss(loss, loads, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile("adam", loss)
    model.save(tmp_path / "model.h5")
    if loads:
        keras.models.load_model(tmp_path / "model.h5")
    else:
        with pytest.raises(ValueError, match=r"keras\.metrics\.mse"):
            keras.models.load_model(tmp_path / "model.h5")
    ni.load_model(tmp_path / "model.h5")
