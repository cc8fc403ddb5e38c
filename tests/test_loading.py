"""A reader's model is loaded from any file of Keras, and no code comes with it."""

import copy
import json
import os
import shutil
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
    """Change the description of the layers inside a file."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        config = json.loads(parts["config.json"])
        change(config)
        parts["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(path, "w") as file:
            for name, content in parts.items():
                file.writestr(name, content)
        return path
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
    with pytest.raises(ValueError, match="not a whole Keras model|carries code"):
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


# Each of these names is refused by our own wall, in whatever way it is written:
# Keras before 3.9 would import the module and hand over what it finds there.
MARK = {"name": "mark", "arguments": {}}
HOSTILE = {
    "Lambda": ("keras.layers", "Lambda"),
    "Lambda by a dotted name": ("keras", "layers.Lambda"),
    "Lambda where it is written": ("keras.src.layers.core.lambda_layer", "Lambda"),
    "Lambda by a long way": ("keras", "src.layers.core.lambda_layer.Lambda"),
    "Lambda among the layers": ("keras.src.layers", "Lambda"),
    "Lambda of an old file": (None, "Lambda"),
    "a program of TensorFlow": ("keras.layers", "TFSMLayer"),
    "a program of PyTorch": ("keras.layers", "TorchModuleWrapper"),
    "a program of JAX": ("keras", "layers.JaxLayer"),
    "a program of Flax": ("keras.src.utils.jax_layer", "FlaxLayer"),
    "byte code": (None, "__lambda__"),
    "byte code with a module": ("keras", "__lambda__"),
    "a type": ("subprocess", "__typespec__"),
    "a loader": (None, "deserialize"),
    "a loader in the open": ("keras.layers", "deserialize"),
    "a loader of models": ("keras.saving", "load_model"),
    "a download": ("keras.utils", "get_file"),
    "a download by a dotted name": ("keras", "utils.get_file"),
    "a download where it is written": ("keras.src.utils.file_utils", "get_file"),
    "the switch of the safe mode": ("keras.config", "enable_unsafe_deserialization"),
    "a module": ("keras", "utils"),
    "no name": ("keras.", "layers.Lambda"),
    "the shell": ("os", "system"),
    "a process": ("subprocess", "Popen"),
    "an evaluation": ("builtins", "eval"),
    "an import": ("importlib", "import_module"),
    "a pickle": ("numpy", "load"),
    "a module that is not loaded": ("antigravity", "geohash"),
    "a program of TensorFlow's": ("tensorflow", "py_function"),
}
# The same as a function: Keras hands these over without asking what they are.
FUNCTIONS = {
    "the shell": ("os", "system"),
    "an evaluation": ("builtins", "eval"),
    "a download": ("keras.utils", "get_file"),
    "a loader": ("keras.activations", "deserialize"),
    "a loader by name": ("builtins", "deserialize"),
    "a maker": ("keras.layers", "Lambda"),
    "the switch of the safe mode": ("keras.config", "enable_unsafe_deserialization"),
}


def hostile_part(module, name, function=False):
    part = {"class_name": name, "config": dict(MARK), "registered_name": name}
    if function:
        part |= {"class_name": "function", "config": name}
    return part if module is None else part | {"module": module}


def hostile_parts():
    for name, (module, wanted) in HOSTILE.items():
        yield pytest.param(hostile_part(module, wanted), id=name)
        odd = hostile_part(module, wanted) | {"registered_name": "netinvert>Dense"}
        yield pytest.param(odd, id=name + ", registered")
    for name, (module, wanted) in FUNCTIONS.items():
        yield pytest.param(hostile_part(module, wanted, True), id=name + ", a function")


def as_layer(config, part):
    config["config"]["layers"].append(part)


def as_activation(config, part):
    config["config"]["layers"][1]["config"]["activation"] = part


def as_argument(config, part):
    layer = config["config"]["layers"][1]
    layer["inbound_nodes"] = [{"args": [[{"a": part}]], "kwargs": {"b": part}}]


def as_nested_layer(config, part):
    inner = {"class_name": "TimeDistributed", "config": {"layer": part}}
    config["config"]["layers"].append(inner | {"module": "keras.layers"})


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A file of each kind, to be tampered with."""
    folder = tmp_path_factory.mktemp("honest")
    return {end: save(network(), folder / f"m{end}") for end in (".keras", ".h5")}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("part", list(hostile_parts()))
def test_whatever_name_it_goes_by_code_is_refused(part, suffix, honest, tmp_path):
    for place in (as_layer, as_activation, as_argument, as_nested_layer):
        path = shutil.copy(honest[suffix], tmp_path / f"{place.__name__}{suffix}")
        tampered(path, lambda config, place=place: place(config, copy.deepcopy(part)))
        with pytest.raises(ValueError, match="carries code") as error:
            load_model(path)
        assert "custom_object_scope" not in str(error.value)


def test_nothing_is_imported_in_order_to_look_at_it(honest, tmp_path, monkeypatch):
    (tmp_path / "unheard_of.py").write_text("raise SystemExit('this has run')")
    monkeypatch.syspath_prepend(tmp_path)
    for suffix, path in honest.items():
        copied = shutil.copy(path, tmp_path / f"m{suffix}")
        part = hostile_part("unheard_of", "Scale")
        tampered(copied, lambda config, part=part: as_layer(config, part))
        with pytest.raises(ValueError, match="'Scale' of 'unheard_of'"):
            load_model(copied)


