"""The book's networks are what the book says, and any network can be a forward one."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter

from netinvert import data
from netinvert.data import load_mnist
from netinvert.forward import as_function, input_shape_of
from netinvert.models import pretrained
from netinvert.studies.train import RECIPES, accuracy, hardened, train

ACCURACY = {"mlp": 0.9505, "cnn": 0.9610, "evaluator": 0.9885}


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


def two_headed():
    inputs = keras.Input((4,))
    heads = [keras.layers.Dense(size, name=f"head_{size}")(inputs) for size in (2, 3)]
    return keras.Model(inputs, heads)


def two_armed():
    arms = [keras.Input((4,), name="left"), keras.Input((2,), name="right")]
    return keras.Model(arms, keras.layers.Concatenate()(arms))


@pytest.mark.parametrize("name", ACCURACY)
def test_the_shipped_weights_are_as_accurate_as_the_book_says(name):
    # two images of slack for the rounding of another processor
    assert accuracy(pretrained(name)) == pytest.approx(ACCURACY[name], abs=0.001)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_training_again_gets_within_half_a_point(name):
    assert accuracy(train(name)) == pytest.approx(ACCURACY[name], abs=0.005)


def test_a_tenth_of_its_training_makes_the_evaluator_better_than_what_it_judges(
    monkeypatch,
):
    monkeypatch.setitem(RECIPES["evaluator"], "epochs", 3)  # all 30 take a minute
    assert accuracy(train("evaluator")) > ACCURACY["cnn"]


def test_the_first_network_is_the_one_of_the_title_figure():
    model = pretrained("mlp")
    names = ["flatten", "hidden_1", "hidden_2", "logits", "softmax"]
    assert [layer.name for layer in model.layers] == names
    assert [w.shape for w in model.weights if w.name == "kernel"] == [
        (784, 128),
        (128, 64),
        (64, 10),
    ]
    assert model.get_layer("hidden_1").activation is keras.activations.relu


def test_the_evaluator_reads_an_average_digit_as_that_digit():
    (x_train, y_train), _ = load_mnist()
    means = np.stack([x_train[y_train == digit].mean(axis=0) for digit in range(10)])
    found = pretrained("evaluator")(means).numpy().argmax(axis=1)
    assert found.tolist() == list(range(10))


def test_the_evaluator_reads_blurred_and_noisy_digits_as_people_do():
    _, (x_test, y_test) = load_mnist()
    noise = np.random.default_rng(0).normal(0, 0.3, x_test.shape)
    noisy = np.clip(x_test + noise, 0, 1)
    blurred = gaussian_filter(x_test, (0, 1.2, 1.2, 0))
    for hard in (noisy, blurred):
        found = pretrained("evaluator").predict(hard, verbose=0).argmax(axis=1)
        assert np.mean(found == y_test) > 0.97


def test_hardened_digits_are_pictures_again_and_the_same_for_the_same_seed():
    (x_train, _), _ = load_mnist()
    one, same, other = (
        np.stack([hardened(x, random) for x in x_train[:200]])
        for random in map(np.random.default_rng, (0, 0, 1))
    )
    assert one.shape == (200, 28, 28, 1) and one.dtype == "float32"
    assert one.min() >= 0 and one.max() <= 1
    np.testing.assert_array_equal(one, same)
    assert (np.abs(one - other).max(axis=(1, 2, 3)) > 0.1).all()


def test_each_call_gives_a_network_of_its_own():
    first, second = pretrained("mlp"), pretrained("mlp")
    first.set_weights([0 * weight for weight in first.get_weights()])
    assert accuracy(second) > 0.9


def test_an_unknown_network_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'resnet'.* 'mlp', 'cnn', 'evaluator'"):
        pretrained("resnet")


def test_truncated_weights_are_reported_with_both_checksums(tmp_path, monkeypatch):
    content = (data.ASSETS / "mlp.npz").read_bytes()[:-100]
    checksums = (data.ASSETS / data.CHECKSUMS).read_text()
    (tmp_path / "mlp.npz").write_bytes(content)
    (tmp_path / data.CHECKSUMS).write_text(checksums)
    monkeypatch.setattr(data, "ASSETS", tmp_path)
    with pytest.raises(RuntimeError, match="damaged") as error:
        pretrained("mlp")
    (expected,) = [line.split()[0] for line in checksums.splitlines() if "mlp" in line]
    assert expected in str(error.value)
    assert data.hashlib.sha256(content).hexdigest() in str(error.value)


def test_a_model_runs_as_it_does_after_training(vectors):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=0),
        ]
    )
    forward = as_function(model)
    expected = vectors / np.sqrt(1 + model.layers[0].epsilon)
    for _ in range(2):
        np.testing.assert_allclose(forward(vectors), expected, rtol=1e-6)


def test_a_subclassed_model_without_a_training_argument_is_fine(vectors):
    class Doubling(keras.Model):
        def call(self, inputs):
            return 2 * inputs

    model = Doubling()
    np.testing.assert_array_equal(as_function(model)(vectors), 2 * vectors)
    assert input_shape_of(model) == (4,), "Keras noted it at the first call"
    assert input_shape_of(Doubling()) is None


def test_a_function_is_taken_as_it_is(vectors):
    forward = as_function(lambda x: tf.reduce_sum(x, axis=1))
    np.testing.assert_allclose(forward(vectors), vectors.sum(axis=1), rtol=1e-5)
    assert input_shape_of(tf.reduce_sum) is None


def test_an_output_wrapped_in_a_list_or_dictionary_is_unwrapped(vectors):
    for forward in (lambda x: [3 * x], lambda x: {"only": 3 * x}):
        np.testing.assert_array_equal(as_function(forward)(vectors), 3 * vectors)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (
            keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()]),
            (28, 28, 1),
        ),
        (keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), (4,)),
        (keras.Sequential([keras.layers.Dense(2)]), None),
        (keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(2)]), None),
    ],
)
def test_the_shape_of_one_input_is_known_or_none(model, shape):
    assert input_shape_of(model) == shape


def test_two_outputs_are_refused_with_advice(vectors):
    with pytest.raises(ValueError, match=r"2 outputs.*tap\(model, name"):
        as_function(two_headed())
    with pytest.raises(ValueError, match="2 outputs"):
        as_function(lambda x: (x, x))(vectors)


@pytest.mark.parametrize("ask", [as_function, input_shape_of])
def test_two_inputs_are_refused_with_advice(ask):
    with pytest.raises(ValueError, match=r"2 inputs \('left', 'right'\).*constant"):
        ask(two_armed())


def test_what_cannot_be_called_is_no_forward_network():
    with pytest.raises(ValueError, match=r"Keras model or a function.*got str"):
        as_function("my_model.h5")


@pytest.mark.parametrize("name", ["resnet", [], None])
def test_an_unknown_network_is_answered_with_those_there_are(name):
    with pytest.raises(ValueError, match="There are 'mlp', 'cnn', 'evaluator'"):
        pretrained(name)


def test_the_networks_read_pixels_in_the_order_in_which_they_learned():
    script = (
        "import netinvert as ni, keras\n"
        "keras.config.set_image_data_format('channels_first')\n"
        "_, (x, y) = ni.load_mnist()\n"
        "for name in 'mlp', 'cnn', 'evaluator':\n"
        "    said = ni.pretrained(name)(x[:200]).numpy().argmax(axis=1)\n"
        "    assert (said == y[:200]).mean() > 0.9, name\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-500:]
