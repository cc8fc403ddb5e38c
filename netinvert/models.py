"""Forward networks: the book's own, and a reader's own from a file."""

from __future__ import annotations

import builtins
import contextlib
import functools
import json
import operator
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
from keras import layers

from netinvert.data import read_asset

# As the weights were trained, whatever order of axes Keras is set to.
LAST = {"data_format": "channels_last"}


def classifier(name: str, *hidden: keras.Layer) -> keras.Model:
    """Images (N, 28, 28, 1) through the hidden layers to ten probabilities (N, 10)."""
    last = layers.Dense(10, name="logits"), layers.Softmax(name="softmax")
    return keras.Sequential([keras.Input((28, 28, 1)), *hidden, *last], name=name)


def mlp(widths=(128, 64), activation: str = "relu", name: str = "mlp") -> keras.Model:
    """Build the book's first network: 784-128-64-10, ReLU, softmax, untrained."""
    return classifier(
        name,
        layers.Flatten(name="flatten", **LAST),
        layers.Dense(widths[0], activation=activation, name="hidden_1"),
        layers.Dense(widths[1], activation=activation, name="hidden_2"),
    )


def cnn() -> keras.Model:
    """Build a small convolutional network with two strides of 2, untrained."""
    settings = {"strides": 2, "padding": "same", "activation": "relu", **LAST}
    return classifier(
        "cnn",
        layers.Conv2D(8, 3, name="conv_1", **settings),
        layers.Conv2D(16, 3, name="conv_2", **settings),
        layers.Flatten(name="flatten", **LAST),
        layers.Dense(64, activation="relu", name="hidden"),
    )


def evaluator() -> keras.Model:
    """Build the independent judge of reconstructions, untrained.

    Its three convolutions pool where the networks under study stride or flatten.
    It has no batch normalisation: a judge tried with it was as accurate on
    digits, but took the average 4 for a 1, and reconstructions are often blurred.
    """
    hidden = []
    for block, filters in enumerate((16, 48, 96), start=1):
        settings = {"padding": "same", "activation": "relu", **LAST}
        hidden.append(layers.Conv2D(filters, 3, name=f"conv_{block}", **settings))
        hidden.append(layers.MaxPooling2D(name=f"pool_{block}", **LAST))
    end = layers.Flatten(name="flatten", **LAST), layers.Dropout(0.3, name="dropout")
    return classifier("evaluator", *hidden, *end)


NETWORKS = {"mlp": mlp, "cnn": cnn, "evaluator": evaluator}
# The mlp with one thing changed, to compare it with; studies/train.py trains them.
# The robust one is the same network, but sees adversarial digits.
VARIANTS = {
    "wide": functools.partial(mlp, (512, 256), name="wide"),
    "leaky": functools.partial(mlp, activation="leaky_relu", name="leaky"),
    "robust": functools.partial(mlp, name="robust"),
}


