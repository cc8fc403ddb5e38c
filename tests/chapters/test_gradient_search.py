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


def test_a_missed_target_has_only_a_long_way(model, digits, noise):
    wanted = model(digits).numpy().argmax(axis=1)
    ends = [copied_loop(model, digits, noise, steps=n) for n in (250, 8000)]
    convinced = [end.argmax(axis=1) == wanted for end in ends]
    assert convinced[1].sum() > 50
    own = [end[np.arange(64), wanted][~convinced[1]] for end in ends]
    assert np.mean(own[1] > own[0]) > 0.5  # also where it has not arrived


def test_large_logits_and_neither_noise_nor_ink_hold_the_copied_loop_back(
    model, digits, noise
):
    wanted = model(digits).numpy().argmax(axis=1)
    other = np.roll(digits, 1, axis=0)
    starts = {"gray": np.full_like(noise, 0.5), "dim": noise / 4, "blank": 0 * noise}
    starts |= {"other": other, "pale": other / 4}
    stack = np.concatenate(list(starts.values()))
    ends = copied_loop(model, np.tile(digits, (5, 1, 1, 1)), stack)
    arrived = (ends.argmax(axis=1) == np.tile(wanted, 5)).reshape(5, 64).sum(axis=1)
    convinced = dict(zip(starts, arrived, strict=True))
    assert convinced["gray"] < 35 and 35 < convinced["other"] < 50
    assert min(convinced[name] for name in ("dim", "pale", "blank")) > 60


def test_the_start_carries_the_rest_until_a_prior_does(model, x_train, digits):
    average, spread = x_train.mean(axis=0), x_train.var(axis=0) + 0.01

    @ni.objectives.prior
    def unusual(inputs):
        return tf.reduce_mean((inputs - average) ** 2 / spread, axis=[1, 2, 3])

    def decibels(*arguments, **options):
        found = searched(model, x_train, digits, *arguments, **options).inputs
        return ni.metrics.psnr(digits, found)

    @ni.objectives.prior
    def distance(inputs):
        return tf.reduce_mean((inputs - average) ** 2, axis=[1, 2, 3])

    together, noise = decibels(), decibels(start="noise")
    blank = decibels(start=BLANK)
    assert noise.mean() < 7 and 10.5 < blank.mean() < 11.5 < 12 < together.mean()
    held = decibels(USUAL + 0.03 * unusual, "noise", steps=1500)
    assert held.mean() > 12.5
    near = decibels(USUAL + 0.1 * distance, steps=1500)
    center, half = ni.metrics.mean_and_interval(near - together)
    assert abs(center) < 0.1 and half < 0.25


def test_from_noise_the_usual_search_is_unfinished(model, x_train, digits):
    found = searched(model, x_train, digits, start="noise", steps=8000).inputs
    wanted = model(digits).numpy().argmax(axis=1)
    read = ni.pretrained("evaluator")(found).numpy().argmax(axis=1) == wanted
    assert 22 < read.sum() < 32
    assert abs(ni.metrics.psnr(digits, found).mean() - 10.7) < 0.3


def test_the_usual_objective_prefers_other_pictures_to_the_truth(
    model, x_train, digits
):
    results = [searched(model, x_train, digits, steps=n) for n in (500, 1500)]
    found = [np.median(result.history["objective"][-1]) for result in results]
    outputs = ni.tap(model, "logits")(digits)
    truth = np.median(USUAL(tf.constant(digits), outputs, outputs))
    assert found[1] < found[0] < truth
    quality = [ni.metrics.psnr(digits, result.inputs) for result in results]
    center, half = ni.metrics.mean_and_interval(quality[1] - quality[0])
    assert center + half < 0 and abs(center + 0.4) < 0.2
    plain = ni.objectives.relative_error
    without = [
        ni.metrics.psnr(digits, searched(model, x_train, digits, plain, steps=n).inputs)
        for n in (500, 1500)
    ]
    assert np.abs(np.mean(without, axis=1) - 11.2).max() < 0.1


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


def test_ten_chosen_mixtures_of_a_deep_layer_tell_a_little_more(x_train, digits, model):
    early = ni.tap(model, "hidden_1")
    outputs = early(x_train).numpy()
    axes = np.linalg.svd(outputs - outputs.mean(axis=0), full_matrices=False)[2]
    ten_chosen = axes[:10].T

    def mixed(inputs):
        return early(inputs) @ ten_chosen

    method = ni.GradientInversion(jit_compile=True).fit(mixed, x_train)
    found = ni.invert(mixed, mixed(digits), method).inputs
    assert abs(ni.metrics.psnr(digits, found).mean() - 13.7) < 0.2
