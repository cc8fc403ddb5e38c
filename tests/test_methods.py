"""The contract: one list of methods, one list of demands.

A new method joins with one line in METHODS.
"""

import copy
import pickle
import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import netinvert as ni
from tests.skeleton import skeleton_method

METHODS = {
    "skeleton in CONTRIBUTING.md": lambda: skeleton_method()(),
    "gradient": lambda: ni.GradientInversion(steps=200),
    "gradient from noise": lambda: ni.GradientInversion(
        start="noise", restarts=2, steps=200
    ),
    "gradient from an inverse network": lambda: ni.GradientInversion(
        start=ni.InverseNetwork(hidden=(64,), epochs=5), steps=200
    ),
    "autoencoder": lambda: ni.AutoencoderInversion(
        latent_size=8, variational=False, epochs=5
    ),
    "variational autoencoder": lambda: ni.AutoencoderInversion(
        latent_size=8, epochs=15
    ),
    "inverse network": lambda: ni.InverseNetwork(hidden=(64,), epochs=10),
    "levenberg-marquardt": lambda: ni.LevenbergMarquardt(),
    "levenberg-marquardt along the covariance": lambda: ni.LevenbergMarquardt(
        covariance="inputs"
    ),
    "levenberg-marquardt from an inverse network": lambda: ni.LevenbergMarquardt(
        start=ni.InverseNetwork(hidden=(64,), epochs=5)
    ),
}
NEEDS_FIT = set(METHODS) - {  # those that learn
    "gradient",
    "gradient from noise",
    "levenberg-marquardt",
}

pytestmark = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def digits():
    (x_train, _), (x_test, _) = ni.load_mnist()
    return x_train[:600], x_test[:6]


@pytest.fixture(scope="module")
def forward():
    return ni.tap(ni.pretrained("mlp"), "hidden_2")


@pytest.fixture(scope="module")
def fitted(forward, digits):
    """Every method, fitted once; they are reusable, so the tests may share them."""
    return {name: make().fit(forward, digits[0]) for name, make in METHODS.items()}


@pytest.fixture(scope="module")
def answers(fitted, forward, digits):
    targets = forward(digits[1]).numpy()
    return {name: ni.invert(forward, targets, fitted[name]) for name in METHODS}


@pytest.fixture(scope="module")
def repeated(forward, digits, answers):
    """A method by its name, made again: fitted on another network first, in other
    surroundings. The tests share what it gave, since learning takes most of their time.
    """
    done = {}

    def repeat(name):
        if name not in done:
            model = ni.pretrained("mlp")
            logits, before = ni.tap(model, "logits"), model.get_weights()
            np.random.seed(5)
            tf.random.set_seed(5)
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                method = METHODS[name]().fit(logits, digits[0])
                ni.invert(logits, np.eye(10)[:2], method)
                result = ni.invert(
                    forward, answers[name].targets, method.fit(forward, digits[0])
                )
                ni.invert(forward, np.zeros((1, 64)), method)
            drawn = np.random.uniform(), float(tf.random.uniform(()))
            done[name] = SimpleNamespace(
                model=model, before=before, result=result, drawn=drawn, warned=warned
            )
        return done[name]

    return repeat


def test_it_proposes_one_input_for_each_target_within_the_bounds(name, answers):
    result = answers[name]
    assert result.inputs.shape == (6, 28, 28, 1)
    assert result.inputs.dtype == "float32"
    assert result.inputs.min() >= 0
    assert result.inputs.max() <= 1


def test_the_judge_measured_what_was_returned(name, answers, forward):
    result = answers[name]
    outputs = forward(result.inputs).numpy()
    np.testing.assert_allclose(result.outputs, outputs, atol=1e-4)
    error = np.mean((outputs - result.targets) ** 2, axis=1)
    np.testing.assert_allclose(result.residual, error, rtol=1e-3)


def test_it_beats_the_blank_picture_on_both_errors(name, answers, forward, digits):
    result, truth = answers[name], digits[1]
    blank = np.zeros_like(truth)
    blank_output = np.mean((forward(blank).numpy() - result.targets) ** 2, axis=1)
    assert (result.residual < 0.5 * blank_output).all()
    error = ni.metrics.mse(result.inputs, truth)
    if name != "gradient from noise":  # which fits the output, and shows noise
        assert error.mean() < 0.8 * ni.metrics.mse(blank, truth).mean()


