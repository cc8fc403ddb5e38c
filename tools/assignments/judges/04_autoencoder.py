"""Assignment 4: an autoencoder as prior."""

from __future__ import annotations

import functools

import numpy as np

import netinvert as ni
from netinvert.methods.autoencoder import digits_autoencoder
from tools.assignments import cases
from tools.assignments.judges import Mark, checks, close, output_error, share, trouble

TITLE, MINUTES = "An autoencoder as prior", 90
TASKS = {"step": 4, "drawn": 6, "odd": 3, "report": 3}
TARGETS, ODD, ENOUGH, GAIN = 12, 2, 8, 5.0
SHAPE = (TARGETS, 28, 28, 1)
REPORT = ("drawn_off", "pixels_off", "apart")

PRELUDE = """
import tensorflow as _tf

def _decoder(code):
    flat = _tf.sigmoid(_tf.cast(code, "float32") @ _tf.constant(GIVEN["d"]))
    return _tf.reshape(flat, (-1, 28, 28, 1))

def _network(x):
    return _tf.reshape(x, (-1, 784)) @ _tf.constant(GIVEN["w"])

_lent = GIVEN["c"]
"""
ASKS = {
    "step": "step(_network, _decoder, GIVEN['c'], GIVEN['t'], 0.5)",
    "step.one": "step(_network, _decoder, GIVEN['c'][:1], GIVEN['t'][:1], 0.5)",
    "step.kept": "(step(_network, _decoder, _lent, GIVEN['t'], 0.5), _lent)[1]",
    "pixels": "pixels",
    "drawn": "drawn",
    "odd": "sorted(odd)",
    "report": "[report[k] for k in ('drawn_off', 'pixels_off', 'apart')]",
}


def truth_of(case: cases.Case) -> tuple[np.ndarray, np.ndarray]:
    """Ten digits, a photographic negative and noise; and the places of these two."""
    random = case.random("secret")
    truth = cases.digits(random, TARGETS)
    odd = np.sort(random.choice(TARGETS, ODD, replace=False))
    negative, noise = random.permutation(odd)
    truth[negative] = 1 - truth[negative]
    truth[noise] = random.random((28, 28, 1))
    return truth, odd


def targets_of(case: cases.Case) -> np.ndarray:
    return cases.outputs_of(truth_of(case)[0], "hidden_2")


@functools.cache
def hidden():
    return ni.tap(ni.pretrained("mlp"), "hidden_2")


@functools.cache
def autoencoder():
    return digits_autoencoder()


def off(pictures: np.ndarray) -> np.ndarray:
    """How far pictures lie from what the autoencoder can draw."""
    again = np.asarray(autoencoder()(np.asarray(pictures, "float32")), "float64")
    return ((again - pictures) ** 2).mean(axis=(1, 2, 3))


def case_cell(case: cases.Case) -> str:
    return cases.cell(case, f"targets = {cases.written(targets_of(case))}")


def given(case: cases.Case) -> dict:
    """A decoder, a network and codes for ``step`` that no notebook has seen."""
    random = case.random("given")
    return {
        "d": random.normal(size=(6, 784)).astype("float32"),
        "w": (random.normal(size=(784, 5)) / 10).astype("float32"),
        "c": random.normal(size=(3, 6)).astype("float32"),
        "t": random.normal(size=(3, 5)).astype("float32"),
    }


def true_step(arrays: dict) -> np.ndarray:
    code = arrays["c"].astype("float64")
    x = 1 / (1 + np.exp(-code @ arrays["d"]))
    error = x @ arrays["w"] - arrays["t"]
    slope = (2 / 5 * error @ arrays["w"].T * x * (1 - x)) @ arrays["d"].T
    return code - 0.5 * slope


def judge(answers: dict, case: cases.Case) -> dict[str, Mark]:
    """Measure what came back; the terms of every task are in the notebook."""
    arrays, get, marks = given(case), answers.get, {}
    wanted = true_step(arrays)
    three = close(get("step"), wanted, 1e-3)
    kept = three or close(get("step.kept"), arrays["c"], 0)
    one = close(get("step.one"), wanted[:1], 1e-3)
    parts = [(2, "three codes", three), (1, "one code", one)]
    marks["step"] = checks([*parts, (1, "the code is not changed", kept)], 4)
    truth, odd = truth_of(case)
    marks["drawn"] = judge_drawn(get("drawn"), truth, odd, targets_of(case))
    if why := trouble(get("odd"), (ODD,)):
        marks["odd"] = Mark(0, why)
    else:
        right = len(set(odd) & set(get("odd")))
        said = f"{right} of the {ODD} are no digits"
        marks["odd"] = Mark({2: 3, 1: 1}.get(right, 0), said)
    marks["report"] = judge_report(get("report"), get("pixels"), get("drawn"))
    return marks


def judge_drawn(drawn, truth, odd, targets) -> Mark:
    if why := trouble(drawn, SHAPE, box=True):
        return Mark(0, why)
    digits = np.delete(np.arange(TARGETS), odd)
    floor = np.broadcast_to(cases.mean_digit(), SHAPE)
    limit = 0.15 * output_error(hidden(), floor, targets)
    fits = (output_error(hidden(), drawn, targets) <= limit)[digits]
    like = (off(drawn) <= 0.01)[digits]
    gain = ni.metrics.psnr(truth, drawn) - ni.metrics.psnr(truth, floor)
    gain = float(np.where(fits & like, gain[digits], 0).mean())
    both = int((fits & like).sum())
    return Mark(
        share(2, both, ENOUGH) + share(4, max(gain, 0), GAIN),
        f"of the ten digits, {fits.sum()} have 0.15 of the mean digit's output error "
        f"or less, and {like.sum()} are pictures that the decoder draws; where both "
        f"hold, {gain:+.1f} dB over the mean digit, and {GAIN} was expected",
    )


def judge_report(report, pixels, drawn) -> Mark:
    if trouble(pixels, SHAPE, box=True) or trouble(drawn, SHAPE, box=True):
        return Mark(0, "there are no two sets of pictures to report on")
    if np.abs(pixels - drawn).max() < 1e-6:
        return Mark(0, "pixels and drawn are the same pictures")
    apart = ((pixels - drawn) ** 2).mean(axis=(1, 2, 3))
    wanted = [off(drawn).mean(), off(pixels).mean(), apart.mean()]
    if why := trouble(report, (3,)):
        return Mark(0, why)
    wrong = [
        f"{name} is {got:.4f}, and from your pictures {value:.4f}"
        for name, got, value in zip(REPORT, report, wanted)
        if abs(got - value) > 0.03 * value + 1e-6
    ]
    return Mark(3.0 - len(wrong), "; ".join(wrong) or "all three agree")


def pictures(answers: dict, case: cases.Case) -> dict:
    """Rows to look at: searched in pixels and in the code."""
    return {name: answers.get(name) for name in ("pixels", "drawn")}
