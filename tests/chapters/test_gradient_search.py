"""What the chapter on gradient search says in words, beside the numbers it prints."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import netinvert as ni

BLANK = np.zeros((28, 28, 1), "float32")
USUAL = ni.objectives.relative_error + 0.1 * ni.objectives.total_variation


@pytest.fixture(scope="module")
def digits():
    return ni.load_mnist()[1][0][:64]


@pytest.fixture(scope="module")
def x_train():
    return ni.load_mnist()[0][0]


@pytest.fixture(scope="module")
def model():
    return ni.pretrained("mlp")


@pytest.fixture(scope="module")
def noise(digits):
    return np.random.default_rng(0).uniform(size=digits.shape).astype("float32")


def copied_loop(model, digits, start, steps=250, factor=1.0, rate=0.01):
    """Probabilities where the copied loop ends; the step as in the chapter."""
    targets = model(digits)
    x, adam = tf.Variable(start), keras.optimizers.Adam(rate)
    adam.build([x])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            total = factor * tf.reduce_sum((model(x) - targets) ** 2) / 10
        adam.apply_gradients([(tape.gradient(total, x), x)])

    for _ in range(steps):
        step()
    return model(x).numpy()


def searched(model, x_train, digits, objective=USUAL, start="mean", **options):
    forward = ni.tap(model, "logits")
    method = ni.GradientInversion(objective, start, jit_compile=True, **options)
    return ni.invert(forward, forward(digits), method.fit(forward, x_train))


def test_a_missed_target_hesitates_and_a_steeper_loss_misses_the_same(
    model, digits, noise
):
    wanted = model(digits).numpy().argmax(axis=1)
    ends = [copied_loop(model, digits, noise, factor=f) for f in (1.0, 1e4)]
    missed = [end.argmax(axis=1) != wanted for end in ends]
    assert np.array_equal(*missed) and 25 < missed[0].sum() < 45
    largest = ends[0][missed[0]].max(axis=1)
    assert 0.2 < np.median(largest) < 0.34 and largest.max() < 0.9


def test_ten_times_the_rate_ends_at_confident_mistakes(model, digits, noise):
    wanted = model(digits).numpy().argmax(axis=1)
    end = copied_loop(model, digits, noise, rate=0.1)
    missed = end.argmax(axis=1) != wanted
    assert missed.mean() > 0.5 and end[missed].max(axis=1).min() > 0.9


def test_a_class_s_pull_carries_its_own_probability():
    random = np.random.default_rng(1)
    logits = tf.constant(random.normal(scale=3, size=(5, 10)))
    truth = tf.one_hot(random.integers(10, size=5), 10, dtype=logits.dtype)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        p = tf.nn.softmax(logits)
        loss = tf.reduce_sum(tf.reduce_mean((p - truth) ** 2, axis=1))
    rest = p - truth - tf.reduce_sum(p * (p - truth), axis=1, keepdims=True)
    np.testing.assert_allclose(tape.gradient(loss, logits), p * rest / 5, atol=1e-12)


def test_ink_and_not_noise_holds_the_copied_loop_back(model, digits, noise):
    wanted = model(digits).numpy().argmax(axis=1)
    starts = {"gray": np.full_like(noise, 0.5), "dim": noise / 4, "blank": 0 * noise}
    convinced = {
        name: (copied_loop(model, digits, start).argmax(axis=1) == wanted).sum()
        for name, start in starts.items()
    }
    assert convinced["gray"] < 40 < 60 < min(convinced["dim"], convinced["blank"])


def test_the_start_carries_the_rest_until_a_prior_does(model, x_train, digits):
    average, spread = x_train.mean(axis=0), x_train.var(axis=0) + 0.01

    @ni.objectives.prior
    def unusual(inputs):
        return tf.reduce_mean((inputs - average) ** 2 / spread, axis=[1, 2, 3])

    together = searched(model, x_train, digits).inputs
    from_noise = searched(model, x_train, digits, start="noise").inputs
    held = USUAL + 0.03 * unusual
    late = searched(model, x_train, digits, held, "noise", steps=2000).inputs
    decibels = [ni.metrics.psnr(digits, x).mean() for x in (from_noise, together, late)]
    assert decibels[0] < 7 and decibels[1] > 12 and decibels[2] > 12.5


def test_the_usual_objective_prefers_other_pictures_to_the_truth(
    model, x_train, digits
):
    results = [searched(model, x_train, digits, steps=n) for n in (500, 2000)]
    found = [np.median(result.history["objective"][-1]) for result in results]
    outputs = ni.tap(model, "logits")(digits)
    truth = np.median(USUAL(tf.constant(digits), outputs, outputs))
    assert found[1] < found[0] < truth
    quality = [ni.metrics.psnr(digits, result.inputs) for result in results]
    center, half = ni.metrics.mean_and_interval(quality[1] - quality[0])
    assert center + half < 0


def test_the_noise_found_convinces_networks_that_took_no_part(
    model, x_train, digits, noise
):
    wanted = model(digits).numpy().argmax(axis=1)
    plain = ni.objectives.squared_error
    found = searched(model, x_train, digits, plain, noise).inputs
    read = [ni.pretrained(name)(found) for name in ("cnn", "evaluator")]
    cnn, evaluator = (np.mean(np.argmax(p, axis=1) == wanted) for p in read)
    assert cnn > 0.4 and evaluator < 0.2


def test_a_blank_page_gives_class_images_that_only_the_network_reads(model, x_train):
    forward, evaluator = ni.tap(model, "logits"), ni.pretrained("evaluator")
    wish = ni.objectives.cross_entropy + 0.3 * ni.objectives.total_variation
    readable = {}
    for name, start in {"mean": "mean", "blank": BLANK}.items():
        method = ni.GradientInversion(wish, start=start, steps=300, learning_rate=0.1)
        drawn = ni.invert(forward, np.eye(10), method.fit(forward, x_train))
        assert drawn.converged.all()
        read = np.argmax(evaluator(drawn.inputs), axis=1)
        readable[name] = np.sum(read == np.arange(10))
    assert readable["blank"] <= 6 < 8 <= readable["mean"]
