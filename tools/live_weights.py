"""Write what the network in the page needs: ``python -m tools.live_weights``.

``book/_live/live-weights.js`` holds the weights of the book's networks as one block of
bytes, with a list of what lies where and a checksum. It is a script and not a binary
file, because a page that was opened from a disk may load a script and nothing else.
``tests/live/golden.json`` holds what the package says with the same, rounded, weights.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib

import numpy as np
import tensorflow as tf

import netinvert as ni
import tools.environment  # noqa: F401  (before anything imports TensorFlow)
from netinvert.methods.autoencoder import Regression, digits_autoencoder
from netinvert.methods.inverse_network import build_networks
from tools.environment import ROOT

WEIGHTS = ROOT / "book" / "_live" / "live-weights.js"
GOLDEN = ROOT / "tests" / "live" / "golden.json"
DIGITS = 40  # of the test set, to choose from
HIDDEN = (256, 256)  # of the inverse network: half as wide as usual, a third the bytes
LAST_NORM = (
    1e-3  # Keras's epsilon: with variance 1 - this, a normalization does nothing
)


def stored(name: str, values: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    """Choose how to store an array: by name, the type and what is rounded to it.

    Networks that draw take 8 bits a weight, with a scale for each unit; those that
    are inverted or judge take float16; vectors stay float32.
    """
    if values.dtype == np.uint8:
        return {name: ("u1", values)}
    if name.startswith(("decoder", "inverse")) and values.ndim == 2:
        scale = np.float32(np.abs(values).max(axis=0) / 127)
        steps = np.round(values / scale).astype("int8")
        return {f"{name}/scale": ("f4", scale), name: ("i1", steps)}
    kind = "f2" if values.ndim > 1 else "f4"
    return {name: (kind, values.astype(f"<{kind}"))}


def write(arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as one script, the widest numbers first so that all are aligned."""
    entries = {}
    for name, values in arrays.items():
        entries |= stored(name, np.asarray(values))
    block, index = b"", {}
    for name, (kind, values) in sorted(
        entries.items(), key=lambda entry: entry[1][1].itemsize, reverse=True
    ):
        index[name] = [kind, list(values.shape), len(block)]
        block += values.tobytes()
    content = {"bytes": len(block), "crc32": zlib.crc32(block), "arrays": index}
    WEIGHTS.write_text(
        "// Written by tools/live_weights.py; the weights are the book's, see there.\n"
        "(globalThis.netinvertLive ??= {}).weights = {\n"
        f'"manifest": {json.dumps(content)},\n'
        f'"data": "{base64.b64encode(block).decode()}"}};\n'
    )


def read() -> dict[str, np.ndarray]:
    """Read the arrays back, as the page does; those of 8 bits times their scale."""
    text = WEIGHTS.read_text().partition(".weights = ")[2].rstrip().rstrip(";")
    content = json.loads(text)
    block = base64.b64decode(content["data"])
    arrays = {}
    for name, (kind, shape, begin) in content["manifest"]["arrays"].items():
        values = np.frombuffer(block, f"<{kind}", int(np.prod(shape)), begin)
        arrays[name] = values.reshape(shape).astype("float32")
    for name in [n for n in arrays if f"{n}/scale" in arrays]:
        arrays[name] = arrays[name] * arrays.pop(f"{name}/scale")
    return arrays


def named(model, prefix: str) -> dict[str, np.ndarray]:
    """Weights of a model by layer: "mlp/hidden_1/kernel"."""
    return {
        f"{prefix}/{'/'.join(w.path.split('/')[-2:])}": w.numpy() for w in model.weights
    }


def filled(model, arrays: dict[str, np.ndarray], prefix: str):
    """Give a model the arrays of its name."""
    model.set_weights([arrays[name] for name in named(model, prefix)])
    return model


def folded(network) -> dict[str, np.ndarray]:
    """Weights of an inverse network, each normalization multiplied into its layer."""
    arrays = named(network, "inverse")
    for number in (1, 2):
        layer, norm = f"inverse/hidden_{number}", f"inverse/norm_{number}"
        gamma, beta, mean, variance = (
            arrays.pop(f"{norm}/{part}")
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + LAST_NORM)
        arrays[f"{layer}/kernel"] = arrays[f"{layer}/kernel"] * scale
        arrays[f"{layer}/bias"] = (arrays[f"{layer}/bias"] - mean) * scale + beta
    return arrays


def digits() -> np.ndarray:
    """The test digits that the page has to choose from, (N, 28, 28, 1)."""
    return ni.load_mnist()[1][0][:DIGITS]


def networks() -> dict:
    """The book's networks up to their logits, with all their digits."""
    return {
        name: ni.tap(ni.pretrained(name), "logits") for name in ("mlp", "evaluator")
    }