def test_the_network_is_left_as_it_was(name, repeated):
    model = repeated(name).model
    for weight, old in zip(model.get_weights(), repeated(name).before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert all(layer.trainable for layer in model.layers)


def test_same_seed_same_answer_whatever_ran_and_was_learned_before(
    name, repeated, answers
):
    again = repeated(name).result
    np.testing.assert_allclose(again.inputs, answers[name].inputs, atol=1e-3)


def test_it_leaves_the_readers_random_numbers_alone(name, repeated):
    np.random.seed(5)
    tf.random.set_seed(5)
    undisturbed = np.random.uniform(), float(tf.random.uniform(()))
    assert repeated(name).drawn == undisturbed


def test_it_does_not_warn(name, repeated):
    assert not [str(warning.message) for warning in repeated(name).warned]


def test_the_answer_for_one_target_does_not_depend_on_its_neighbours(
    name, fitted, forward, answers
):
    result = answers[name]
    alone = ni.invert(forward, result.targets[2:3], fitted[name])
    np.testing.assert_allclose(alone.inputs[0], result.inputs[2], atol=2e-3)
    reversed_ = ni.invert(forward, result.targets[::-1], fitted[name])
    np.testing.assert_allclose(reversed_.inputs[::-1], result.inputs, atol=2e-3)


def test_chunks_give_the_same_answers(name, fitted, forward, answers):
    result = answers[name]
    chunked = ni.invert(forward, result.targets, fitted[name], batch_size=4)
    np.testing.assert_allclose(chunked.inputs, result.inputs, atol=2e-3)
    assert set(chunked.history) == set(result.history)


def test_its_history_is_empty_or_has_the_agreed_shapes(name, answers):
    history = answers[name].history
    if history:
        count = len(history["step"])
        assert history["objective"].shape == (count, 6)
        assert history["inputs"].shape == (count, 6, 28, 28, 1)
        assert np.isfinite(history["objective"]).all()


def test_a_linear_network_gets_its_known_input_back(name):
    rng = np.random.default_rng(1)
    matrix = tf.constant(
        np.linalg.qr(rng.normal(size=(6, 6)))[0][:4].T, "float32"
    )  # four numbers to six, well conditioned: one answer for each target

    def forward(batch):
        return tf.matmul(batch, tf.transpose(matrix))

    inputs = rng.normal(size=(2000, 4)).astype("float32")
    method = METHODS[name]().fit(forward, inputs)
    result = ni.invert(forward, forward(inputs[:5]), method, bounds=None)
    assert result.inputs.shape == (5, 4)
    np.testing.assert_allclose(result.inputs, inputs[:5], atol=0.15)


def test_vectors_stay_within_their_own_bounds(name):
    rng = np.random.default_rng(2)
    low, high = np.array([0.0, -5.0, 100.0]), np.array([1.0, 5.0, 300.0])
    inputs = rng.uniform(low, high, (500, 3)).astype("float32")
    scale = tf.constant(high - low, "float32")

    def forward(batch):
        return tf.stack([batch[:, 0], tf.reduce_sum(batch / scale, axis=1)], axis=1)

    method = METHODS[name]().fit(forward, inputs)
    result = ni.invert(forward, forward(inputs[:4]), method, bounds=(low, high))
    assert (result.inputs >= low.astype("float32")).all()
    assert (result.inputs <= high.astype("float32")).all()
    assert result.residual.max() < 0.05


def test_it_can_be_pickled_and_copied(name, fitted, forward, answers):
    result = answers[name]
    for method in METHODS[name](), fitted[name]:
        for again in pickle.loads(pickle.dumps(method)), copy.deepcopy(method):
            assert repr(again) == repr(method)
    copied = pickle.loads(pickle.dumps(method))
    one, other = (ni.invert(forward, result.targets, m) for m in (method, copied))
    np.testing.assert_allclose(one.inputs, other.inputs, atol=1e-6)
    for again in pickle.loads(pickle.dumps(result)), copy.deepcopy(result):
        np.testing.assert_array_equal(again.inputs, result.inputs)
        assert again.method == result.method


def test_unfitted_it_works_or_says_what_to_do(name, forward, answers):
    method = METHODS[name]()
    if name in NEEDS_FIT:
        with pytest.raises(RuntimeError, match=r"fit\(forward, inputs\)"):
            ni.invert(forward, answers[name].targets, method)
    else:
        ni.invert(forward, answers[name].targets, method)


def test_it_refuses_inputs_it_cannot_learn_from(name, forward, digits):
    spoiled = digits[0][:50].copy()
    spoiled[3, 2, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        METHODS[name]().fit(forward, spoiled)
    with pytest.raises(ValueError, match="empty"):
        METHODS[name]().fit(forward, digits[0][:0])
    with pytest.raises(ValueError, match=r"\(N, 28, 28, 1\)"):
        METHODS[name]().fit(forward, np.ones((50, 7, 7, 1), "float32"))


def test_its_repr_shows_its_settings(name):
    method = METHODS[name]()
    assert repr(method).startswith(type(method).__name__ + "(")
    assert "_=" not in repr(method)  # what it learned is not a setting


def test_it_takes_a_subclassed_model_once_fitted(name, digits):
    class Halving(keras.Model):
        def call(self, inputs):
            return keras.ops.mean(inputs, axis=(2, 3)) / 2

    forward = Halving()
    method = METHODS[name]().fit(forward, digits[0][:100])
    result = ni.invert(forward, forward(digits[1]), method)
    assert result.inputs.shape == digits[1].shape
