"""Assignment 6: the project, a method of one's own for a network never seen."""

from __future__ import annotations

import functools

import numpy as np
from scipy.ndimage import affine_transform

import netinvert as ni
from tools.assignments import cases
from tools.assignments.judges import Mark, checks, close, output_error, share, trouble

TITLE, MINUTES = "Project: a method of your own", 480
TASKS = {"network": 3, "method": 9, "comparison": 4}
DIGITS, TARGETS, PUBLIC, GAIN = 32, 64, 32, 0.7

PRELUDE = """
import keras as _keras

def _secret():
    layers = [_keras.layers.Flatten()]
    layers += [_keras.layers.Dense(n, activation="relu") for n in (128, 64)]
    layers += [_keras.layers.Dense(10)]
    model = _keras.Sequential([_keras.Input((28, 28, 1)), *layers])
    model.set_weights([GIVEN[f"w{n}"] for n in range(6)])
    return model

_found = {}

def _solved(part):
    if not _found:
        (digits, _), _ = ni.load_mnist()
        forward, targets = _secret(), GIVEN["asked"]
        fitted = method.fit(forward, digits)
        settings = {"bounds": (0.0, 1.0), "seed": 0, "input_shape": (28, 28, 1)}
        _found["all"], _ = fitted.solve(forward, targets, **settings)
        _found["some"], _ = fitted.solve(forward, targets[:4], **settings)
    return _found[part]
"""
ASKS = {
    "network": "network(GIVEN['x'])",
    "method": "_solved('all')",
    "method.some": "_solved('some')",
    "comparison": "[mine, other]",
    "comparison.numbers": "[difference, low, high]",
}


def transform(random) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A turn and a shift of the pixels (A), and an order of the outputs (P)."""
    angle = random.uniform(0.15, 0.35) * random.choice([-1, 1])
    turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix = np.round(turn, 4)
    middle = np.full(2, 13.5)
    offset = np.round(middle - matrix @ middle + random.uniform(-2, 2, 2), 4)
    return matrix, offset, random.permutation(10)


def network_of(matrix, offset, order) -> list[np.ndarray]:
    """The book's weights with W1' = A W1 and W3' = W3 P: trained, and never seen."""
    w1, b1, w2, b2, w3, b3 = ni.pretrained("mlp").get_weights()
    columns = w1.T.reshape(-1, 28, 28)
    columns = [affine_transform(c, matrix, offset, order=1) for c in columns]
    w1 = np.stack(columns).reshape(-1, 784).T.astype("float32")
    return [w1, b1, w2, b2, w3[:, order], b3[order]]


def values(weights, x) -> np.ndarray:
    """The logits of a network, in plain arithmetic."""
    w1, b1, w2, b2, w3, b3 = (w.astype("float64") for w in weights)
    hidden = np.maximum(np.asarray(x, "float64").reshape(len(x), 784) @ w1 + b1, 0)
    return np.maximum(hidden @ w2 + b2, 0) @ w3 + b3


def class_of(case: cases.Case) -> cases.Case:
    """What is the same for a whole class, so that methods can be ranked."""
    return cases.Case(case.key, case.assignment, "")


@functools.lru_cache(8)
def secret(one: cases.Case):
    """The network on which methods are judged, and 64 digits that are in no file."""
    random = one.random("class")
    weights = network_of(*transform(random))
    return weights, cases.digits(random, TARGETS)


def case_cell(case: cases.Case) -> str:
    matrix, offset, order = transform(case.random("network"))
    rows = case.random("rows").choice(8000, DIGITS, replace=False).tolist()
    lines = [f"matrix = {matrix.tolist()}"]
    lines += [f"offset = {offset.tolist()}", f"order = {order.tolist()}", "rows = ["]
    for start in range(0, DIGITS, 8):
        lines.append("    " + ", ".join(map(str, rows[start : start + 8])) + ",")
    return cases.cell(case, *lines, "]")


def given(case: cases.Case) -> dict:
    """The secret network, its outputs for 64 digits, and pictures for ``network``."""
    weights, truth = secret(class_of(case))
    arrays = {f"w{number}": array for number, array in enumerate(weights)}
    arrays["asked"] = np.round(values(weights, truth), 4).astype("float32")
    return arrays | {"x": cases.digits(case.random("given"), 5)}


