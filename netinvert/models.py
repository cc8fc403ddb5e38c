"""Forward networks: the book's own, the reader's own, and taps into them."""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras

from netinvert.data import read_asset

IMAGE_SHAPE = (28, 28, 1)


def mlp(widths=(128, 64), activation: str = "relu", name: str = "mlp") -> keras.Model:
    """Build the book's first network: 784-128-64-10, ReLU, softmax, untrained."""
    layers = keras.layers
    first, second = widths
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE),
            layers.Flatten(name="flatten"),
            layers.Dense(first, activation=activation, name="hidden_1"),
            layers.Dense(second, activation=activation, name="hidden_2"),
            layers.Dense(10, name="logits"),
            layers.Softmax(name="softmax"),
        ],
        name=name,
    )


def cnn() -> keras.Model:
    """Build a small convolutional network with two strides of 2, untrained."""
    layers = keras.layers
    settings = {"strides": 2, "padding": "same", "activation": "relu"}
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE),
            layers.Conv2D(8, 3, name="conv_1", **settings),
            layers.Conv2D(16, 3, name="conv_2", **settings),
            layers.Flatten(name="flatten"),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dense(10, name="logits"),
            layers.Softmax(name="softmax"),
        ],
        name="cnn",
    )


def evaluator() -> keras.Model:
    """Build the independent judge of reconstructions, untrained.

    Its three convolutions pool where the networks under study stride or flatten.
    It has no batch normalisation: a judge tried with it was as accurate on
    digits, but took the average 4 for a 1, and reconstructions are often blurred.
    """
    layers = keras.layers
    inputs = values = keras.Input(IMAGE_SHAPE)
    for block, filters in enumerate((16, 48, 96), start=1):
        values = layers.Conv2D(
            filters, 3, padding="same", activation="relu", name=f"conv_{block}"
        )(values)
        values = layers.MaxPooling2D(name=f"pool_{block}")(values)
    values = layers.Flatten(name="flatten")(values)
    values = layers.Dropout(0.3, name="dropout")(values)
    values = layers.Dense(10, name="logits")(values)
    return keras.Model(inputs, layers.Softmax(name="softmax")(values), name="evaluator")


NETWORKS = {"mlp": mlp, "cnn": cnn, "evaluator": evaluator}
# The mlp with one thing changed, to compare it with; studies/train.py trains them.
# The robust one is the same network, but sees adversarial digits.
VARIANTS = {
    "wide": functools.partial(mlp, (512, 256), name="wide"),
    "leaky": functools.partial(mlp, activation="leaky_relu", name="leaky"),
    "robust": functools.partial(mlp, name="robust"),
}


def pretrained(name: str) -> keras.Model:
    """Return one of the book's networks with the weights that come with it.

    Parameters
    ----------
    name : {"mlp", "cnn", "evaluator"}

    Returns
    -------
    keras.Model
        Digits (N, 28, 28, 1) in [0, 1] to ten probabilities (N, 10). The
        recipe that made the weights is ``python -m netinvert.studies.train NAME``.

    Raises
    ------
    ValueError
        If there is no network of that name.
    RuntimeError
        If the weights file is missing or damaged.
    """
    if not isinstance(name, str) or name not in NETWORKS:
        known = ", ".join(map(repr, NETWORKS))
        raise ValueError(f"No network is called {name!r}. There are {known}.")
    return load_weights(NETWORKS[name](), f"{name}.npz")


def load_weights(model: keras.Model, asset: str) -> keras.Model:
    """Fill a model of the book with the weights that come with the package.

    Parameters
    ----------
    model : keras.Model
        Built as it was when ``netinvert.studies.train`` saved the weights.
    asset : str
        Name of the weights file in ``netinvert/assets``.

    Returns
    -------
    keras.Model
        The same model.

    Raises
    ------
    RuntimeError
        If the weights file is missing or damaged.
    """
    # In the order of model.weights; their paths differ between versions of Keras.
    model.set_weights(list(read_asset(asset).values()))
    return model


# What Keras writes for a function that is stored as byte code, and the layers
# that run a program of their own.
CODE_CLASSES = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper"}
ENDPOINT = "serving_default"  # the one that every SavedModel writer provides


def load_model(path, allow_code: bool = False) -> keras.Model:
    """Load a Keras model from a file, for inference.

    Parameters
    ----------
    path : str or path
        A ``.keras`` file, a ``.h5`` or ``.hdf5`` file with architecture and
        weights, or the directory of a TensorFlow SavedModel.
    allow_code : bool
        A file can carry Python code (Lambda layers), and a SavedModel is a
        program. Such files are refused unless this is True. Say True only if you
        trust whoever made the file as you trust a program that you run.

    Returns
    -------
    keras.Model
        Not compiled, so losses and metrics of the file do not matter. A
        SavedModel becomes a model with a single layer, which cannot be tapped.

    Raises
    ------
    ValueError
        If there is no such file, it is not a whole model, it carries code, or it
        needs classes that Python has not seen; the message says what to do.
    """
    if not isinstance(path, str | Path) or not str(path):
        raise ValueError(f"load_model needs the path of a file, got {path!r}")
    if not isinstance(allow_code, bool):
        raise ValueError(f"allow_code must be True or False, got {allow_code!r}")
    try:
        path = Path(path).expanduser()
        there = path.exists()
    except (OSError, RuntimeError) as error:  # a name too long, an unknown user's home
        raise ValueError(f"{str(path)[:80]!r} is no path here: {error}") from error
    if not there:
        raise ValueError(f"There is no file {str(path)!r} (searched in {Path.cwd()}).")
    if path.is_dir():
        return load_saved_model(path, allow_code)
    code = ", ".join(code_in(read_config(path)))
    if code and not allow_code:
        raise ValueError(
            f"{path.name} carries code that would run on loading: {code}. It was not "
            "loaded. If you trust its author as you trust a program that you run, "
            "use load_model(path, allow_code=True)."
        )
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=not allow_code)
    except Exception as error:
        raise ValueError(explained(path, error)) from error


