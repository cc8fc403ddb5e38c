"""A second network, trained on pairs, answers without searching."""

import copy
import multiprocessing
import pickle
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import netinvert as ni
from netinvert.methods.inverse_network import (
    choose_logarithm,
    decimals_of,
    digits_inverse,
    moved,
    standardized,
)

TINY = {"hidden": (32,), "epochs": 4}


@pytest.fixture(scope="module")
def digits():
    (x_train, _), (x_test, y_test) = ni.load_mnist()
    return x_train, x_test, y_test


@pytest.fixture(scope="module")
def mlp():
    return ni.pretrained("mlp")


def rotation(seed=0, size=5):
    """A linear network of orthonormal rows, and its inverse, the transpose."""
    matrix = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    matrix = matrix.astype("float32")
    return lambda batch: tf.matmul(batch, matrix), matrix


def vectors(count=1000, size=5, seed=1):
    return np.random.default_rng(seed).normal(size=(count, size)).astype("float32")


def test_without_hidden_layers_it_learns_the_transpose_of_a_rotation():
    forward, matrix = rotation()
    method = ni.InverseNetwork(hidden=()).fit(forward, vectors())
    fresh = vectors(50, seed=2)
    answer = ni.invert(forward, fresh @ matrix, method, bounds=None)
    np.testing.assert_allclose(answer.inputs, fresh, atol=0.02)


def test_where_two_inputs_share_one_output_it_answers_their_average():
    # The second number never reaches the output, so nothing can be said of it.
    inputs = vectors(2000, 2) * [1, 5] + [0, 30]
    method = ni.InverseNetwork(hidden=(16,)).fit(lambda batch: batch[:, :1], inputs)
    found = ni.invert(
        lambda batch: batch[:, :1], [[-1.0], [0.0], [1.0]], method, bounds=None
    )
    np.testing.assert_allclose(found.inputs[:, 0], [-1, 0, 1], atol=0.2)
    np.testing.assert_allclose(found.inputs[:, 1], 30, atol=2)


def test_it_bends_where_the_network_bends():
    def forward(batch):
        return tf.sinh(2 * batch)

    inputs = np.random.default_rng(0).uniform(-1, 1, (3000, 1)).astype("float32")
    targets = forward(np.linspace(-0.9, 0.9, 7, dtype="float32")[:, None])

    def error(hidden):
        method = ni.InverseNetwork(hidden=hidden).fit(forward, inputs)
        found = ni.invert(forward, targets, method, bounds=None).inputs[:, 0]
        return np.abs(found - np.linspace(-0.9, 0.9, 7)).max()

    assert error((32, 32)) < 0.05 < 0.08 < error(())


def test_twelve_epochs_on_logits_reach_nearly_what_forty_do(digits, mlp):
    x_train, x_test, y_test = digits
    forward = ni.tap(mlp, "logits")
    method = ni.InverseNetwork(epochs=12).fit(forward, x_train)
    found = ni.invert(forward, forward(x_test), method).inputs
    assert ni.metrics.psnr(x_test, found).mean() > 15.95  # forty: above 16.3
    assert ni.metrics.ssim(x_test, found).mean() > 0.64
    evaluator = ni.pretrained("evaluator")
    assert ni.metrics.accuracy(evaluator, found, y_test).mean() > 0.93


def test_the_shipped_one_reaches_what_a_chapter_has_no_time_for(digits, mlp):
    _, x_test, y_test = digits
    forward = ni.tap(mlp, "hidden_1")
    found = ni.invert(forward, forward(x_test), digits_inverse()).inputs
    assert ni.metrics.psnr(x_test, found).mean() > 23
    assert ni.metrics.ssim(x_test, found).mean() > 0.92
    evaluator = ni.pretrained("evaluator")
    assert ni.metrics.accuracy(evaluator, found, y_test).mean() >= 0.97


