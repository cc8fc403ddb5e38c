"""Head to head: every method on the same images.

``python -m netinvert.studies.benchmark`` is a small run of under a minute; with
``--full`` it makes the results that the book shows. What is done stays in the folder
``--out``, one file for each network, training seed, tap, method and number of pairs: a
run that was interrupted goes on where it stopped. Two runs at once, of other networks
or methods, may share a folder.

Each method chooses its settings on images that are never reported. Costs are in
processor seconds, over all cores, which hardly depend on what else a computer does;
the yardstick beside them is the network's own forward pass.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import shlex
import sys
import time
import zlib
from dataclasses import astuple, replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm.auto import tqdm

from netinvert import metrics
from netinvert.data import load_mnist
from netinvert.forward import as_function, tap
from netinvert.inversion import invert
from netinvert.methods.inverse_network import outputs_of
from netinvert.models import NETWORKS, VARIANTS, pretrained
from netinvert.studies.contestants import (
    DENSE,
    FULL,
    METHODS,
    SMALL,
    TAPS,
    VALIDATION,
    Task,
    Unit,
    units_of,
)
from netinvert.studies.results import save_table
from netinvert.studies.storage import arrays_in, check_folder, kept, packed, put
from netinvert.studies.train import train

FORWARD_PASSES = 20  # over which the yardstick is averaged


def finish(unit: Unit, images: int, out: Path) -> None:
    """Do a unit, unless it is done."""
    path = unit.path(out)
    if not path.exists():
        put(path, packed(**measured(unit, images, out)))


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
    first_seed = unit.training_seed == 0
    tuning, later = (tuning, timed(answer)[1]) if first_seed else (np.nan, np.nan)
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
    """The setting with the smallest error on images held back, for the first seed."""
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


def run(units: list[Unit], images: int, out: Path, command: str) -> pd.DataFrame:
    """Do the units that are not done, and write the table of all that are.

    ``images`` is how many test digits are inverted, the first ones; the command is for
    the record. A ValueError tells what is wrong with the folder or a file in it.
    """
    check_folder(out, images)
    name = f"{zlib.crc32(command.encode()):08x}.txt"
    put(out / "commands" / name, command.encode())
    for unit in (bar := tqdm(units, unit="result", leave=False)):
        bar.set_description(f"{unit.network} {unit.tap}: {unit.method}")
        finish(unit, images, out)
    return save_table(out)


AXES = {"networks": TAPS, "taps": DENSE, "methods": METHODS}


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m netinvert.studies.benchmark", description=__doc__
    )
    parser.add_argument(
        "--full", action="store_true", help="some two hours, not a minute"
    )
    for option, known in AXES.items():
        help = "any of: " + ", ".join(known)
        parser.add_argument(
            f"--{option}", nargs="+", choices=list(known), metavar="NAME", help=help
        )
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args(arguments)
    size = FULL if options.full else SMALL
    axes = {name: getattr(options, name) for name in AXES if getattr(options, name)}
    out = options.out or Path("benchmark-full" if options.full else "benchmark-small")
    units = units_of([plan | axes for plan in size["plans"]], size["seeds"])
    try:
        table = run(units, size["images"], out, command_of(options.full, axes))
    except (ValueError, OSError) as error:
        sys.exit(f"{error}\nWhat is done stays in {out}.")
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command goes on from here.")
    if not any(arrays_in(unit.path(out)) for unit in units):
        sys.exit(
            "None of these methods has an answer for these taps (the PCA floor, for "
            "one, has none where a tap is as wide as the image)."
        )
    rows = table.query("metric == 'psnr' and training_seed == 'all' and versus == ''")
    rows = rows.set_index(["network", "tap", "pairs", "method"])
    print("PSNR in dB, and its 95 % interval:\n")
    print(rows[["mean", "low", "high"]].to_string(float_format="%.2f"))
    print(f"\nEverything: {out / 'table.csv'}, its provenance: {out / 'table.json'}")


def command_of(full: bool, axes: dict[str, list[str]]) -> str:
    """The command, for the record, which needs no folder of this machine."""
    words = ["python", "-m", "netinvert.studies.benchmark", *["--full"] * full]
    return shlex.join(words + [w for k, v in axes.items() for w in (f"--{k}", *v)])


if __name__ == "__main__":
    main()
