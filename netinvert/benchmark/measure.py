"""One result of the benchmark: a method's answers for one network, tap and seed."""

from __future__ import annotations

import contextlib
import functools
import io
import time
from dataclasses import astuple, replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from netinvert import metrics
from netinvert.benchmark.contestants import METHODS, Task
from netinvert.benchmark.plans import TAPS, VALIDATION, Unit
from netinvert.benchmark.storage import arrays_in, claimed, kept, whole
from netinvert.data import load_mnist
from netinvert.inverse_training import outputs_of
from netinvert.inversion import invert
from netinvert.models import NETWORKS, VARIANTS, as_function, pretrained, tap
from netinvert.train import train

FORWARD_PASSES = 20  # over which the yardstick is averaged


def finish(unit: Unit, images: int, out: Path, wait: bool = True) -> None:
    """Do a unit, unless it is done or, without waiting, another run is at it."""
    path = unit.path(out)
    if path.exists():
        return
    with claimed(path, wait) as mine:
        if mine and not path.exists():
            with whole(path, "wb") as file:
                np.savez(file, **measured(unit, images, out))


def measured(unit: Unit, images: int, out: Path) -> dict[str, np.ndarray]:
    """Everything that is known of a unit, as arrays."""
    _, (x_test, y_test) = load_mnist()
    truth, labels = x_test[:images], y_test[:images]
    task = task_of(unit, truth, out)
    targets = outputs_of(as_function(task.forward), truth)
    candidates, learning = METHODS[unit.method](task)
    if not candidates:
        return {}
    started = time.process_time()
    choice = chosen(unit, task, candidates, images, out)
    tuning = time.process_time() - started
    method = candidates[choice]
    _, fitting = timed(lambda: method.fit(task.forward, task.inputs))
    answer = functools.partial(
        invert, task.forward, targets, method, batch_size=images, progress=False
    )
    result, first = timed(answer)
    # Settings are chosen for the first training seed, and what that and a later call
    # cost does not depend on it.
    once = unit.training_seed == 0
    tuning, later = (tuning, timed(answer)[1]) if once else (np.nan, np.nan)
    size = np.maximum(targets.var(axis=0).mean(), 1e-12)
    return {
        "unit": np.array(list(map(str, astuple(unit)))),
        "setting": np.array(choice),
        "outputs": np.array(targets[0].size),
        "output_error": result.residual,
        "relative_output_error": result.residual / size,
        "mse": metrics.mse(truth, result.inputs),
        "ssim": metrics.ssim(truth, result.inputs),
        "accuracy": metrics.accuracy(evaluator(), result.inputs, labels),
        "fit_seconds": np.array(learning + fitting),
        "tuning_seconds": np.array(tuning),
        "first_seconds": np.array(first),
        "seconds_per_target": np.array(later / images),
        "forward_seconds": np.array(forward_seconds(task.forward, truth)),
    }


def chosen(unit: Unit, task: Task, candidates: dict, images: int, out: Path) -> str:
    """The setting with the smallest error on the images held back for this choice.

    It is made once, on the network of the first training seed.
    """
    if len(candidates) == 1:
        return next(iter(candidates))
    if unit.training_seed > 0:
        first = replace(unit, training_seed=0)
        finish(first, images, out)
        return str(arrays_in(first.path(out))["setting"])
    truth = load_mnist()[1][0][VALIDATION]
    targets = outputs_of(as_function(task.forward), truth)

    def error(name):
        method = candidates[name].fit(task.forward, task.inputs)
        found = invert(task.forward, targets, method).inputs
        return metrics.mse(truth, found).mean()

    return min(candidates, key=error)


def task_of(unit: Unit, truth: np.ndarray, out: Path) -> Task:
    """Tap the unit's network, trained now if it is not yet."""
    (x_train, _), _ = load_mnist()
    folder = out / "networks"
    model = network(unit.network, unit.training_seed, folder)
    layer = TAPS[unit.network][unit.tap]
    name = f"{unit.network}-{unit.training_seed}-{unit.tap}-{unit.pairs}"
    return Task(
        forward=tap(model, layer),
        rest=model.layers[model.layers.index(model.get_layer(layer)) + 1 :],
        inputs=x_train[: unit.pairs],
        images=truth,
        seed=unit.training_seed,
        folder=folder,
        name=name.replace(" ", "_"),
    )


@functools.lru_cache(maxsize=2)
def network(name: str, seed: int, folder: Path) -> keras.Model:
    """The network of a training seed; of seed 0 the one that the book shows."""
    if seed == 0 and name in NETWORKS:
        return pretrained(name)
    build = (NETWORKS | VARIANTS)[name]
    path = folder / f"{name}-{seed}.npz"
    with contextlib.redirect_stdout(io.StringIO()):  # its losses, epoch by epoch
        return kept(path, lambda: train(name, seed), build)[0]


@functools.lru_cache(maxsize=1)
def evaluator() -> keras.Model:
    return pretrained("evaluator")


def timed(work) -> tuple:
    """What the work returns, and its processor seconds."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def forward_seconds(forward, images: np.ndarray) -> float:
    """Processor seconds of one image's forward pass, in a batch."""
    function = tf.function(lambda batch: forward(batch, training=False))
    batch = tf.constant(images)
    function(batch)  # compiles
    _, seconds = timed(lambda: [function(batch) for _ in range(FORWARD_PASSES)])
    return seconds / FORWARD_PASSES / len(images)
