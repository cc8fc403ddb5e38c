"""Assignment 2: search with a prior."""

from __future__ import annotations

import numpy as np

import netinvert as ni
from tools.assignments import cases
from tools.assignments.judges import Mark, checks, close, output_error, share, trouble

TITLE, MINUTES = "Search with a prior", 90
TASKS = {"step": 4, "plain": 4, "best": 6, "report": 2}
TARGETS, ENOUGH, GAIN = 12, 10, 0.7  # decibels over the mean digit
SHAPE = (TARGETS, 28, 28, 1)

PRELUDE = """
import tensorflow as _tf

def _network(x):
    x = _tf.reshape(_tf.cast(x, "float32"), (-1, 784))
    return _tf.tanh(x @ _tf.constant(GIVEN["w"])) @ _tf.constant(GIVEN["v"])

_lent = GIVEN["x"]
"""
ASKS = {
    "step.inside": "step(_network, GIVEN['x'], GIVEN['t'], 0.01)",
    "step.bounds": "step(_network, GIVEN['x'], GIVEN['t'], 300.0)",
    "step.kept": "(step(_network, _lent, GIVEN['t'], 0.01), _lent)[1]",
    "plain": "plain",
    "best": "best",
    "report": "[report[k] for k in ('output_error', 'roughness', 'difference')]",
}


def truth_of(case: cases.Case) -> np.ndarray:
    return cases.digits(case.random("secret"), TARGETS)


def targets_of(case: cases.Case) -> np.ndarray:
    return cases.outputs_of(truth_of(case))


def case_cell(case: cases.Case) -> str:
    return cases.cell(case, f"targets = {cases.written(targets_of(case))}")


def given(case: cases.Case) -> dict:
    """A network, starts and targets for ``step`` that no notebook has seen."""
    random = case.random("given")
    return {
        "w": (random.normal(size=(784, 16)) / 28).astype("float32"),
        "v": (random.normal(size=(16, 5)) / 4).astype("float32"),
        "x": random.uniform(0.3, 0.7, (3, 28, 28, 1)).astype("float32"),
        "t": random.normal(size=(3, 5)).astype("float32"),
    }


def true_step(arrays: dict, rate: float) -> np.ndarray:
    """The step with its gradient written out, without TensorFlow."""
    x = arrays["x"].reshape(3, 784).astype("float64")
    hidden = np.tanh(x @ arrays["w"])
    error = hidden @ arrays["v"] - arrays["t"]
    slope = (2 / 5 * error @ arrays["v"].T * (1 - hidden**2)) @ arrays["w"].T
    return np.clip(x - rate * slope, 0, 1).reshape(3, 28, 28, 1)


def roughness(x: np.ndarray) -> np.ndarray:
    down = x[:, 1:, :-1] - x[:, :-1, :-1]
    right = x[:, :-1, 1:] - x[:, :-1, :-1]
    return np.sqrt(down**2 + right**2).mean(axis=(1, 2, 3))


def judge(answers: dict, case: cases.Case) -> dict[str, Mark]:
    """Measure what came back; the terms of every task are in the notebook."""
    arrays, get, marks = given(case), answers.get, {}
    small, large = close(get("step.inside"), true_step(arrays, 0.01), 2e-5), ""
    large = close(get("step.bounds"), true_step(arrays, 300.0), 1e-3)
    kept = small or close(get("step.kept"), arrays["x"], 0)
    parts = [(1, "a small step", small), (2, "a large step, in the box", large)]
    marks["step"] = checks([*parts, (1, "x itself is not changed", kept)], 4)
    truth, targets = truth_of(case), targets_of(case)
    plain, best = get("plain"), get("best")
    why = trouble(plain, SHAPE, box=True)
    fits = None if why else output_error(cases.logits(), plain, targets) <= 0.05
    marks["plain"] = Mark(0, why)
    if not why:
        said = f"{fits.sum()} of {TARGETS} have an output error of at most 0.05"
        marks["plain"] = Mark(share(4, fits.sum(), ENOUGH), said)
    marks["best"] = judge_best(best, truth, targets)
    marks["report"] = judge_report(get("report"), plain, best, targets)
    return marks


def judge_best(best, truth, targets) -> Mark:
    if why := trouble(best, SHAPE, box=True):
        return Mark(0, why)
    fits = output_error(cases.logits(), best, targets) <= 0.2
    smooth = fits & (roughness(best) <= 0.11)
    floor = np.broadcast_to(cases.mean_digit(), SHAPE)
    gain = ni.metrics.psnr(truth, best) - ni.metrics.psnr(truth, floor)
    gain = float(np.where(fits, gain, 0).mean())  # only where the network agrees
    points = share(2, fits.sum(), ENOUGH) + share(2, smooth.sum(), ENOUGH)
    return Mark(
        points + share(2, max(gain, 0), GAIN),
        f"{fits.sum()} of {TARGETS} have an output error of at most 0.2; "
        f"{smooth.sum()} of these have a roughness of at most 0.11; on average "
        f"{gain:+.2f} dB over the mean digit, where {GAIN} was expected",
    )


def judge_report(report, plain, best, targets) -> Mark:
    if trouble(plain, SHAPE, box=True) or trouble(best, SHAPE, box=True):
        return Mark(0, "there are no two sets of pictures to report on")
    if np.abs(plain - best).max() < 1e-6:
        return Mark(0, "plain and best are the same pictures")
    wanted = [
        output_error(cases.logits(), best, targets).mean(),
        roughness(best).mean() / roughness(plain).mean(),
        ((plain - best) ** 2).mean(),
    ]
    if why := trouble(report, (3,)):
        return Mark(0, why)
    names = ("output_error", "roughness", "difference")
    wrong = [
        f"{name} is {got:.4f}, and from your pictures {value:.4f}"
        for name, got, value in zip(names, report, wanted)
        if abs(got - value) > 0.02 * value + 1e-6
    ]
    return Mark(2.0 - min(2, len(wrong)), "; ".join(wrong) or "all three agree")


def pictures(answers: dict, case: cases.Case) -> dict:
    """Rows to look at: without and with a prior."""
    return {name: answers.get(name) for name in ("plain", "best")}