def export() -> None:
    """Collect the book's networks, train the inverse network, and write all of it."""
    (x_train, _), (x_test, y_test) = ni.load_mnist()
    model = ni.pretrained("mlp")
    forward = ni.tap(model, "logits")
    outputs = forward.predict(x_train, verbose=0)
    drawing = ni.AutoencoderInversion("digits").fit(forward, x_train)
    inverse = ni.InverseNetwork(hidden=HIDDEN).fit(forward, x_train)
    pixels = np.round(255 * x_test[:DIGITS]).astype("uint8").reshape(DIGITS, 784)
    guess = drawing.regression_
    write(
        named(model, "mlp")
        | named(ni.pretrained("evaluator"), "evaluator")
        | named(drawing.decoder_, "decoder")
        | {"decoder/center": drawing.center_, "decoder/spread": [drawing.spread_]}
        | {f"guess/{name}": values for name, values in vars(guess).items()}
        | {"guess/middle": guess.middle, "guess/spread": guess.spread}
        | folded(inverse.network_)
        | {
            "inverse/center": outputs.mean(axis=0),
            "inverse/spread": outputs.std(axis=0),
        }
        | {"mean": x_train.mean(axis=0).ravel(), "digits": pixels}
        | {"labels": y_test[:DIGITS].astype("uint8")}
    )


def carried():
    """Return the package's own objects with the page's weights.

    They are the mlp, the evaluator, and the methods 2 and 3, fitted.
    """
    arrays = read()
    model, evaluator = ni.models.mlp(), ni.models.evaluator()
    filled(model, arrays, "mlp"), filled(evaluator, arrays, "evaluator")
    drawing = ni.AutoencoderInversion("digits")
    drawing.decoder_ = filled(digits_autoencoder().layers[1], arrays, "decoder")
    drawing.center_ = arrays["decoder/center"]
    drawing.spread_ = float(arrays["decoder/spread"][0])
    drawing.mean_, drawing.output_shape_ = arrays["mean"].reshape(28, 28, 1), (10,)
    drawing.regression_ = object.__new__(Regression)
    for name in ("middle", "spread", "directions", "offsets", "weights", "low", "high"):
        setattr(drawing.regression_, name, arrays[f"guess/{name}"].astype("float64"))
    # Two rows that have the range of the inputs, and mean and spread of the outputs
    center, spread = arrays["inverse/center"], arrays["inverse/spread"]
    ends = np.stack([center - spread, center + spread])
    limits = np.stack([np.zeros((28, 28, 1)), np.ones((28, 28, 1))])
    inverse = ni.InverseNetwork(hidden=HIDDEN)
    inverse.network_ = build_networks(limits, ends, HIDDEN, False, 0)[1]
    for n, width in enumerate(HIDDEN, start=1):
        same = np.ones(width), np.zeros(width), np.zeros(width)
        parts = "gamma", "beta", "moving_mean"
        arrays |= {f"inverse/norm_{n}/{p}": v for p, v in zip(parts, same)}
        arrays[f"inverse/norm_{n}/moving_variance"] = np.full(width, 1 - LAST_NORM)
    filled(inverse.network_, arrays, "inverse")
    inverse.input_shape_, inverse.output_shape_ = (28, 28, 1), (10,)
    return model, evaluator, drawing, inverse


def golden() -> dict[str, np.ndarray]:
    """Compute what the engine in the page must repeat."""
    model, evaluator, drawing, inverse = carried()
    forward, judge = ni.tap(model, "logits"), ni.tap(evaluator, "logits")
    x = digits()
    y = forward(x).numpy()
    answers = {"logits": y, "judge": judge(x).numpy()}
    terms = ni.objectives
    wishes = {
        "logits": (forward, terms.squared_error, y[:1]),
        "relative": (forward, terms.relative_error, y[:1]),
        "softmax": (model, terms.squared_error, model(x[:1])),
        "class": (forward, terms.cross_entropy, np.eye(10, dtype="float32")[3:4]),
        "prior": (forward, 0 * terms.squared_error + terms.total_variation, y[:1]),
    }
    for name, (network, wish, target) in wishes.items():
        at = tf.constant(x[1:2])
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = wish(at, network(at), target)
        answers[f"value/{name}"] = value.numpy()
        answers[f"gradient/{name}"] = tape.gradient(value, at).numpy()
    codes = drawing.regression_(y[:2])
    raw = np.float32(codes * drawing.spread_ + drawing.center_)
    answers |= {"guess": codes, "decoder": drawing.decoder_(raw).numpy()}
    answers["inverse"] = inverse.network_(y[:2]).numpy()
    search = ni.GradientInversion(steps=200, start=drawing.mean_)
    drawing.steps = 200
    for name, method in {"search": search, "code": drawing}.items():
        found = ni.invert(forward, y[:2], method)
        answers |= {name: found.inputs, f"{name}/history": found.history["objective"]}
    answers["fiber"] = ni.fibers.collision(model, x[0], x[1]).inputs[1]
    return {name: np.asarray(values, "float32") for name, values in answers.items()}


def encoded(values: np.ndarray) -> dict:
    data = base64.b64encode(values.tobytes()).decode()
    return {"shape": list(values.shape), "data": data}


def decoded(line: dict) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(line["data"]), "float32")
    return values.reshape(line["shape"])


def main() -> None:
    """Train and write both files; with "golden" only the second."""
    if sys.argv[1:] != ["golden"]:
        export()
    lines = {name: encoded(values) for name, values in golden().items()}
    GOLDEN.write_text(json.dumps(lines, indent=0) + "\n")
    print(f"{WEIGHTS.stat().st_size:,} and {GOLDEN.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
