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
import tensorflow as tf
from tqdm.auto import tqdm

from netinvert import metrics
from netinvert.data import load_mnist
from netinvert.forward import as_function, tap
from netinvert.inversion import invert
from netinvert.methods.inverse_network import outputs_of
from netinvert.models import NETWORKS, VARIANTS, pretrained
from netinvert.studies import contestants
from netinvert.studies.contestants import METHODS, TAPS, Task, Unit
from netinvert.studies.results import save_table
from netinvert.studies.storage import arrays_in, check_folder, kept, packed, put
from netinvert.studies.train import train

COMMAND = "python -m netinvert.studies.benchmark"
AXES = {"networks": TAPS, "taps": contestants.DENSE, "methods": METHODS}
FORWARD_PASSES = 20  # over which the yardstick is averaged


def finish(unit: Unit, images: int, out: Path) -> None:
    """Do a unit, unless it is done."""
    path = unit.path(out)
    if not path.exists():
        put(path, packed(**measured(unit, images, out)))


def measured(unit: Unit, images: int, out: Path) -> dict:
    """Everything that is known of a unit; nothing where the method has no answer."""
    _, (x_test, y_test) = load_mnist()
    truth, folder = x_test[:images], out / "networks"
    task = task_of(unit, truth, folder)
    targets = outputs_of(as_function(task.forward), truth)
    candidates, learning = METHODS[unit.method](task)
    if not candidates:
        return {}
    choice, tuning = timed(lambda: chosen(unit, task, candidates, images, out))
    method = candidates[choice]
    _, fitting = timed(lambda: method.fit(task.forward, task.inputs))
    answer = functools.partial(
        invert, task.forward, targets, method, batch_size=images, progress=False
    )
    result, first = timed(answer)
    first_seed = unit.training_seed == 0  # the others cost as much again
    tuning, later = (tuning, timed(answer)[1]) if first_seed else (np.nan, np.nan)
    size = max(targets.var(axis=0).mean(), 1e-12)
    judge = network("evaluator", 0, folder)
    return {
        "unit": list(map(str, astuple(unit))),
        "setting": choice,
        "outputs": targets[0].size,
        "output_error": result.residual,
        "relative_output_error": result.residual / size,
        "mse": metrics.mse(truth, result.inputs),
        "ssim": metrics.ssim(truth, result.inputs),
        "accuracy": metrics.accuracy(judge, result.inputs, y_test[:images]),
        "fit_seconds": learning + fitting,
        "tuning_seconds": tuning,
        "first_seconds": first,
        "seconds_per_target": later / images,
        "forward_seconds": forward_seconds(task.forward, truth),
    }


def chosen(unit: Unit, task: Task, candidates: dict, images: int, out: Path) -> str:
    """The setting with the smallest error on images held back, for the first seed."""
    if len(candidates) == 1:
        return next(iter(candidates))
    if unit.training_seed > 0:
        first = replace(unit, training_seed=0)
        finish(first, images, out)
        return str(arrays_in(first.path(out))["setting"])
    truth = load_mnist()[1][0][contestants.VALIDATION]
    targets = outputs_of(as_function(task.forward), truth)

    def error(name):
        method = candidates[name].fit(task.forward, task.inputs)
        return metrics.mse(truth, invert(task.forward, targets, method).inputs).mean()

    return min(candidates, key=error)


def task_of(unit: Unit, truth: np.ndarray, folder: Path) -> Task:
    """Tap the unit's network, trained now if it is not yet."""
    model = network(unit.network, unit.training_seed, folder)
    layer = model.get_layer(TAPS[unit.network][unit.tap])
    name = f"{unit.network}-{unit.training_seed}-{unit.tap}-{unit.pairs}"
    return Task(
        forward=tap(model, layer.name),
        rest=model.layers[model.layers.index(layer) + 1 :],
        inputs=load_mnist()[0][0][: unit.pairs],
        images=truth,
        seed=unit.training_seed,
        folder=folder,
        name=name.replace(" ", "_"),
    )


@functools.lru_cache(maxsize=3)
def network(name: str, seed: int, folder: Path) -> keras.Model:
    """The network of a training seed; of seed 0 the one that the book shows."""
    if seed == 0 and name in NETWORKS:
        return pretrained(name)
    build = (NETWORKS | VARIANTS)[name]
    path = folder / f"{name}-{seed}.npz"
    with contextlib.redirect_stdout(io.StringIO()):  # its losses, epoch by epoch
        return kept(path, lambda: train(name, seed), build)[0]


def timed(work) -> tuple:
    """What the work returns, and its processor seconds."""
    started = time.process_time()
    return work(), time.process_time() - started


def forward_seconds(forward, images: np.ndarray) -> float:
    """Processor seconds of one image's forward pass, in a batch."""
    function = tf.function(lambda batch: forward(batch, training=False))
    batch = tf.constant(images)
    function(batch)  # compiles
    _, seconds = timed(lambda: [function(batch) for _ in range(FORWARD_PASSES)])
    return seconds / FORWARD_PASSES / len(images)


def main(arguments: list[str] | None = None) -> None:
    """Do the units that are not done, and write and show the table of all that are."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    add = parser.add_argument
    add("--full", action="store_true", help="some two hours, not a minute")
    for axis, known in AXES.items():
        text = "any of: " + ", ".join(known)
        add(f"--{axis}", nargs="+", choices=list(known), metavar="NAME", help=text)
    add("--out", type=Path, help="folder of the results")
    options = parser.parse_args(arguments)
    size = contestants.FULL if options.full else contestants.SMALL
    axes = {name: getattr(options, name) for name in AXES if getattr(options, name)}
    out = options.out or Path("benchmark-full" if options.full else "benchmark-small")
    units = contestants.units_of([p | axes for p in size["plans"]], size["seeds"])
    command = command_of(options.full, axes).encode()
    try:
        check_folder(out, size["images"])
        put(out / "commands" / f"{zlib.crc32(command):08x}.txt", command)
        for unit in (bar := tqdm(units, unit="result", leave=False)):
            bar.set_description(f"{unit.network} {unit.tap}: {unit.method}")
            finish(unit, size["images"], out)
        table = save_table(out)
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
    words = [*COMMAND.split(), *["--full"] * full]
    return shlex.join(words + [w for k, v in axes.items() for w in (f"--{k}", *v)])


if __name__ == "__main__":
    main()