def test_a_layer_that_reads_a_file_is_refused(honest, tmp_path):
    path = shutil.copy(honest[".keras"], tmp_path / "m.keras")
    part = hostile_part("keras.layers", "StringLookup")
    part["config"] = {"name": "words", "vocabulary": "/etc/passwd"}
    tampered(path, lambda config: as_layer(config, part))
    with pytest.raises(ValueError, match="StringLookup, which reads '/etc/passwd'"):
        load_model(path)


def test_a_scope_is_no_way_round(honest, tmp_path):
    path = shutil.copy(honest[".keras"], tmp_path / "m.keras")
    tampered(path, lambda config: as_layer(config, hostile_part(None, "Mine")))
    with keras.saving.custom_object_scope({"Mine": layers.Lambda}):
        with pytest.raises(ValueError, match="carries code"):
            load_model(path)


def rezipped(source, path, change, compression=zipfile.ZIP_DEFLATED):
    """Write the file again, with the parts that ``change`` makes of its own."""
    with zipfile.ZipFile(source) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in change(parts).items():
            file.writestr(name, content)
    return path


def test_weights_that_old_keras_would_unpickle_are_refused(honest, tmp_path):
    def with_pickles(parts):
        del parts["model.weights.h5"]
        return parts | {"model.weights.npz": b"code to Keras 3.8, which runs it"}

    path = rezipped(honest[".keras"], tmp_path / "m.keras", with_pickles)
    with pytest.raises(ValueError, match="npz may hold pickles"):
        load_model(path)


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "assets/x"])
def test_a_small_file_that_unfolds_to_a_large_one_is_refused(name, honest, tmp_path):
    path = rezipped(
        honest[".keras"],
        tmp_path / "m.keras",
        lambda parts: parts | {name: bytes(2**26)},
    )
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match=f"{name} unfolds from .* to 67,108,864"):
        load_model(path)


def test_many_parts_that_are_small_one_by_one_are_added_up(honest, tmp_path):
    more = {f"assets/{number}": bytes(2**23) for number in range(4)}
    path = rezipped(honest[".keras"], tmp_path / "m.keras", lambda parts: parts | more)
    with pytest.raises(ValueError, match="it unfolds from"):
        load_model(path)


def test_a_size_that_is_declared_falsely_is_not_believed(honest, tmp_path):
    spaces = b" " * 2**26
    path = rezipped(
        honest[".keras"],
        tmp_path / "m.keras",
        lambda parts: parts | {"config.json": parts["config.json"] + spaces},
    )
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        size = file.getinfo("config.json").file_size
    path.write_bytes(content.replace(size.to_bytes(4, "little"), b"\0\4\0\0"))
    with pytest.raises(ValueError, match="not a whole Keras model file"):
        load_model(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_description_beyond_all_measure_is_refused(suffix, honest, tmp_path):
    path = shutil.copy(honest[suffix], tmp_path / f"m{suffix}")
    long = {"name": os.urandom(2**24).hex()}
    tampered(path, lambda config: config.update(long))
    with pytest.raises(ValueError, match="described in more than 16,777,216 bytes"):
        load_model(path)


def test_an_array_from_another_file_is_refused(honest, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["a"] = np.zeros(3)

    def external_link(file):
        file["model_weights"]["theirs"] = h5py.ExternalLink(str(secret), "a")

    def external_storage(file):
        file.create_dataset("theirs", (3,), "f4", external=[(str(secret), 0, 12)])

    def virtual(file):
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(str(secret), "a", (3,))
        file.create_virtual_dataset("theirs", layout)

    for change in (external_link, external_storage, virtual):
        path = shutil.copy(honest[".h5"], tmp_path / f"{change.__name__}.h5")
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(ValueError, match="theirs is taken from another file"):
            load_model(path)


def test_an_array_that_unfolds_to_a_larger_one_is_refused(honest, tmp_path):
    path = shutil.copy(honest[".h5"], tmp_path / "m.h5")
    with h5py.File(path, "r+") as file:
        file.create_dataset("huge", (2**30,), "f4", compression="gzip")
    with pytest.raises(ValueError, match="huge unfolds from 0 bytes to 4,294,967,296"):
        load_model(path)


def test_of_two_descriptions_the_one_that_keras_reads_is_looked_at(honest, tmp_path):
    path = shutil.copy(honest[".keras"], tmp_path / "m.keras")
    with zipfile.ZipFile(path) as file:
        config = json.loads(file.read("config.json"))
    as_layer(config, hostile_part("keras", "layers.Lambda"))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning):
        file.writestr("config.json", json.dumps(config))
    with pytest.raises(ValueError, match="carries code"):
        load_model(path)


@pytest.mark.parametrize("suffix", [".KERAS", ".H5", ".Hdf5"])
def test_capital_letters_are_answered_with_the_right_name(suffix, honest, tmp_path):
    lower = ".keras" if suffix == ".KERAS" else ".h5"
    path = shutil.copy(honest[lower], tmp_path / f"MODEL{suffix}")
    with pytest.raises(ValueError, match=f"small letters.*MODEL{suffix.lower()}"):
        load_model(path)


def test_what_keras_itself_refuses_comes_without_advice_to_let_it_in(honest, tmp_path):
    path = shutil.copy(honest[".keras"], tmp_path / "m.keras")

    def change(config):
        config["config"]["layers"][1]["config"]["units"] = -1

    with pytest.raises(ValueError, match="could not rebuild") as error:
        load_model(tampered(path, change))
    assert "custom_object_scope" not in str(error.value)