def pretrained(name: str) -> keras.Model:
    """Return one of the book's networks: ``"mlp"``, ``"cnn"`` or ``"evaluator"``.

    It maps digits (N, 28, 28, 1) in [0, 1] to ten probabilities (N, 10), with the
    weights that ``python -m netinvert.studies.train NAME`` made.

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
    """Fill a model with the weights in ``netinvert/assets/ASSET``, and return it."""
    # In the order of model.weights; their paths differ between versions of Keras.
    model.set_weights(list(read_asset(asset).values()))
    return model


SUFFIXES = {".keras": "Keras", ".h5": "HDF5", ".hdf5": "HDF5"}
CONFIG_BYTES = 2**24  # the largest network of keras.applications needs a megabyte
TRUST = (
    "If you trust its author as you trust a program that you run, use "
    "load_model(path, allow_code=True)."
)
UNPACKED = 100  # times its size in the file: what unfolds further is a bomb
PROGRAMS = (layers.Lambda, layers.TFSMLayer, layers.TorchModuleWrapper)
PROGRAMS += (layers.JaxLayer, layers.FlaxLayer)  # these run a program of their own
# What a model may be made of: classes of these kinds, functions of these modules.
PARTS = (keras.Operation, keras.Initializer, keras.Regularizer, keras.DTypePolicy)
PARTS += (keras.Loss, keras.Metric, keras.Optimizer, keras.Quantizer)
PARTS += (keras.constraints.Constraint, keras.random.SeedGenerator)
PARTS += (keras.optimizers.schedules.LearningRateSchedule,)
FUNCTIONS = (keras.activations, keras.losses, keras.metrics, keras.ops)
MAKERS = {"get", "serialize", "deserialize"}  # functions there that build anything
LIBRARIES = {*sys.stdlib_module_names, "keras", "numpy", "tensorflow"}


def load_model(path, allow_code: bool = False) -> keras.Model:
    """Load a Keras model from a file, for inference.

    Parameters
    ----------
    path : str or path
        A ``.keras`` file, a ``.h5`` or ``.hdf5`` file with architecture and
        weights, or the directory of a TensorFlow SavedModel.
    allow_code : bool
        A file can carry Python code (Lambda layers), and a SavedModel is a program:
        refused unless this is True. Say so only if you trust whoever made the file
        as you trust a program that you run.

    Returns
    -------
    keras.Model
        Not compiled. A SavedModel becomes a single layer, which cannot be tapped.

    Raises
    ------
    ValueError
        If there is no such file, it is not a whole model, it carries code, or it
        needs classes that Python has not seen; the message says what to do.
    """
    if not isinstance(allow_code, bool):
        raise ValueError(f"allow_code must be True or False, got {allow_code!r}")
    try:
        path = Path(path).expanduser()
        there = path.exists()
    except (TypeError, OSError, RuntimeError) as error:  # too long, no such user's home
        raise ValueError(f"{path!r:.80} is no path of a file: {error}") from error
    if not there:
        raise ValueError(f"There is no file {str(path)!r} (searched in {Path.cwd()}).")
    if path.is_dir():
        return load_saved_model(path, allow_code)
    found = [] if allow_code else read_suspects(path)
    if code := ", ".join(what for what, is_code in found if is_code):
        raise ValueError(
            f"{path.name} carries code that would run on loading: {code}. It was not "
            f"loaded. {TRUST}"
        )
    try:
        if found:
            raise ValueError(f"Could not locate the custom {found[0][0]}")
        return keras.saving.load_model(path, compile=False, safe_mode=not allow_code)
    except Exception as error:
        raise ValueError(explained(path, str(error))) from error


def read_suspects(path: Path) -> list[tuple[str, bool]]:
    """Read what is suspect in a model file, see :func:`suspects`; build nothing."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path.name} does not end in .keras or .h5. Save the model with "
            "model.save('my_model.keras') and load that file."
        )
    kind = SUFFIXES[suffix]
    found = "Keras" if zipfile.is_zipfile(path) else kind
    found = "HDF5" if h5py.is_hdf5(path) else found
    if found != kind:
        suffix = ".keras" if found == "Keras" else ".h5"
    if suffix != path.suffix:
        raise ValueError(
            f"{path.name} is a {found} file by its content, and Keras goes by the "
            f"ending, in small letters: rename it to {path.with_suffix(suffix).name} "
            "and load that."
        )
    try:
        text = read_layers(path, kind)
        if text is not None:
            if len(text) > CONFIG_BYTES:
                raise ValueError(
                    f"its layers are described in more than {CONFIG_BYTES:,} bytes"
                )
            config = dict(json.loads(text))
            config.pop("compile_config", None)  # never used, so its code cannot run
            config["class_name"]  # fails here if this is no description
            return list(suspects(config))
    except Exception as error:  # whatever a damaged or a hostile file can cause
        raise ValueError(
            f"{path.name} ({path.stat().st_size:,} bytes) is not a whole {kind} model "
            f"file: {error}. Copy it again, or save the model once more with "
            "model.save('my_model.keras')."
        ) from error
    raise ValueError(
        f"{path.name} holds weights but no layers. Build the same model in Python "
        "and call model.load_weights(path), or save it whole with model.save."
    )


def read_layers(path: Path, kind: str) -> str | bytes | None:
    """Read the description of the layers; None if an HDF5 file holds only weights."""
    if kind == "HDF5":
        with h5py.File(path) as file:
            check_arrays(file)
            return file.attrs.get("model_config")
    with zipfile.ZipFile(path) as file:
        for part in file.infolist():
            check_size(part.filename, part.file_size, part.compress_size)
            if part.filename.endswith(".npz"):  # Keras itself saves .h5
                raise ValueError(f"{part.filename} may hold pickles: code to Keras 3.8")
            if part.filename.endswith(".h5"):
                with file.open(part) as stream, h5py.File(stream) as weights:
                    check_arrays(weights)
        total = sum(part.file_size for part in file.infolist())
        check_size("it", total, path.stat().st_size)  # Keras may unfold every part
        with file.open("config.json") as stream:
            return stream.read(CONFIG_BYTES + 1)  # whatever size it declares


def check_arrays(file: h5py.File) -> None:
    """Refuse arrays that lie in other files, or unfold to far more than is stored."""
    links = []  # HDF5 loses an error that is raised while it visits them
    file.visititems_links(lambda name, link: links.append((name, link)))
    for name, link in links:
        array = file[name] if isinstance(link, h5py.HardLink) else None
        stored = isinstance(array, h5py.Dataset)
        if isinstance(link, h5py.ExternalLink) or (
            stored and (array.external or array.is_virtual)
        ):
            raise ValueError(f"{name} is taken from another file")
        if stored:
            check_size(name, array.nbytes, array.id.get_storage_size())


