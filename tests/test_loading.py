"""A reader's model is loaded from any file of Keras, and no code comes with it."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from netinvert.forward import as_function, tap
from netinvert.inversion import invert
from netinvert.methods.gradient import GradientInversion
from netinvert.models import load_model

VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


@pytest.fixture(autouse=True)
def the_same_weights_every_time():
    keras.utils.set_random_seed(0)


class Scale(layers.Layer):
    """A layer that Keras does not know."""

    def call(self, inputs):
        return 3 * inputs


def double(values):
    """An activation that Keras does not know."""
    return 2 * values


def network(*more):
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, "relu", name="hidden"), *more]
    )


def save(model, path):
    model.save(path)
    return path


def tampered(path, change):
    """Change the description of the layers inside an .h5 file."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)
    return path


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.hdf5"])
def test_a_saved_model_says_the_same_after_loading(name, tmp_path):
    model = network(layers.Dense(2, "softmax"))
    # Keras itself fails to load an .h5 with these strings unless it is told not to
    # compile.
    model.compile("adam", "mse", metrics=["mse", "accuracy"])
    loaded = load_model(save(model, tmp_path / name))
    np.testing.assert_allclose(loaded(VECTORS), model(VECTORS), atol=1e-6)
    np.testing.assert_allclose(
        tap(loaded, "logits")(VECTORS), tap(model, "logits")(VECTORS), atol=1e-6
    )


def test_losses_and_metrics_of_ones_own_do_not_matter(tmp_path):
    def own_loss(truth, guess):
        return keras.ops.mean(keras.ops.abs(truth - guess))

    for name in ("model.keras", "model.h5"):
        model = network()
        model.compile("sgd", own_loss, metrics=[own_loss])
        loaded = load_model(str(save(model, tmp_path / name)))
        np.testing.assert_allclose(loaded(VECTORS), model(VECTORS), atol=1e-6)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_lambda_layer_is_refused_unless_allowed(name, tmp_path):
    path = save(network(layers.Lambda(lambda x: 2 * x, name="twice")), tmp_path / name)
    with pytest.raises(ValueError, match=r"Lambda 'twice'.*allow_code=True"):
        load_model(path)
    values = load_model(path, allow_code=True)(VECTORS)
    assert values.shape == (6, 3)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_lambda_layer_hidden_in_nested_models_is_refused(name, tmp_path):
    inner = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x)])
    middle = keras.Sequential([keras.Input((5, 3)), layers.TimeDistributed(inner)])
    path = save(keras.Sequential([keras.Input((5, 3)), middle]), tmp_path / name)
    with pytest.raises(ValueError, match="Lambda 'lambda"):
        load_model(path)


def test_code_in_the_form_of_old_keras_versions_is_refused(tmp_path):
    """Keras 2 wrote a Lambda's byte code as a plain list."""

    def change(config):
        config["config"]["layers"].append(
            {
                "class_name": "Lambda",
                "config": {
                    "name": "old",
                    "function": ["4wEAAA==", None, None],
                    "function_type": "lambda",
                },
            }
        )

    path = tampered(save(network(), tmp_path / "model.h5"), change)
    with pytest.raises(ValueError, match="Lambda 'old'"):
        load_model(path)


def test_code_in_place_of_an_activation_is_refused(tmp_path):
    def change(config):
        config["config"]["layers"][1]["config"]["activation"] = {
            "class_name": "__lambda__",
            "config": {"value": "4wEAAA=="},
        }

    path = tampered(save(network(), tmp_path / "model.h5"), change)
    with pytest.raises(ValueError, match="__lambda__"):
        load_model(path)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_layer_of_ones_own_is_asked_for(name, tmp_path):
    model = network(Scale(), layers.Dense(2, double))
    path = save(model, tmp_path / name)
    with pytest.raises(ValueError, match=r"'Scale'.*\n.*\n.*custom_object_scope"):
        load_model(path)
    with keras.saving.custom_object_scope({"Scale": Scale, "double": double}):
        loaded = load_model(path)
    np.testing.assert_allclose(loaded(VECTORS), model(VECTORS), atol=1e-6)


@pytest.mark.parametrize("path", [None, 3, "", "~not_a_user/m.h5", "m" * 999])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ValueError, match="path"):
        load_model(path)