def test_probabilities_are_seen_as_logarithms_and_it_says_so(digits, mlp):
    x_train, x_test, _ = digits
    x_train, x_test = x_train[:2000], x_test[:500]
    targets = mlp(x_test).numpy()
    error = {}
    for logarithm in ("auto", False):
        method = ni.InverseNetwork(hidden=(128,), epochs=5, logarithm=logarithm)
        method.fit(mlp, x_train)
        assert method.logarithm_ == (logarithm == "auto")
        found = ni.invert(mlp, targets, method).inputs
        error[logarithm] = ni.metrics.psnr(x_test, found).mean()
    assert error["auto"] > error[False] + 1  # decibels


def test_logarithms_are_for_probabilities_only(digits, mlp):
    inputs = digits[0][:200]
    for layer in ("logits", "hidden_1"):  # of which the second is never negative
        method = ni.InverseNetwork(**TINY).fit(ni.tap(mlp, layer), inputs)
        assert method.logarithm_ is False
    with pytest.raises(ValueError, match="not negative"):
        ni.InverseNetwork(logarithm=True).fit(ni.tap(mlp, "logits"), inputs)


@pytest.fixture(scope="module")
def of_probabilities(digits, mlp):
    """A short training on exact probabilities."""
    method = ni.InverseNetwork(hidden=(256,), epochs=8, augment=False)
    return method.fit(mlp, digits[0])


@pytest.mark.parametrize(("decimals", "lost"), [(7, 1), (6, 1.2), (4, 1.8), (2, 2.3)])
def test_rounded_probabilities_cost_little(
    decimals, lost, of_probabilities, digits, mlp
):
    _, x_test, y_test = digits
    exact = mlp(x_test).numpy()

    def quality(targets):
        found = of_probabilities.network_(targets).numpy()
        judged = ni.metrics.accuracy(ni.pretrained("evaluator"), found, y_test)
        return ni.metrics.psnr(x_test, found).mean(), judged.mean()

    assert quality(exact)[0] > 14.8
    rounded = quality(np.round(exact, decimals))
    assert rounded[0] > quality(exact)[0] - lost
    assert rounded[1] > 0.85


def test_rounded_targets_are_warned_of_once_and_exact_ones_never(
    of_probabilities, digits, mlp
):
    exact = mlp(digits[1][:50]).numpy()

    def warned(targets):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ni.invert(mlp, targets, of_probabilities, batch_size=20)
        return [str(one.message) for one in caught]

    assert warned(exact) == []
    for decimals in (2, 4, 6):
        (message,) = warned(np.round(exact, decimals))
        assert f"np.round(f(x), {decimals})" in message