def check_size(name: str, unpacked: int, packed: int) -> None:
    if unpacked > max(UNPACKED * packed, CONFIG_BYTES):
        raise ValueError(f"{name} unfolds from {packed:,} bytes to {unpacked:,}")


def suspects(config) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a description that are none of Keras, and which are code."""
    if isinstance(config, dict):
        if {"class_name", "config"} <= config.keys():
            if (found := suspicion(config)) is not None:
                yield found
                return
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from suspects(part)


def suspicion(part: dict) -> tuple[str, bool] | None:
    """Resolve one name as Keras does; return what is wrong with it, and if it is code.

    Keras before 3.9 imports any module that a file names, and before 3.11.3 runs a
    Lambda of an .h5 file in spite of its safe mode: nothing suspect may reach it.
    """
    kind, settings, module = part["class_name"], part["config"], part.get("module")
    name = settings if kind == "function" else kind
    settings = settings if isinstance(settings, dict) else {}
    label = f"{module}.{name}" if name != kind else f"{kind} {settings.get('name')!r}"
    keys = {name, kind if module is None else part.get("registered_name") or kind}
    own = [keras.saving.get_registered_object(key) for key in keys - {"function"}]
    own = [thing for thing in own if thing is not None]
    things = resolved(module, name)
    if not all(is_part(thing, name) for thing in things):
        return label, True
    if kind in {"__lambda__", "__typespec__"} or any(map(is_program, own)):
        return label, True
    if isinstance(words := settings.get("vocabulary"), str):
        return f"{kind}, which reads {words!r}", True
    if own or things or module in (None, "builtins"):  # nothing to import
        return None
    if module.partition(".")[0] in LIBRARIES:
        return label, True
    return f"{name!r} of {module!r}", False


def resolved(module: str | None, name: str) -> list:
    """Everything that Keras of any version could find under a name; imports nothing."""
    module = module or "keras.src.layers"  # an .h5 file names layers only, without it
    home, _, path = f"{module}.{name}".partition(".")
    places = {"keras": [keras], "builtins": [builtins, *FUNCTIONS]}.get(home, [])
    things = []
    for place in places:
        with contextlib.suppress(AttributeError):
            things.append(operator.attrgetter(path)(place))
    return things


def is_program(thing) -> bool:
    return isinstance(thing, type) and issubclass(thing, PROGRAMS)


def is_part(thing, name: str) -> bool:
    """Whether this is a class or a function that a model may be made of."""
    if isinstance(thing, type):
        return issubclass(thing, PARTS) and not is_program(thing)
    return name not in MAKERS and any(vars(m).get(name) is thing for m in FUNCTIONS)


def load_saved_model(path: Path, allow_code: bool) -> keras.Model:
    """Wrap a TensorFlow SavedModel, which is a program, in a Keras model."""
    if not (path / "saved_model.pb").exists():
        raise ValueError(
            f"{str(path)!r} is no path of a SavedModel: it has no saved_model.pb."
        )
    if not allow_code:
        raise ValueError(
            f"{path.name} is a SavedModel: a TensorFlow program, which may also read "
            f"and write files. It was not loaded. {TRUST}"
        )
    layer = layers.TFSMLayer(str(path), call_endpoint="serving_default")
    specs = list(layer.call_endpoint_fn.structured_input_signature[1].values())
    if len(specs) != 1 or specs[0].shape.rank is None:
        raise ValueError(
            f"{path.name} must take one input of known rank; it takes {specs}."
        )
    inputs = keras.Input(batch_shape=specs[0].shape, dtype=specs[0].dtype.name)
    outputs = layer(inputs)
    if isinstance(outputs, dict) and len(outputs) == 1:
        (outputs,) = outputs.values()
    return keras.Model(inputs, outputs, name=path.stem)


def explained(path: Path, error: str) -> str:
    """Say what to do when Keras cannot rebuild a model from an intact file."""
    reason = error.rsplit("Exception encountered: ", 1)[-1].strip()
    reason = (reason.splitlines() or [""])[0].split(". ")[0][:300]
    advice = ""
    if "custom" in error:  # so Keras speaks of classes that it does not know
        advice = (
            "If it uses a layer or function of your own, say which:\n"
            "  with keras.saving.custom_object_scope({'MyLayer': MyLayer}):\n"
            "      model = load_model(path)\n"
        )
    return (
        f"Keras could not rebuild the model in {path.name}: {reason}.\n{advice}"
        "If another version of Keras wrote it, load it there and save it as .keras."
    )