@pytest.mark.parametrize("word", ["no", "False", 1, None])
def test_code_is_allowed_by_true_alone(word, tmp_path):
    with pytest.raises(ValueError, match="allow_code must be True or False"):
        load_model(tmp_path / "model.keras", allow_code=word)


@pytest.mark.parametrize(
    "config",
    [
        "[]",
        "3",
        "null",
        "[" * 100_000,
        '{"class_name": "Lambda", "config": null}',
        '{"class_name": ["Lambda"], "config": {}}',
    ],
)
def test_a_description_that_is_none_is_refused(config, tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", config)
    with pytest.raises(ValueError, match="not a whole Keras model"):
        load_model(path)


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"no file 'nowhere/my_model\.h5'"):
        load_model("nowhere/my_model.h5")


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_text_file_is_no_model(name, tmp_path):
    path = tmp_path / name
    path.write_text("hello\n")
    with pytest.raises(ValueError, match=r"\(6 bytes\) is not a whole (Keras|HDF5)"):
        load_model(path)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_no_model(name, share, tmp_path):
    path = save(network(), tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="is not a whole"):
        load_model(path)


def test_a_damaged_file_is_not_loaded(tmp_path):
    path = save(network(), tmp_path / "model.keras")
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    parts["config.json"] = parts["config.json"][:-10]
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    with pytest.raises(ValueError, match="is not a whole Keras model file"):
        load_model(path)


def test_weights_alone_are_no_model(tmp_path):
    path = tmp_path / "model.weights.h5"
    network().save_weights(path)
    with pytest.raises(ValueError, match="weights but no layers.*load_weights"):
        load_model(path)


def test_a_file_under_a_wrong_name_says_which_name_is_right(tmp_path):
    path = save(network(), tmp_path / "model.h5").rename(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"HDF5 file by its content.*model\.h5"):
        load_model(path)
    path = save(network(), tmp_path / "model.keras").rename(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt does not end in \.keras or \.h5"):
        load_model(path)


def test_a_saved_model_directory_runs_once_it_is_allowed(tmp_path):
    model = network(layers.Dense(2, "softmax"))
    model.export(tmp_path / "exported", verbose=False)
    with pytest.raises(ValueError, match=r"SavedModel: .*program.*allow_code=True"):
        load_model(tmp_path / "exported")
    loaded = load_model(tmp_path / "exported", allow_code=True)
    assert loaded.input_shape == (None, 4)
    np.testing.assert_allclose(as_function(loaded)(VECTORS), model(VECTORS), atol=1e-6)
    with pytest.raises(ValueError, match="TFSMLayer"):
        tap(loaded, "logits")


def test_a_search_can_follow_gradients_through_a_saved_model(tmp_path):
    import tensorflow as tf

    model = network(layers.Dense(2, "softmax"))
    model.export(tmp_path / "exported", verbose=False)
    gradients = []
    for forward in (model, load_model(tmp_path / "exported", allow_code=True)):
        inputs = tf.constant(VECTORS)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = tf.reduce_sum(as_function(forward)(inputs)[:, 0])
        gradients.append(tape.gradient(value, inputs))
    np.testing.assert_allclose(*gradients, atol=1e-6)


def test_a_saved_model_can_be_inverted(tmp_path):
    network(layers.Dense(2, "softmax")).export(tmp_path / "exported", verbose=False)
    program = load_model(tmp_path / "exported", allow_code=True)
    target = as_function(program)(VECTORS[:1])
    search = GradientInversion(start=VECTORS[1])
    result = invert(program, target, search, bounds=None)
    assert result.history["objective"][0] > 10 * result.history["objective"][-1]
    assert result.converged.all()


def test_a_saved_model_with_two_inputs_is_refused(tmp_path):
    arms = [keras.Input((4,), name="left"), keras.Input((2,), name="right")]
    model = keras.Model(arms, layers.Concatenate()(arms))
    model.export(tmp_path / "exported", verbose=False)
    with pytest.raises(ValueError, match="must take one input"):
        load_model(tmp_path / "exported", allow_code=True)


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no saved_model\.pb"):
        load_model(tmp_path)