LEARNERS = {
    "inverse network": lambda: ni.InverseNetwork(hidden=(64,), epochs=5),
    "autoencoder": lambda: ni.AutoencoderInversion("digits", steps=5),
    "a start": lambda: ni.LevenbergMarquardt(
        start=ni.InverseNetwork(hidden=(64,), epochs=5), steps=2
    ),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_every_method_learns_from_outputs_as_they_are_received(name, digits, mlp):
    x_train, x_test, _ = digits

    def received(x):
        return np.round(mlp(x), 3)

    method = LEARNERS[name]().fit(received, x_train[:3000])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ni.invert(mlp, received(x_test[:200]), method).inputs
    mean = np.broadcast_to(x_train.mean(axis=0), found.shape)
    error = ni.metrics.mse(x_test[:200], found).mean()
    assert error < 0.9 * ni.metrics.mse(x_test[:200], mean).mean()


def test_baselines_learn_from_pairs_as_they_are_received(digits, mlp):
    x_train, x_test, _ = digits
    pairs = x_train[:2000], np.round(mlp(x_train[:2000]), 3)
    found = ni.baselines.ridge(*pairs, np.round(mlp(x_test[:200]), 3))
    assert ni.metrics.psnr(x_test[:200], found).mean() > 12.7


@pytest.mark.parametrize("decimals", [1, 2, 3, 6])
def test_probabilities_rounded_to_decimals_are_recognized(decimals, digits, mlp):
    def received(x):
        return np.round(mlp(x), decimals)

    method = ni.InverseNetwork(**TINY)
    assert "logarithms" not in repr(method)
    method.fit(received, digits[0][:1000])
    assert method.logarithm_ and method.decimals_ == decimals
    half = 0.5 * 10.0**-decimals
    assert repr(method).endswith(f"takes logarithms, 0 as {half:g})")
    zero, floor = (np.eye(10, dtype="float32"), np.maximum(np.eye(10), half))
    np.testing.assert_allclose(
        method.network_(zero), method.network_(floor.astype("float32")), atol=1e-6
    )


def test_what_is_no_probability_is_not_taken_for_one(digits, mlp):
    method = ni.InverseNetwork(**TINY).fit(ni.tap(mlp, "logits"), digits[0][:50])
    assert "takes no logarithms" in repr(method)
    random = np.random.default_rng(0)
    for outputs in (
        np.zeros((5, 8)),
        random.uniform(0, 1, (50, 8)),
        np.round(random.uniform(0, 1, (50, 8)), 3),
        random.integers(0, 4, (50, 8)),
    ):
        assert choose_logarithm("auto", outputs.astype("float32")) is False


def test_decimals_are_counted_and_exact_values_have_none(mlp, digits):
    exact = mlp(digits[1][:200]).numpy()
    assert decimals_of(exact) is None
    for decimals in range(1, 9):
        assert decimals_of(np.round(exact, decimals)) == decimals
    assert decimals_of(np.eye(3, dtype="float32")) == 0


def test_a_copy_answers_like_the_one_that_was_fitted(digits, mlp):
    forward = ni.tap(mlp, "logits")
    method = ni.InverseNetwork(**TINY).fit(forward, digits[0][:100])
    targets = forward(digits[1][:4]).numpy()
    expected = ni.invert(forward, targets, method).inputs
    for twin in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert repr(twin) == repr(method)
        np.testing.assert_array_equal(
            ni.invert(forward, targets, twin).inputs, expected
        )


def answer_elsewhere(task):
    """In another process: the method's proposal."""
    method, targets = task
    return method.solve(None, targets, bounds=None, seed=0, input_shape=(28, 28, 1))[0]


def test_another_process_answers_alike(digits, mlp):
    method = ni.InverseNetwork(**TINY).fit(mlp, digits[0][:100])
    targets = mlp(digits[1][:4]).numpy()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (found,) = pool.map(answer_elsewhere, [(method, targets)])
    np.testing.assert_allclose(found, answer_elsewhere((method, targets)), atol=1e-6)


SETTINGS = """
import keras, numpy as np
keras.config.{setting}
import netinvert as ni
digits = ni.load_mnist()[0][0][:400]
vectors = np.random.default_rng(0).normal(size=(400, 3))
for shape in {shapes}:
    images = digits.reshape(-1, *shape)
    ends = keras.layers.Reshape((784,)), keras.layers.Dense(30)
    forward = keras.Sequential([keras.Input(shape), *ends])
    for method in (
        ni.InverseNetwork(epochs=6, hidden=(64,)),
        ni.AutoencoderInversion(epochs=6, latent_size=8, steps=20),
    ):
        method.fit(forward, images)
        found = ni.invert(forward, forward(images[:50]).numpy(), method).inputs
        print(ni.metrics.mse(images[:50], found).mean() / images.var())
        method.fit(lambda batch: 2 * batch, vectors)
        found = ni.invert(lambda batch: 2 * batch, 2 * vectors, method, bounds=None)
        print(np.mean((found.inputs - vectors) ** 2))
"""


@pytest.mark.parametrize(
    ("setting", "shapes"),
    [
        ('set_floatx("float64")', "[(28, 28, 1)]"),
        ('set_image_data_format("channels_first")', "[(28, 28, 1), (1, 28, 28)]"),
    ],
)
def test_the_learned_methods_work_whatever_keras_is_set_to(setting, shapes):
    script = SETTINGS.format(setting=setting, shapes=shapes)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    errors = [float(line) for line in done.stdout.split()]
    assert len(errors) == 4 * len(eval(shapes))
    assert max(errors) < 0.6  # the mean, as an answer to all, leaves 0.7 or 1


def test_a_probability_that_underflows_to_zero_is_no_obstacle(digits):
    @tf.function
    def certain(images):
        bright = tf.reduce_mean(images, axis=(1, 2))  # (N, 1)
        return tf.nn.softmax(tf.concat([2000 * bright, 0 * bright], axis=1))

    method = ni.InverseNetwork(**TINY).fit(certain, digits[0][:200])
    found = ni.invert(certain, [[1.0, 0.0], [0.0, 1.0]], method)
    assert method.logarithm_
    assert np.isfinite(found.inputs).all()


def test_the_logarithm_of_such_a_softmax_is_refused_with_advice(digits):
    def forward(images):
        return tf.math.log(tf.reduce_mean(images, axis=(1, 2)) * [[0.0, 1.0]])

    with pytest.raises(ValueError, match="pass the softmax itself"):
        ni.InverseNetwork(**TINY).fit(forward, digits[0][:50])


@pytest.mark.parametrize(("layer", "logarithm"), [("logits", False), ("softmax", True)])
def test_it_sees_the_targets_standardized(digits, mlp, layer, logarithm):
    outputs = ni.tap(mlp, layer)(digits[0][:500]).numpy()
    targets = keras.Input((10,))
    view = keras.Model(targets, standardized(targets, outputs, logarithm))
    seen = view(outputs).numpy()[:, :10]  # the rest says which are not known
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std(axis=0), 1, rtol=1e-3)


