"""What a search costs, as a ratio to the loop that people copy, in one run.

``make bench`` prints the table. Seconds differ between machines and with whatever
else runs; ratios hold, on a machine that does nothing else. The copied loop and the
search take turns, and the best round of each counts.
"""

from __future__ import annotations

import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import netinvert as ni
from netinvert.objectives import squared_error

TARGETS, STEPS, ROUNDS = 256, 1000, 3
REPEATS = 3  # of the search in every round
COPIED_STEPS = 250  # each costs the same, so a quarter of them is timed


def copied_loop(model, target, steps: int) -> np.ndarray:
    """One target, eagerly, as in the snippets that people start from."""
    inputs = tf.Variable(tf.random.uniform((1, 28, 28, 1)))
    optimizer = keras.optimizers.Adam(0.01)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(inputs) - target) ** 2)
        optimizer.apply_gradients([(tape.gradient(loss, inputs), inputs)])
    return inputs.numpy()


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@pytest.fixture(scope="module")
def digits():
    (x_train, _), (x_test, _) = ni.load_mnist()
    return x_train, x_test[:TARGETS]


def measure(name, method, bounds, digits):
    """Seconds of the copied loop, of later calls and of the first one, per target."""
    x_train, x_test = digits
    model = ni.pretrained(name)
    forward = ni.tap(model, "logits")
    targets, probabilities = forward(x_test).numpy(), model(x_test)
    method.fit(forward, x_train)

    def search():
        return ni.invert(forward, targets, method, bounds=bounds)

    first = seconds(search)
    copied_loop(model, probabilities[:1], steps=10)
    copied, later = [], []
    for i in range(ROUNDS):
        target = probabilities[i : i + 1]
        few = seconds(lambda: copied_loop(model, target, COPIED_STEPS))  # noqa: B023
        copied.append(few * STEPS / COPIED_STEPS)
        later.append(min(seconds(search) for _ in range(REPEATS)))
    return min(copied), min(later) / TARGETS, first / TARGETS


@pytest.fixture(scope="module")
def table():
    """Collect rows and print them when all are there."""
    rows = []
    yield rows
    print(f"\n\n{TARGETS} targets, milliseconds per target and ratio")
    print(f"{'':38}{'copied loop':>12}{'one call':>10}{'ratio':>8}", end="")
    print(f"{'first call':>12}{'ratio':>8}   (the first call compiles)")
    for label, copied, later, first in rows:
        print(f"{label:38}{1e3 * copied:12,.0f}{1e3 * later:10.3f}", end="")
        print(f"{copied / later:8,.0f}{1e3 * first:12.2f}{copied / first:8,.0f}")


PLAIN = ni.GradientInversion(squared_error, steps=STEPS, learning_rate=0.05)
DEFAULT = ni.GradientInversion(steps=STEPS)
SECOND = ni.LevenbergMarquardt()
BOX = (0.0, 1.0)


@pytest.mark.parametrize(
    "name, kind, method, bounds, least_ratio",
    [
        ("mlp", f"{STEPS} steps of Adam, no prior", PLAIN, BOX, 1000),
        ("mlp", f"{STEPS} steps of Adam", DEFAULT, BOX, 500),
        ("cnn", f"{STEPS} steps of Adam", DEFAULT, BOX, 100),
        ("mlp", "Levenberg-Marquardt, no bounds", SECOND, None, 20_000),
        ("mlp", "Levenberg-Marquardt", SECOND, BOX, 10_000),
        ("cnn", "Levenberg-Marquardt", SECOND, BOX, 4_000),
    ],
)
def test_a_target_in_a_batch_costs_a_fraction_of_the_copied_loop(
    name, kind, method, bounds, least_ratio, digits, table
):
    copied, later, first = measure(name, method, bounds, digits)
    table.append((f"{name}, {kind}", copied, later, first))
    assert copied / later >= least_ratio
