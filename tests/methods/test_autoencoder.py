"""Search in the code of an autoencoder, and the start that a regression finds."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import netinvert as ni
from netinvert.data import read_asset
from netinvert.methods.autoencoder import (
    AutoencoderInversion,
    Regression,
    Sample,
    build_autoencoder,
    digits_autoencoder,
    train_autoencoder,
)
from netinvert.methods.parametrization import Drawing

GOALS = {  # PSNR in dB, SSIM and evaluator accuracy, of the default search
    "logits": (15.4, 0.63, 0.90),
    "hidden_2": (19.0, 0.80, 0.93),
    "hidden_1": (19.8, 0.81, 0.95),
}


@pytest.fixture(scope="module")
def digits():
    return ni.load_mnist()


@pytest.fixture(scope="module")
def logits():
    return ni.tap(ni.pretrained("mlp"), "logits")


@pytest.fixture(scope="module")
def shipped():
    return digits_autoencoder()


@pytest.fixture(scope="module")
def method(shipped, logits, digits):
    """A short search with the shipped decoder, fitted to the logits."""
    (x_train, _), _ = digits
    return AutoencoderInversion(autoencoder=shipped, steps=40).fit(
        logits, x_train[:2000]
    )


@pytest.mark.parametrize("layer", GOALS)
def test_with_the_shipped_decoder_reconstructions_reach_the_goals(layer, digits):
    (x_train, _), (x_test, y_test) = digits
    truth, labels = x_test[:128], y_test[:128]
    forward = ni.tap(ni.pretrained("mlp"), layer)
    method = AutoencoderInversion(autoencoder="digits").fit(forward, x_train)
    found = ni.invert(forward, forward(truth), method).inputs
    psnr, ssim, accuracy = GOALS[layer]
    assert ni.metrics.psnr(truth, found).mean() > psnr
    assert ni.metrics.ssim(truth, found).mean() > ssim
    judged = ni.metrics.accuracy(ni.pretrained("evaluator"), found, labels)
    assert judged.mean() > accuracy - 0.03  # 128 pictures: three are 0.023


def test_a_decoder_trained_by_fit_beats_the_class_mean(digits):
    (x_train, y_train), (x_test, y_test) = digits
    forward = ni.tap(ni.pretrained("mlp"), "hidden_2")
    method = AutoencoderInversion(latent_size=16, epochs=5).fit(forward, x_train)
    found = ni.invert(forward, forward(x_test[:64]), method).inputs
    floor = ni.baselines.class_mean(x_train, y_train, y_test[:64])
    gain = ni.metrics.psnr(x_test[:64], found) - ni.metrics.psnr(x_test[:64], floor)
    assert gain.mean() > 1.5


def test_an_estimated_start_beats_blind_ones(method, logits, digits):
    _, (x_test, _) = digits
    targets = logits(x_test[:32]).numpy()

    def error(start):
        method.start = start
        return ni.metrics.mse(
            x_test[:32], ni.invert(logits, targets, method).inputs
        ).mean()

    errors = {start: error(start) for start in ("estimate", "mean", "noise")}
    method.start = "estimate"
    assert errors["estimate"] < 0.9 * min(errors["mean"], errors["noise"])


def test_the_search_fits_the_output_better_than_its_start(method, logits, digits):
    _, (x_test, _) = digits
    history = ni.invert(logits, logits(x_test[:32]), method).history
    assert np.median(history["objective"][-1]) < 0.2 * np.median(
        history["objective"][0]
    )


def test_restarts_never_fit_worse(shipped, logits, digits):
    (x_train, _), (x_test, _) = digits

    def residual(restarts):
        method = AutoencoderInversion(shipped, steps=30, prior=0, restarts=restarts)
        method.fit(logits, x_train[:1000])
        return ni.invert(logits, logits(x_test[:16]), method).residual

    assert (residual(3) <= residual(1) * 1.01 + 1e-6).all()


def test_a_start_may_be_an_input_or_another_method(shipped, logits, digits):
    (x_train, _), (x_test, _) = digits
    truth = x_test[:4]
    for start in (truth, ni.GradientInversion(steps=5)):
        method = AutoencoderInversion(shipped, start=start, steps=1)
        method.fit(logits, x_train[:500])
        shown = ni.invert(logits, logits(truth), method).history["inputs"][0]
        if start is truth:
            np.testing.assert_allclose(
                shown, shipped.predict(truth, verbose=0), atol=1e-4
            )


def test_a_strong_prior_leads_to_an_ordinary_code(shipped, logits, digits):
    (x_train, _), (x_test, _) = digits

    def length(prior):
        method = AutoencoderInversion(shipped, prior=prior, start="mean", steps=60)
        method.fit(logits, x_train[:500])
        found = ni.invert(logits, logits(x_test[:16]), method).inputs
        middle = shipped.layers[1](method.center_[np.newaxis]).numpy()
        return np.mean((found - middle) ** 2)

    assert length(100.0) < 0.2 * length(0.0)


def test_the_penalty_of_a_code_is_its_weighted_mean_square(shipped):
    drawing = Drawing(shipped.layers[1], (0.0,) * 32, 1.0, 0.5, None)
    code = tf.constant([[2.0] * 32, [0.0] * 32])
    np.testing.assert_allclose(drawing.penalty(code), [2.0, 0.0])


def test_what_lies_beyond_the_bounds_is_clipped_before_the_network_sees_it(
    shipped, logits, digits
):
    (x_train, _), (x_test, _) = digits
    method = AutoencoderInversion(shipped, steps=60).fit(logits, x_train[:2000])
    targets = logits(np.clip(x_test[:16], 0.1, 0.6)).numpy()
    result = ni.invert(logits, targets, method, bounds=(0.1, 0.6))
    assert result.inputs.min() >= np.float32(0.1)
    assert result.inputs.max() <= np.float32(0.6)
    np.testing.assert_allclose(
        result.residual / np.mean(targets**2, axis=1),
        result.history["objective"][-1],
        atol=0.01,  # the prior
    )


def test_the_same_seed_gives_the_same_autoencoder_whatever_ran_before(digits):
    inputs = digits[0][0][:300]

    def trained(seed):
        model = train_autoencoder(inputs, latent_size=4, epochs=2, seed=seed)
        return model.predict(inputs[:5], verbose=0)

    first = trained(1)
    keras.utils.set_random_seed(9)
    keras.layers.Dense(3)(np.ones((1, 2)))
    np.testing.assert_allclose(trained(1), first, atol=1e-6)
    assert np.abs(trained(2) - first).max() > 1e-3


def test_training_leaves_the_readers_random_numbers_alone(digits):
    def drawn(work):
        keras.utils.clear_session()  # old Keras seeds its generator only once
        keras.utils.set_random_seed(5)
        work()
        return np.random.uniform(), float(keras.random.uniform(()))

    def work():
        train_autoencoder(digits[0][0][:256], latent_size=2, epochs=1)

    assert drawn(work) == drawn(lambda: None)


def test_a_code_is_drawn_in_the_precision_of_its_layer():
    drawn = Sample(cost=0.5, seed=0, dtype="float64")(np.zeros((2, 4)), training=True)
    assert drawn.dtype == "float64"  # as where set_floatx comes late in a session


def test_while_training_a_code_is_drawn_and_its_divergence_joins_the_loss():
    sample = Sample(cost=0.5, seed=0)
    statistics = np.zeros((2000, 4), "float32")
    statistics[:, 0] = 2.0  # mean 2 and 0, variance 1 and e
    statistics[:, 3] = 1.0
    codes = sample(statistics, training=True).numpy()
    np.testing.assert_allclose(codes.mean(axis=0), [2, 0], atol=0.1)
    np.testing.assert_allclose(codes.var(axis=0), [1, np.e], rtol=0.1)
    divergence = 2**2 / 2 + (np.e - 1 - 1) / 2
    np.testing.assert_allclose(sample.losses, [0.5 * divergence], rtol=1e-5)
    np.testing.assert_array_equal(sample(statistics), statistics[:, :2])


@pytest.mark.parametrize("variational", [True, False])
def test_a_copy_answers_like_the_one_that_was_fitted(variational, logits, digits):
    (x_train, _), (x_test, _) = digits
    own = train_autoencoder(x_train[:200], 4, variational, epochs=1)
    targets = logits(x_test[:3]).numpy()
    method = AutoencoderInversion(own, steps=5).fit(logits, x_train[:200])
    expected = ni.invert(logits, targets, method).inputs
    for twin in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        found = ni.invert(logits, targets, twin).inputs
        np.testing.assert_allclose(found, expected, atol=1e-6)
    fresh = pickle.loads(pickle.dumps(AutoencoderInversion(own, steps=5)))
    found = ni.invert(logits, targets, fresh.fit(logits, x_train[:200])).inputs
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_pictures_of_any_shape_are_drawn_in_the_range_of_those_seen():
    inputs = np.random.default_rng(0).uniform(-3, 5, (64, 6, 5, 2)).astype("float32")
    model = train_autoencoder(inputs, latent_size=3, variational=False, epochs=1)
    wild = model.layers[1].predict(np.full((1, 3), 1e4), verbose=0)
    assert wild.shape == (1, 6, 5, 2)
    assert wild.min() >= inputs.min() - 1e-5
    assert wild.max() <= inputs.max() + 1e-5


@pytest.mark.parametrize("variational", [True, False])
def test_vectors_of_any_scale_are_drawn_as_they_were(variational):
    random = np.random.default_rng(0)
    inputs = np.outer(random.standard_normal(2000), [1.0, -20.0, 300.0])
    inputs += [0.0, 1000.0, 5.0]
    model = train_autoencoder(inputs, 2, variational, epochs=15)
    error = model.predict(inputs, verbose=0) - inputs
    assert (error.std(axis=0) < 0.15 * inputs.std(axis=0)).all()


def test_a_passed_autoencoder_is_used_and_left_as_it_was(logits, digits):
    (x_train, _), (x_test, _) = digits
    own = build_autoencoder((28, 28, 1), latent_size=5, seed=3)
    before = [weight.numpy().copy() for weight in own.weights]
    method = AutoencoderInversion(own, steps=3).fit(logits, x_train[:200])
    ni.invert(logits, logits(x_test[:2]), method)
    assert method.decoder_ is own.layers[1]
    for weight, old in zip(own.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)


def test_a_network_with_other_outputs_needs_a_new_fit(method):
    other = ni.tap(ni.pretrained("mlp"), "hidden_2")
    with pytest.raises(ValueError, match=r"\(10,\).*\(64,\).*fit"):
        ni.invert(other, np.ones((1, 64)), method)


def test_unfitted_it_says_what_to_do(logits):
    with pytest.raises(RuntimeError, match=r"fit\(forward, inputs\)"):
        ni.invert(logits, np.ones((1, 10)), AutoencoderInversion())


def test_an_autoencoder_that_does_not_fit_is_refused(shipped, logits):
    with pytest.raises(ValueError, match=r"\(9, 9, 1\).*\(28, 28, 1\)"):
        AutoencoderInversion(shipped).fit(
            lambda x: tf.reduce_mean(x, axis=[2, 3]), np.ones((20, 9, 9, 1), "float32")
        )
    shape = (28, 28, 1)
    halves = [keras.Sequential([keras.Input(shape), keras.layers.ReLU()])] * 2
    with pytest.raises(ValueError, match="code must be a vector"):
        AutoencoderInversion(keras.Sequential(halves)).fit(logits, np.ones((2, *shape)))
    with pytest.raises(ValueError, match="encoder and decoder"):
        AutoencoderInversion(shipped.layers[1]).fit(
            logits, np.ones((20, 28, 28, 1), "float32")
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_size": 0}, "latent_size must be at least 1"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"restarts": 0}, "restarts"),
        ({"steps": -1}, "steps"),
        ({"prior": -0.1}, "prior must be a number of at least 0"),
        ({"start": "middle"}, 'start must be "estimate", "mean"'),
        ({"autoencoder": "letters"}, "'letters'"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderInversion(**settings)


def test_the_regression_finds_a_linear_map_from_few_examples():
    random = np.random.default_rng(0)
    outputs = random.standard_normal((200, 6)) * [1, 10, 100, 1, 1, 1] + 7
    matrix = random.standard_normal((6, 3)) / [[1], [10], [100], [1], [1], [1]]
    guess = Regression(outputs[:150], outputs[:150] @ matrix, seed=0)
    error = guess(outputs[150:]) - outputs[150:] @ matrix
    assert error.std() < 0.25 * (outputs @ matrix).std()


def test_the_regression_guesses_the_mean_where_outputs_say_nothing():
    random = np.random.default_rng(1)
    outputs, answers = random.standard_normal((1000, 5)), random.uniform(size=(1000, 2))
    guess = Regression(outputs, answers, seed=0)(outputs)
    np.testing.assert_allclose(guess, 0.5, atol=0.15)


def test_the_regression_never_leaves_the_range_it_has_seen():
    outputs = np.linspace(0, 1, 300)[:, np.newaxis]
    guess = Regression(outputs, 2 * outputs, seed=0)
    assert guess(np.array([[50.0], [-50.0]])).max() <= 2
    assert guess(np.array([[50.0], [-50.0]])).min() >= 0


def test_a_single_example_is_the_guess_for_everything():
    guess = Regression(np.ones((1, 4)), np.array([[3.0, 5.0]]), seed=0)
    np.testing.assert_allclose(guess(np.full((2, 4), 9.0)), [[3, 5], [3, 5]])


def test_the_shipped_sweep_says_what_a_larger_code_buys():
    table = read_asset("autoencoder_bottleneck.npz")
    assert list(table["latent_size"]) == [2, 4, 8, 16, 32, 64]
    assert list(table["source"]) == ["the digit itself", "logits", "hidden_1"]
    for kind in ("plain", "variational"):
        assert table[kind].shape == (6, 3, 3)
        itself, logits, hidden_1 = np.moveaxis(table[kind][..., 0], 1, 0)
        assert (np.diff(itself[:4]) > 0.5).all()  # from 2 to 16, in dB
        # What the target does not say, a larger code cannot add.
        assert itself[3] - itself[0] > 1.5 * (logits[3] - logits[0])
        assert (hidden_1 > logits).all()
    assert table["variational"][-1, 1, 0] > table["plain"][-1, 1, 0] + 0.5