def test_an_output_that_never_varies_does_not_drown_the_others():
    forward, matrix = rotation()
    inputs = vectors()

    def with_dead_unit(batch):
        return tf.concat([forward(batch), 0 * batch[:, :1]], axis=1)

    method = ni.InverseNetwork(hidden=()).fit(with_dead_unit, inputs)
    targets = np.hstack([inputs[:5] @ matrix, np.full((5, 1), 1e-3, "float32")])
    answer = ni.invert(with_dead_unit, targets, method, bounds=None)
    np.testing.assert_allclose(answer.inputs, inputs[:5], atol=0.2)


def test_images_of_any_range_are_answered_in_that_range(digits, mlp):
    inputs = 100 * digits[0][:500] - 50

    def forward(images):
        return ni.tap(mlp, "logits")((images + 50) / 100)

    method = ni.InverseNetwork(**TINY).fit(forward, inputs)
    found = ni.invert(forward, forward(inputs[:20]), method, bounds=None).inputs
    assert -50 <= found.min() < -45
    assert 0 < found.max() <= 50
    blank = np.mean((inputs[:20] + 50) ** 2)
    assert np.mean((inputs[:20] - found) ** 2) < 0.7 * blank


def test_the_epoch_that_answers_held_out_pairs_best_is_kept(digits, mlp):
    forward = ni.tap(mlp, "hidden_1")
    few, settings = digits[0][:60], {"augment": False, "epochs": 60}
    method = ni.InverseNetwork(**settings).fit(forward, few)
    held_out = method.history_["held_out_loss"]
    best = int(np.argmin(held_out))
    assert best < len(held_out) - 1 < 59  # it learned sixty by heart, and was stopped
    assert method.history_["loss"][-1] < method.history_["loss"][best]
    order = np.random.default_rng(0).permutation(60)[:3]  # a twentieth is held out
    drawn = method.network_(forward(few[order])).numpy()
    loss = tf.keras.losses.binary_crossentropy(
        few[order].reshape(3, -1), drawn.reshape(3, -1)
    )
    np.testing.assert_allclose(np.mean(loss), held_out[best], rtol=1e-3)