def read_config(path: Path) -> dict:
    """Read the description of the layers in a model file, building nothing."""
    kind = {".keras": "Keras", ".h5": "HDF5", ".hdf5": "HDF5"}.get(path.suffix.lower())
    if kind is None:
        raise ValueError(
            f"{path.name} does not end in .keras or .h5. Save the model with "
            "model.save('my_model.keras') and load that file."
        )
    found = "Keras" if zipfile.is_zipfile(path) else "HDF5" * h5py.is_hdf5(path)
    if found and found != kind:
        suffix = ".keras" if found == "Keras" else ".h5"
        raise ValueError(
            f"{path.name} is a {found} file by its content: rename it to "
            f"{path.with_suffix(suffix).name} and load that."
        )
    try:
        config = read_hdf5_config(path) if kind == "HDF5" else read_zip_config(path)
        if config is not None and "class_name" not in config:
            raise ValueError("it describes no model")
        list(code_in(config))  # fails here where it is not what Keras writes
    except (
        AttributeError,
        KeyError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"{path.name} ({path.stat().st_size:,} bytes) is not a whole {kind} model "
            f"file: {error}. Copy it again, or save the model once more with "
            "model.save('my_model.keras')."
        ) from error
    if config is None:
        raise ValueError(
            f"{path.name} holds weights but no layers. Build the same model in Python "
            "and call model.load_weights(path), or save it whole with model.save."
        )
    return config


def read_hdf5_config(path: Path) -> dict | None:
    """Read the layers from an HDF5 file; None if it holds only weights."""
    with h5py.File(path) as file:
        text = file.attrs.get("model_config")
    return None if text is None else dict(json.loads(text))


def read_zip_config(path: Path) -> dict:
    """Read the layers from a .keras file, without the settings for training."""
    with zipfile.ZipFile(path) as file:
        config = dict(json.loads(file.read("config.json")))
    config.pop("compile_config", None)  # never used here, so its code cannot run
    return config


def code_in(config) -> Iterator[str]:
    """Yield a name for each piece of a model's description that carries code."""
    if isinstance(config, dict):
        kind = config.get("class_name")
        if kind in CODE_CLASSES:
            yield f"{kind} {config.get('config', {}).get('name', '')!r}"
            return
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from code_in(part)


def load_saved_model(path: Path, allow_code: bool) -> keras.Model:
    """Wrap a TensorFlow SavedModel, which is a program, in a Keras model."""
    if not (path / "saved_model.pb").exists():
        raise ValueError(
            f"The directory {str(path)!r} is not a SavedModel: it has no "
            "saved_model.pb."
        )
    if not allow_code:
        raise ValueError(
            f"{path.name} is a SavedModel: a TensorFlow program, which may also read "
            "and write files. It was not loaded. If you trust its author as you trust "
            "a program that you run, use load_model(path, allow_code=True)."
        )
    import tensorflow as tf  # only here is more needed than Keras offers

    signatures = tf.saved_model.load(str(path)).signatures
    if ENDPOINT not in signatures:
        raise ValueError(
            f"{path.name} offers no {ENDPOINT!r}, only {list(signatures)}. Save it "
            "with model.export(path)."
        )
    specs = list(signatures[ENDPOINT].structured_input_signature[1].values())
    if len(specs) != 1 or specs[0].shape.rank is None:
        raise ValueError(
            f"{path.name} must take one input of known rank; it takes {specs}."
        )
    inputs = keras.Input(batch_shape=specs[0].shape, dtype=specs[0].dtype.name)
    outputs = keras.layers.TFSMLayer(str(path), call_endpoint=ENDPOINT)(inputs)
    if isinstance(outputs, dict) and len(outputs) == 1:
        (outputs,) = outputs.values()
    return keras.Model(inputs, outputs, name=path.stem)


def explained(path: Path, error: Exception) -> str:
    """Say what to do when Keras cannot rebuild a model from an intact file."""
    reason = str(error).rsplit("Exception encountered: ", 1)[-1].strip()
    reason = reason.splitlines()[0].split(". ")[0][:300]
    return (
        f"Keras could not rebuild the model in {path.name}: {reason}.\n"
        "If it uses a layer or function of your own, say which:\n"
        "  with keras.saving.custom_object_scope({'MyLayer': MyLayer}):\n"
        "      model = load_model(path)\n"
        "If another version of Keras wrote it, load it there and save it as .keras."
    )
