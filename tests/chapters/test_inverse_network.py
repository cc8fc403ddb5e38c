"""What the chapter on inverse networks says in words, beside the numbers it prints."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import netinvert as ni

psnr, mse = ni.metrics.psnr, ni.metrics.mse
SMALL = {"hidden": (128,), "epochs": 3, "learning_rate": 0.02, "augment": False}


@pytest.fixture(scope="module")
def sets():
    (x_train, _), (x_test, y_test) = ni.load_mnist()
    return x_train[:1500], x_test[:500], y_test[:500]


@pytest.fixture(scope="module")
def model():
    return ni.pretrained("mlp")


def learned(seen, pairs, wanted):
    """The chapter's snippet: trained on what is seen, asked for what is wanted."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    layers = [dense(64, "relu"), dense(128, "relu"), dense(784)]
    inverse = keras.Sequential([keras.Input((10,)), *layers])
    inverse.compile(keras.optimizers.Adam(0.005), loss="mse")
    pixels = pairs.reshape(-1, 784)
    inverse.fit(seen, pixels, epochs=6, batch_size=100, verbose=0)
    return np.clip(inverse(wanted), 0, 1).reshape(-1, 28, 28, 1)


def logarithm(values, least=1e-30):
    return np.log(np.maximum(values, least))


def standardized(known, new):
    return (known - known.mean(0)) / known.std(0), (new - known.mean(0)) / known.std(0)


def test_neither_logarithm_nor_scale_alone_brings_back_what_both_do(sets, model):
    pairs, digits, _ = sets
    known, asked = np.array(model(pairs)), np.array(model(digits))
    logs = logarithm(known), logarithm(asked)
    kinds = {"bare": (known, asked), "scale": standardized(known, asked), "logs": logs}
    kinds |= {"both": standardized(*logs), "tenth": [v / 10 for v in logs]}
    level = {
        kind: psnr(digits, learned(seen, pairs, wanted)).mean()
        for kind, (seen, wanted) in kinds.items()
    }
    assert max(level["scale"], level["logs"]) < level["bare"] + 0.1
    assert min(level["both"], level["tenth"]) > level["bare"] + 0.7


def test_what_breaks_on_rounded_targets_was_never_told_of_zeros(sets, model):
    pairs, digits, _ = sets
    known, asked = np.array(model(pairs)), np.round(np.array(model(digits)), 4)
    told = np.round(known, 4)
    exact = standardized(logarithm(known), logarithm(asked))
    received = standardized(logarithm(told, 5e-5), logarithm(asked, 5e-5))
    worse, better = (
        psnr(digits, learned(seen, pairs, wanted)).mean()
        for seen, wanted in (exact, received)
    )
    assert worse < 9 and better > 13


def test_the_ruler_and_not_the_tap_is_blind_at_the_softmax(sets, model):
    pairs, digits, _ = sets
    method = ni.InverseNetwork(logarithm=False, **SMALL).fit(model, pairs)
    result = ni.invert(model, np.array(model(digits)), method)
    wrong = mse(digits, result.inputs).argsort().argsort()

    def related(targets, outputs):
        ranks = mse(targets, outputs).argsort().argsort()
        return np.corrcoef(ranks, wrong)[0, 1]

    both = result.targets, result.outputs
    assert related(*both) < 0.15 < 0.3 < related(*map(logarithm, both))


def test_trainings_end_in_different_places_and_it_costs_next_to_nothing(sets, model):
    pairs, digits, _ = sets
    forward, found = ni.tap(model, "logits"), []
    for seed in range(3):
        method = ni.InverseNetwork(seed=seed, **SMALL).fit(forward, pairs)
        found.append(ni.invert(forward, np.array(forward(digits)), method).inputs)
    assert np.ptp([psnr(digits, one).mean() for one in found]) < 0.15
    assert 25 < psnr(found[0], found[1]).mean() < 35