def test_it_is_not_stopped_while_the_images_still_move(digits, mlp, monkeypatch):
    monkeypatch.setattr("netinvert.methods.inverse_network.PATIENCE", 1)
    forward, few = ni.tap(mlp, "hidden_1"), digits[0][:60]
    method = ni.InverseNetwork(hidden=(64,), epochs=30, learning_rate=0.1)
    held_out = method.fit(forward, few).history_["held_out_loss"]
    assert np.diff(held_out[:21]).max() > 0  # which elsewhere would have ended it
    assert len(held_out) > 21  # 0.7 of the epochs


def test_moved_pairs_help_where_there_are_few(digits, mlp):
    forward, x_test = ni.tap(mlp, "hidden_1"), digits[1][:500]
    error = {}
    for augment in (True, False):
        method = ni.InverseNetwork(hidden=(128,), epochs=30, augment=augment)
        method.fit(forward, digits[0][:200])
        found = ni.invert(forward, forward(x_test), method).inputs
        error[augment] = ni.metrics.psnr(x_test, found).mean()
    assert error[True] > error[False] + 0.3  # decibels


def test_moving_keeps_a_digit_in_its_place_and_range(digits):
    images = digits[0][:200]
    found = moved(images, np.random.default_rng(0))
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    rows, columns = np.indices((28, 28))
    ink = images[..., 0].sum(axis=(1, 2)), found[..., 0].sum(axis=(1, 2))
    for axis in (rows, columns):
        centers = [
            (pictures[..., 0] * axis).sum(axis=(1, 2)) / total
            for pictures, total in zip((images, found), ink)
        ]
        away = centers[1] - centers[0]
        assert np.abs(away).max() < 3  # pixels
        assert np.abs(away.mean()) < 0.3  # no drift to one side
        assert away.std() > 0.3


def test_same_seed_same_network_and_another_seed_another(digits, mlp):
    forward = ni.tap(mlp, "logits")
    targets = forward(digits[1][:4])

    def answer(seed):
        method = ni.InverseNetwork(seed=seed, **TINY).fit(forward, digits[0][:300])
        return method.network_(targets).numpy()

    first = answer(0)
    np.random.uniform()
    tf.random.normal(())
    np.testing.assert_allclose(answer(0), first, atol=1e-4)
    assert np.abs(answer(1) - first).max() > 0.01


def test_it_answers_only_the_network_it_was_fitted_on(digits, mlp):
    method = ni.InverseNetwork(**TINY).fit(ni.tap(mlp, "logits"), digits[0][:100])
    with pytest.raises(ValueError, match=r"\(10,\).*\(64,\)"):
        ni.invert(ni.tap(mlp, "hidden_2"), np.ones((2, 64)), method)


def test_it_asks_for_more_than_a_handful_of_examples(digits, mlp):
    with pytest.raises(ValueError, match="at least 10 inputs.* got 1"):
        ni.InverseNetwork().fit(mlp, digits[0][:1])
    ni.InverseNetwork(**TINY).fit(mlp, digits[0][:10])


def test_a_training_that_diverges_says_so():
    forward, _ = rotation()
    with pytest.raises(RuntimeError, match="smaller learning_rate"):
        ni.InverseNetwork(learning_rate=1e30).fit(forward, vectors())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 512}, "tuple of layer widths"),
        ({"hidden": (0,)}, "at least 1"),
        ({"hidden": (2.5,)}, "whole number"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"learning_rate": -1.0}, "learning_rate must be a positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be a positive"),
        ({"logarithm": "yes"}, "logarithm must be"),
        ({"augment": "flip"}, "augment must be"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        ni.InverseNetwork(**settings)
