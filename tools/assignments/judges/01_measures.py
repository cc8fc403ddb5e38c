"""Assignment 1: measures and taps."""

from __future__ import annotations

import numpy as np

import netinvert as ni
from tools.assignments import cases
from tools.assignments.judges import Mark, checks, close, output_error, share, trouble

TITLE, MINUTES = "Measures and taps", 60
TASKS = {"psnr": 3, "output_error": 3, "tapped": 3, "twins": 4, "floor": 3}
TARGETS, DIGITS, APART = 6, 8, 0.01

PRELUDE = """
import keras as _keras, tensorflow as _tf

def _network(x):
    x = _tf.reshape(_tf.cast(x, "float32"), (-1, 784))
    return _tf.tanh(x @ GIVEN["w"]) @ GIVEN["v"]

def _other(widths, prefix):
    model = _keras.Sequential([_keras.Input((28, 28, 1)), _keras.layers.Flatten()])
    for number, width in enumerate(widths, start=1):
        name = f"hidden_{number}"
        model.add(_keras.layers.Dense(width, activation="relu", name=name))
    model.add(_keras.layers.Dense(10, activation="softmax", name="out"))
    model.set_weights([GIVEN[f"{prefix}{n}"] for n in range(2 * len(widths) + 2)])
    return model
"""
ASKS = {
    "psnr": "psnr(GIVEN['a'], GIVEN['b'])",
    "psnr.same": "psnr(GIVEN['a'], GIVEN['a'])",
    "output_error": "output_error(_network, GIVEN['a'], GIVEN['t'])",
    "output_error.one": "output_error(_network, GIVEN['a'][:1], GIVEN['t'][:1])",
    "tapped": "tapped(_other([24, 12], 'm'), GIVEN['a'])",
    "tapped.again": "tapped(_other([16, 20], 'n'), GIVEN['a'])",
    "twins.first": "first",
    "twins.second": "second",
    "floor.psnr": "floor_psnr",
    "floor.error": "floor_error",
}


def secrets(case: cases.Case):
    random = case.random("secret")
    return cases.digits(random, TARGETS), random.choice(8000, DIGITS, replace=False)


def targets_of(case: cases.Case) -> np.ndarray:
    return cases.outputs_of(secrets(case)[0])


def case_cell(case: cases.Case) -> str:
    rows = ", ".join(map(str, secrets(case)[1]))
    targets = f"targets = {cases.written(targets_of(case))}"
    return cases.cell(case, targets, f"rows = [{rows}]")


def weights(random, widths) -> list[np.ndarray]:
    found = []
    for before, after in zip([784, *widths], [*widths, 10]):
        found.append(random.normal(size=(before, after)) / before**0.5 * 2)
        found.append(random.normal(size=after) / 4)
    return [array.astype("float32") for array in found]


def given(case: cases.Case) -> dict:
    """Pictures, a network and two models that no notebook has seen."""
    random = case.random("given")
    arrays = {name: cases.digits(random, 4) for name in "ab"}
    arrays["w"] = (random.normal(size=(784, 16)) / 5).astype("float32")
    arrays["v"] = (random.normal(size=(16, 5)) / 4).astype("float32")
    arrays["t"] = random.normal(size=(4, 5)).astype("float32")
    for prefix, widths in (("m", [24, 12]), ("n", [16, 20])):
        for number, array in enumerate(weights(random, widths)):
            arrays[f"{prefix}{number}"] = array
    return arrays


def second_layer(arrays: dict, prefix: str) -> np.ndarray:
    """The values of hidden_2 in plain arithmetic."""
    values = arrays["a"].reshape(4, 784).astype("float64")
    for n in (0, 2):
        values = np.maximum(
            values @ arrays[f"{prefix}{n}"] + arrays[f"{prefix}{n + 1}"], 0
        )
    return values


def judge(answers: dict, case: cases.Case) -> dict[str, Mark]:
    """Measure what came back; the terms of every task are in the notebook."""
    arrays, marks, get = given(case), {}, answers.get
    a, b = arrays["a"].astype("float64"), arrays["b"].astype("float64")
    wanted = -10 * np.log10(((a - b) ** 2).mean(axis=(1, 2, 3)))
    marks["psnr"] = checks(
        [
            (2, "four pairs of pictures", close(get("psnr"), wanted, 1e-3)),
            (1, "identical pictures", close(get("psnr.same"), np.full(4, np.inf), 0)),
        ],
        TASKS["psnr"],
    )
    outputs = np.tanh(a.reshape(4, 784) @ arrays["w"]) @ arrays["v"]
    wanted = ((outputs - arrays["t"]) ** 2).mean(axis=1)
    marks["output_error"] = checks(
        [
            (2, "another network", close(get("output_error"), wanted, 1e-4)),
            (1, "a batch of one", close(get("output_error.one"), wanted[:1], 1e-4)),
        ],
        TASKS["output_error"],
    )
    marks["tapped"] = checks(
        [
            (
                2,
                "a model of 24 and 12",
                close(get("tapped"), second_layer(arrays, "m"), 1e-3),
            ),
            (
                1,
                "of 16 and 20",
                close(get("tapped.again"), second_layer(arrays, "n"), 1e-3),
            ),
        ],
        TASKS["tapped"],
    )
    marks["twins"] = judge_twins(
        get("twins.first"), get("twins.second"), targets_of(case)
    )
    digits = cases.mnist()[0][0][secrets(case)[1]]
    mean = np.repeat(cases.mean_digit()[None], DIGITS, axis=0)
    seen = np.asarray(cases.logits()(digits), "float64")
    wanted = ni.metrics.psnr(digits, mean)
    errors = output_error(cases.logits(), mean, seen)
    marks["floor"] = checks(
        [
            (2, "PSNR of the mean digit", close(get("floor.psnr"), wanted, 0.02)),
            (1, "its output error", close(get("floor.error"), errors, 0.02)),
        ],
        TASKS["floor"],
    )
    return marks


def judge_twins(first, second, targets) -> Mark:
    for name, value in (("first", first), ("second", second)):
        if why := trouble(value, (TARGETS, 28, 28, 1), box=True):
            return Mark(0, f"{name}: {why}")
    one, two = (
        output_error(cases.logits(), x, targets) <= 0.05 for x in (first, second)
    )
    apart = ((first - second) ** 2).mean(axis=(1, 2, 3)) >= APART
    good = int((one & two & apart).sum())
    return Mark(
        share(TASKS["twins"], good, TARGETS - 1),
        f"{one.sum()} and {two.sum()} of {TARGETS} pictures have an output error of at "
        f"most 0.05; {apart.sum()} pairs differ by {APART} or more; {good} do both",
    )


def pictures(answers: dict, case: cases.Case) -> dict:
    """Rows to look at: the two answers to each target."""
    return {name: answers.get(f"twins.{name}") for name in ("first", "second")}