def judge(answers: dict, case: cases.Case) -> dict[str, Mark]:
    """Measure what came back; the terms of every task are in the notebook."""
    get, marks = answers.get, {}
    own = network_of(*transform(case.random("network")))
    wrong = close(get("network"), values(own, given(case)["x"]), 1e-2)
    marks["network"] = checks([(3, "five new pictures", wrong)], 3)
    marks["method"] = judge_method(get("method"), get("method.some"), case)
    rows = case.random("rows").choice(8000, DIGITS, replace=False)
    truth = cases.mnist()[0][0][rows]
    marks["comparison"] = judge_comparison(
        get("comparison"), get("comparison.numbers"), truth
    )
    return marks


def measured(found, case: cases.Case) -> tuple[np.ndarray, np.ndarray]:
    """PSNR of each of the 64, as good as the mean digit's where the gate is missed."""
    weights, truth = secret(class_of(case))
    targets = given(case)["asked"]
    fits = output_error(lambda x: values(weights, x), found, targets) <= 0.2
    floor = ni.metrics.psnr(truth, np.broadcast_to(cases.mean_digit(), truth.shape))
    return np.where(fits, ni.metrics.psnr(truth, found), floor), fits


def judge_method(found, some, case: cases.Case) -> Mark:
    if why := trouble(found, (TARGETS, 28, 28, 1), box=True):
        return Mark(0, why)
    reached, fits = measured(found, case)
    _, truth = secret(class_of(case))
    floor = ni.metrics.psnr(truth, np.broadcast_to(cases.mean_digit(), truth.shape))
    gain = float((reached - floor).mean())
    alone = close(some, found[:4], 0.02)
    points = share(3, fits.sum(), 56) + share(4, max(gain, 0), GAIN)
    return Mark(
        points + (2 if points and not alone else 0),
        f"{fits.sum()} of {TARGETS} have an output error of at most 0.2 (3 points for "
        f"56); {gain:+.2f} dB over the mean digit, where {GAIN} was expected (4); four "
        f"targets without the others: {alone or 'the same answers'} (2)",
    )


def judge_comparison(pair, numbers, truth) -> Mark:
    if why := trouble(pair, (2, *truth.shape), box=True):
        return Mark(0, why)
    if np.abs(pair[0] - pair[1]).max() < 1e-6:
        return Mark(0, "mine and other are the same pictures")
    better = ni.metrics.psnr(truth, pair[0]) - ni.metrics.psnr(truth, pair[1])
    mean, half = ni.metrics.mean_and_interval(better)
    wanted = np.array([mean, mean - half, mean + half])
    if why := trouble(numbers, (3,)):
        return Mark(0, why)
    off = np.abs(numbers - wanted) > 0.05 + 0.02 * half
    said = f"from your pictures {mean:+.2f} dB, from {mean - half:.2f} to "
    said += f"{mean + half:.2f}; yours: " + ", ".join(f"{n:.2f}" for n in numbers)
    return Mark((not off[0]) * 2.0 + (not off[1:].any()) * 2.0, said)


def board(answers: dict, case: cases.Case) -> dict:
    """What the leaderboard needs of one student: PSNR of each of the 64, and more."""
    found = answers.get("method")
    if trouble(found, (TARGETS, 28, 28, 1), box=True):
        return {}
    reached, fits = measured(found, case)
    _, truth = secret(class_of(case))
    judge = ni.pretrained("evaluator")
    labels = np.asarray(judge(truth)).argmax(axis=1)
    read = np.asarray(judge(found.astype("float32"))).argmax(axis=1) == labels
    return {"psnr": reached.tolist(), "fits": fits.tolist(), "read": read.tolist()}


def pictures(answers: dict, case: cases.Case) -> dict:
    """Rows to look at: one's own method and the other."""
    pair = answers.get("comparison")
    if trouble(pair, (2, DIGITS, 28, 28, 1)):
        return {}
    return {"mine": pair[0], "other": pair[1]}
