"""What the chapter on autoencoders says in words, beside the numbers it prints."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import netinvert as ni
from netinvert.methods.autoencoder import digits_autoencoder

psnr = ni.metrics.psnr


@pytest.fixture(scope="module")
def digits():
    return ni.load_mnist()[1][0][:64]


@pytest.fixture(scope="module")
def forward():
    return ni.tap(ni.pretrained("mlp"), "logits")


@pytest.fixture(scope="module")
def method(forward):
    (x_train, _), _ = ni.load_mnist()
    method = ni.AutoencoderInversion(digits_autoencoder())
    return method.fit(forward, x_train[:1000])


@pytest.fixture(scope="module")
def estimate(method, forward, digits):
    guess = method.regression_(forward(digits).numpy())
    return method.decoder_(method.center_ + method.spread_ * guess).numpy()


def test_the_search_from_the_middle_was_cut_off_and_not_stuck(method, forward, digits):
    y, fitted, level = forward(digits).numpy(), {}, {}
    for method.start, method.steps in [("mean", 60), ("mean", 600), ("estimate", 60)]:
        result, key = ni.invert(forward, y, method), (method.start, method.steps)
        fitted[key] = np.mean(result.residual < 1e-3 * (y**2).mean(axis=1))
        level[key] = psnr(digits, result.inputs).mean()
    assert fitted["mean", 60] < 0.1 and fitted["mean", 600] > 0.8
    assert level["estimate", 60] > level["mean", 600] + 1


def test_most_of_the_lead_over_pixels_was_the_start(method, forward, digits, estimate):
    (x_train, _), _ = ni.load_mnist()
    y, level = forward(digits).numpy(), {}
    method.start, method.steps = "estimate", 300
    pixels = ni.GradientInversion(steps=300).fit(forward, x_train)
    level["mean"] = psnr(digits, ni.invert(forward, y, pixels).inputs)
    bare = ni.objectives.squared_error
    pixels = ni.GradientInversion(bare, start=estimate, steps=300)
    level["estimate"] = psnr(digits, ni.invert(forward, y, pixels).inputs)
    code = psnr(digits, ni.invert(forward, y, method).inputs)
    lead = {start: (code - other).mean() for start, other in level.items()}
    assert 0.4 < lead["estimate"] < 1.6 < 2.5 < lead["mean"]


def test_the_decoder_can_draw_mirrored_digits_and_ten_logits_do_not_ask(
    method, forward, digits
):
    mirrored, autoencoder = digits[:, :, ::-1], digits_autoencoder()
    method.start, method.steps = "estimate", 300
    found = ni.invert(forward, forward(mirrored).numpy(), method).inputs
    copied = psnr(mirrored, autoencoder(mirrored).numpy()).mean()
    assert copied > psnr(mirrored, found).mean() + 3
    assert psnr(1 - digits, autoencoder(1 - digits).numpy()).mean() < 5
    # Nor does a search for the negatives themselves find a code that draws them.
    method.steps = 100
    found = ni.invert(tf.identity, 1 - digits, method.fit(tf.identity, digits)).inputs
    assert psnr(1 - digits, found).mean() < 5


def test_more_layers_do_not_make_a_decoder_of_the_logits(forward, digits):
    (x_train, _), _ = ni.load_mnist()
    keras.utils.set_random_seed(0)
    layers = keras.layers

    def hidden():
        return [layers.Dense(128, "relu") for _ in range(3)]  # the chapter has one

    decoder = keras.Sequential(
        [keras.Input((10,)), *hidden(), layers.Dense(784, "sigmoid")]
    )
    snippet = keras.Sequential(
        [keras.Input((784,)), *hidden(), layers.Dense(10), decoder]
    )
    few = x_train[:1000].reshape(-1, 784)
    snippet.compile(keras.optimizers.Adam(8e-3), "binary_crossentropy")
    snippet.fit(few, few, batch_size=100, epochs=8, verbose=0)
    drawn = decoder(forward(digits)).numpy().reshape(digits.shape)
    gray = np.broadcast_to(x_train.mean(axis=0), digits.shape)
    copies = snippet(digits.reshape(-1, 784)).numpy().reshape(digits.shape)
    assert psnr(digits, drawn).mean() < psnr(digits, gray).mean() - 0.3
    assert psnr(digits, copies).mean() > psnr(digits, gray).mean() + 0.3


def test_the_encoder_draws_its_own_training_digits_no_better_than_it_could(
    method, digits
):
    (x_train, _), _ = ni.load_mnist()
    autoencoder, gains = digits_autoencoder(), []
    method.start, method.steps = "estimate", 100
    method.fit(tf.identity, x_train[:1000])
    for some in (x_train[:64], digits):
        copies = autoencoder(some).numpy()
        found = ni.invert(tf.identity, some, method).inputs
        gains.append((psnr(some, found) - psnr(some, copies)).mean())
    assert gains == pytest.approx([2.4, 2.3], abs=0.4)


def test_pixels_meet_equal_logits_that_the_decoder_cannot(forward):
    levels = np.float32([0, 1, 5])
    method = ni.GradientInversion(ni.objectives.squared_error, steps=500)
    method.fit(forward, ni.load_mnist()[0][0][:100])
    targets = np.repeat(levels[:, None], 10, axis=1)
    missed = np.sqrt(ni.invert(forward, targets, method).residual)
    assert missed[0] < 0.05 and missed[1] < 0.1 and missed[2] == pytest.approx(3, 0.1)


def test_a_straight_guess_of_fewer_directions_is_as_good_as_ridge(forward, digits):
    few = ni.load_mnist()[0][0][:2000]
    known, y = forward(few).numpy(), forward(digits).numpy()
    ridge = ni.baselines.ridge(few, known, y)
    cut = ni.baselines.pca_floor(few, ridge, 32)
    assert abs((psnr(digits, cut) - psnr(digits, ridge)).mean()) < 0.1
