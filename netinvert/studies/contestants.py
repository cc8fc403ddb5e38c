"""Who takes part in the benchmark: baselines and methods, each with its settings.

A contestant is a function from a :class:`Task` to the settings it may choose from,
by name, and the seconds of training that they share. A new one is a line in
``METHODS``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import keras
import numpy as np

from netinvert import baselines
from netinvert.forward import as_function
from netinvert.inversion import scaling
from netinvert.methods.autoencoder import (
    AutoencoderInversion,
    build_autoencoder,
    train_autoencoder,
)
from netinvert.methods.gradient import GradientInversion
from netinvert.methods.inverse_network import (
    InverseNetwork,
    build_networks,
    choose_logarithm,
    outputs_of,
)
from netinvert.methods.levenberg_marquardt import LevenbergMarquardt
from netinvert.objectives import relative_error, total_variation
from netinvert.studies.storage import kept


@dataclass(frozen=True)
class Task:
    """What every contestant is given."""

    forward: keras.Model  # the network up to the tap
    rest: list  # its layers from there on
    inputs: np.ndarray  # (M, 28, 28, 1): with their outputs, the training pairs
    images: np.ndarray  # (N, 28, 28, 1), for the one contestant that is not a rival
    seed: int  # the training seed, for all that is learned
    folder: Path  # where trained networks are kept
    name: str  # of the files for what is learned from this network's outputs


@dataclass
class Baseline:
    """A baseline in the form of a method, so that the same judge measures it."""

    answer: Callable

    def fit(self, forward, inputs) -> Baseline:
        self.pairs_ = inputs, outputs_of(as_function(forward), inputs)
        return self

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        return self.answer(*self.pairs_, targets), {}


def free(name: str, make: Callable, *settings) -> Callable:
    """Enter a method or baseline that needs no training, with each of the settings."""
    return lambda task: ({name.format(one): make(one) for one in settings}, 0.0)


def neighbors(k: int) -> Baseline:
    return Baseline(functools.partial(baselines.knn_mean, k=k))


def class_mean(task: Task):
    """Enter the mean of the training inputs that the network gives the same class."""

    def classes(values):
        for layer in task.rest:
            values = layer(values)
        return np.argmax(values, axis=-1)

    def answer(inputs, outputs, targets):
        return baselines.class_mean(inputs, classes(outputs), classes(targets))

    return {"": Baseline(answer)}, 0.0


def pca_floor(task: Task):
    """Enter the floor; a tap as wide as the image would leave it nothing to lose."""
    width = int(np.prod(task.forward.output_shape[1:]))

    def answer(inputs, outputs, targets):
        return baselines.pca_floor(inputs, task.images, width)

    known = width < task.images[0].size
    return {f"k = {width}": Baseline(answer)} if known else {}, 0.0


def gradient(weight: float) -> GradientInversion:
    return GradientInversion(relative_error + weight * total_variation)


def second_order(covariance: str) -> LevenbergMarquardt:
    return LevenbergMarquardt(covariance=covariance)


def autoencoder(task: Task):
    """Enter the search in a code; the autoencoder is that of the training inputs."""
    offset, scale = scaling(task.inputs)
    model, seconds = kept(
        task.folder / f"autoencoder-{task.seed}-{len(task.inputs)}.npz",
        lambda: train_autoencoder(task.inputs, seed=task.seed),
        lambda: build_autoencoder(task.inputs.shape[1:], offset=offset, scale=scale),
    )

    def search(prior):
        return AutoencoderInversion(model, prior=prior, seed=task.seed)

    return {
        f"prior = {prior:g}": search(prior) for prior in (3e-6, 3e-5, 3e-4)
    }, seconds


def inverse_network(task: Task):
    """Enter an inverse network that has learned already, and how long that took."""
    outputs = outputs_of(as_function(task.forward), task.inputs)
    method = InverseNetwork(seed=task.seed)
    logarithm = choose_logarithm(method.logarithm, outputs)
    settings = task.inputs, outputs, method.hidden, logarithm, task.seed
    method.network_, seconds = kept(
        task.folder / f"inverse_network-{task.name}.npz",
        lambda: InverseNetwork(seed=task.seed).fit(task.forward, task.inputs).network_,
        lambda: build_networks(*settings)[1],
    )
    method.logarithm_ = logarithm
    method.input_shape_, method.output_shape_ = task.inputs.shape[1:], outputs.shape[1:]
    method.fit = lambda forward, inputs: method  # also for a method that polishes it
    return {"": method}, seconds


def polished(task: Task):
    """Enter second-order search from an inverse network's answer."""
    start, seconds = inverse_network(task)
    return {"": LevenbergMarquardt(start=start[""], covariance="errors")}, seconds


METHODS = {
    "blank": free("", Baseline, baselines.blank),
    "mean": free("", Baseline, baselines.mean_image),
    "class mean": class_mean,
    "nearest neighbor": free("", Baseline, baselines.nearest_neighbor),
    "k-NN mean": free("k = {}", neighbors, 5, 10, 20),
    "ridge": free("", Baseline, baselines.ridge),
    "PCA floor": pca_floor,
    "gradient without prior": free("", GradientInversion, relative_error),
    "gradient": free("{:g} * total_variation", gradient, 0.03, 0.1, 0.3),
    "Levenberg-Marquardt": free("covariance = {}", second_order, "identity", "inputs"),
    "autoencoder": autoencoder,
    "inverse network": inverse_network,
    "inverse network, polished": polished,
}
DENSE = {name: name for name in ("softmax", "logits")}
DENSE |= {"last hidden": "hidden_2", "first hidden": "hidden_1"}
TAPS = dict.fromkeys(("mlp", "cnn", "wide", "robust", "leaky"), DENSE)
TAPS["cnn"] = DENSE | {"last hidden": "hidden", "first hidden": "conv_1"}
VALIDATION = slice(1500, 1628)  # of the test digits: settings are chosen on these
ALL = {"methods": tuple(METHODS), "pairs": (8000,)}
POLISHED = "inverse network, polished"
LEARNED = ("k-NN mean", "ridge", "autoencoder", "inverse network", POLISHED)
# At taps of more than 128 outputs second-order search takes long. It is left out of the
# full run there, and takes part where it is asked for by name.
LONG = {"Levenberg-Marquardt", POLISHED}
QUICK = ALL | {"methods": tuple(name for name in METHODS if name not in LONG)}
FEWER = {"networks": ("mlp",), "taps": ("logits",)}
OTHERS = ("cnn", "wide", "robust", "leaky")
SMALL = {"images": 100, "seeds": 1, "plans": [{**FEWER, **ALL, "pairs": (500,)}]}
# In the order of their importance, should the run be interrupted.
FULL = {
    "images": 500,
    "seeds": 5,
    "plans": [
        {"networks": ("mlp",), "taps": ("logits", "first hidden"), **ALL},
        {"networks": OTHERS, "taps": ("logits",), **ALL},
        {**FEWER, **ALL, "pairs": (500,)},  # what the small run does, too
        {**FEWER, "methods": LEARNED, "pairs": (100, 2000)},
        {"networks": ("mlp",), "taps": ("last hidden", "softmax"), **ALL},
        {"networks": ("robust", "leaky"), "taps": ("first hidden",), **ALL},
        {"networks": ("cnn", "wide"), "taps": ("first hidden",), **QUICK},
        {"networks": ("cnn", "robust", "leaky"), "taps": ("last hidden",), **ALL},
        {"networks": ("wide",), "taps": ("last hidden",), **QUICK},
        {"networks": OTHERS, "taps": ("softmax",), **ALL},
    ],
}


@dataclass(frozen=True)
class Unit:
    """One result: what is done at once, and kept in one file."""

    network: str
    training_seed: int
    tap: str
    method: str
    pairs: int

    def path(self, out: Path) -> Path:
        """Where the result is, or will be."""
        name = "-".join(map(str, astuple(self))).replace(" ", "_")
        return out / "units" / f"{name}.npz"


def units_of(plans: list[dict], seeds: int) -> list[Unit]:
    """All units of the plans, each once, in the order of the plans."""
    found = {}
    for plan in plans:
        axes = plan["networks"], range(seeds), plan["taps"], plan["pairs"]
        for *place, pairs in itertools.product(*axes):
            units = (Unit(*place, method, pairs) for method in plan["methods"])
            found |= dict.fromkeys(units)
    return list(found)
